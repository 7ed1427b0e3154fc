"""How many steps training takes to a loss, and to an accuracy."""

from collections.abc import Mapping

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
    given_note,
    in_order,
    intervals,
    is_unavailable,
    legend_of_all,
    plain_log,
    rows_of,
    seeds_note,
    units_of,
    with_note,
    with_units,
    write_on,
)

BESIDE = 0.12  # of the seeds to the left of their mean, in places of the axis


def steps(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Steps to the training loss and to the test accuracy, by model, or by optimizer.

    Of a run that another experiment trains for longer, the epochs of this one count. Runs whose
    steps are not known are left out, by name.
    """
    runs = rows_of(tables["runs"], experiment)
    unknown = ", ".join(runs.loc[runs["step"].isna(), "optimizer"].unique())
    runs = runs[runs["step"].notna()]
    limit = runs["step"] / runs["epoch"] * runs["model"].map(experiment["epochs"])
    loss = with_units(f"{experiment['matched_loss']:g}", units_of(style))
    accuracy = experiment["target_accuracy"]
    quantities = {
        "steps_to_train_loss": f"steps to a training loss of {loss}",
        "steps_to_test_accuracy": f"steps to a test accuracy of {100 * accuracy:g} %",
    }
    figure, axes = axes_grid(style, 1, 2, height=2.6, sharey=True)
    about_models = len(experiment["optimizers"]) == 1
    place, group = ("model", "family") if about_models else ("optimizer", "model")
    places = [name for name in experiment[f"{place}s"] if name in set(runs[place])]
    groups = in_order(runs[group])
    titles = [name.upper() if name in ("mlp", "cnn") else name for name in groups]
    for axis, (quantity, title) in zip(axes[0], quantities.items(), strict=True):
        rows = runs.assign(steps=runs[quantity].where(runs[quantity] <= limit))
        if quantity == "steps_to_test_accuracy" and is_unavailable(runs, "test_accuracy"):
            write_on(axis, "not available")
            rows = rows.iloc[:0]
        for number, name in enumerate(groups):
            shift = 0.0 if about_models else 0.7 * ((number + 0.5) / len(groups) - 0.5)
            part = rows[rows[group] == name]
            part = part.assign(x=part[place].map(places.index) + shift)
            _draw(axis, part, number, titles[number], style)
            _count_never(axis, part, number, alone=about_models)
        axis.set(title=title, yscale="log", xlim=(-0.6, len(places) - 0.4))
        axis.set_xticks(range(len(places)), places, rotation=40, ha="right", rotation_mode="anchor")
    axes[0, 0].set_ylabel("optimizer steps")
    low, high = axes[0, 0].get_ylim()
    axes[0, 0].set_ylim(low, high * (high / low) ** 0.2)  # with room for the counts
    plain_log(axes[0, 0].yaxis)
    if len(groups) > 1:
        legend_of_all(figure, titles)
    note = (
        "Small: single runs that got there within the experiment's epochs, which the means are of; "
        "the others are counted above. " + seeds_note(runs, style, log=True)
    ) + given_note(experiment)
    if unknown:
        note += f" Without {unknown}: what a training of its own counts as a step is not known."
    return with_note(figure, style, note)


def _draw(axis: Axes, part: pd.DataFrame, number: int, label: str, style: Mapping) -> None:
    """Seeds, and beside them their geometric mean with its interval."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    axis.plot(part["x"] - BESIDE, part["steps"], marker, color=colour, ms=2.5, alpha=0.5, mew=0)
    mean = intervals(part, "x", "steps", style, log=True)
    if mean.empty:
        return
    bars = np.abs(mean[["low", "high"]].to_numpy().T - mean["mean"].to_numpy())
    axis.errorbar(
        mean.index,
        mean["mean"],
        np.nan_to_num(bars),
        fmt=marker,
        color=colour,
        label=label,
        capsize=2,
        ms=5,
    )


def _count_never(axis: Axes, part: pd.DataFrame, number: int, *, alone: bool) -> None:
    """Above each place, how many of a group's runs never got there.

    Groups that share a place are one below the other; one that has it alone takes two lines.
    """
    gap = "\n" if alone else " "
    for x, runs in part.groupby("x"):
        if never := int(runs["steps"].isna().sum()):
            axis.text(
                round(x),
                0.99 - 0.08 * (0 if alone else number),
                f"{never} of {len(runs)}{gap}never",
                transform=axis.get_xaxis_transform(),
                ha="center",
                va="top",
                fontsize="x-small",
                color=COLOURS[number % len(COLOURS)],
            )
