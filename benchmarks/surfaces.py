"""Multilevel surfaces against full ones: two results folders that differ in `estimator` alone.

python benchmarks/surfaces.py results/quick results/quick-full
"""

import csv
import sys
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).parent
COLUMNS = (
    "model",
    "optimizer",
    "surface",
    "points",
    "beyond_2",
    "evaluated",
    "rms",
    "max",
    "accuracy_max",
)


def surfaces(file: h5py.File) -> dict[str, h5py.Group]:
    """Groups that hold a multilevel surface, by path."""
    found = {}

    def keep(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group) and "evaluated" in item:
            found[name] = item

    file.visititems(keep)
    return found


def main(few: Path, full: Path) -> None:
    """Errors of the losses in standard errors of the full surface, and the largest accuracy error.

    `beyond_2` counts losses that are off by more than two standard errors.
    """
    errors: dict[tuple, list] = {}
    for path in sorted(few.glob("runs/*/*/*/*.h5")):
        model, optimizer = path.parts[-4:-2]
        with h5py.File(path) as ours, h5py.File(full / path.relative_to(few)) as reference:
            for name, group in surfaces(ours).items():
                truth = reference[name]
                error = np.abs(group["loss"][()] - truth["loss"][()]) / truth["loss_se"][()]
                accuracy = np.abs(group["accuracy"][()] - truth["accuracy"][()])
                kind = "trajectory" if path.stem == "trajectory" else name.split("/")[-1]
                columns = errors.setdefault((model, optimizer, kind), [])
                columns.append((error.ravel(), group["evaluated"][()].ravel(), accuracy.ravel()))
    with open(HERE / "surfaces.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for key, columns in errors.items():
            z, evaluated, accuracy = map(np.concatenate, zip(*columns, strict=True))
            figures = (evaluated.mean(), np.sqrt(np.mean(z**2)), z.max(), accuracy.max())
            row = [f"{value:.3g}" for value in figures]
            writer.writerow([*key, len(z), (z > 2).sum(), *row])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
