"""Paths between two minima: the loss along them, and on planes that contain them."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from lossgeo import store
from lossgeo.plots.panels import (
    COLOURS,
    Files,
    Tables,
    axes_grid,
    cell_name,
    cells_of,
    colorbar,
    contours,
    labelled,
    loss_norm,
    plain_log,
    span,
    units_of,
    with_note,
)
from lossgeo.plots.rungs import (
    RUNGS,
    at_shown_point,
    missing_pairs,
    nothing,
    of_cell,
    pair_names,
    points_of,
    present_cells,
    present_rungs,
)

SPLITS = {"train": "-", "test": "--"}
TEMPERED = COLOURS[4]
COLUMNS = 5  # of planes at most; more are in blocks of 4
OUTLINE = [withStroke(linewidth=2, foreground="0.2")]  # of lines over any colour

KINDS = {  # of planes through the ends and a third point
    "curve": "trained curve",
    "aligned_curve": "aligned, trained curve",
    "minima": "three minima",
    "aligned_minima": "three aligned minima",
}


def connectivity(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """The loss on every rung of the ladder of paths between pairs of seeds, model by model."""
    path = at_shown_point(tables["connectivity_path"], experiment)
    if path.empty:
        return nothing(style, "no pair of seeds is connected")
    cells, rungs = present_cells(path, experiment), present_rungs(path)
    loss = labelled("loss", units_of(style))
    height = 1.0 if len(cells) > 3 else 1.4
    figure, axes = axes_grid(style, len(cells), len(rungs), height, sharex=True, sharey="row")
    for row, cell in zip(axes, cells, strict=True):
        for axis, rung in zip(row, rungs, strict=True):
            rows = of_cell(path, cell)
            _draw_paths(axis, rows[rows["rung"] == rung])
        _loss_axis(row[0], of_cell(path, cell)["loss"])
        row[0].set_ylabel(cell_name(cell, experiment).replace(", ", "\n") + f"\n{loss}")
    for axis, rung in zip(axes[0], rungs, strict=True):
        axis.set_title(textwrap.fill(RUNGS[rung], 14))
    for axis in axes[-1]:
        axis.set_xlabel("position t")
    axes[0, 0].set_xlim(0, 1)
    axes[0, 0].set_xticks([0, 0.5, 1], ["0", "½", "1"])
    handles = [Line2D([], [], color=COLOURS[0], ls=dash) for dash in SPLITS.values()]
    handles.append(Line2D([], [], color=TEMPERED))
    is_tempered = path["tempered_loss"].notna().any() or path["loss"].isna().all()
    names = [
        *SPLITS,
        "train, at the best temperature" + ("" if is_tempered else " (not available)"),
    ]
    figure.legend(handles, names, loc="outside upper center", ncols=3)
    pairs = path.groupby(["model", "optimizer"]).apply(lambda rows: pair_names(rows).nunique())
    note = (
        f"At {points_of(path)}; disjoint pairs of seeds per model: {span(pairs)}. Thin: single "
        "pairs, on the samples of their first seed; thick: their mean. Number: barrier on "
        f"{labelled('the train split', units_of(style))}, the mean over pairs of each one's "
        "highest rise above the chord "
        "between its ends."
    )
    return with_note(figure, style, note)


def _draw_paths(axis: Axes, rows: pd.DataFrame) -> None:
    """All paths of one cell and rung, their means, their mean barrier, and who has none."""
    for split, dash in SPLITS.items():
        curves = _whole(rows[rows["split"] == split], "loss")
        for curve in curves:
            axis.plot(*curve, dash, color=COLOURS[0], lw=0.4, alpha=0.5)
        if curves:
            axis.plot(curves[0][0], np.mean(curves, axis=0)[1], dash, color=COLOURS[0], lw=1.3)
    train = rows[rows["split"] == "train"]
    tempered = _whole(train, "tempered_loss")
    if tempered:
        axis.plot(tempered[0][0], np.mean(tempered, axis=0)[1], color=TEMPERED, lw=0.9)
    every = pair_names(rows).nunique()
    missing = [
        status if len(pairs) == every else f"{status}: {', '.join(pairs)}"
        for status, pairs in missing_pairs(train, "loss").items()
    ]
    axis.text(
        *(0.03, 0.97, "\n".join(missing)),
        va="top",
        fontsize="x-small",
        color="#B00020",
        transform=axis.transAxes,
    )
    curves = _whole(train, "loss")
    if curves:
        height = np.mean([_height(*curve) for curve in curves])
        axis.text(
            *(0.97, 0.97, f"{height:.2g}" if height < 1 else f"{height:.2f}"),
            ha="right",
            va="top",
            fontsize="x-small",
            transform=axis.transAxes,
        )


def _loss_axis(axis: Axes, losses: pd.Series) -> None:
    """A logarithmic axis, at most four decades long, with room for a number above the curves."""
    axis.set_yscale("log")
    highest, lowest = losses.max(), losses[losses > 0].min()
    if not highest > 0:
        axis.set_yticks([])
        return
    axis.set_ylim(max(lowest, highest / 1e4) / 1.5, 5 * highest)
    plain_log(axis.yaxis)
    if axis.get_ylim()[1] / axis.get_ylim()[0] >= 1e2:
        axis.yaxis.set_major_locator(LogLocator(numticks=9))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.yaxis.set_minor_locator(NullLocator())


def _whole(rows: pd.DataFrame, quantity: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """t and the quantity of every pair that has it all the way."""
    paths = [part for _, part in rows.groupby(pair_names(rows), sort=False)]
    found = [(part["t"].to_numpy(), part[quantity].to_numpy()) for part in paths]
    return [(t, values) for t, values in found if np.isfinite(values).all()]


def _height(t: np.ndarray, values: np.ndarray) -> float:
    """The barrier: max over t (T,) of L(t) - ((1 - t) L(0) + t L(1))."""
    return float(np.max(values - ((1 - t) * values[0] + t * values[-1])))


def pair_planes(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Contours of the loss on planes through two minima and a third, or a curve's midpoint."""
    point = experiment["connected_points"][-1]
    shown = _first_pairs(files, experiment)
    if not shown:
        return nothing(style, "no pair of seeds is connected")
    groups = {
        (cell, kind): store.read(path, f"{point}/{kind}")
        for cell, path in shown.items()
        for kind in (store.subgroups(path, point) if point in store.subgroups(path) else [])
    }
    found = {key: group for key, group in groups.items() if group.attributes["status"] == "ok"}
    kinds = [kind for kind in KINDS if any(kind == key for _, key in found)] or ["curve"]
    aspects = [_aspect(found, kind) for kind in kinds]
    columns = len(shown) if len(shown) <= COLUMNS else 4
    figure, axes = _planes_grid(style, len(shown), columns, aspects)
    norm = loss_norm([group.variables["loss"].values for group in found.values()])
    filled = None
    for column, (cell, path) in zip(axes, shown.items(), strict=False):
        for axis, kind, aspect in zip(column, kinds, aspects, strict=True):
            if (cell, kind) in found:
                group = found[cell, kind]
                filled = contours(axis, group, group.variables["loss"].values, norm) or filled
                _draw_corners(axis, group.variables["corners"].values, is_curve="curve" in kind)
                axis.set_aspect("equal")  # both axes are distances
                for side in (axis.xaxis, axis.yaxis):
                    side.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
            else:
                axis.set(xticks=[], yticks=[], box_aspect=aspect)
                axis.spines[:].set_visible(False)
                reason = _reason(path, point, kind)
                axis.text(0.5, 0.5, reason, ha="center", va="center", color="#B00020")
        column[0].set_title(cell_name(cell, experiment))
        column[-1].set_xlabel("distance" if (cell, kinds[-1]) in found else "")
    for first in axes[: len(shown) : columns]:
        for axis, kind in zip(first, kinds, strict=True):
            axis.set_ylabel(textwrap.fill(KINDS[kind], 9) + "\ndistance")
    for axis in axes[len(shown) :].flat:
        axis.remove()
    if filled:
        colorbar(figure, filled, figure.axes, units_of(style))
    identity = store.attributes(next(iter(shown.values())))
    note = (
        f"At {point}; one pair of each model: seeds {identity['seed_a']} (circle) and "
        f"{identity['seed_b']} (square)"
    )
    drawn = {kind for _, kind in found}
    note += "; diamond: the trained midpoint" if drawn & {"curve", "aligned_curve"} else ""
    note += "; triangle: a third seed" if drawn & {"minima", "aligned_minima"} else ""
    note += "." + (
        " Solid: the curve, in its plane; dashed:" if "; diamond" in note else " Dashed:"
    )
    note += (
        " straight lines. Axes: distance in parameter space from the first minimum, along the line "
        "to the second and across."
    )
    return with_note(figure, style, note)


