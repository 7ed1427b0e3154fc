"""Training curves."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure

from lossgeo.plots.panels import (
    Files,
    Tables,
    axes_grid,
    given_note,
    intervals,
    is_unavailable,
    labelled,
    name_missing,
    panels_of,
    plain_log,
    rows_of,
    seeds_note,
    title_and_legend,
    units_of,
    with_note,
    write_on,
)


def training(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Training loss and test error against epochs."""
    history = rows_of(tables["history"], experiment)
    history = history[history["epoch"] <= history["model"].map(experiment["epochs"])]
    history = history.assign(test_error=100 * (1 - history["test_accuracy"]))
    panels = panels_of(history, experiment)
    figure, axes = axes_grid(style, 2, len(panels), height=1.5, sharex="col", sharey="row")
    for column, (title, series) in enumerate(panels.items()):
        shown = pd.concat([rows for *_, rows in series])
        for row, quantity in enumerate(("train_loss", "test_error")):
            axis = axes[row, column]
            if is_unavailable(shown, quantity):
                axis.set_yticks([])
                write_on(axis, "not available")
                continue
            for label, colour, rows in series:
                for _, run in rows.groupby("seed"):
                    axis.plot(run["epoch"], run[quantity], color=colour, lw=0.4, alpha=0.5)
                mean = intervals(rows, "epoch", quantity, style)
                axis.plot(mean.index, mean["mean"], color=colour, label=label)
                axis.fill_between(mean.index, mean["low"], mean["high"], color=colour, alpha=0.15)
            axis.set_yscale("log")
            plain_log(axis.yaxis)
        name_missing(axes[0, column], shown, "train_loss")
        title_and_legend(axes[0, column], title)
        axes[1, column].set_xlabel("epochs")
    axes[0, 0].set_ylabel(labelled("training loss", units_of(style)))
    axes[1, 0].set_ylabel("test error (%)")
    return with_note(figure, style, seeds_note(history, style) + given_note(experiment))
