"""Jobs without the second and a half that importing torch takes: each is a fork.

`serve` is a process that has imported what the scripts of one kind import of other packages, and
nothing of the project. `execute` takes the place of Snakemake's own way of running a script.
"""

import functools
import importlib
import json
import os
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
from contextlib import nullcontext
from importlib import invalidate_caches
from pathlib import Path

# no package that a job would not import itself: its records name what it has imported
TABLES = ("numpy", "pandas", "h5py", "scipy.stats")
FIGURES = (*TABLES, "matplotlib.mathtext", "matplotlib.backends.backend_pdf")
TORCH = ("torch", "torch._dynamo", "numpy", "h5py")
TORCH_AND_SCIPY = (*TORCH, "scipy.optimize", "scipy.stats")
KINDS = dict.fromkeys(("dictionary", "table", "verdicts"), TABLES) | {"figure": FIGURES}
KINDS |= dict.fromkeys(("train", "fork", "weights", "curve", "hessian", "ladder"), TORCH)
KINDS |= dict.fromkeys(
    ("landscape", "tile", "flatness", "trajectory", "published"), TORCH_AND_SCIPY
)
KINDS |= dict.fromkeys(("alignment", "connectivity", "planes"), TORCH_AND_SCIPY)
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def start(folder: str) -> list[subprocess.Popen]:
    """The servers of all kinds, at sockets in a folder; they end with what is returned."""
    return [
        subprocess.Popen(
            [sys.executable, __file__, address(folder, kind), *kind],
            stdin=subprocess.PIPE,  # never written to: it ends with this process
            env=os.environ | dict.fromkeys(ONE_THREAD, "1"),
        )
        for kind in set(KINDS.values())
    ]


def address(folder: str, kind: tuple[str, ...]) -> str:
    return f"{folder}/{kind[0]}-{kind[-1]}"


def serve(path: str, modules: list[str]) -> None:
    """Answer every connection with a fork that does a job, until the input ends."""
    for module in modules:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no job is waited for
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen()
    os.rename(f"{path}.new", path)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        link, _ = listener.accept()
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            with link.makefile("rw") as answers:
                job(answers, **json.loads(answers.readline()))
        link.close()


def job(answers, folder: str, script: str, variables: dict[str, str], output: str) -> None:
    """`python script` in a folder, in this process, which ends with it and tells its status."""
    print(os.getpid(), file=answers, flush=True)
    os.chdir(folder)
    os.environ |= variables
    random.seed()  # or all jobs would draw the same where a seed was forgotten
    sys.modules["numpy"].random.seed()
    for number, path in ((0, os.devnull), (1, output), (2, output)):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND), number)
    sys.argv, sys.path[0] = [script], str(Path(script).resolve().parent)
    sys.path[1:1] = filter(None, variables.get("PYTHONPATH", "").split(os.pathsep))
    invalidate_caches()
    status = 0
    try:
        runpy.run_path(script, run_name="__main__")
    except SystemExit as end:  # a number, nothing, or a message
        status = end.code or 0
        if isinstance(status, str):
            print(status, file=sys.stderr)
            status = 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    print(status, file=answers, flush=True)
    os._exit(status)


def execute(script, name: str, edit: bool = False, *, folder: str, usual, variables) -> None:
    """Run a Python script of Snakemake by the server of its kind, where that is there.

    With other variables than those with which the servers were started (portable kernels, say), or
    in an environment of packages: as Snakemake does, by `usual`. A job that is killed counts as
    ended by SIGKILL.
    """
    from snakemake.benchmark import benchmarked

    kind = KINDS.get(Path(name).stem.partition(".")[2])
    own = {key: value for key, value in os.environ.items() if variables.get(key) != value}
    at = kind and address(folder, kind)
    is_other = set(own) - {"PYTHONPATH"} or variables.keys() - os.environ.keys()
    elsewhere = script.conda_env or script.container_img or script.env_modules
    if not at or not os.path.exists(at) or is_other or elsewhere:
        usual(script, name, edit)
        return
    asked = {
        "folder": os.getcwd(),
        "script": name,
        "variables": own | {"TMPDIR": script.resources.get("tmpdir", "/tmp")},
        "output": os.readlink("/proc/self/fd/2"),
    }
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(at)
        with link.makefile("rw") as answers:
            print(json.dumps(asked), file=answers, flush=True)
            pid, record = int(answers.readline()), script.bench_record
            with benchmarked(pid, record) if record is not None else nullcontext():
                status = answers.readline().strip()
    if status != "0":
        raise subprocess.CalledProcessError(int(status or -signal.SIGKILL), ["python", name])


def use(folder: str) -> None:
    """Let Snakemake, in this process, run scripts by the servers at a folder."""
    from snakemake.script import PythonScript

    usual = PythonScript.execute_script
    PythonScript.execute_script = functools.partialmethod(
        execute, folder=folder, usual=usual, variables=dict(os.environ)
    )


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2:])
