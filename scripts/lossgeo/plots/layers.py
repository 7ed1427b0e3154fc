"""The Hessian layer by layer."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossgeo.plots.panels import (
    Files,
    Tables,
    axes_grid,
    count_nonpositive,
    in_order,
    intervals,
    labelled,
    name_missing,
    panels_of,
    rows_at,
    rows_of,
    seeds_note,
    title_and_legend,
    units_of,
    with_note,
)

QUANTITIES = {"trace": "trace", "eigenvalue": "largest\neigenvalue"}


def layer_curvature(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Trace and largest eigenvalue of each layer's block of the Hessian, in the layers' order."""
    point = experiment["points"][-1]
    frame = rows_at(rows_of(tables["layer_curvature"], experiment), point)
    panels = panels_of(frame, experiment)
    figure, axes = axes_grid(style, 2, len(panels), height=1.6, sharex="col", sharey="row")
    for column, (title, series) in zip(axes.T, panels.items(), strict=True):
        every = pd.concat([rows for *_, rows in series])
        layers = in_order(every["layer"])
        for axis, quantity in zip(column, QUANTITIES, strict=True):
            for number, (label, colour, rows) in enumerate(series):
                shift = 0.6 * (number - (len(series) - 1) / 2) / len(series)
                at = rows.assign(x=rows["layer"].map(layers.index) + shift)
                _runs_and_mean(axis, at, quantity, colour, label, style)
            axis.set_yscale("log")
            count_nonpositive(axis, every[quantity])
        name_missing(column[0], every, "trace")
        name_missing(column[1], every[every["status"] == "ok"], "eigenvalue")
        title_and_legend(column[0], title)
        names = [name or "(the model)" for name in layers]
        column[1].set_xticks(range(len(layers)), names, rotation=30, ha="right")
    for axis, label in zip(axes[:, 0], QUANTITIES.values(), strict=True):
        axis.set_ylabel(labelled(label, units_of(style)))
    note = (
        f"At {point}. Small: runs, with standard errors over the samples; rings: not converged. "
        f"{seeds_note(frame, style, log=True)}"
    )
    return with_note(figure, style, note)


def _runs_and_mean(
    axis: Axes, rows: pd.DataFrame, quantity: str, colour: str, label: str, style: Mapping
) -> None:
    """Single runs, and their geometric mean with its interval, at each x."""
    good = rows[np.isfinite(rows[quantity]) & (rows[quantity] > 0)]
    if good.empty:
        return
    small = {"ms": 2, "lw": 0.6, "color": colour, "alpha": 0.5}
    axis.errorbar(good["x"], good[quantity], good[f"{quantity}_se"], fmt="o", **small)
    if quantity == "eigenvalue":
        left = good[~good["converged"].astype(bool)]
        axis.plot(left["x"], left[quantity], "o", ms=5, mfc="none", color=colour)
    mean = intervals(good, "x", quantity, style, log=True)
    spread = [mean["mean"] - mean["low"], mean["high"] - mean["mean"]]
    spread = np.nan_to_num(spread).clip(0)
    axis.errorbar(mean.index, mean["mean"], spread, fmt="D", ms=3.5, color=colour, label=label)
