"""Two ways of doing the same work, timed side by side in one process on one thread."""

import csv
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

HERE = Path(__file__).parent
COLUMNS = (
    "work",
    "against",
    "ratio",
    "ratio_min",
    "ratio_max",
    "ours_s",
    "theirs_s",
    "repeats",
    "samples",
    "machine",
)


def compare(
    work: str,
    against: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    *,
    samples: int,
    repeats: int = 5,
) -> dict:
    """A row of the results: theirs / ours, from `repeats` alternating runs after one of each.

    The ratio is the median of the ratios of neighbouring runs, which a machine that is busy for a
    while slows alike; its range is theirs. Times are medians, in seconds.
    """
    ours()
    theirs()
    pairs = [(_seconds(ours), _seconds(theirs)) for _ in range(repeats)]
    ratios = [b / a for a, b in pairs]
    row = {
        "work": work,
        "against": against,
        "ratio": f"{statistics.median(ratios):.3g}",
        "ratio_min": f"{min(ratios):.3g}",
        "ratio_max": f"{max(ratios):.3g}",
        "ours_s": f"{statistics.median(a for a, _ in pairs):.3g}",
        "theirs_s": f"{statistics.median(b for _, b in pairs):.3g}",
        "repeats": repeats,
        "samples": samples,
        "machine": f"{platform.machine()}, one thread, torch {torch.__version__}",
    }
    print(f"{work} against {against}: {row['ratio']} x ({row['ratio_min']}-{row['ratio_max']})")
    return row


def write(script: str, rows: list[dict]) -> None:
    """Keep the rows of one script in benchmarks/results.csv in place of its former ones."""
    path = HERE / "results.csv"
    kept = []
    if path.exists():
        with open(path, newline="") as file:
            kept = [row for row in csv.DictReader(file) if row["script"] != script]
    new = [{"script": script, **row} for row in rows]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, ("script", *COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(kept + new, key=lambda row: row["script"]))


def mnist() -> tuple[torch.Tensor, torch.Tensor]:
    """The training split as tensors, from where `make quick` puts it."""
    from lossgeo.data import DATASETS, FILES, as_tensors, load

    known, folder = DATASETS["mnist"], HERE.parent / "results" / "data" / "mnist"
    if not (folder / FILES[0]).is_file():
        sys.exit(f"{folder} has no MNIST: run `make quick` first")
    return as_tensors(*load(folder / FILES[0], folder / FILES[1]), known.mean, known.std)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