def _planes_grid(
    style: Mapping, cells: int, columns: int, aspects: Sequence[float]
) -> tuple[Figure, np.ndarray]:
    """A figure and its axes (cell, kind), with rows as high as planes of these aspects."""
    blocks = -(-cells // columns)
    width = 1.7 * style["column_width"] / columns  # of a panel, inches
    heights = [min(width, 1.8) * min(aspect, 1.5) + 0.4 for aspect in aspects]
    rows = blocks * len(heights)
    figure, axes = axes_grid(
        style, rows, columns, height=sum(heights) / len(heights), height_ratios=heights * blocks
    )
    by_block = axes.reshape(blocks, len(heights), columns)
    return figure, by_block.swapaxes(1, 2).reshape(-1, len(heights))


def _aspect(found: Mapping, kind: str) -> float:
    """Height / width of the highest plane of this kind."""
    spans = [
        [np.ptp(group.variables[name].values) for name in ("beta", "alpha")]
        for (_, other), group in found.items()
        if other == kind
    ]
    return max((height / width for height, width in spans), default=0.5)


def _first_pairs(files: Files, experiment: Mapping) -> dict[tuple[str, str], Path | str]:
    """(model, optimizer) -> the file of its pair, in the experiment's order."""
    found: dict[tuple[str, str], Path | str] = {}
    for path in files:
        attributes = store.attributes(path)
        found.setdefault((attributes["model"], attributes["optimizer"]), path)
    return {cell: found[cell] for cell in cells_of(experiment) if cell in found}


def _reason(path: Path | str, point: str, kind: str) -> str:
    """Why a pair has no plane of this kind."""
    if point not in store.subgroups(path):
        return "not measured"
    status = store.read(path, point, ()).attributes["status"]
    if status != "ok":
        return status
    if kind not in store.subgroups(path, point):
        return "needs three seeds"
    return store.read(path, f"{point}/{kind}", ()).attributes["status"]


def _draw_corners(axis: Axes, corners: np.ndarray, *, is_curve: bool) -> None:
    """The three points (3, 2) of a plane, and the curve or the sides of the triangle."""
    a, b, third = corners
    if is_curve:
        t = np.linspace(0, 1, 61)[:, None]
        curve = (1 - t) ** 2 * a + 2 * t * (1 - t) * third + t**2 * b
        axis.plot(*curve.T, color="white", lw=1.2, path_effects=OUTLINE)
    straight = [a, b] if is_curve else [a, b, third, a]
    axis.plot(*np.array(straight).T, "--", color="white", lw=0.9, path_effects=OUTLINE)
    for corner, marker in zip(corners, ("o", "s", "D" if is_curve else "^"), strict=True):
        axis.plot(*corner, marker, color="white", mec="black", mew=0.5, ms=4)
