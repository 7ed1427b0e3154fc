"""The barrier between minima beside the curvature at them."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from lossgeo.plots.panels import (
    MARKERS,
    SURFACE_COLOURS,
    Files,
    Tables,
    axes_grid,
    in_order,
    intervals,
    plain_log,
    with_note,
)
from lossgeo.plots.rungs import MEASURES, barrier_axis, barrier_bars, nothing, pairs_note, where

Cell = tuple[str, str, str]  # model, optimizer, point


def taxonomy(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Barrier against largest eigenvalue, coloured by how similar the two ends are.

    After Yang et al. 2021, "Taxonomizing local versus global structure in neural network loss
    landscapes". `experiment["cells"]` are the (model, optimizer, point) that are shown.
    """
    cells = [tuple(cell) for cell in experiment["cells"]]
    if tables["barriers"].empty:
        return nothing(style, "no pair of seeds is connected")
    known = {cell: _describe(tables, cell, style) for cell in cells}
    ladders = {  # title -> rungs, of which the first that a cell has is shown
        "straight line": ("line",),
        "aligned": ("aligned",),
        "trained curve, aligned where possible": ("aligned_curve", "curve"),
    }
    found = {
        title: {cell: _barrier(tables, cell, rungs) for cell in cells}
        for title, rungs in ladders.items()
    }
    figure, axes = axes_grid(style, len(ladders), 1, height=2.2, sharex=True, sharey=True)
    axes = axes[:, 0]
    families = in_order(pd.Series([known[cell]["family"] for cell in cells if known[cell]]))
    alike = [known[cell]["similarity"] for cell in cells if known[cell]]
    lowest = np.floor(10 * np.nanmin([*alike, 0.9])) / 10
    colours = ScalarMappable(Normalize(lowest, 1), SURFACE_COLOURS)
    shown: dict[str, dict] = {}
    lacking: dict[str, list[str]] = {_cell_label(cell, cells): [] for cell in cells}
    limit = np.nan
    for axis, (title, heights) in zip(axes, found.items(), strict=True):
        axis.set(title=title, ylabel=MEASURES["loss"][0], xscale="log")
        shown[title] = {}
        for cell, height in heights.items():
            described = known[cell]
            if height is None or not described or not np.isfinite(height["barrier_mean"]):
                lacking[_cell_label(cell, cells)].append(title)
                continue
            x, y = described["eigenvalue"], height["barrier_mean"]
            limit = height["limit"]
            marker = MARKERS[families.index(described["family"]) % len(MARKERS)]
            similarity = described["similarity"]
            axis.errorbar(
                x,
                y,
                barrier_bars(height.to_frame().T.infer_objects()),
                np.nan_to_num(described["bars"]),
                fmt=marker,
                color=colours.to_rgba(similarity) if np.isfinite(similarity) else "0.8",
                mec="black",
                mew=0.5,
                ms=5.5,
                ecolor="0.7",
                elinewidth=0.7,
            )
            shown[title][_cell_label(cell, cells)] = (x, y)
    if not any(shown.values()):
        return nothing(style, "no run has both a barrier between seeds and an eigenvalue")
    barrier_axis(axes, limit)
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(4 * low, 3 * high)  # with room for the names of the corners
    axes[-1].set_xlabel("largest eigenvalue λ₁ of the Hessian (nats)")
    plain_log(axes[-1].xaxis)
    for axis in axes:
        _name_corners(axis)
    figure.colorbar(
        colours, ax=list(axes), label="CKA of the two ends (test)", aspect=40, pad=0.01, shrink=0.8
    )
    markers = [Line2D([], [], color="0.4", ls="", marker=m) for m in MARKERS[: len(families)]]
    figure.legend(
        markers,
        [name.upper() if name in ("mlp", "cnn") else name for name in families],
        loc="outside upper center",
        ncols=len(families),
    )
    every = [height for heights in found.values() for height in heights.values()]
    some = pd.DataFrame([height for height in every if height is not None])
    lost = ", ".join(
        name if len(titles) == len(ladders) else f"{name} ({'; '.join(titles)})"
        for name, titles in lacking.items()
        if titles
    )
    points = ", ".join(dict.fromkeys(point for *_, point in cells))
    note = (
        f"At {points}. Barriers: on the train split. {pairs_note(some)} Eigenvalues: geometric "
        "mean and interval over seeds. Colour: debiased CKA of the last hidden layer, mean over "
        "pairs. Dotted: the limit above which a barrier counts. The vertical axis is linear near 0."
    )
    if len({optimizer for _, optimizer, _ in cells}) > 1:
        note += f" Where no optimizer is named: {_usual(cells)}."
    note += f" Without both numbers: {lost}." if lost else ""
    with_note(figure, style, note)
    figure.draw_without_rendering()  # labels find their place on the panels as they will be
    for axis, at in zip(axes, shown.values(), strict=True):
        _label(axis, at, style["font_size"] - 2)
    return figure


