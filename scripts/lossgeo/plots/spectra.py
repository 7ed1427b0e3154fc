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
    labelled,
    legend_of_all,
    name_missing,
    panels_of,
    plain_log,
    rows_at,
    rows_of,
    seeds_note,
    seeds_of,
    span,
    title_and_legend,
    units_of,
    with_note,
)
from lossgeo.quadrature import cumulative_bounds, density

LINEAR = 0.1  # in the loss's units; spectra are linear within it and logarithmic beyond
DENSITY_WIDTH = 0.1  # of the Gaussian that smooths spectra, in asinh(lambda / LINEAR)


def spectra(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Spectral density of the Hessian, and how many eigenvalues lie beyond every value.

    The density is of x = asinh(lambda / LINEAR), linear within LINEAR and logarithmic beyond, and
    smoothed in x: one width serves the bulk at 0 and outliers a thousand times as large. What it
    shows between the quadrature's nodes is the smoothing. The counts below it are bounds (see
    `quadrature.cumulative_bounds`), and exact steps where eigenvalues have converged.
    """
    point = experiment["points"][-1]
    nodes = rows_at(rows_of(tables["spectrum"], experiment), point)
    values = rows_at(rows_of(_hessian(tables), experiment), point)
    panels = panels_of(nodes, experiment)
    figure, axes = axes_grid(style, 2, len(panels), height=1.9, sharex="col", sharey="row")
    for (above, below), (title, series) in zip(axes.T, panels.items(), strict=True):
        for label, colour, rows in series:
            finite = rows[np.isfinite(rows["node"])]
            if finite.empty:
                continue
            runs = [part for _, part in finite.groupby(["seed", "probe"])]
            most = max(map(len, runs))
            quadrature = [
                _padded([part[name].to_numpy() for part in runs], most)
                for name in ("node", "weight")
            ]
            ends = np.arcsinh(np.array([finite["node"].min(), finite["node"].max()]) / LINEAR)
            reach = ends + np.array([-4, 4]) * DENSITY_WIDTH
            draw_density(above, *quadrature, np.linspace(*reach, 800), colour, label)
            parameters = int(rows["parameters"].iloc[0])
            grid = LINEAR * np.sinh(np.linspace(*reach, 300))
            _counts(below, *quadrature, grid, parameters, colour)
            extremes = values[
                values["model"].isin(rows["model"].unique())
                & values["optimizer"].isin(rows["optimizer"].unique())
            ]
            found = extremes[extremes["converged"].astype(bool)]["eigenvalue"]
            above.plot(found, np.full(len(found), 2e-7), "|", color=colour, ms=4, alpha=0.6)
            for end in ("top", "bottom"):
                _exact_counts(below, extremes[extremes["end"] == end], colour)
        above.set(yscale="log", ylim=(1e-7, 10))
        below.set(yscale="log", ylim=(0.4, 2 * nodes["parameters"].max()))
        below.yaxis.set_minor_locator(NullLocator())
        scale_of_eigenvalues(below)
        below.set_xlabel(labelled("eigenvalue λ", units_of(style)))
        title_and_legend(above, title)
        name_missing(above, pd.concat([rows for *_, rows in series]), "node")
    axes[0, 0].set_ylabel(f"density of asinh(λ / {LINEAR:g})")
    axes[1, 0].set_ylabel("eigenvalues beyond λ")
    probes = nodes.groupby("seed")["probe"].nunique().max()
    note = (
        f"At {point}; mean over {span(seeds_of(nodes))} seeds, probes of each: {probes}. Top: "
        f"smoothed by a Gaussian of width {DENSITY_WIDTH:g} in asinh(λ / {LINEAR:g}); ticks: "
        "converged eigenvalues. Bottom: number above λ > 0 and below λ < 0; bands: "
        "Chebyshev-Markov-Stieltjes bounds, which hold for the probes' own spectra; a probe "
        "counts n eigenvalues as n ± √(2n) at most. Lines: converged eigenvalues, counted exactly."
    )
    return with_note(figure, style, note)


def scale_of_eigenvalues(axis: Axes) -> None:
    """An x axis of what is drawn, linear within LINEAR and logarithmic beyond."""
    axis.set_xscale("asinh", linear_width=LINEAR)
    low, high = np.arcsinh(np.array(axis.get_xlim()) / LINEAR)
    inches = axis.bbox.width / axis.figure.dpi
    near = [-LINEAR, LINEAR] if inches * np.arcsinh(1) / (high - low) > 0.25 else []
    axis.xaxis.set_major_locator(FixedLocator([-10, -1, *near, 0, 1, 10, 100, 1000]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_locator(NullLocator())


def draw_density(
    axis: Axes,
    nodes: np.ndarray,
    weights: np.ndarray,
    grid: np.ndarray,
    colour: str,
    label: str,
) -> None:
    """The density of asinh(lambda / LINEAR) at the points of the grid (G,)."""
    curve = density(np.arcsinh(nodes / LINEAR), weights, grid, DENSITY_WIDTH)
    axis.plot(LINEAR * np.sinh(grid), curve, color=colour, label=label)


def _counts(
    axis: Axes,
    nodes: np.ndarray,
    weights: np.ndarray,
    grid: np.ndarray,
    parameters: int,
    colour: str,
) -> None:
    """A band between the bounds on the number of eigenvalues beyond each point of the grid (G,)."""
    for sign in (-1, 1):
        side = np.unique(-np.abs(grid[sign * grid > 0]))
        if len(side):
            bounds = cumulative_bounds(-sign * nodes, weights, side)
            low, high = (parameters * bound for bound in bounds)
            axis.fill_between(-sign * side, low, high, color=colour, alpha=0.3, lw=0.4)


def _exact_counts(axis: Axes, rows: pd.DataFrame, colour: str) -> None:
    """Steps of the mean count over seeds of converged eigenvalues, from the extreme one inwards.

    As far as every seed has them: to the eigenvalue before the first that has not converged.
    """
    runs = []
    for _, run in rows.sort_values("rank").groupby("seed"):
        known = np.cumprod(run["converged"].astype(bool)).astype(bool)
        runs.append(run["eigenvalue"][known].to_numpy())
    runs = [values for values in runs if len(values)]
    if not runs:
        return
    sign = 1 if rows["end"].iloc[0] == "top" else -1
    inner = max(sign * values[-1] for values in runs)
    if inner <= 0:
        return
    steps = np.sort(np.concatenate([sign * values for values in runs]))[::-1]
    steps = steps[steps >= inner]
    counts = np.arange(1, len(steps) + 1) / len(runs)
    axis.step(sign * steps, counts, where="post", color=colour, lw=1.2)


def eigenvalues(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Sharpness by several measures: against width, or against the optimizer.

    The largest eigenvalue of the Hessian, of the Gauss-Newton matrix and, where there is one,
    of the preconditioned Hessian, as far as the table has them; trace; curvature along random
    filter-normalised directions.
    """
    top = rows_of(tables["eigenvalues"], experiment)
    top = top[(top["end"] == "top") & (top["rank"] == 1)]
    top = top.rename(columns={"eigenvalue": "value", "eigenvalue_se": "se"})
    curvature = rows_of(tables["curvature"], experiment).assign(converged=True)
    hessian = top[top["matrix"] == "hessian"]
    units = units_of(style)
    quantities = {
        labelled("λ₁ of the Hessian", units, "\n"): hessian,
        labelled("λ₁ of Gauss-Newton", units, "\n"): top[top["matrix"] == "gauss_newton"],
        "λ₁ of the\npreconditioned H": top[top["matrix"] == "preconditioned"],
        labelled("trace", units, "\n"): curvature.rename(
            columns={"trace": "value", "trace_se": "se"}
        ),
        labelled("E[d′Hd], filter-\nnormalised d", units): curvature.rename(
            columns={"filter_curvature": "value", "filter_curvature_se": "se"}
        ),
    }
    ceilings = dict(
        zip(
            quantities,
            (experiment["ceilings"], {}, experiment.get("preconditioned_ceilings", {}), {}, {}),
            strict=True,
        )
    )
    quantities = {
        name: frame
        for number, (name, frame) in enumerate(quantities.items())
        if number in (0, 3) or np.isfinite(frame["value"]).any()
    }
    points = [p for p in experiment["points"] if p in set(hessian["point"])]
    by_width = len(experiment["optimizers"]) == 1 and (hessian["width"] > 0).all()
    figure, axes = axes_grid(
        style, len(quantities), len(points), height=1.3, sharex=True, sharey="row"
    )
    groups = (
        in_order(hessian["family"])
        if by_width
        else [m for m in experiment["models"] if m in set(hessian["model"])]
    )
    for row, (name, frame) in zip(axes, quantities.items(), strict=True):
        for axis, point in zip(row, points, strict=True):
            at = frame[frame["point"] == point]
            for number, group in enumerate(groups):
                colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
                part = at[at["family" if by_width else "model"] == group]
                part = part.assign(
                    x=part["width"].astype(float)
                    if by_width
                    else part["optimizer"].map(experiment["optimizers"].index)
                    + 0.6 * (number - (len(groups) - 1) / 2) / len(groups)
                )
                _estimates(axis, part, colour, marker, group, style, join=by_width)
            _draw_ceilings(axis, ceilings[name], None if by_width else experiment["optimizers"])
            axis.set_yscale("log")
            first = row[0] is axes[0, 0]  # it names what was not reached, for all rows
            name_missing(axis, at if first else at[at["status"] == "ok"], "value")
            count_nonpositive(axis, at["value"])
        row[0].set_ylabel(name)
    for row in axes:
        plain_log(row[0].yaxis)
    for axis, point in zip(axes[0], points, strict=True):
        axis.set_title(f"at {point}")
    for axis in axes[-1]:
        if by_width:
            axis.set_xscale("log", base=2)
            axis.xaxis.set_major_locator(FixedLocator(sorted(hessian["width"].unique())))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.xaxis.set_minor_locator(NullLocator())
        else:
            axis.set_xticks(range(len(experiment["optimizers"])), experiment["optimizers"])
            axis.tick_params("x", rotation=20)
            axis.set_xlim(-0.5, len(experiment["optimizers"]) - 0.5)
        axis.set_xlabel("width (hidden units, or channels)" if by_width else "optimizer")
    legend_of_all(figure, groups)
    note = (
        seeds_note(hessian, style, log=True) + " Bars of single runs: standard error over samples. "
        "Hollow: not converged, not in the mean."
    )
    if any(ceilings[name] for name in quantities):
        note += (
            " Dotted: the largest eigenvalue at which full-batch training with these "
            "hyperparameters is stable; the runs use mini-batches."
        )
    return with_note(figure, style, note)


