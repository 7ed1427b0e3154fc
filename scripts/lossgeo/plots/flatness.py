"""The rise of the loss under noise, and what rescalings do to measures of sharpness."""

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
    cell_name,
    cells_of,
    count_nonpositive,
    in_order,
    intervals,
    labelled,
    name_missing,
    panels_of,
    plain_log,
    rows_at,
    rows_of,
    seeds_note,
    title_and_legend,
    units_of,
    with_note,
    with_units,
)

NAMES = {  # of the measures, two lines each
    "loss": "loss",
    "eigenvalue": "largest\neigenvalue",
    "trace": "trace",
    "filter_eigenvalue": "largest,\nfilter-normalised",
    "filter_curvature": "mean d'Hd,\nfilter-normalised",
    "filter_rise": "average rise,\nfilter-normalised",
    "element_rise": "average rise,\nelement-wise",
    "worst_sam": "worst rise\n(SAM)",
    "worst_asam": "worst rise,\nelement-wise (ASAM)",
}
RESCALINGS = {
    "layer": "each hidden layer × one factor",
    "node": "each hidden unit × its own factor",
}


def flatness(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Mean rise of the loss under noise, and its ratio to what the curvature alone would give.

    Left: under normalised noise of several radii. Right: under the study's own.
    """
    point = experiment["points"][-1]
    frame = rows_at(rows_of(tables["flatness"], experiment), point)
    normalised = frame[frame["noise"] == "normalized"]
    isotropic = frame[frame["noise"] == "isotropic"]
    panels = panels_of(normalised, experiment)
    figure, axes = axes_grid(style, 2, len(panels) + 1, height=2.2)
    for column, (title, series) in enumerate(panels.items()):
        rise, ratio = axes[:, column]
        for label, colour, rows in series:
            for axis, quantity in ((rise, "rise"), (ratio, "kink_ratio")):
                _seeds(axis, rows, quantity, colour)
                mean = intervals(rows, "noise_radius", quantity, style, log=axis is rise)
                axis.plot(mean.index, mean["mean"], "o-", color=colour, label=label)
                axis.fill_between(mean.index, mean["low"], mean["high"], color=colour, alpha=0.15)
        rise.set(xscale="log", yscale="log")
        ratio.set(xscale="log", xlabel="noise radius r")
        for axis in (rise, ratio):
            axis.xaxis.set_major_locator(FixedLocator(sorted(normalised["noise_radius"].unique())))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.xaxis.set_minor_locator(NullLocator())
        rise.tick_params(labelbottom=False)
        title_and_legend(rise, title)
        rows = pd.concat([rows for *_, rows in series])
        name_missing(rise, rows, "rise")
        count_nonpositive(rise, rows["rise"])
    _share_limits(axes[0, : len(panels)])
    radius = isotropic["noise_radius"].iloc[0]
    _by_cell(axes[0, -1], isotropic, experiment, "rise", 1e4)
    units = units_of(style)
    rise = labelled("rise of the loss", with_units("10⁻⁴", units))
    axes[0, -1].set(title=f"unnormalised,\nstd {radius:g}", ylabel=rise)
    axes[0, -1].tick_params(labelbottom=False)
    _by_cell(axes[1, -1], isotropic, experiment, "kink_ratio", 1.0)
    for axis in axes[1]:
        axis.axhline(1, color="0.6", lw=0.6, zorder=0)
    _share_limits(axes[1])
    axes[0, 0].set_ylabel(labelled("rise of the loss", units))
    axes[1, 0].set_ylabel("rise / (r²/2 · d'Hd)")
    kinds = ", ".join(normalised["normalization"].unique())
    note = (
        f"At {point}; {kinds}-normalised Gaussian noise. Thick: mean over seeds (of the rise, the "
        "geometric mean); thin: single seeds, bars: standard error over "
        f"{frame['draws'].iloc[0]} directions,\neach both ways. Below: what kinks and higher "
        "orders add to the curvature (1: nothing). " + seeds_note(frame, style)
    )
    return with_note(figure, style, note)


def invariance(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Every measure of sharpness after a rescaling that keeps the function, to that before."""
    frame = tables["invariance"]
    frame = frame[frame["model"].isin(experiment["models"])]
    measures = [name for name in NAMES if name in set(frame["sharpness"])]
    figure, axes = axes_grid(style, 1, len(RESCALINGS), height=3.4, sharey=True)
    models = [name for name in experiment["models"] if name in set(frame["model"])]
    shifts = np.linspace(-0.25, 0.25, len(models)) if len(models) > 1 else [0.0]
    for axis, (rescaling, title) in zip(axes[0], RESCALINGS.items(), strict=True):
        at = frame[frame["rescaling"] == rescaling]
        axis.axvline(1, color="0.6", lw=0.6, zorder=0)
        lost = []
        for number, (model, shift) in enumerate(zip(models, shifts, strict=True)):
            rows = at[at["model"] == model].set_index("sharpness").reindex(measures)
            if not np.isfinite(rows["ratio"]).any():
                lost.append(f"{model}: {', '.join(in_order(rows['status']))}")
                continue
            axis.errorbar(
                rows["ratio"],
                np.arange(len(measures)) + shift,
                xerr=rows["ratio_se"],
                fmt=MARKERS[number % len(MARKERS)],
                color=COLOURS[number % len(COLOURS)],
                lw=0.8,
                label=model,
            )
        axis.set(xscale="log", xlabel="after / before")
        plain_log(axis.xaxis)
        axis.set_yticks(range(len(measures)), [NAMES[name] for name in measures])
        axis.grid(axis="y", color="0.93", lw=0.6)
        title_and_legend(axis, title)
        axis.text(  # on the right, where the last measure, which does not move, leaves room
            0.98,
            0.02,
            "\n".join(lost),
            transform=axis.transAxes,
            ha="right",
            fontsize="x-small",
            color="#B00020",
        )
    axes[0, 0].invert_yaxis()
    points = ", ".join(in_order(frame["point"]))
    factor = ", ".join(f"{value:g}" for value in frame["factor"].unique())
    note = (
        f"At {points} of each model's first run (one seed). The network computes the same function "
        f"before and after; layers × {factor}, units × a random factor\nbetween 1/{factor} and "
        f"{factor}. Bars: standard error over the samples, paired. A measure off 1 depends on how "
        "the function is written down."
    )
    return with_note(figure, style, note)


def _seeds(axis: Axes, rows: pd.DataFrame, quantity: str, colour: str) -> None:
    """Each seed as a thin line with its standard error over the draws."""
    for _, run in rows.groupby("seed"):
        axis.errorbar(
            run["noise_radius"],
            run[quantity],
            run[f"{quantity}_se"],
            color=colour,
            lw=0.4,
            alpha=0.6,
        )


def _by_cell(
    axis: Axes, rows: pd.DataFrame, experiment: Mapping, quantity: str, scale: float
) -> None:
    """One mark for each seed, with its standard error over the draws, cell by cell."""
    found = dict(list(rows.groupby(["model", "optimizer"])))
    cells = [(cell, found[cell]) for cell in cells_of(experiment) if cell in found]
    for number, (_, part) in enumerate(cells):
        axis.errorbar(
            np.full(len(part), number) + np.linspace(-0.15, 0.15, len(part)),
            scale * part[quantity],
            scale * part[f"{quantity}_se"],
            fmt="o",
            color=COLOURS[0],
        )
    if quantity == "rise":
        axis.axhline(0, color="0.6", lw=0.6)
    axis.set_xticks(
        range(len(cells)),
        [cell_name(cell, experiment) for cell, _ in cells],
        rotation=60,
        ha="right",
    )


def _share_limits(axes: np.ndarray) -> None:
    """One range of y for these panels, that of all that they show."""
    limits = np.array([axis.get_ylim() for axis in axes])
    if axes[0].get_yscale() == "log":  # without data the limits are not positive
        limits = limits[limits[:, 0] > 0] if (limits[:, 0] > 0).any() else np.array([[0.1, 1.0]])
    for axis in axes:
        axis.set_ylim(limits[:, 0].min(), limits[:, 1].max())
