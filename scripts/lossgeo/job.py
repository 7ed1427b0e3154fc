"""What every job of the workflow does first, and what it refuses to write.

Only the standard library is imported here, so that a job has begun when anything else fails.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from lossgeo import records
from lossgeo.digest import file_digest, find_folder, imports
from lossgeo.kernels import are_portable


@dataclass(frozen=True)
class Job:
    """The job that this process does."""

    began: int  # in ns, by the clock of the file system on which its log is
    code: Mapping[str, Path]  # module -> the file whose digest the job records
    packages: frozenset[str]  # that a user's modules import, by the names under which they do
    inputs: Mapping[str, str]  # file, relative to the results -> the digest that its record has
    params: Mapping[str, object]  # of the rule, as they were when the job began


_START = time.monotonic()
_job: Job | None = None  # none in a notebook, in a test, in the workflow itself


def begin(snakemake) -> None:
    """Before the imports that take seconds: the job's log, an end with Snakemake, its code.

    Everything that is printed from now on, tracebacks included, goes to the job's log. When
    Snakemake ends before the job does, the job ends too. Modules come from the clone's `scripts/`
    before any that are installed.

    Exits with one line where an input is not what its record says, where a file of code is no
    longer what its digest says, or where a module comes from another file (see `check`).
    """
    global _job
    log = open(snakemake.log[0], "w", buffering=1)  # noqa: SIM115 (open until the end)
    sys.stdout = sys.stderr = log
    _end_with(_ancestors(sys.argv[0]))
    scripts = Path(snakemake.scriptdir).resolve()
    sys.path.insert(0, str(scripts))
    code, packages = _find_code(snakemake.params.get("code", {}), scripts)
    params = json.loads(json.dumps(dict(snakemake.params.items())))
    if params.get("config", {}).get("portable") and not are_portable():
        sys.exit(
            "portable: found other environment variables than lossgeo.kernels.PORTABLE, expected "
            "those: something between Snakemake and this job (a container's --cleanenv, a node's "
            "profile) has dropped or changed them; let it pass them on"
        )
    _job = Job(os.fstat(log.fileno()).st_mtime_ns, code, packages, _verified(snakemake), params)
    _check_code(_job)


def tell(text: str) -> None:
    """Print a line to the job's log, with the seconds since the process began its work."""
    print(f"{time.monotonic() - _START:7.1f} s  {text}")


def end(snakemake) -> None:
    """Record what made the job's files, beside them."""
    results, packages = snakemake.config["results"], records.distributions(_job.packages)
    for path in snakemake.output:
        records.write(path, results, snakemake.rule, _job.params, _job.inputs, packages)


def check(path: Path) -> None:
    """Exit with one line where this process's job must not write `path`, if it does a job.

    That is where `path` is newer than the job: then Snakemake was killed, this job was not, and
    what a second run made is there. And it is where a module in use is not the file whose digest
    the job records.
    """
    if _job is None:
        return
    if path.exists() and path.stat().st_mtime_ns > _job.began:
        sys.exit(
            f"{path} was written after this job began, by another one: it is left as it is. "
            "End what still runs of an earlier snakemake call, and run snakemake again"
        )
    _check_code(_job)


def _verified(snakemake) -> dict[str, str]:
    """Input -> digest, relative to the results, of all but the data, whose digests are params.

    Exits with one line where either is not what it should be.
    """
    results = snakemake.config["results"]
    data = [Path(path) for path in getattr(snakemake.input, "data", ())]
    expected = snakemake.params.get("config", {}).get("data", {}).get("sha256", {})
    for path in data:
        known = expected.get(path.name)
        if known and records.digest_like(path, known) != known:
            sys.exit(
                f"{path} is not the file that snakemake read when it planned this job: it was "
                "changed since, or is damaged. Run snakemake again; delete the file where it "
                "was brought by snakemake"
            )
    try:
        tracked = records.tracked(snakemake.input, results, data)
        return {name: records.verified(path, results) for name, path in tracked.items()}
    except records.RecordError as error:
        sys.exit(str(error))


def _find_code(digests: Mapping[str, str], scripts: Path) -> tuple[dict[str, Path], frozenset[str]]:
    """Module -> the file that has its digest; and what those that are not the clone's import.

    A file is in `scripts`, in the working directory, on the path, or where an import finds it.
    Scripts are left out: they run from Snakemake's copy.
    """
    code, packages = {}, set()
    for name, digest in digests.items():
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for folder in _places(module, scripts):
            path = folder / name
            if path.is_file() and file_digest(path) == digest:
                break
        else:
            sys.exit(
                f"{name} was edited after snakemake had read it, and this job would record what "
                "it was before: run snakemake again"
            )
        if path.parent != scripts:
            code[module] = path
        if folder != scripts:
            packages |= {imported.partition(".")[0] for imported in imports(path, folder)}
    return code, frozenset(packages)


def _places(module: str, scripts: Path) -> Iterator[Path]:
    """Where a module's file may be."""
    yield from (scripts, Path.cwd().resolve(), *map(Path, sys.path))
    found = find_folder(module, ())
    if found is not None:
        yield found


def _check_code(job: Job) -> None:
    """Exit with one line at the first module that was imported from another file."""
    for module, expected in job.code.items():
        found = getattr(sys.modules.get(module), "__file__", None)
        if found is not None and Path(found).resolve() != expected.resolve():
            sys.exit(
                f"module {module} was imported from {found}, expected {expected}, whose digest "
                "this job records: uninstall the other one, or take it off PYTHONPATH"
            )


def _ancestors(script: str) -> list[int]:
    """This process's parent, and further ones up to Snakemake, which started the script.

    Between them are those that have the script in their own command: shells and the like.
    """
    pids = [os.getppid()]
    try:
        while pids[-1] > 1 and script.encode() in Path(f"/proc/{pids[-1]}/cmdline").read_bytes():
            pids.append(_parent(pids[-1]))
    except OSError:  # no /proc: the parent alone
        pass
    return pids


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _is_orphan(ancestors: list[int]) -> bool:
    """Whether one of them has ended: its child then has another parent."""
    if os.getppid() != ancestors[0]:
        return True
    try:
        return any(_parent(child) != ancestors[i + 1] for i, child in enumerate(ancestors[:-1]))
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:  # no answer is no reason to end
        return False


def _end_with(ancestors: list[int]) -> None:
    """End this process within about a second of any of its `ancestors`.

    Not by PR_SET_PDEATHSIG: Linux then watches the parent alone, which may be a shell that outlives
    Snakemake, and takes the end of the thread that started the job for the end of Snakemake.
    """

    def watch() -> None:
        while not _is_orphan(ancestors):
            time.sleep(1)
        try:
            print("Snakemake has ended, and this job with it", file=sys.stderr)
        finally:
            os._exit(1)

    threading.Thread(target=watch, name="end with Snakemake", daemon=True).start()
