"""Records of what made a file: beside every file of a study, in JSON.

A record says which rule made the file, with which params (its section of the config, digests of its
code), from which inputs, with which packages; and which bytes it was. It lies in the file's own
folder as .NAME.json, so that whoever copies results copies it too: what is stale, foreign or
damaged can be told from the results alone.

Plain Python: the workflow imports it on every call, so it must not import torch.
"""

import functools
import hashlib
import json
import os
import sys
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any, NamedTuple

from lossgeo import memory

LARGE = 2**30  # bytes

# whose versions can change what is made; Snakemake watches over the environments of --sdm
PACKAGES = (
    "h5py",
    "hessian-eigenthings",
    "loss-landscapes",
    "matplotlib",
    "numpy",
    "pandas",
    "safetensors",
    "scipy",
    "torch",
)


class RecordError(RuntimeError):
    """A file that is not what its record says, or that has none: which, and what to do."""


class Record(NamedTuple):
    """What made a file, and what it then was."""

    path: str  # of the file, relative to the study's results
    rule: str
    params: dict[str, Any]  # of the rule
    inputs: dict[str, str]  # path relative to the results -> sha256; without the data's files
    versions: dict[str, str]  # package -> version, of those that were imported
    size: int  # bytes
    mtime: int  # ns since 1970, when the record was written: unchanged times need no second look
    sha256: str


def record_path(path: Path | str) -> Path:
    """Where the record of a file is."""
    path = Path(path)
    return path.with_name(f".{path.name}.json")


def write(
    path: Path | str,
    results: Path | str,
    rule: str,
    params: Mapping[str, Any],
    inputs: Mapping[str, str],
    packages: Collection[str] = (),
) -> None:
    """Record what a file in the folder `results` was made from, once it is whole.

    `params` are plain values; `inputs` maps paths relative to `results` to digests; `packages` were
    used beside those of PACKAGES that were imported.
    """
    imported = [name for name in PACKAGES if name.replace("-", "_") in sys.modules]
    path = Path(path)
    size, mtime = _measure(path)
    record = Record(
        path=relative(path, results),
        rule=rule,
        params=dict(params),
        inputs=dict(inputs),
        versions=versions(sorted({*imported, *packages})),
        size=size,
        mtime=mtime,
        sha256=digest(path),
    )
    beside = record_path(path).with_name(f".{os.getpid()}.{path.name}.json")
    beside.write_text(json.dumps(record._asdict(), indent=1) + "\n")
    os.replace(beside, record_path(path))


def read(path: Path | str) -> Record | None:
    """The record of a file; None where there is none, or none that can be read."""
    try:
        found = json.loads(record_path(path).read_text())
        record = Record(**found)
    except (OSError, ValueError, TypeError):
        return None
    maps = (record.params, record.inputs, record.versions)
    return record if all(isinstance(entry, dict) for entry in maps) else None


def verified(path: Path | str, results: Path | str) -> str:
    """The sha256 of a file in the folder `results`, which is what its record says it is.

    Raises RecordError where it is not, or where there is no record.
    """
    path = Path(path)
    record = read(path)
    if record is None:
        wrong = "nothing says what made it"
    else:
        wrong = fault(record, path, results)
        if wrong is None and (found := digest(path)) != record.sha256:
            wrong = _damaged(found, record)
    if wrong is not None:
        raise RecordError(f"{path}: {wrong}. Delete it and run again: it is then made anew")
    return record.sha256


def fault(record: Record, path: Path | str, results: Path | str) -> str | None:
    """What is wrong with a file by its record, in words; None: nothing, or the file is not there.

    The bytes are looked at only where the time is not the one that the record has. Where they are
    right the file gets that time back, so that this is done once after a copy.
    """
    path = Path(path)
    if record.path != relative(path, results):
        return f"foreign: it was made as {record.path}"
    if not path.exists():
        return None
    size, mtime = _measure(path)
    if size != record.size:
        return f"damaged: it has {size} bytes, its record says {record.size}"
    if mtime != record.mtime:
        if (found := digest(path)) != record.sha256:
            return _damaged(found, record)
        if path.is_file():
            with suppress(OSError):  # somebody else's file, or one that cannot be written
                os.utime(path, ns=(path.stat().st_atime_ns, record.mtime))
    return None


