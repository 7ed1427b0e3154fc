"""Curvature against the width of the network, with the slope per doubling."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lossgeo.plots.panels import (
    COLOURS,
    MARKERS,
    Files,
    Tables,
    axes_grid,
    in_order,
    intervals,
    labelled,
    name_missing,
    plain_log,
    rows_at,
    rows_of,
    seeds_note,
    units_of,
    with_note,
)
from lossgeo.plots.rungs import nothing
from lossgeo.plots.widths import models_of_widths
from lossgeo.statistics import Interval, mean_interval

QUANTITIES = ("eigenvalue", "filter_curvature", "effective_rank")
RUN = ["model", "family", "width", "optimizer", "seed", "point", "status"]


def curvature_by_width(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Largest eigenvalue, filter-normalised curvature and participation ratio, family by family.

    One row of panels for each point of the experiment.
    """
    runs = _runs(tables, experiment)
    models, others = models_of_widths(runs)
    runs = runs[runs["model"].isin(models)]
    if runs.groupby("family")["width"].nunique().max() < 2:
        return nothing(style, "no run of another width of a family was measured")
    points = [point for point in experiment["points"] if point in set(runs["point"])]
    figure, axes = axes_grid(
        style, len(points), len(QUANTITIES), height=2.5, sharex=True, sharey="col"
    )
    families = in_order(runs["family"])
    for row, point in zip(axes, points, strict=True):
        at = rows_at(runs, point)
        for axis, quantity in zip(row, QUANTITIES, strict=True):
            for number, family in enumerate(families):
                part = at[at["family"] == family]
                _draw(axis, part, quantity, number, family, style)
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.xaxis.set_major_locator(FixedLocator(sorted(runs["width"].unique())))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.tick_params("x", rotation=45)
            axis.legend(
                loc="lower center",
                bbox_to_anchor=(0.5, 0.98),
                fontsize="x-small",
                handlelength=1.2,
                borderpad=0.1,
            )
        row[0].set_title(f"at {point}", loc="left", pad=8 + 7 * len(families), fontsize="medium")
        name_missing(row[0], at, "eigenvalue")
    units = units_of(style)
    names = (
        labelled("largest eigenvalue λ₁", units, "\n"),
        labelled("E[d′Hd], filter-\nnormalised d", units),
        "participation ratio\nof the spectrum",
    )
    for column, name in zip(axes.T, names, strict=True):
        for axis in column:
            axis.set_ylabel(name)
        plain_log(column[0].yaxis)
    for axis in axes[-1]:
        axis.set_xlabel("width (units, or channels)")
    note = (
        "×: change with each doubling of the width, of each seed's straight line through the "
        f"logarithms; with its {100 * style['confidence']:g} % t interval over the n seeds that "
        "have all widths. Small: single runs. " + seeds_note(runs, style, log=True)
    )
    return with_note(figure, style, note + others)


def slope(rows: pd.DataFrame, quantity: str, level: float) -> Interval:
    """The factor by which a quantity changes with each doubling of the width.

    By seed, exp of the least-squares slope of log(quantity) against log2(width); then the geometric
    mean over the seeds that have all widths, and positive values there. NaN for a single width.
    """
    table = rows.pivot_table(index="seed", columns="width", values=quantity, dropna=False)
    logs = np.log(table.where(table > 0)).dropna()
    x = np.log2(table.columns.to_numpy(float))
    if len(x) < 2:
        return mean_interval(np.array([]), level)
    centred = x - x.mean()
    slopes = logs.to_numpy() @ centred / (centred**2).sum()
    return mean_interval(np.exp(slopes), level, log=True)


def _runs(tables: Tables, experiment: Mapping) -> pd.DataFrame:
    """One row per run and point with its curvatures; eigenvalues only where they converged."""
    top = rows_of(tables["eigenvalues"], experiment)
    top = top[(top["matrix"] == "hessian") & (top["end"] == "top") & (top["rank"] == 1)]
    top = top.assign(eigenvalue=top["eigenvalue"].where(top["converged"].astype(bool)))
    curvature = rows_of(tables["curvature"], experiment)
    found = top[[*RUN, "eigenvalue"]].merge(
        curvature[[*RUN, "filter_curvature", "effective_rank"]], on=RUN, how="outer", sort=False
    )
    lost = (found["status"] == "ok") & found["eigenvalue"].isna()
    found["status"] = found["status"].mask(lost, "not converged")
    order = {model: number for number, model in enumerate(experiment["models"])}
    return found.sort_values(
        ["model", "seed"], key=lambda c: c.map(order) if c.name == "model" else c
    )


def _draw(
    axis: Axes, rows: pd.DataFrame, quantity: str, number: int, family: str, style: Mapping
) -> None:
    """One family: single runs, geometric means with intervals, and the slope in the legend."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    rows = rows[rows[quantity] > 0]
    axis.plot(rows["width"] / 1.06, rows[quantity], marker, color=colour, ms=2.5, mew=0, alpha=0.4)
    mean = intervals(rows, "width", quantity, style, log=True)
    if mean.empty:
        return
    bars = np.abs(mean[["low", "high"]].to_numpy().T - mean["mean"].to_numpy())
    name = family.upper() if family in ("mlp", "cnn") else family
    axis.errorbar(
        mean.index,
        mean["mean"],
        np.nan_to_num(bars),
        fmt=f"{marker}-",
        color=colour,
        capsize=2,
        ms=4,
        label=f"{name}{_in_words(slope(rows, quantity, style['confidence']))}",
    )


def _in_words(factor: Interval) -> str:
    if not factor.n:
        return ""
    interval = f" [{factor.low:.2f}, {factor.high:.2f}]" if factor.n > 1 else ""
    return f" × {factor.mean:.2f}{interval}, n = {factor.n}"
