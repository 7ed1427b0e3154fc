"""Lines, planes and surfaces of the loss."""

from collections.abc import Mapping

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from lossgeo import store
from lossgeo.plots.panels import (
    SURFACE_COLOURS,
    Files,
    Tables,
    axes_grid,
    cell_name,
    colorbar,
    contours,
    first_seed,
    labelled,
    loss_norm,
    name_missing,
    panels_of,
    plain_log,
    rows_of,
    run_of,
    seeds_of,
    span,
    title_and_legend,
    units_of,
    with_note,
    write_on,
)


def lines(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Loss along random lines: every line thin, the mean over lines and seeds thick."""
    point = experiment["points"][-1]
    rows = []
    for path in files:
        group = store.read(path, f"{point}/lines")
        alphas = group.variables["alpha"].values
        for index, loss in enumerate(group.variables["loss"].values):
            rows.append(
                run_of(path)
                | {"status": group.attributes["status"], "index": index}
                | {"alpha": alphas, "loss": loss}
            )
    frame = rows_of(pd.DataFrame(rows), experiment)
    panels = panels_of(frame.assign(family=frame["model"].map(experiment["families"])), experiment)
    figure, axes = axes_grid(style, 1, len(panels), height=2.1, sharey="row")
    between = "\n" if len(panels) > 3 else " "  # narrow panels
    for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
        for label, colour, part in series:
            for alphas, loss in zip(part["alpha"], part["loss"], strict=True):
                axis.plot(alphas, loss, color=colour, lw=0.3, alpha=0.35)
            whole = [loss for loss in part["loss"] if np.isfinite(loss).all()]
            if whole:
                axis.plot(part["alpha"].iloc[0], np.mean(whole, axis=0), color=colour, label=label)
        axis.set_yscale("log")
        plain_log(axis.yaxis)
        axis.set_xlabel(f"offset α{between}({experiment['normalization']}-normalised units)")
        title_and_legend(axis, title)
        rows = pd.concat([part for *_, part in series])
        name_missing(axis, rows.assign(loss=rows["loss"].map(np.mean)), "loss")
    axes[0, 0].set_ylabel(labelled("loss", units_of(style)))
    directions = frame["index"].nunique()
    note = (
        f"At {point}; {directions} directions for each of {span(seeds_of(frame))} seeds. Thin: "
        "single lines, seeds with samples of their own; thick: their arithmetic mean."
    )
    return with_note(figure, style, note)


def planes(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Contours of the loss on a random plane and on the plane of the top two eigenvectors."""
    point = experiment["points"][-1]
    shown = first_seed(files, experiment)
    columns = len(shown) if len(shown) <= 5 else 4
    blocks = -(-len(shown) // columns)
    figure, axes = axes_grid(style, 2 * blocks, columns, height=1.55)
    surfaces = {
        (kind, cell): store.read(path, f"{point}/{kind}")
        for cell, path in shown.items()
        for kind in ("planes", "eigenplane")
    }
    norm = loss_norm([group.variables["loss"].values for group in surfaces.values()])
    _remove_rest(axes.reshape(blocks, 2, columns).swapaxes(1, 2), len(shown))
    filled = None
    for number, cell in enumerate(shown):
        for row, kind in enumerate(("planes", "eigenplane")):
            axis = axes[2 * (number // columns) + row, number % columns]
            group = surfaces[kind, cell]
            filled = contours(axis, group, group.variables["loss"].values[0], norm) or filled
            axis.plot(0, 0, "+", color="white", ms=5, mew=1)
            axis.set_aspect("equal")  # or a round basin would look drawn out
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_locator(MaxNLocator(2, steps=[1, 2, 4, 5, 10]))
            reached = group.attributes["status"] == "ok"
            if kind == "planes":
                axis.set_title(cell_name(cell, experiment))
                labels = "α (random)", "β (random)"
            else:
                values = (group.attributes[f"eigenvalue_{name}"] for name in ("alpha", "beta"))
                axis.set_title("λ = {:.3g}, {:.3g}".format(*values) if reached else "")
                labels = "α (along v₁)", "β (along v₂)"
            axis.set_xlabel(labels[0])
            axis.set_ylabel(labels[1] if number % columns == 0 else "")
            if not reached:
                write_on(axis, group.attributes["status"])
    if filled:
        colorbar(figure, filled, figure.axes, units_of(style))
    seed = store.attributes(next(iter(shown.values())))["seed"]
    note = (
        f"At {point}; seed {seed}. Units: {experiment['normalization']}-normalised directions; "
        "along eigenvectors, where the quadratic has risen by `rise` of the config"
    )
    note += "." if units_of(style) == "1" else f"; λ in {units_of(style)}."
    return with_note(figure, style, note)


def surfaces(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """The random plane of every model as a surface in three dimensions."""
    point = experiment["points"][-1]
    shown = first_seed(files, experiment)
    columns = len(shown) if len(shown) <= 5 else 4
    figure, axes = axes_grid(
        style,
        -(-len(shown) // columns),
        columns,
        height=1.8,
        subplot_kw={"projection": "3d"},
    )
    groups = {cell: store.read(path, f"{point}/planes") for cell, path in shown.items()}
    norm = loss_norm([group.variables["loss"].values for group in groups.values()])
    _remove_rest(axes, len(shown))
    for axis, (cell, group) in zip(axes.flat, groups.items(), strict=False):
        loss = group.variables["loss"].values[0]
        alpha, beta = np.meshgrid(
            group.variables["alpha"].values, group.variables["beta"].values, indexing="ij"
        )
        axis.set_title(cell_name(cell, experiment), pad=-2)
        if np.isfinite(loss).any():
            axis.plot_surface(
                alpha,
                beta,
                np.log10(np.maximum(loss, norm.vmin)),
                facecolors=matplotlib.colormaps[SURFACE_COLOURS](norm(loss)),
                rstride=1,
                cstride=1,
                shade=False,  # the colours are those of the scale
                linewidth=0.1,
                edgecolor=(0, 0, 0, 0.2),
            )
        else:
            axis.text2D(0.5, 0.5, group.attributes["status"], transform=axis.transAxes)
        axis.set(xlim=alpha[[0, -1], 0], ylim=beta[0, [0, -1]])
        axis.set_zlim(np.log10(norm.vmin), np.log10(norm.vmax))
        decades = np.arange(np.floor(np.log10(norm.vmin)), np.ceil(np.log10(norm.vmax)))
        axis.zaxis.set_major_locator(FixedLocator(np.add.outer(decades, np.log10([1, 3])).ravel()))
        axis.zaxis.set_major_formatter(FuncFormatter(lambda z, _: f"{10**z:.3g}"))
        for side in (axis.xaxis, axis.yaxis):
            side.set_major_locator(MaxNLocator(2))
        axis.set_xlabel("α", labelpad=-12)
        axis.set_ylabel("β", labelpad=-12)
        axis.tick_params(pad=-5, labelsize=style["font_size"] - 2)
        axis.tick_params("z", pad=-2)
        axis.view_init(elev=28, azim=-55)
    units = units_of(style)
    colorbar(figure, matplotlib.cm.ScalarMappable(norm, SURFACE_COLOURS), figure.axes, units)
    seed = store.attributes(next(iter(shown.values())))["seed"]
    note = (
        f"At {point}; seed {seed}; height: {labelled('loss', units)} on a logarithmic scale; α, β: "
        f"{experiment['normalization']}-normalised directions."
    )
    return with_note(figure, style, note)


def _remove_rest(axes: np.ndarray, used: int) -> None:
    """Take away the axes of the grid's cells (rows, columns, ...) after the first `used`."""
    for axis in axes.reshape(-1, *axes.shape[2:])[used:].flat:
        axis.remove()
