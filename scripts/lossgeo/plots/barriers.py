"""Barriers between minima: by path, and by what two runs share."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from lossgeo.plots.panels import (
    COLOURS,
    MARKERS,
    Files,
    Tables,
    axes_grid,
    cell_name,
    intervals,
    legend_of_all,
    seeds_note,
    with_note,
)
from lossgeo.plots.rungs import (
    MEASURES,
    RUNG_COLOURS,
    RUNG_MARKERS,
    RUNGS,
    at_shown_point,
    barrier_axis,
    barrier_bars,
    barrier_label,
    dodged,
    missing_note,
    name_unavailable_measure,
    nothing,
    of_cell,
    pairs_note,
    points_of,
    present_cells,
    present_rungs,
    sentences,
    where,
)

SPLITS = ("train", "test")


def barriers(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """The barrier on every rung, of every model: single pairs, mean and interval."""
    means = at_shown_point(tables["barriers"], experiment)
    pairs = at_shown_point(tables["connectivity"], experiment)
    if means.empty:
        return nothing(style, "no pair of seeds is connected")
    cells, rungs = present_cells(means, experiment), present_rungs(means)
    figure, axes = axes_grid(style, len(MEASURES), len(SPLITS), 1.55, sharex=True, sharey="row")
    for row, (measure, (_, scale)) in zip(axes, MEASURES.items(), strict=True):
        for axis, split in zip(row, SPLITS, strict=True):
            for number, rung in enumerate(rungs):
                of_mean, of_pairs = (
                    where(frame, measure=measure, split=split, rung=rung)
                    for frame in (means, pairs)
                )
                shift = dodged(number, len(rungs))
                axis.plot(
                    _places(of_pairs, cells) + shift - 0.04,
                    scale * of_pairs["barrier"],
                    ".",
                    color=RUNG_COLOURS[rung],
                    ms=3,
                    mew=0,
                )
                axis.errorbar(
                    _places(of_mean, cells) + shift,
                    scale * of_mean["barrier_mean"],
                    barrier_bars(of_mean, scale),
                    fmt=RUNG_MARKERS[rung],
                    color=RUNG_COLOURS[rung],
                    elinewidth=0.8,
                    ms=3,
                    label=RUNGS[rung],
                )
            name_unavailable_measure(axis, where(pairs, measure=measure, split=split))
            for place in range(1, len(cells)):
                axis.axvline(place - 0.5, color="0.9", lw=0.5, zorder=0)
        barrier_axis(row, scale * where(means, measure=measure)["limit"].iloc[0])
        row[0].set_ylabel(barrier_label(measure, style))
    for axis, split in zip(axes[0], SPLITS, strict=True):
        axis.set_title(split)
    for axis in axes[-1]:
        names = [cell_name(cell, experiment) for cell in cells]
        axis.set_xticks(range(len(cells)), names, rotation=45, ha="right", rotation_mode="anchor")
        axis.set_xlim(-0.5, len(cells) - 0.5)
    legend_of_all(figure, ())
    note = (
        f"At {points_of(means)}. Small: single pairs. {pairs_note(means)} Dotted: the limit above "
        f"which a barrier counts. Axes are linear near 0.{missing_note(pairs, experiment)}"
    )
    return with_note(figure, style, note)


def instability(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """The barrier between runs that parted after k epochs, against k."""
    frame = at_shown_point(tables["instability"], experiment)
    if frame.empty:
        return nothing(style, "no run has a fork")
    cells = present_cells(frame, experiment)
    measures = ("loss", "error")
    figure, axes = axes_grid(style, len(measures), len(SPLITS), 1.7, sharex=True, sharey="row")
    shared = sorted(frame["shared_epochs"].unique())
    place = min(np.diff(shared), default=1)  # that all marks of one k share
    for row, measure in zip(axes, measures, strict=True):
        _, scale = MEASURES[measure]
        for axis, split in zip(row, SPLITS, strict=True):
            at = where(frame, measure=measure, split=split)
            name_unavailable_measure(axis, at)
            for number, cell in enumerate(cells):
                colour, marker = (some[number % len(some)] for some in (COLOURS, MARKERS))
                rows = of_cell(at, cell)
                rows = rows.assign(
                    x=rows["shared_epochs"] + dodged(number, len(cells), 0.2 * place),
                    barrier=scale * rows["barrier"],
                )
                beside = rows["x"] - 0.02 * place
                axis.plot(beside, rows["barrier"], ".", color=colour, ms=3, mew=0)
                mean = intervals(rows, "x", "barrier", style)
                bars = [mean["mean"] - mean["low"].clip(lower=0), mean["high"] - mean["mean"]]
                axis.errorbar(
                    mean.index,
                    mean["mean"],
                    np.nan_to_num(bars),
                    fmt=f"{marker}-",
                    color=colour,
                    capsize=2,
                    label=cell_name(cell, experiment),
                )
        barrier_axis(row, scale * where(frame, measure=measure)["limit"].iloc[0])
        row[0].set_ylabel(barrier_label(measure, style))
    for axis, split in zip(axes[0], SPLITS, strict=True):
        axis.set_title(split)
    for axis in axes[-1]:
        axis.xaxis.set_major_locator(FixedLocator(shared))
        axis.set_xlabel("shared epochs k")
    legend_of_all(figure, ())
    note = (
        f"At {points_of(frame)}: the straight line to a run with the same initialisation and first "
        f"k epochs, and another order of the data after. Small: single seeds. "
        f"{seeds_note(frame, style)} Dotted: the limit above which a barrier counts; axes are "
        f"linear near 0, bars are cut there.{_missing_forks(frame, experiment)}"
    )
    return with_note(figure, style, note)


def _missing_forks(frame: pd.DataFrame, experiment: Mapping) -> str:
    """Which forks have no barrier, under their status."""
    found: dict[str, list[str]] = {}
    frame = where(frame, measure="loss")  # where it is not finite, no measure is
    lost = frame[~np.isfinite(frame["barrier"])]
    for cell in present_cells(lost, experiment):
        for (status, seed), rows in of_cell(lost, cell).groupby(["status", "seed"]):
            every = where(of_cell(frame, cell), seed=seed)["shared_epochs"].nunique()
            epochs = sorted(rows["shared_epochs"].unique())
            which = f", k = {', '.join(map(str, epochs))}" if len(epochs) < every else ""
            status = "not finite" if status == "ok" else status
            name = f"{cell_name(cell, experiment)} (seed {seed}{which})"
            found.setdefault(status, []).append(name)
    return sentences(found)


def _places(rows: pd.DataFrame, cells: Sequence[tuple[str, str]]) -> np.ndarray:
    """Where on the axis the cells of the rows are."""
    found = zip(rows["model"], rows["optimizer"], strict=True)
    return np.array([cells.index(cell) for cell in found], dtype=float)
