"""Multilevel surfaces against full ones: two results folders that differ in `estimator` alone.

python benchmarks/surfaces.py results/quick results/quick-full
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

HERE = Path(__file__).parent
COLUMNS = (
    "model",
    "optimizer",
    "surface",  # lines (all of a point are one), planes, eigenplane or trajectory
    "surfaces",
    "points",
    "evaluated",  # fraction of the points
    "interpolated",  # points
    "stated",  # error that is stated for 95 % of the interpolated points, median
    "beyond",  # interpolated points that are off by more
    "exceeded",  # surfaces of which more than 5 % of the interpolated points are
    "error_95",  # 95th percentile of the errors of the interpolated points
    "error_max",
    "accuracy_max",
)


def surfaces(few: h5py.File, full: h5py.File) -> Iterator[tuple[str, float, np.ndarray]]:
    """Per surface: its kind, stated error, and `evaluated`, errors of loss and accuracy (3, n).

    Errors of losses are relative to the rise above the centre, or to its standard error where that
    is larger: max(|L - L(centre)|, rise_se) of the full surface.
    """
    paths: list[str] = []
    few.visit(paths.append)
    for path in paths:
        ours, truth = few[path], full[path]
        if not isinstance(ours, h5py.Group) or "evaluated" not in ours:
            continue
        axes = [ours[name][()] for name in ("alpha", "beta") if name in ours]
        centre = tuple(int(np.flatnonzero(axis == 0)[0]) for axis in axes)
        shape = (-1, *map(len, axes))
        loss, exact, rise_se, evaluated, accuracy, right = (
            group[name][()].reshape(shape)
            for group, name in (
                *((ours, "loss"), (truth, "loss"), (truth, "rise_se"), (ours, "evaluated")),
                *((ours, "accuracy"), (truth, "accuracy")),
            )
        )
        if not np.isfinite(exact).all():
            continue
        rise = np.abs(exact - exact[:, *centre].reshape(-1, *[1] * len(axes)))
        with np.errstate(invalid="ignore"):  # at the centre itself, which is evaluated
            errors = np.nan_to_num(np.abs(loss - exact) / np.maximum(rise, rise_se))
        columns = np.stack([evaluated, errors, np.abs(accuracy - right)])
        if len(axes) == 1:
            yield "lines", float(ours["interpolation_error"][0]), columns.reshape(3, -1)
        elif "interpolation_error" in ours.attrs:
            stated = float(ours.attrs["interpolation_error"])
            yield "trajectory", stated, columns.reshape(3, -1)
        else:
            for index, stated in enumerate(ours["interpolation_error"][()]):
                yield path.split("/")[-1], float(stated), columns[:, index].reshape(3, -1)


def main(few: Path, full: Path) -> None:
    found: dict[tuple, list[tuple[float, np.ndarray]]] = {}
    for path in sorted(few.glob("runs/*/*/*/*.h5")):
        with h5py.File(path) as ours, h5py.File(full / path.relative_to(few)) as truth:
            for kind, stated, columns in surfaces(ours, truth):
                found.setdefault((*path.parts[-4:-2], kind), []).append((stated, columns))
    with open(HERE / "surfaces.csv", "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for key, parts in found.items():
            evaluated, errors, accuracy = np.concatenate([columns for _, columns in parts], axis=1)
            beyond = [one[1][one[0] == 0] > stated for stated, one in parts]
            partly = [one for one in beyond if len(one)]
            numbers = (
                np.median([stated for stated, _ in parts]),
                sum(one.sum() for one in partly),
                sum(one.mean() > 0.05 for one in partly),
                np.quantile(errors[evaluated == 0], 0.95) if partly else 0.0,
                errors.max(),
                accuracy.max(),
            )
            counts = [len(parts), evaluated.size, f"{evaluated.mean():.3g}"]
            counts.append(int((evaluated == 0).sum()))
            writer.writerow([*key, *counts, *(f"{value:.3g}" for value in numbers)])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
