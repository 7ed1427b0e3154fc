"""The published surfaces beside corrected ones of the same networks."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from lossgeo import store
from lossgeo.plots.panels import (
    COLOURS,
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
    plain_log,
    units_of,
    with_note,
    write_on,
)

ROWS = 6  # models, at most
REMARK = "#B00020"


def published(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Planes and lines as published, of loss-landscapes, beside ours; a row for each model."""
    point = [name for name in experiment["points"] if name != "matched"][-1]
    shown = {"published": {}, "landscape": {}}
    for stage, found in shown.items():
        paths = [path for path in files if Path(path).stem == stage]
        for cell, path in first_seed(paths, experiment).items():
            if cell[1] == experiment["optimizers"][0] and len(found) < ROWS:
                found[cell] = path
    cells = list(shown["published"])
    figure, axes = axes_grid(style, max(len(cells), 1), 4, height=1.45)
    surfaces = {
        (stage, cell, kind): store.read(path, f"{point}/{group}")
        for stage, groups in (
            ("published", {"plane": "plane", "lines": "lines"}),
            ("landscape", {"plane": "planes", "lines": "lines"}),
        )
        for cell, path in shown[stage].items()
        for kind, group in groups.items()
        if group in store.subgroups(path, point)
    }
    norm = loss_norm(
        [group.variables["loss"].values for key, group in surfaces.items() if key[2] == "plane"]
    )
    filled = None
    for row, cell in zip(axes, cells, strict=False):
        status = store.read(shown["published"][cell], point, ()).attributes["status"]
        for axis, key in zip(
            row, [(s, cell, k) for k in ("plane", "lines") for s in shown], strict=True
        ):
            if key not in surfaces or status != "ok":
                write_on(axis, status if status != "ok" else "not drawn")
            elif key[2] == "plane":
                plane = _plane(axis, surfaces[key], norm, published=key[0] == "published")
                filled = plane or filled
            elif key[0] == "published":
                _published_lines(axis, surfaces[key])
            else:
                _lines(axis, surfaces[key])
        row[0].set_ylabel(f"{cell_name(cell, experiment)}\nβ")
        row[2].set_ylabel(labelled("loss", units_of(style)))
    for axis, title in zip(
        axes[0],
        ("plane, published", "plane, corrected", "lines, published", "lines, corrected"),
        strict=True,
    ):
        axis.set_title(title)
    for axis in axes[-1, [0, 2]]:
        axis.set_xlabel("α, as plotted")
    for axis in axes[-1, [1, 3]]:
        axis.set_xlabel(f"α ({experiment['normalization']}-normalised)")
    if filled:
        colorbar(figure, filled, list(axes[:, :2].flat), units_of(style))
    seed = store.attributes(shown["published"][cells[0]])["seed"]
    note = (
        f"At {point}; {experiment['optimizers'][0]}, seed {seed}. Published: one test batch, by "
        "loss-landscapes 3.0.6, over the axes that the study plotted; the planes' true reach is "
        "written on them. Corrected: the objective. Cross and dotted: θ and its loss. Later lines "
        "are lighter. White: contours, of published planes also at levels of their own."
    )
    return with_note(figure, style, note)


def _plane(axis: Axes, group: store.Group, norm, *, published: bool):
    """Contours of a plane, with theta; of a published one also how rough its comb makes it."""
    loss = group.variables["loss"].values
    filled = contours(axis, group, loss if published else loss[0], norm)
    axis.plot(0, 0, "+", color="white", ms=5, mew=1)
    axis.set_aspect("equal")
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_locator(MaxNLocator(2, steps=[1, 2, 4, 5, 10]))
    if published:
        alphas, betas = group.variables["alpha"].values, group.variables["beta"].values
        if filled:  # levels of its own, or the comb would hardly show
            levels = np.geomspace(loss.min(), loss.max(), 12)[1:-1]
            axis.contour(alphas, betas, loss.T, levels, colors="white", linewidths=0.3)
        reach = 1 / (2 * alphas[-1])  # `distance` divides, and both sides share what is left
        comb = group.attributes["comb"]
        _remark(axis, f"reaches ±{reach:.2g} ‖θ‖\ncomb: {comb:.2g} × as rough")
    return filled


def _published_lines(axis: Axes, group: store.Group) -> None:
    """The published lines as they were plotted, and where they really are."""
    found = {name: variable.values for name, variable in group.variables.items()}
    colours = matplotlib.colormaps[SURFACE_COLOURS](np.linspace(0, 0.9, len(found["loss"])))
    for loss, colour in zip(found["loss"], colours, strict=True):
        axis.plot(found["alpha"], np.where(loss > 0, loss, np.nan), color=colour, lw=0.7)
    places = np.full(len(colours), found["alpha"][0])
    axis.scatter(places, found["start"], s=5, color=colours, clip_on=False, zorder=3)
    axis.axhline(group.attributes["minimum"], color="0.3", ls=":", lw=0.9)
    axis.set_yscale("log")
    axis.yaxis.set_minor_locator(NullLocator())
    low, high = np.log(axis.get_ylim())
    axis.set_ylim(np.exp(low), np.exp(low + 1.35 * (high - low)))  # room for the remark
    distances = found["distance"]
    _remark(
        axis,
        f"one-sided; starts (dots)\n{distances[0]:.2g} to {distances[-1]:.2g} ‖θ‖ away from θ",
    )


def _lines(axis: Axes, group: store.Group) -> None:
    found = {name: variable.values for name, variable in group.variables.items()}
    for loss in found["loss"]:
        axis.plot(found["alpha"], loss, color=COLOURS[0], lw=0.5, alpha=0.6)
    centre = found["loss"][0, len(found["alpha"]) // 2]
    axis.axhline(centre, color="0.3", ls=":", lw=0.9)
    axis.set_yscale("log")
    plain_log(axis.yaxis)


def _remark(axis: Axes, text: str) -> None:
    """What is wrong with a panel, on its upper edge."""
    axis.text(
        0.5,
        0.97,
        text,
        transform=axis.transAxes,
        ha="center",
        va="top",
        fontsize="x-small",
        color=REMARK,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1},
    )
