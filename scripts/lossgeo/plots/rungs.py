"""The ladder of paths between two minima as figures show it: names, axes, notes on what is missing.

A path is measured between pairs of seeds that share none, so that pairs are independent and
intervals are Student's t over them. A barrier is never negative; axes of barriers are linear near 0
and logarithmic beyond, so that barriers of 0 are seen beside those of 1.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lossgeo.plots.panels import (
    COLOURS,
    MARKERS,
    axes_grid,
    cell_name,
    cells_of,
    in_order,
    labelled,
    rows_at,
    rows_of,
    span,
    units_of,
    write_on,
)

RUNGS = {
    "line": "straight line",
    "aligned": "aligned",
    "renormalised": "aligned, renormalised",
    "curve": "trained curve",
    "aligned_curve": "aligned, trained curve",
}
RUNG_COLOURS = dict(zip(RUNGS, COLOURS, strict=False))
RUNG_MARKERS = dict(zip(RUNGS, MARKERS, strict=False))
MEASURES = {  # of a barrier: its name, and its unit in the tables in that of the figures
    "loss": ("loss barrier", 1),
    "error": ("error barrier", 100),
    "tempered_loss": ("loss barrier at the\nbest temperature", 1),
}
LINEAR = 0.2  # of the limit above which barriers count: up to there their axis is linear


def barrier_label(measure: str, style: Mapping) -> str:
    """The label of an axis of barriers in this measure."""
    name, _ = MEASURES[measure]
    return labelled(name, "%" if measure == "error" else units_of(style))


def name_unavailable_measure(axis: Axes, rows: pd.DataFrame) -> None:
    """Write on the panel that no pair has this measure: error, where a loss has no classes."""
    if rows["barrier"].isna().all() and (rows["status"] == "not available").any():
        write_on(axis, "not available")


def at_shown_point(frame: pd.DataFrame, experiment: Mapping) -> pd.DataFrame:
    """The experiment's rows at the last of its connected points that has any."""
    frame = rows_of(frame, experiment)
    points = shown_points(frame, experiment)
    return rows_at(frame, points[-1]) if points else frame.iloc[:0]


def shown_points(frame: pd.DataFrame, experiment: Mapping) -> list[str]:
    """The experiment's connected points that have rows: forks, for one, have none at `matched`."""
    present = set(frame["point"]) if "point" in frame else ()
    return [point for point in experiment["connected_points"] if point in present]


def present_rungs(frame: pd.DataFrame, among: Sequence[str] = tuple(RUNGS)) -> list[str]:
    return [rung for rung in among if rung in set(frame["rung"])]


def present_cells(frame: pd.DataFrame, experiment: Mapping) -> list[tuple[str, str]]:
    """(model, optimizer) of the rows, in the experiment's order."""
    found = set(zip(frame["model"], frame["optimizer"], strict=True))
    return [cell for cell in cells_of(experiment) if cell in found]


def of_cell(frame: pd.DataFrame, cell: tuple[str, str]) -> pd.DataFrame:
    return where(frame, model=cell[0], optimizer=cell[1])


def where(frame: pd.DataFrame, **values) -> pd.DataFrame:
    """The rows in which columns have these values."""
    for column, value in values.items():
        frame = frame[frame[column] == value]
    return frame


def dodged(number: int, count: int, width: float = 0.7) -> float:
    """The shift of one of `count` marks that share a place of this width."""
    return width * (number - (count - 1) / 2) / count


def barrier_bars(rows: pd.DataFrame, scale: float = 1) -> np.ndarray:
    """Lengths (2, n) of the bars of rows of `barriers`, cut at 0: below it there is no barrier."""
    mean = rows["barrier_mean"]
    low, high = mean - rows["barrier_low"].clip(lower=0), rows["barrier_high"] - mean
    return scale * np.nan_to_num(np.stack([low, high]))