def _describe(tables: Tables, cell: Cell, style: Mapping) -> dict:
    """Family, eigenvalue with its bars (2, 1) and similarity; {} without a positive eigenvalue."""
    at = dict(zip(("model", "optimizer", "point"), cell, strict=True))
    rows = where(tables["eigenvalues"], matrix="hessian", end="top", rank=1, **at)
    rows = rows[rows["converged"].astype(bool) & (rows["eigenvalue"] > 0)]
    if rows.empty:
        return {}
    found = intervals(rows, "point", "eigenvalue", style, log=True).iloc[0]
    ends = where(tables["similarity"], quantity="debiased_cka", split="test", ends="naive", **at)
    return {
        "family": rows["family"].iloc[0],
        "eigenvalue": found["mean"],
        "bars": [[found["mean"] - found["low"]], [found["high"] - found["mean"]]],
        "similarity": ends["similarity"].mean(),
    }


def _barrier(tables: Tables, cell: Cell, rungs: Sequence[str]) -> pd.Series | None:
    """The row of the train loss on the first of the rungs that has a barrier."""
    at = dict(zip(("model", "optimizer", "point"), cell, strict=True))
    rows = where(tables["barriers"], measure="loss", split="train", **at)
    for rung in rungs:
        part = where(rows, rung=rung)
        if np.isfinite(part["barrier_mean"]).any():
            return part.iloc[0]
    return None


def _cell_label(cell: Cell, cells: Sequence[Cell]) -> str:
    """As much of a cell as tells it from the others."""
    model, optimizer, point = cell
    twice = sum(other[:2] == cell[:2] for other in cells) > 1
    return ", ".join([model, *[optimizer] * (optimizer != _usual(cells)), *[point] * twice])


def _usual(cells: Sequence[Cell]) -> str:
    """The optimizer of most cells."""
    optimizers = [optimizer for _, optimizer, _ in cells]
    return max(dict.fromkeys(optimizers), key=optimizers.count)


def _name_corners(axis: Axes) -> None:
    for x, horizontal, flat in ((0.005, "left", "flat"), (0.995, "right", "sharp")):
        for y, vertical, well in ((0.03, "bottom", "well"), (0.97, "top", "poorly")):
            axis.text(
                *(x, y, f"{flat}, {well} connected"),
                color="0.7",
                ha=horizontal,
                va=vertical,
                transform=axis.transAxes,
                zorder=0,
            )


def _label(axis: Axes, points: Mapping[str, tuple[float, float]], size: float) -> None:
    """Write each name beside its point, where it covers the least of marks and other names."""
    scale = axis.figure.dpi / 72
    at = {n: axis.transData.transform(point) / scale for n, point in points.items()}  # points
    taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in at.values()]
    low, high = axis.bbox.get_points() / scale
    for name, (x, y) in at.items():
        width, height = 0.56 * size * len(name), 1.1 * size
        places = [
            (x + dx - width * left, y + dy - height / 2)
            for dy in (0, 9, -9, 18, -18, 27, -27)
            for dx, left in ((6, 0), (-6, 1), (0, 0.5))
            if dy or dx
        ]
        boxes = [(px, py, px + width, py + height) for px, py in places]
        costs = [
            sum(_overlap(box, other) for other in taken)
            + 1e3 * (box[0] < low[0] or box[1] < low[1] or box[2] > high[0] or box[3] > high[1])
            + 0.1 * number
            for number, box in enumerate(boxes)
        ]
        best = int(np.argmin(costs))
        taken.append(boxes[best])
        axis.annotate(
            name,
            points[name],
            xytext=(places[best][0] - x, places[best][1] - y),
            textcoords="offset points",
            fontsize=size,
            va="bottom",
            path_effects=[withStroke(linewidth=1.5, foreground="white")],
            arrowprops={"arrowstyle": "-", "color": "0.6", "lw": 0.4, "shrinkA": 0, "shrinkB": 3},
        ).set_in_layout(False)


def _overlap(a: tuple, b: tuple) -> float:
    """The area that two boxes (left, bottom, right, top) share."""
    width, height = (min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1))
    return max(width, 0) * max(height, 0)