def _draw_ceilings(axis: Axes, ceilings: Mapping, optimizers: list[str] | None) -> None:
    """Dotted lines, each over its optimizer's tick, or over the whole panel without a list."""
    for optimizer, ceiling in ceilings.items():
        if optimizers is None:
            axis.axhline(ceiling, color="0.5", ls=":", lw=0.9)
        else:
            place = optimizers.index(optimizer)
            axis.hlines(ceiling, place - 0.4, place + 0.4, color="0.5", ls=":", lw=0.9)
    if ceilings:
        axis.plot([], [], color="0.5", ls=":", lw=0.9, label="full-batch stability")


def _hessian(tables: Tables) -> pd.DataFrame:
    """The rows of the Hessian itself among those of other matrices."""
    return tables["eigenvalues"][tables["eigenvalues"]["matrix"] == "hessian"]


def ladder(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Largest eigenvalue against the number of samples it is measured on."""
    frame = rows_of(tables["ladder"], experiment)
    frame = frame[frame["rank"] == 1]
    published = tables.get("published", frame.iloc[:0])
    points = [p for p in experiment["points"] if p in set(frame["point"])]
    panels = {point: panels_of(rows_at(frame, point), experiment) for point in points}
    columns = max(map(len, panels.values()))
    figure, axes = axes_grid(style, len(points), columns, height=2.2, sharex=True, sharey=True)
    for row, point in zip(axes, points, strict=True):
        for axis, (title, series) in zip(row, panels[point].items(), strict=False):
            axis.set(xscale="log", yscale="log")
            for number, (label, colour, rows) in enumerate(series):
                beside = 1.04 ** (number - (len(series) - 1) / 2)
                for converged, fill in ((True, colour), (False, "none")):
                    some = rows[rows["converged"] == converged]
                    axis.errorbar(
                        beside * some["samples"],
                        some["eigenvalue"],
                        some["eigenvalue_se"],
                        fmt="o",
                        color=colour,
                        mfc=fill,
                        ms=2,
                        elinewidth=0.4,
                        alpha=0.4,
                    )
                per_seed = rows[rows["converged"]].groupby(["seed", "samples"])["eigenvalue"]
                means = per_seed.mean().reset_index()  # over subsets: of those, the expectation
                mean = intervals(means, "samples", "eigenvalue", style, log=True)
                if mean.empty:
                    continue
                axis.plot(mean.index, mean["mean"], "-", color=colour, label=label)
                axis.fill_between(mean.index, mean["low"], mean["high"], color=colour, alpha=0.15)
                runs = rows[["model", "optimizer"]].drop_duplicates()
                _published(axis, rows_at(published.merge(runs), point), beside, colour)
            axis.xaxis.set_major_locator(FixedLocator(sorted(frame["samples"].unique())))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.tick_params("x", rotation=45)
            title_and_legend(axis, f"{title} at {point}")
            shown = pd.concat([rows for *_, rows in series])
            name_missing(axis, shown, "eigenvalue")
            count_nonpositive(axis, shown["eigenvalue"])
        row[0].set_ylabel(labelled("largest eigenvalue λ₁", units_of(style)))
        for axis in row[len(panels[point]) :]:
            axis.remove()
    plain_log(axes[0, 0].yaxis)
    for axis in axes[-1, : len(panels[points[-1]])]:
        axis.set_xlabel("samples")
    note = (
        f"Dots: disjoint subsets of the {frame['split'].iloc[0]} split, the same for all models "
        "and optimizers of a seed; bars: standard error over samples; hollow: not converged, not "
        "in the mean. " + seeds_note(frame, style, log=True)
    )
    if len(rows_of(published, experiment)):
        note += (
            " Stars: the published estimator on test mini-batches of that size; geometric mean and "
            "range over seeds."
        )
    return with_note(figure, style, note)


def _published(axis: Axes, rows: pd.DataFrame, beside: float, colour: str) -> None:
    """The published estimator: a star at the size of its batches, with its range over seeds."""
    values = rows["eigenvalue"].to_numpy()
    values = values[np.isfinite(values) & (values > 0)]
    if len(values):
        centre = np.exp(np.log(values).mean())
        axis.errorbar(
            beside * rows["samples"].iloc[0],
            centre,
            np.abs([[values.min() - centre], [values.max() - centre]]),
            fmt="*",
            color=colour,
            mec="black",
            mew=0.4,
            ms=7,
            elinewidth=1,
            zorder=3,
        )


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
    """Every seed as a small marker and the geometric mean with its interval as a large one.

    Means that are not joined by a line stand beside their seeds, which would hide short intervals.
    """
    beside = 0.0 if join else 0.09
    for converged, fill in ((True, colour), (False, "none")):
        some = part[part["converged"] == converged]
        axis.errorbar(
            some["x"] - beside,
            some["value"],
            some["se"],
            fmt=marker,
            color=colour,
            mfc=fill,
            ms=2.5,
            alpha=0.5,
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