def barrier_axis(axes: Sequence[Axes], limit: float) -> None:
    """Make y the height of barriers from 0 on, with a dotted line where they begin to count.

    For panels that share it, once all is drawn.
    """
    linear = LINEAR * limit
    for axis in axes:
        axis.axhline(limit, color="0.4", ls=":", lw=0.9, zorder=0)
    axes[0].set_yscale("asinh", linear_width=linear)
    barrier_ticks(axes[0].yaxis, linear)
    highest = max(axis.dataLim.y1 for axis in axes)
    axes[0].set_ylim(-0.4 * linear, 1.5 * max(highest, 2 * limit))


def barrier_ticks(axis: Axis, linear: float) -> None:
    """0, and 1 and 3 of every decade above what is linear, as plain numbers."""
    ticks = np.outer(10.0 ** np.arange(-4, 4), [1, 3]).ravel()
    axis.set_major_locator(FixedLocator([0, *ticks[ticks >= 0.99 * linear]]))
    axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.set_minor_locator(NullLocator())


def pairs_note(barriers: pd.DataFrame) -> str:
    """What the mean is, and what its interval is of."""
    pairs = barriers.loc[barriers["pairs"] > 0, "pairs"]
    if max(pairs, default=0) < 2:
        return "One pair of seeds: no interval."
    single = " (none of a single one)" if (pairs == 1).any() else ""
    return (
        f"Mean and 95 % t interval, cut at 0, over {span(pairs)} disjoint pairs of seeds{single}."
    )


def missing_note(rows: pd.DataFrame, experiment: Mapping) -> str:
    """Which cells, rungs and pairs have no barrier, under their status; "" where all have one.

    `rows` are of the table `connectivity`. Rungs are named unless they are all that a cell has, and
    pairs as well.
    """
    rows = where(rows, measure="loss")  # where it is not finite, no measure is
    rows = rows.assign(pair=pair_names(rows))
    found: dict[str, list[str]] = {}
    for cell in present_cells(rows, experiment):
        part = of_cell(rows, cell)
        gaps: dict[tuple, list[str]] = {}
        for rung in present_rungs(part):
            for status, pairs in missing_pairs(part[part["rung"] == rung], "barrier").items():
                gaps.setdefault((status, tuple(pairs)), []).append(rung)
        for (status, pairs), rungs in gaps.items():
            which = [] if len(rungs) == part["rung"].nunique() else [RUNGS[rung] for rung in rungs]
            if len(pairs) < part["pair"].nunique():
                which.append(f"pair{'s' if len(pairs) > 1 else ''} {', '.join(pairs)}")
            name = cell_name(cell, experiment)
            found.setdefault(status, []).append(f"{name} ({'; '.join(which)})" if which else name)
    return sentences(found)


def sentences(found: Mapping[str, Sequence[str]]) -> str:
    """Each status with those that have it, as " Diverged: a, b."."""
    return "".join(f" {status.capitalize()}: {', '.join(them)}." for status, them in found.items())


def missing_pairs(rows: pd.DataFrame, quantity: str) -> dict[str, list[str]]:
    """Status -> the pairs of these rows of one cell and rung that have not all of a quantity."""
    found: dict[str, list[str]] = {}
    for pair, part in rows.groupby(pair_names(rows), sort=False):
        status = part["status"].iloc[0]
        if status == "ok" and np.isfinite(part[quantity]).all():
            continue
        found.setdefault("not finite" if status == "ok" else status, []).append(pair)
    return found


def pair_names(rows: pd.DataFrame) -> pd.Series:
    return rows["seed_a"].astype(str) + "–" + rows["seed_b"].astype(str)


def nothing(style: Mapping, reason: str) -> Figure:
    """A figure that says why it is empty."""
    figure, axes = axes_grid(style, 1, 1, height=0.8)
    axes[0, 0].set_axis_off()
    axes[0, 0].text(0.5, 0.5, reason, ha="center", transform=axes[0, 0].transAxes)
    return figure


def points_of(rows: pd.DataFrame) -> str:
    return ", ".join(in_order(rows["point"]))
