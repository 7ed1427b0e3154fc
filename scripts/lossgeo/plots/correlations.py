"""Sharpness against generalisation and speed, run by run."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lossgeo.plots.panels import (
    COLOURS,
    MARKERS,
    Files,
    Tables,
    axes_grid,
    cell_name,
    cells_of,
    count_nonpositive,
    is_unavailable,
    labelled,
    legend_of_all,
    plain_log,
    rows_at,
    rows_of,
    units_of,
    with_note,
    with_units,
    write_on,
)
from lossgeo.statistics import kendall_tau

RUN = ["model", "optimizer", "seed"]
SHARPNESS = {
    "eigenvalue": "largest eigenvalue λ₁",
    "filter_curvature": "E[d′Hd], filter-normalised d",
}


def correlations(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Two measures of sharpness at the end of training against what a run has come to.

    Kendall's tau-b within models, and over all runs, is on each panel.
    """
    point = experiment["points"][-1]
    runs = _runs(tables, experiment, point)
    units = units_of(style)
    loss = with_units(f"{experiment['matched_loss']:g}", units)
    outcomes = {
        "test_loss": labelled("test loss", units),
        "gap": labelled("test − training loss", units),
        "steps": f"steps to a training\nloss of {loss}",
        "accuracy": "test accuracy (%)",
    }
    figure, axes = axes_grid(
        style, len(outcomes), len(SHARPNESS), height=1.75, sharex="col", sharey="row"
    )
    cells = [cell for cell in cells_of(experiment) if cell in set(zip(*_cells(runs), strict=True))]
    for row, (outcome, name) in zip(axes, outcomes.items(), strict=True):
        for axis, measure in zip(row, SHARPNESS, strict=True):
            parts = [
                runs[(runs["model"] == model) & (runs["optimizer"] == optimizer)]
                for model, optimizer in cells
            ]
            known = [part[np.isfinite(part[[measure, outcome]]).all(axis=1)] for part in parts]
            for number, (cell, part) in enumerate(zip(cells, known, strict=True)):
                _draw(axis, part[measure], part[outcome], number, cell_name(cell, experiment))
            if any((part[measure] > 0).any() for part in known):
                axis.set_xscale("log")
                axis.set_yscale("log" if outcome in ("test_loss", "steps") else "linear")
            axis.set_title(_taus(known, measure, outcome, len(runs)), fontsize="small", pad=3)
            count_nonpositive(axis, pd.concat(known)[measure])
            if outcome == "accuracy" and is_unavailable(runs, outcome):
                write_on(axis, "not available")
        row[0].set_ylabel(name)
        if row[0].get_yscale() == "log":
            plain_log(row[0].yaxis)
    for axis, name in zip(axes[-1], SHARPNESS.values(), strict=True):
        axis.set_xlabel(labelled(name, units))
        if axis.get_xscale() == "log":
            plain_log(axis.xaxis)
    legend_of_all(figure, [cell_name(cell, experiment) for cell in cells])
    note = (
        f"At {point}; one mark for each run, that is each seed of a model. Kendall's tau-b: within "
        "models, the mean of the models' taus, each weighted by its number of pairs of runs; in "
        "all, over all runs at once, where it is of models as much as of sharpness. n: runs with "
        "both numbers (eigenvalues that have converged; runs that got to the loss)."
    )
    return with_note(figure, style, note)


def _runs(tables: Tables, experiment: Mapping, point: str) -> pd.DataFrame:
    """One row per run with its sharpness and what it has come to; NaN where one is missing."""
    top = tables["eigenvalues"]
    top = top[(top["matrix"] == "hessian") & (top["end"] == "top") & (top["rank"] == 1)]
    top = top[top["converged"].astype(bool)]
    runs = rows_of(tables["runs"], experiment)
    for frame, measure in ((top, "eigenvalue"), (tables["curvature"], "filter_curvature")):
        runs = runs.merge(rows_at(frame, point)[[*RUN, measure]], on=RUN, how="left")
    return runs.assign(
        gap=runs["test_loss"] - runs["train_loss"],
        steps=runs["steps_to_train_loss"],
        accuracy=100 * runs["test_accuracy"],
    )


def _cells(runs: pd.DataFrame) -> tuple[pd.Series, pd.Series]:
    return runs["model"], runs["optimizer"]


def _draw(axis: Axes, x: pd.Series, y: pd.Series, number: int, label: str) -> None:
    """One model's runs; more models than colours begin again with other markers."""
    marker = MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]
    colour = COLOURS[number % len(COLOURS)]
    axis.plot(x, y, marker, color=colour, ms=3.5, mew=0, alpha=0.75, label=label)


def _taus(parts: Sequence[pd.DataFrame], x: str, y: str, runs: int) -> str:
    """Kendall's tau within models and in all, and of how many runs."""
    groups = [(part[x].to_numpy(), part[y].to_numpy()) for part in parts]
    within = kendall_tau([group for group in groups if len(group[0]) > 1])
    every = pd.concat(parts)
    over = kendall_tau([(every[x].to_numpy(), every[y].to_numpy())]) if len(every) > 1 else math.nan
    n = f"n = {len(every)}" + (f" of {runs}" if len(every) < runs else "")
    return f"τ {_signed(within)} within models, {_signed(over)} in all, {n}"


def _signed(tau: float) -> str:
    return "–" if math.isnan(tau) else f"{tau:+.2f}".replace("-", "−")
