"""Two ways of doing the same work, timed side by side in one process on one thread."""

import csv
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from lossgeo.models import build

HERE = Path(__file__).parent
SHAPE, CLASSES = (1, 28, 28), 10
SPECS = {
    f"{family.upper()}-{width}": {"family": family, "width": width}
    for family, width in (("mlp", 32), ("mlp", 128), ("cnn", 16), ("cnn", 64))
}
COLUMNS = (
    "work",
    "against",
    "ratio",
    "ratio_min",
    "ratio_max",
    "ours_s",
    "theirs_s",
    "agreement",
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
    agreement: float | None = None,
    repeats: int = 5,
) -> dict:
    """A row of the results: theirs / ours, from `repeats` alternating runs after one of each.

    The ratio is the median of the ratios of neighbouring runs, which a machine that is busy for a
    while slows alike; its range is theirs. Times are medians, in seconds. `agreement` is the
    largest relative difference between the two results, measured by the caller.
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
        "agreement": "" if agreement is None else f"{agreement:.1e}",
        "repeats": repeats,
        "samples": samples,
        "machine": f"{platform.machine()}, one thread, torch {torch.__version__}",
    }
    print(
        f"{work} against {against}: {row['ratio']} x ({row['ratio_min']}-{row['ratio_max']}), "
        f"{row['ours_s']} s against {row['theirs_s']} s, agreement {row['agreement'] or '-'}",
        flush=True,
    )
    return row


class UsualCNN(nn.Module):
    """The same function as our CNN, as it is usually written: ReLU, then pooling."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.hidden = nn.Linear(98 * width, 128)
        self.output = nn.Linear(128, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 2)
        x = nn.functional.max_pool2d(torch.relu(self.conv2(x)), 2)
        return self.output(torch.relu(self.hidden(x.flatten(1))))


def usual_model(spec: dict) -> nn.Module:
    """The network of a spec with the parameters that ours starts from, as a peer's user has it."""
    ours = build(spec, SHAPE, CLASSES)
    if spec["family"] == "mlp":
        return ours
    usual = UsualCNN(spec["width"])
    usual.load_state_dict(ours.state_dict())
    return usual


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
