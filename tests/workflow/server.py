"""Calls of Snakemake without the second and a half that importing it takes: each is a fork.

Run as a program, it answers every line of its input, a call, with a line: the exit status. What a
call imports beside Snakemake's own modules, the project's code above all, is its own. Its jobs are
forks as well (see `jobs`).
"""

import json
import os
import sys
import tempfile
from importlib import invalidate_caches

import jobs


def main() -> None:
    import jsonschema  # noqa: F401
    import pandas  # noqa: F401
    import pulp  # noqa: F401
    import snakemake.api
    import snakemake.cli  # noqa: F401

    with tempfile.TemporaryDirectory() as sockets:
        servers = jobs.start(sockets)  # noqa: F841 (they end with it)
        for line in sys.stdin:
            child = os.fork()
            if not child:
                jobs.use(sockets)
                call(**json.loads(line))
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def call(folder: str, arguments: list[str], stdout: str, stderr: str) -> None:
    """`python -m snakemake` in a folder, in this process, which ends with it."""
    from snakemake.cli import main

    os.chdir(folder)
    sys.path[0] = folder
    invalidate_caches()
    for number, path in ((0, os.devnull), (1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    status = 1
    try:
        main(arguments)
    except SystemExit as end:  # a number, nothing, or a message
        status = end.code or 0
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
