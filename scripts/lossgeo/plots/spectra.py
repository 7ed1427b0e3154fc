"""The Hessian: spectral density, extreme eigenvalues, trace, and the ladder of samples."""

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
    count_nonpositive,
    in_order,
    intervals,
    name_missing,
    panels_of,
    plain_log,
    rows_at,
    rows_of,
    seeds_note,
    title_and_legend,
    with_note,
)
from lossgeo.quadrature import density

LINEAR = 0.1  # nats; spectra are linear within it and logarithmic beyond
DENSITY_WIDTH = 0.1  # of the Gaussian that smooths spectra, in asinh(lambda / LINEAR)


def spectra(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Spectral density of the Hessian, and its extreme eigenvalues as ticks.

    The density is of x = asinh(lambda / LINEAR), linear within LINEAR and logarithmic beyond, and
    smoothed in x: one width serves the bulk at 0 and outliers a thousand times as large.
    """
    point = experiment["points"][-1]
    nodes = rows_at(rows_of(tables["spectrum"], experiment), point)
    values = rows_at(rows_of(tables["eigenvalues"], experiment), point)
    panels = panels_of(nodes, experiment)
    figure, axes = axes_grid(style, 1, len(panels), height=2.2, sharey="row")
    for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
        for label, colour, rows in series:
            finite = rows[np.isfinite(rows["node"])]
            if finite.empty:
                continue
            runs = [part for _, part in finite.groupby(["seed", "probe"])]
            most = max(map(len, runs))
            x = _padded([np.arcsinh(part["node"].to_numpy() / LINEAR) for part in runs], most)
            weights = _padded([part["weight"].to_numpy() for part in runs], most)
            reach = np.nanmin(x) - 4 * DENSITY_WIDTH, np.nanmax(x) + 4 * DENSITY_WIDTH
            grid = np.linspace(*reach, 800)
            curve = density(x, weights, grid, DENSITY_WIDTH)
            axis.plot(LINEAR * np.sinh(grid), curve, color=colour, label=label)
            extremes = values[
                (values["model"].isin(rows["model"].unique()))
                & (values["optimizer"].isin(rows["optimizer"].unique()))
            ]
            found = extremes[extremes["converged"]]["eigenvalue"]
            axis.plot(found, np.full(len(found), 2e-7), "|", color=colour, ms=4, alpha=0.6)
        axis.set_yscale("log")
        axis.set_xscale("asinh", linear_width=LINEAR)
        axis.set_ylim(1e-7, 10)
        axis.xaxis.set_major_locator(FixedLocator([-10, -1, -0.1, 0.1, 1, 10, 100, 1000]))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("eigenvalue λ (nats)")
        title_and_legend(axis, title)
        name_missing(axis, pd.concat([rows for *_, rows in series]), "node")
    axes[0, 0].set_ylabel(f"density of asinh(λ / {LINEAR:g})")
    note = (
        f"At {point}; mean over probes and {nodes['seed'].nunique()} seeds, smoothed by a Gaussian "
        f"of width {DENSITY_WIDTH:g} in asinh(λ / {LINEAR:g}); ticks: converged eigenvalues."
    )
    return with_note(figure, style, note)


def eigenvalues(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Largest eigenvalue and trace of the Hessian: against width, or against the optimizer."""
    top = rows_of(tables["eigenvalues"], experiment)
    top = top[(top["end"] == "top") & (top["rank"] == 1)]
    trace = rows_of(tables["curvature"], experiment).rename(columns={"trace": "value"})
    quantities = {
        "largest eigenvalue λ₁ (nats)": top.rename(columns={"eigenvalue": "value"}),
        "trace (nats)": trace.assign(converged=True, se=trace["trace_se"]),
    }
    points = [p for p in experiment["points"] if p in set(top["point"])]
    by_width = len(experiment["optimizers"]) == 1 and (top["width"] > 0).all()
    figure, axes = axes_grid(style, 2, len(points), height=1.8, sharex=True, sharey="row")
    groups = (
        in_order(top["family"])
        if by_width
        else [m for m in experiment["models"] if m in set(top["model"])]
    )
    for column, point in enumerate(points):
        for row, (name, frame) in enumerate(quantities.items()):
            axis = axes[row, column]
            at = frame[frame["point"] == point]
            for number, group in enumerate(groups):
                colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
                part = at[at["family" if by_width else "model"] == group]
                part = part.assign(
                    x=part["width"].astype(float)
                    if by_width
                    else part["optimizer"].map(experiment["optimizers"].index)
                    + 0.12 * (number - (len(groups) - 1) / 2)
                )
                _estimates(axis, part, colour, marker, group, style, join=by_width)
            axis.set_yscale("log")
            plain_log(axis.yaxis)
            if by_width:
                axis.set_xscale("log", base=2)
                axis.xaxis.set_major_locator(FixedLocator(sorted(at["width"].unique())))
                axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
                axis.xaxis.set_minor_locator(NullLocator())
            else:
                axis.set_xticks(range(len(experiment["optimizers"])), experiment["optimizers"])
                axis.tick_params("x", rotation=20)
                axis.set_xlim(-0.5, len(experiment["optimizers"]) - 0.5)
            if column == 0:
                axis.set_ylabel(name)
        axes[0, column].set_title(f"at {point}")
        name_missing(axes[0, column], top[top["point"] == point], "eigenvalue")
        count_nonpositive(axes[1, column], trace[trace["point"] == point]["value"])
        axes[1, column].set_xlabel("width (hidden units, or channels)" if by_width else "optimizer")
    for axis in axes[0]:
        for optimizer, ceiling in experiment["ceilings"].items():
            place = experiment["optimizers"].index(optimizer)
            if by_width:
                axis.axhline(ceiling, color="0.5", ls=":", lw=0.9)
            else:
                axis.hlines(ceiling, place - 0.4, place + 0.4, color="0.5", ls=":", lw=0.9)
    if experiment["ceilings"]:
        axes[0, 0].plot([], [], color="0.5", ls=":", lw=0.9, label="2 (1 + m) / lr")
    if axes[0, 0].get_legend_handles_labels()[0]:
        axes[0, 0].legend()
    note = (
        seeds_note(top, style) + " Hollow: not converged, not in the mean. Bars of single traces: "
        "standard error over probes."
    )
    return with_note(figure, style, note)


def ladder(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Largest eigenvalue against the number of samples it is measured on."""
    frame = rows_of(tables["ladder"], experiment)
    frame = frame[frame["rank"] == 1]
    points = [p for p in experiment["points"] if p in set(frame["point"])]
    panels = {point: panels_of(rows_at(frame, point), experiment) for point in points}
    columns = max(map(len, panels.values()))
    figure, axes = axes_grid(style, len(points), columns, height=2.2, sharex=True, sharey=True)
    for row, point in zip(axes, points, strict=True):
        for axis, (title, series) in zip(row, panels[point].items(), strict=False):
            axis.set(xscale="log", yscale="log")
            for label, colour, rows in series:
                for converged, fill in ((True, colour), (False, "none")):
                    some = rows[rows["converged"] == converged]
                    axis.plot(
                        some["samples"],
                        some["eigenvalue"],
                        "o",
                        color=colour,
                        mfc=fill,
                        ms=2,
                        alpha=0.4,
                    )
                per_seed = rows[rows["converged"]].groupby(["seed", "samples"])["eigenvalue"]
                means = per_seed.mean().reset_index()  # over subsets: of those, the expectation
                mean = intervals(means, "samples", "eigenvalue", style, log=True)
                if mean.empty:
                    continue
                axis.plot(mean.index, mean["mean"], "-", color=colour, label=label)
                axis.fill_between(mean.index, mean["low"], mean["high"], color=colour, alpha=0.15)
            axis.xaxis.set_major_locator(FixedLocator(sorted(frame["samples"].unique())))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.tick_params("x", rotation=45)
            title_and_legend(axis, f"{title} at {point}")
            shown = pd.concat([rows for *_, rows in series])
            name_missing(axis, shown, "eigenvalue")
            if np.isfinite(shown["eigenvalue"]).all():
                count_nonpositive(axis, shown["eigenvalue"])
        row[0].set_ylabel("largest eigenvalue λ₁ (nats)")
        for axis in row[len(panels[point]) :]:
            axis.remove()
    plain_log(axes[0, 0].yaxis)
    for axis in axes[-1, : len(panels[points[-1]])]:
        axis.set_xlabel("samples")
    note = (
        f"Dots: disjoint subsets of the {frame['split'].iloc[0]} split, the same for all seeds; "
        "hollow: not converged, not in the mean. " + seeds_note(frame, style)
    )
    return with_note(figure, style, note)


def _estimates(
    axis: Axes,
    part: pd.DataFrame,
    colour: str,
    marker: str,
    label: str,
    style: Mapping,
    *,
    join: bool,
) -> None:
    """Every seed as a small marker and the geometric mean with its interval as a large one."""
    for converged, fill in ((True, colour), (False, "none")):
        some = part[part["converged"] == converged]
        error = some.get("se")
        axis.errorbar(
            some["x"], some["value"], error, fmt=marker, color=colour, mfc=fill, ms=2.5, alpha=0.5
        )
    counted = part[part["converged"] & (part["value"] > 0)]
    mean = intervals(counted, "x", "value", style, log=True)
    if mean.empty:
        return
    bars = np.abs(mean[["low", "high"]].to_numpy().T - mean["mean"].to_numpy())
    axis.errorbar(
        mean.index,
        mean["mean"],
        np.nan_to_num(bars),
        fmt=f"{marker}-" if join else marker,
        color=colour,
        label=label,
        capsize=2,
        ms=5,
    )


def _padded(rows: list[np.ndarray], width: int) -> np.ndarray:
    out = np.full((len(rows), width), np.nan)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out
