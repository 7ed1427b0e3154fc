"""Training trajectories in their principal components."""

from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.interpolate import RegularGridInterpolator

from lossgeo import store
from lossgeo.plots.panels import (
    COLOURS,
    Files,
    Tables,
    axes_grid,
    cell_name,
    colorbar,
    contours,
    first_seed,
    labelled,
    loss_norm,
    plain_log,
    rows_of,
    seeds_of,
    span,
    units_of,
    with_note,
    write_on,
)


def trajectory(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Paths in their PCA planes, what the plane leaves out, and PCA's share against its nulls."""
    whole = [path for path in files if "pca" in store.subgroups(path)]
    shown = first_seed(whole, experiment)
    absent = [cell for cell in first_seed(files, experiment) if cell not in shown]
    explained = rows_of(tables["trajectory"], experiment)
    figure, axes = axes_grid(style, 4, max(len(shown), 1), height=1.35, sharey="row")
    groups = {cell: store.read(path, "plane") for cell, path in shown.items()}
    norm = loss_norm([group.variables["loss"].values for group in groups.values()])
    filled = None
    for column, (cell, path) in enumerate(shown.items()):
        pca = store.read(path, "pca").variables
        plane = groups[cell].variables
        coordinates, epochs = pca["coordinates"].values[:, :2], pca["epoch"].values
        on_plane, losses, distances, shares = axes[:, column]
        on_plane.set_title(cell_name(cell, experiment))
        filled = contours(on_plane, groups[cell], plane["loss"].values, norm) or filled
        on_plane.plot(*coordinates.T, "o-", color="white", ms=2, lw=0.8, mec="black", mew=0.3)
        on_plane.set(xlabel="PC 1")
        on_plane.xaxis.set_major_locator(MaxNLocator(3))

        projected = RegularGridInterpolator(
            (plane["alpha"].values, plane["beta"].values), plane["loss"].values, bounds_error=False
        )(coordinates)
        losses.plot(epochs, pca["loss"].values, "o-", color=COLOURS[0], ms=2, label="true loss")
        losses.plot(epochs, projected, "s--", color=COLOURS[1], ms=2, label="loss on the plane")
        losses.set_yscale("log")
        plain_log(losses.yaxis)
        distances.plot(epochs, pca["residual"].values, "o-", color=COLOURS[0], ms=2)
        is_given = cell[0] in experiment.get("given", ())
        distances.set_xlabel("file (its number, from 0)" if is_given else "epochs")

        rows = explained[(explained["model"] == cell[0]) & (explained["optimizer"] == cell[1])]
        for number, (null, part) in enumerate(rows.groupby("null_model", sort=False)):
            band = part.groupby("component")[["null_low", "null_mean", "null_high"]].mean()
            colour, name = COLOURS[number + 2], str(null).replace("_", " ")
            shares.fill_between(
                band.index, band["null_low"], band["null_high"], color=colour, alpha=0.3, lw=0
            )
            shares.plot(band.index, band["null_mean"], color=colour, lw=0.8, label=name)
        for _, run in rows[rows["null_model"] == "random_walk"].groupby("seed"):
            shares.plot(run["component"], run["explained"], "ko-", ms=2, lw=0.5)
        shares.plot([], [], "ko-", ms=2, label="run")
        shares.set(yscale="log", xlabel="component")
        shares.set_xticks(sorted(rows["component"].unique()))
    loss = labelled("loss", units_of(style))
    for axis, label in zip(
        axes[:, 0], ("PC 2", loss, "distance off plane", "variance share"), strict=True
    ):
        axis.set_ylabel(label)
    if not shown:
        write_on(axes[0, 0], "no run has enough finite snapshots")
        return figure
    colorbar(figure, filled, list(axes[0]), units_of(style))
    for axis in axes[(1, 3), -1]:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    note = (
        f"First three rows: first seed. Last row: {span(seeds_of(explained))} seeds; bands: "
        "central 95 % of null trajectories,\nall of the run's step lengths. Drift: also its mean "
        "cosine of steps; shuffled: its own steps; stationary: its mean cosine at every lag."
    )
    if absent:
        note += " No PCA: " + "; ".join(cell_name(cell, experiment) for cell in absent) + "."
    return with_note(figure, style, note)
