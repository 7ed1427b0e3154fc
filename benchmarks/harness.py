"""Two ways of doing the same work, timed side by side in one process on one thread."""

import csv
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn
from torchvision import transforms
from torchvision.datasets import MNIST

from lossgeo.arrays import as_tensors
from lossgeo.data import DATASETS, FILES, load
from lossgeo.models import build
from lossgeo.objective import make_objective
from lossgeo.training import train

HERE = Path(__file__).parent
SHAPE, CLASSES = (1, 28, 28), 10
SPECS = {
    f"{family.upper()}-{width}": {"family": family, "width": width}
    for family, width in (("mlp", 32), ("mlp", 128), ("cnn", 16), ("cnn", 64))
}
SGD = {"name": "SGD", "lr": 0.01, "momentum": 0.9}
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
    share: float = 1.0,
    parts: str = "points",
    agreement: float | None = None,
    repeats: int = 5,
) -> dict:
    """A row of the results: theirs / ours, from `repeats` alternating runs after one of each.

    The ratio is the median of the ratios of neighbouring runs, which a machine that is busy for a
    while slows alike; its range is theirs. Times are medians, in seconds. `share` is the share of
    the work that `theirs` does in one run: a plane costs the same at each of its points (`parts`),
    so few of them tell the time of all. `agreement` is the largest relative difference between the
    two results, measured by the caller.
    """
    theirs()  # first: what raises costs no more than itself
    ours()
    pairs = [(_seconds(ours), _seconds(theirs) / share) for _ in range(repeats)]
    ratios = [b / a for a, b in pairs]
    row = {
        "work": work,
        "against": against + ("" if share == 1 else f", from {share:.3g} of its {parts}"),
        "ratio": f"{statistics.median(ratios):.3g}",
        "ratio_min": f"{min(ratios):.3g}",
        "ratio_max": f"{max(ratios):.3g}",
        "ours_s": f"{statistics.median(a for a, _ in pairs):.3g}",
        "theirs_s": f"{statistics.median(b for _, b in pairs):.3g}",
        "agreement": "" if agreement is None else f"{agreement:.0e}",
        "repeats": repeats,
        "samples": samples,
        "machine": f"{cpu()}, one thread, torch {torch.__version__}",
    }
    print(
        f"{work} against {row['against']}: {row['ratio']} x "
        f"({row['ratio_min']}-{row['ratio_max']}), {row['ours_s']} s against {row['theirs_s']} s, "
        f"agreement {row['agreement'] or '-'}",
        flush=True,
    )
    return row


def cpu() -> str:
    """The processor by its name where the system tells it, and by its kind."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{names[0] if names else platform.machine()} ({instructions})"


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


def write_table(file: str, rows: list[dict], columns: tuple[str, ...]) -> None:
    """A table in benchmarks/."""
    with open(HERE / file, "w", newline="") as out:
        writer = csv.DictWriter(out, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


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


def deep_mlp(input_shape: tuple[int, ...], classes: int, widths: list[int]) -> nn.Sequential:
    """Hidden layers of these widths; a factory, as a user's."""
    sizes = [torch.Size(input_shape).numel(), *widths]
    hidden = [layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(sizes[-1], classes))


def usual_model(spec: dict, state: dict | None = None) -> nn.Module:
    """The network of a spec as a peer's user has it, with the parameters of ours."""
    model = build(spec, SHAPE, CLASSES) if spec["family"] == "mlp" else UsualCNN(spec["width"])
    model.load_state_dict(state or build(spec, SHAPE, CLASSES).state_dict())
    return model


def trained(
    spec: dict, inputs: torch.Tensor, targets: torch.Tensor, epochs: int = 2, seed: int = 0
) -> nn.Module:
    """The network of a spec after a few epochs of SGD with momentum."""
    model = build(spec, SHAPE, CLASSES, seed=seed)
    few = make_objective(build(spec, SHAPE, CLASSES), inputs[:64], targets[:64])
    train(
        model,
        inputs,
        targets,
        few,
        few,
        optimizer=SGD,
        epochs=epochs,
        batch_size=128,
        evaluations_per_epoch=1,
        snapshots_per_epoch=1,
        generator=torch.Generator().manual_seed(seed),
    )
    return model.eval().to(memory_format=torch.contiguous_format)


def mnist(samples: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The training split (or its first samples) as tensors, from where the workflow puts it."""
    known, folder = DATASETS["mnist"], HERE.parent / "results" / "data" / "mnist"
    if not (folder / FILES[0]).is_file():
        sys.exit(f"{folder} has no MNIST: run `make bench`, which fetches it")
    pixels, classes = load(folder / FILES[0], folder / FILES[1])
    return as_tensors(pixels[:samples], classes[:samples], known.mean, known.std)


def usual_loader(samples: int, *, shuffle: bool) -> torch.utils.data.DataLoader:
    """The first samples of the training split as they are usually read, in batches of 128."""
    raw = HERE.parent / "results" / "data" / "torchvision"  # where torchvision looks
    (raw / "MNIST" / "raw").mkdir(parents=True, exist_ok=True)
    for file in FILES:
        link = raw / "MNIST" / "raw" / file
        if not link.exists():
            link.symlink_to(HERE.parent / "results" / "data" / "mnist" / file)
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    data = torch.utils.data.Subset(MNIST(str(raw), train=True, transform=steps), range(samples))
    return torch.utils.data.DataLoader(data, batch_size=128, shuffle=shuffle)


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
