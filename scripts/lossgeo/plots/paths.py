"""Paths between minima."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lossgeo.plots.panels import (
    Files,
    Tables,
    axes_grid,
    name_missing,
    panels_of,
    rows_of,
    title_and_legend,
    with_note,
)


def connectivity(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Loss and error on the straight line between pairs of seeds."""
    path = rows_of(tables["connectivity_path"], experiment)
    panels = panels_of(path, experiment)
    figure, axes = axes_grid(style, 2, len(panels), height=1.6, sharex=True, sharey="row")
    for column, (title, series) in enumerate(panels.items()):
        for label, colour, rows in series:
            for split, dash in (("train", "-"), ("test", "--")):
                for _, pair in rows[rows["split"] == split].groupby(["seed_a", "seed_b"]):
                    for row, (quantity, scale) in enumerate((("loss", 1), ("error", 100))):
                        axes[row, column].errorbar(
                            pair["t"],
                            scale * pair[quantity],
                            scale * pair[f"{quantity}_se"],
                            color=colour,
                            ls=dash,
                            lw=0.9,
                            elinewidth=0.4,
                        )
            axes[0, column].plot([], [], color=colour, label=label)
        title_and_legend(axes[0, column], title)
        axes[1, column].set_xlabel("position t")
        missing = pd.concat([rows for *_, rows in series])
        pairs = missing["seed_a"].astype(str) + "–" + missing["seed_b"].astype(str)
        name_missing(axes[0, column], missing.assign(seed=pairs), "loss")
    axes[0, 0].set_ylabel("loss (nats)")
    axes[1, 0].set_ylabel("error (%)")
    handles = [Line2D([], [], color="0.3", ls=dash) for dash in ("-", "--")]
    axes[1, 0].legend(handles, ["train", "test"], loc="upper right")
    pairs = path.drop_duplicates(["model", "optimizer", "seed_a", "seed_b"])
    most = pairs.groupby(["model", "optimizer"]).size().max()
    note = (
        f"At {path['point'].iloc[0]}; disjoint pairs of seeds per model: {most}; "
        "every pair drawn; bars: standard error over samples, those of the pair's first seed."
    )
    return with_note(figure, style, note)