def upgraded(record: Record, now: Mapping[str, str]) -> str | None:
    """Which packages had another version than `now` when a file was made, in words; None: none.

    A local version (torch 2.0+cpu) is one of that version; two of them (+cpu, +cu130) differ.
    """
    changed = [
        f"{name} {was} then, {now[name]} now"
        for name, was in record.versions.items()
        if name in now and not _are_same(was, now[name])
    ]
    return f"other packages: {', '.join(changed)}" if changed else None


def difference(was: Any, now: Any, key: str = "") -> str:
    """The first place at which two plain values differ, in words; empty: nowhere."""
    if isinstance(was, Mapping) and isinstance(now, Mapping):
        for name in [*was, *(name for name in now if name not in was)]:
            inside = f"{key}.{name}" if key else str(name)
            if name not in was:
                return f"{inside} is new"
            if name not in now:
                return f"{inside} is gone"
            if found := difference(was[name], now[name], inside):
                return found
        return ""
    if was == now:
        return ""
    if _is_digest(was) and _is_digest(now):
        return f"{key} has changed"
    return f"{key} was {was!r}, is {now!r}"


def relative(path: Path | str, results: Path | str) -> str:
    """A path relative to the folder of the results, with forward slashes."""
    return Path(os.path.relpath(path, results)).as_posix()


def tracked(
    files: Iterable[str], results: Path | str, data: Collection[Path | str]
) -> dict[str, str]:
    """Relative path -> path of those files that have records: in the results, but not the data."""
    left_out = {Path(path) for path in data}
    named = {relative(path, results): path for path in files if Path(path) not in left_out}
    return {name: path for name, path in named.items() if not name.startswith("..")}


def digest_now(path: Path | str) -> str:
    """The sha256 of a file, which is read once as long as its size and time stay as they are."""
    stat = Path(path).stat()
    return _digest_of(Path(path), stat.st_size, stat.st_mtime_ns)


@functools.cache
def _digest_of(path: Path, size: int, mtime: int) -> str:
    return digest_like(path)


def digest_like(path: Path | str, expected: str = "") -> str:
    """The digest of a file's bytes, of the kind of another: sha256, or "md5:" and the md5.

    A file of LARGE bytes or more is read once, as long as its size and time stay as they are.
    """
    stat, is_md5 = Path(path).stat(), expected.startswith("md5:")

    def work() -> str:
        return f"md5:{digest(path, 'md5')}" if is_md5 else digest(path)

    if stat.st_size < LARGE:
        return work()
    key = [str(Path(path).resolve()), stat.st_size, stat.st_mtime_ns, is_md5]
    return memory.recall(memory.key_of(json.dumps(key)), work)


def digest(path: Path | str, algorithm: str = "sha256") -> str:
    """The sha256 of a file's bytes; of a folder, that of its files' names and digests."""
    if Path(path).is_dir():
        lines = [f"{digest(file)} {relative(file, path)}\n" for file in _files(path)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with open(path, "rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def distributions(modules: Collection[str]) -> list[str]:
    """The installed packages that some modules, by the first part of their names, come from."""
    if not modules:
        return []
    known = packages_distributions()
    return sorted({package for module in modules for package in known.get(module, ())})


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    found = {name: _version(name) for name in packages}
    return {name: known for name, known in found.items() if known is not None}


def read_pins(path: Path | str) -> dict[str, str]:
    """Package -> version, of the lines package==version in a file of requirements."""
    lines = [line.split("#")[0].strip() for line in Path(path).read_text().splitlines()]
    return dict(line.split("==") for line in lines if "==" in line)


@functools.cache
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _are_same(was: str, now: str) -> bool:
    """Whether two versions are the same, as far as both say which."""
    if "+" in was and "+" in now:
        return was == now
    return was.partition("+")[0] == now.partition("+")[0]


def _measure(path: Path) -> tuple[int, int]:
    """Bytes and time (ns) of a file; of a folder, those of its files in all, and the latest."""
    stats = [file.stat() for file in (_files(path) if path.is_dir() else [path])]
    latest = max((stat.st_mtime_ns for stat in stats), default=0)
    return sum(stat.st_size for stat in stats), latest


def _files(folder: Path | str) -> list[Path]:
    """All files in a folder but hidden ones, such as the one by which Snakemake tells its time."""
    shown = (path for path in Path(folder).rglob("*") if not path.name.startswith("."))
    return sorted(path for path in shown if path.is_file())


def _damaged(found: str, record: Record) -> str:
    return f"damaged: its sha256 is {found}, its record says {record.sha256}"


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64
