"""What is wrong with the files of a study: by their records, and by what its config asks for."""

import os
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from lossgeo import records
from lossgeo.arrays import NPY
from lossgeo.data import DATASETS, FILES
from lossgeo.records import RecordError

STATES = {
    "whole": "what the config asks for, to the byte",
    "missing": "not made yet",
    "stale": "made from another config, code, inputs or packages",
    "foreign": "a record that is another file's",
    "damaged": "other bytes than were made",
    "unknown": "nothing says what made it",
    "orphaned": "no part of the study that the config asks for",
    "left over": "half-written files of jobs that were killed",
}
WRONG = ("stale", "foreign", "damaged", "unknown", "left over")
BESIDE = ("logs", "benchmarks", "data", "study")  # folders without artefacts of a stage
ASIDE = ".aside"
SAID = " is made again: "
DATA = {*NPY, *FILES, *(name for known in DATASETS.values() for name in known.sha256)}
WORDS = {"ok": "what it is made from is made again"}  # of Snakemake's status


class Verified(NamedTuple):
    path: str  # relative to the results
    state: str  # one of STATES
    why: str  # in words; empty where the state says it all


def parse_summary(text: str, log: str) -> dict[str, str]:
    """File -> "" or why it is made again, by what `snakemake --summary --verbose` prints and logs.

    Why is in its log where it goes by a file's record, else in the table that it prints.
    """
    said = [line.partition(SAID) for line in log.splitlines() if SAID in line]
    reasons = {path: why for path, _, why in said}
    rows = [line.split("\t") for line in text.splitlines() if "\t" in line]
    header = rows[0]
    names = ("output_file", "rule", "status", "plan")
    file, rule, status, plan = (header.index(name) for name in names)
    return {
        row[file]: ""
        if row[plan] == "no update"
        else reasons.get(row[file], WORDS.get(row[status], row[status]))
        for row in rows[1:]
        if row[rule] != "data"
    }


def results_of(plan: Mapping[str, str]) -> Path:
    """The folder of a study's results, by its table of columns, which every study has."""
    found = next(path for path in plan if path.endswith("tables/dictionary.csv"))
    return Path(found).parents[1]


def verify(results: Path, plan: Mapping[str, str]) -> list[Verified]:
    """The state of every file in the folder of results, and of every file that is asked for.

    `plan` is what `parse_summary` returns. Logs, benchmarks, data and pages are left out.
    """
    wanted = {records.relative(path, results): why for path, why in plan.items()}
    wanted = {path: why for path, why in wanted.items() if not path.startswith((".", "data/"))}
    found = [Verified(path, *_state(results, path, wanted)) for path in _walk(results)]
    missing = set(wanted) - {file.path for file in found}
    return [*found, *(Verified(path, "missing", "") for path in sorted(missing))]


def move_aside(results: Path, files: Sequence[Verified]) -> Path:
    """Move files and their records into a new folder of the results, which is returned."""
    aside = next(folder for n in count(1) if not (folder := results / ASIDE / str(n)).exists())
    for file in files:
        for path in (results / file.path, records.record_path(results / file.path)):
            if path.exists():
                target = aside / path.relative_to(results)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, target)
    return aside


def is_locked(folder: Path) -> bool:
    """Whether Snakemake runs in a folder, or was killed there."""
    return any((folder / ".snakemake" / "locks").glob("*.lock"))


def _walk(results: Path) -> list[str]:
    """The artefacts in a folder, and what is left of half-written ones."""
    found = []
    for folder, folders, files in os.walk(results):
        at = Path(folder)
        if at == results:
            files = []  # a report, perhaps
            folders[:] = [f for f in folders if f not in (*BESIDE, ASIDE)]
            # another study's results inside this one's
            folders[:] = [f for f in folders if not (at / f / "tables").is_dir()]
        if DATA & set(files):
            continue  # data
        for name in files:
            path = at / name
            if not name.startswith(".") or _is_half(name):
                found.append(records.relative(path, results))
    return sorted(found)


def _is_half(name: str) -> bool:
    """Whether a hidden file is one that a job was writing, .PID.NAME, which has ended."""
    pid = name[1:].partition(".")[0]
    return pid.isdigit() and not Path("/proc", pid).exists()


def _state(results: Path, path: str, wanted: Mapping[str, str]) -> tuple[str, str]:
    if Path(path).name.startswith("."):
        return "left over", ""
    if path not in wanted:
        return "orphaned", ""
    try:
        records.verified(results / path, results)
    except RecordError as error:
        why = str(error).removeprefix(f"{results / path}: ").partition(". Delete it")[0]
        state, _, rest = why.partition(": ")
        return (state, rest) if state in STATES else ("unknown", "")
    return ("stale", wanted[path]) if wanted[path] else ("whole", "")
