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
    labelled,
    plain_log,
    seeds_note,
    units_of,
    with_note,
)
from lossgeo.plots.rungs import (
    barrier_axis,
    barrier_bars,
    barrier_label,
    nothing,
    pairs_note,
    where,
)

LADDERS = {  # a panel's title -> rungs, of which the first that a cell has is shown
    "straight line": ("line",),
    "aligned": ("aligned",),
    "trained curve, aligned where possible": ("aligned_curve", "curve"),
}
Cell = tuple[str, str, str]  # model, optimizer, point


def taxonomy(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Barrier against largest eigenvalue, coloured by how similar the two ends are.

    After Yang et al. 2021, "Taxonomizing local versus global structure in neural network loss
    landscapes". `experiment["cells"]` are the (model, optimizer, point) that are shown.
    """
    cells = [tuple(cell) for cell in experiment["cells"]]
    found = _both_numbers(tables, cells, style)
    if found.empty:
        return nothing(style, "no run has both a barrier between seeds and an eigenvalue")
    ladders = [title for title in LADDERS if title in set(found["panel"])]
    figure, axes = axes_grid(style, len(ladders), 1, height=2.2, sharex=True, sharey=True)
    axes = axes[:, 0]
    families = in_order(found["family"])
    lowest = np.floor(10 * min(found["similarity"].min(), 0.9)) / 10
    colours = ScalarMappable(Normalize(lowest, 1), SURFACE_COLOURS)
    for axis, title in zip(axes, ladders, strict=True):
        rows = where(found, panel=title)
        for number in range(len(rows)):
            family = families.index(rows["family"].iloc[number])
            _draw_cell(axis, rows.iloc[[number]], MARKERS[family % len(MARKERS)], colours)
        axis.set(title=title, ylabel=barrier_label("loss", style), xscale="log")
    spans = found[["eigenvalue", "low", "high"]]
    narrowest, widest = spans.min().min(), spans.max().max()
    margin = max(widest / narrowest, 1.1) ** 0.05  # a single eigenvalue spans nothing
    axes[0].set_xlim(narrowest / margin, widest * margin)
    barrier_axis(axes, found["limit"].iloc[0])
    low, high = axes[0].get_ylim()
    axes[0].set_ylim(4 * low, 3 * high)  # with room for the names of the corners
    axes[-1].set_xlabel(labelled("largest eigenvalue λ₁ of the Hessian", units_of(style)))
    plain_log(axes[-1].xaxis)
    figure.colorbar(
        colours, ax=list(axes), label="CKA of the two ends (test)", aspect=40, pad=0.01, shrink=0.8
    )
    figure.legend(
        [Line2D([], [], color="0.4", ls="", marker=m) for m in MARKERS[: len(families)]],
        [name.upper() if name in ("mlp", "cnn") else name for name in families],
        loc="outside upper center",
        ncols=len(families),
    )
    with_note(figure, style, _note(found, cells, _eigenvalues_note(tables, found, style)))
    figure.draw_without_rendering()  # labels find their place on the panels as they will be
    for axis, title in zip(axes, ladders, strict=True):
        rows = where(found, panel=title)
        _name_corners(axis)
        at = zip(rows["eigenvalue"], rows["barrier_mean"], strict=True)
        _label(axis, dict(zip(rows["name"], at, strict=True)), style["font_size"] - 2)
    return figure


def _both_numbers(tables: Tables, cells: Sequence[Cell], style: Mapping) -> pd.DataFrame:
    """One row per panel and cell that has a barrier and an eigenvalue, which is geometric mean."""
    rows = []
    for cell in cells if len(tables["barriers"]) else ():
        at = dict(zip(("model", "optimizer", "point"), cell, strict=True))
        top = where(_largest(tables), **at)
        ends = where(tables["similarity"], quantity="debiased_cka", split="test", **at)
        barriers = where(tables["barriers"], measure="loss", split="train", **at)
        barriers = barriers[np.isfinite(barriers["barrier_mean"])].set_index("rung", drop=False)
        for title, rungs in LADDERS.items() if len(top) else ():
            rung = next((rung for rung in rungs if rung in barriers.index), None)
            if rung is None:
                continue
            mean = intervals(top, "point", "eigenvalue", style, log=True).iloc[0]
            rows.append(
                {**barriers.loc[rung], "panel": title, "name": _cell_label(cell, cells)}
                | {"eigenvalue": mean["mean"], "low": mean["low"], "high": mean["high"]}
                | {"similarity": where(ends, ends="naive")["similarity"].mean()}
            )
    return pd.DataFrame(rows)


def _largest(tables: Tables) -> pd.DataFrame:
    """The largest eigenvalues of the Hessian that have converged and are positive."""
    top = where(tables["eigenvalues"], matrix="hessian", end="top", rank=1)
    return top[top["converged"].astype(bool) & (top["eigenvalue"] > 0)]


def _eigenvalues_note(tables: Tables, found: pd.DataFrame, style: Mapping) -> str:
    """What the eigenvalues are means of, and their intervals."""
    cells = found[["model", "optimizer", "point"]].drop_duplicates()
    return seeds_note(_largest(tables).merge(cells), style, log=True)


def _draw_cell(axis: Axes, row: pd.DataFrame, marker: str, colours: ScalarMappable) -> None:
    similarity = row["similarity"].iloc[0]
    axis.errorbar(
        row["eigenvalue"],
        row["barrier_mean"],
        barrier_bars(row),
        np.nan_to_num([row["eigenvalue"] - row["low"], row["high"] - row["eigenvalue"]]),
        fmt=marker,
        color=colours.to_rgba(similarity) if np.isfinite(similarity) else "0.8",
        mec="black",
        mew=0.5,
        ms=5.5,
        ecolor="0.7",
        elinewidth=0.7,
    )


def _note(found: pd.DataFrame, cells: Sequence[Cell], eigenvalues: str) -> str:
    points = ", ".join(dict.fromkeys(point for *_, point in cells))
    note = (
        f"At {points}. Barriers: on the train split. {pairs_note(found)} Eigenvalues: "
        f"{eigenvalues} Colour: debiased CKA of the last hidden layer, mean over pairs. Dotted: "
        "the limit above which a barrier counts. The vertical axis is linear near 0."
    )
    if found["similarity"].isna().any():
        note += " Grey: no CKA, for want of a known last hidden layer."
    for part, name in ((1, "optimizer"), (2, "point")):
        if len({cell[part] for cell in cells}) > 1:
            note += f" Where no {name} is named: {_usual(cells, part)}."
    ladders = [title for title in LADDERS if title in set(found["panel"])]
    lost = []
    for name in (_cell_label(cell, cells) for cell in cells):
        present = set(where(found, name=name)["panel"])
        if len(present) < len(ladders):
            panels = "; ".join(title for title in ladders if title not in present)
            lost.append(f"{name} ({panels})" if present else name)
    return note + (f" Without both numbers: {', '.join(lost)}." if lost else "")


def _cell_label(cell: Cell, cells: Sequence[Cell]) -> str:
    """The model, and optimizer and point where they are not the usual ones."""
    unusual = [cell[part] for part in (1, 2) if cell[part] != _usual(cells, part)]
    return ", ".join([cell[0], *unusual])


def _usual(cells: Sequence[Cell], part: int) -> str:
    """The optimizer (part 1) or the point (2) of most cells."""
    found = [cell[part] for cell in cells]
    return max(dict.fromkeys(found), key=found.count)


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
