"""The rise of the loss under noise."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lossgeo.plots.panels import (
    COLOURS,
    Files,
    Tables,
    axes_grid,
    cell_name,
    cells_of,
    count_nonpositive,
    intervals,
    name_missing,
    panels_of,
    rows_at,
    rows_of,
    seeds_note,
    title_and_legend,
    with_note,
)


def flatness(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Mean rise of the loss under normalised noise, and under the study's own noise."""
    point = experiment["points"][-1]
    frame = rows_at(rows_of(tables["flatness"], experiment), point)
    normalised = frame[frame["noise"] == "normalized"]
    isotropic = frame[frame["noise"] == "isotropic"]
    panels = panels_of(normalised, experiment)
    figure, axes = axes_grid(style, 1, len(panels) + 1, height=2.4)
    shown: list[float] = []
    for axis, (title, series) in zip(axes[0], panels.items(), strict=False):
        for label, colour, rows in series:
            for _, run in rows.groupby("seed"):
                axis.errorbar(
                    run["noise_radius"],
                    run["rise"],
                    run["rise_se"],
                    color=colour,
                    lw=0.4,
                    alpha=0.6,
                )
            mean = intervals(rows, "noise_radius", "rise", style, log=True)
            axis.plot(mean.index, mean["mean"], "o-", color=colour, label=label)
            axis.fill_between(mean.index, mean["low"], mean["high"], color=colour, alpha=0.15)
            shown += [*mean["low"].dropna(), *mean["mean"].dropna(), *mean["high"].dropna()]
        axis.set(xscale="log", yscale="log", xlabel="noise radius r")
        axis.xaxis.set_major_locator(FixedLocator(sorted(normalised["noise_radius"].unique())))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
        title_and_legend(axis, title)
        rows = pd.concat([rows for *_, rows in series])
        name_missing(axis, rows, "rise")
        if np.isfinite(rows["rise"]).all():
            count_nonpositive(axis, rows["rise"])
    positive = [value for value in shown if value > 0]
    for axis in axes[0, : len(panels)]:
        axis.set_ylim(min(positive, default=0.1) / 1.5, max(positive, default=1) * 4)
    axes[0, 0].set_ylabel("rise of the loss (nats)")
    last = axes[0, -1]
    found = dict(list(isotropic.groupby(["model", "optimizer"])))
    cells = [(cell, found[cell]) for cell in cells_of(experiment) if cell in found]
    for number, (_, rows) in enumerate(cells):
        last.errorbar(
            np.full(len(rows), number) + np.linspace(-0.15, 0.15, len(rows)),
            1e4 * rows["rise"],
            1e4 * rows["rise_se"],
            fmt="o",
            color=COLOURS[0],
        )
    last.axhline(0, color="0.6", lw=0.6)
    last.set_xticks(
        range(len(cells)),
        [cell_name(cell, experiment) for cell, _ in cells],
        rotation=60,
        ha="right",
    )
    radius = isotropic["noise_radius"].iloc[0]
    last.set(title=f"unnormalised, std {radius:g}", ylabel="rise of the loss (10⁻⁴ nats)")
    kinds = ", ".join(normalised["normalization"].unique())
    note = (
        f"At {point}; {kinds}-normalised Gaussian noise; bars: standard error over "
        f"{frame['draws'].iloc[0]} directions, each both ways. " + seeds_note(frame, style)
    )
    return with_note(figure, style, note)
