"""Barriers between minima against the width of the network and how long it was trained."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import AsinhNorm
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.image import AxesImage
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lossgeo.plots.panels import (
    SURFACE_COLOURS,
    Files,
    Tables,
    in_order,
    legend_of_all,
    rows_at,
    rows_of,
    with_note,
)
from lossgeo.plots.rungs import (
    LINEAR,
    MEASURES,
    RUNG_COLOURS,
    RUNG_MARKERS,
    RUNGS,
    barrier_axis,
    barrier_bars,
    barrier_label,
    barrier_ticks,
    dodged,
    missing_note,
    name_unavailable_measure,
    nothing,
    pairs_note,
    present_rungs,
    shown_points,
    where,
)

SPLIT = "train"
BY_WIDTH = ("line", "aligned", "renormalised")
BY_EPOCH = ("line", "aligned")

Group = tuple[str, pd.DataFrame, pd.DataFrame]  # of panels: title, its rows of means and of pairs


def widths(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """The barrier against the width, at several points also against epochs, family by family."""
    means, pairs = (
        where(rows_of(tables[name], experiment), **({"split": SPLIT} if len(tables[name]) else {}))
        for name in ("barriers", "connectivity")
    )
    points = shown_points(means, experiment)
    if not points:
        return nothing(style, "no pair of seeds is connected")
    models, others = models_of_widths(means)
    means, pairs = (f[f["model"].isin(models) & f["rung"].isin(BY_WIDTH)] for f in (means, pairs))
    if means.empty:
        return nothing(style, f"no line between seeds of a model with a width.{others}")
    groups = _groups(means, pairs, experiment)
    if all(of_group["width"].nunique() < 2 for _, of_group, _ in groups):
        return nothing(style, "seeds of no two widths of a family are connected")
    epochs = {int(point[5:]): point for point in points if point.startswith("epoch")}
    blocks = 1 + (len(epochs) > 1)
    rows = len(groups) * blocks
    figure = Figure(figsize=(2.1 * style["column_width"], 1.65 * rows + 0.9))
    grid = figure.add_gridspec(rows, 4)  # two panels of half the width, or up to four
    _draw_widths(figure, grid, groups, points[-1], style)
    if blocks > 1:
        _draw_epochs(figure, grid, groups, dict(sorted(epochs.items())), style)
    legend_of_all(figure, [RUNGS[rung] for rung in BY_WIDTH])
    note = (
        f"On the {SPLIT} split; against the width at {points[-1]}. Small: single pairs. "
        f"{pairs_note(means)} Dotted: the limit above which a barrier counts; axes are linear near "
        f"0.{missing_note(rows_at(pairs, points[-1]), experiment)}"
    )
    earlier = ((point, missing_note(rows_at(pairs, point), experiment)) for point in points[:-1])
    note += "".join(f" At {point}:{missing}" for point, missing in earlier if missing)
    return with_note(figure, style, note + others)


def models_of_widths(means: pd.DataFrame) -> tuple[list[str], str]:
    """The models that differ in width alone, as far as can be told, and which others there are.

    Of several models of one family and width the first is meant; others are variants of it. A
    family of one width is left out beside one of several.
    """
    known = means.drop_duplicates("model")
    sized = known[known["width"] > 0].drop_duplicates(["family", "width"])
    several = sized.groupby("family")["model"].transform("size") > 1
    shown = list(sized.loc[several if several.any() else slice(None), "model"])
    reasons = []
    for model, width in zip(known["model"], known["width"], strict=True):
        if model not in shown:
            alone = "the only width of its family" if model in set(sized["model"]) else None
            reason = "no width" if width <= 0 else alone or "the width of another"
            reasons.append(f"{model} ({reason})")
    return shown, f" Left out: {', '.join(reasons)}." if reasons else ""


def _groups(means: pd.DataFrame, pairs: pd.DataFrame, experiment: Mapping) -> list[Group]:
    """One for each family, or family and optimizer."""
    found = []
    for family in in_order(means["family"]):
        title = family.upper() if family in ("mlp", "cnn") else family
        for optimizer in experiment["optimizers"]:
            parts = [where(frame, family=family, optimizer=optimizer) for frame in (means, pairs)]
            if len(parts[0]):
                one = len(experiment["optimizers"]) == 1
                found.append((title if one else f"{title}, {optimizer}", *parts))
    return found


def _draw_widths(
    figure: Figure, grid: GridSpec, groups: Sequence[Group], point: str, style: Mapping
) -> None:
    """Loss and error against the width, one row for each group."""
    for column, measure in enumerate(("loss", "error")):
        _, scale = MEASURES[measure]
        axes: list[Axes] = []
        for row, (title, *frames) in enumerate(groups):
            place = grid[row, 2 * column : 2 * column + 2]
            axis = figure.add_subplot(place, sharey=axes[0] if axes else None)
            axes.append(axis)
            means, pairs = (where(f, point=point, measure=measure) for f in frames)
            _against_width(axis, means, pairs, scale)
            axis.set(title=title, ylabel=barrier_label(measure, style))
            name_unavailable_measure(axis, pairs)
        axes[-1].set_xlabel("width (hidden units, or channels)")
        barrier_axis(axes, scale * means["limit"].iloc[0])


def _against_width(axis: Axes, means: pd.DataFrame, pairs: pd.DataFrame, scale: float) -> None:
    rungs = present_rungs(means, BY_WIDTH)
    for number, rung in enumerate(rungs):
        shift = 2 ** dodged(number, len(rungs), 0.15)
        single, mean = where(pairs, rung=rung), where(means, rung=rung).sort_values("width")
        axis.plot(
            shift * single["width"] / 1.04,
            scale * single["barrier"],
            ".",
            color=RUNG_COLOURS[rung],
            ms=3,
            mew=0,
        )
        axis.errorbar(
            shift * mean["width"],
            scale * mean["barrier_mean"],
            barrier_bars(mean, scale),
            fmt=f"{RUNG_MARKERS[rung]}-",
            color=RUNG_COLOURS[rung],
            capsize=2,
            label=RUNGS[rung],
        )
    axis.set_xscale("log", base=2)
    axis.xaxis.set_major_locator(FixedLocator(sorted(means["width"].unique())))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.set_xlim(means["width"].min() / 1.4, means["width"].max() * 1.4)


def _draw_epochs(
    figure: Figure,
    grid: GridSpec,
    groups: Sequence[Group],
    epochs: Mapping[int, str],
    style: Mapping,
) -> None:
    """Under the rows of `_draw_widths`: the loss against epochs, and width x epoch as a map."""
    frames = [
        (title, where(means[means["point"].isin(epochs.values())], measure="loss"))
        for title, means, _ in groups
    ]
    every = pd.concat([frame for _, frame in frames])
    limit, rungs = every["limit"].iloc[0], present_rungs(every, BY_EPOCH)
    highest = every[every["rung"].isin(rungs)]["barrier_mean"].max()
    norm = AsinhNorm(LINEAR * limit, 0, np.nanmax([highest, limit]))
    lines: list[Axes] = []
    maps: list[Axes] = []
    for number, (title, frame) in enumerate(frames):
        for column, rung in enumerate(rungs):
            rows = where(frame, rung=rung)
            wide = 2 // len(rungs)  # grid columns of a panel
            place = grid[len(groups) + number, wide * column : wide * (column + 1)]
            axis = figure.add_subplot(place, sharey=lines[0] if lines else None)
            lines.append(axis)
            _against_epoch(axis, rows, epochs)
            axis.set_title(f"{title}, {RUNGS[rung]}")
            if column == 0:
                axis.set_ylabel(barrier_label("loss", style))
                _width_legend(axis)
            place = slice(2 + wide * column, 2 + wide * (column + 1))
            axis = figure.add_subplot(grid[len(groups) + number, place])
            maps.append(axis)
            image = _heat_map(axis, rows, epochs, norm)
            axis.set_title(f"{title}, {RUNGS[rung]}")
            if column == 0:
                axis.set_ylabel("width")
    for axis in lines[-len(rungs) :] + maps[-len(rungs) :]:
        axis.set_xlabel("epoch")
    barrier_axis(lines, limit)
    bar = figure.colorbar(image, ax=maps, label=barrier_label("loss", style), aspect=25, pad=0.02)
    barrier_ticks(bar.ax.yaxis, LINEAR * limit)


def _against_epoch(axis: Axes, rows: pd.DataFrame, epochs: Mapping[int, str]) -> None:
    """One line for each width, the darker the narrower."""
    sizes = sorted(rows["width"].unique())
    reach = max(epochs) - min(epochs)
    for number, (width, shade) in enumerate(
        zip(sizes, np.linspace(0, 0.85, len(sizes)), strict=True)
    ):
        shift = 0.1 * reach * dodged(number, len(sizes))
        by_point = where(rows, width=width).set_index("point").reindex(epochs.values())
        axis.errorbar(
            shift + np.array(list(epochs)),
            by_point["barrier_mean"],
            barrier_bars(by_point),
            fmt="o-",
            color=matplotlib.colormaps[SURFACE_COLOURS](shade),
            ms=2.5,
            elinewidth=0.6,
            label=f"_{width:g}",  # "_": not in the legend of the figure
        )
    axis.xaxis.set_major_locator(FixedLocator(list(epochs)))
    axis.set_xlim(min(epochs) - 0.06 * reach, max(epochs) + 0.06 * reach)


def _width_legend(axis: Axes) -> None:
    """Between the title and the panel: which line is which width."""
    lines = axis.containers
    axis.legend(
        lines,
        [line.get_label().removeprefix("_") for line in lines],
        loc="lower center",
        bbox_to_anchor=(0.5, 0.98),
        ncols=3,
        fontsize="x-small",
        handlelength=1.0,
        columnspacing=0.8,
        borderpad=0.1,
    )
    rows = -(-len(lines) // 3)
    axis.set_title(axis.get_title(), pad=4 + rows * 1.2 * matplotlib.rcParams["legend.fontsize"])


def _heat_map(
    axis: Axes, rows: pd.DataFrame, epochs: Mapping[int, str], norm: AsinhNorm
) -> AxesImage:
    """The mean barrier by width (upwards) and epoch, written into each cell."""
    table = rows.pivot(index="width", columns="point", values="barrier_mean")
    table = table.sort_index().reindex(columns=list(epochs.values()))
    values = table.to_numpy()
    axis.set_facecolor("0.85")
    image = axis.imshow(values, norm=norm, cmap=SURFACE_COLOURS, origin="lower", aspect="auto")
    axis.set_xticks(range(len(epochs)), [f"{epoch:g}" for epoch in epochs])
    axis.set_yticks(range(len(table)), [f"{width:g}" for width in table.index])
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    for (row, column), value in np.ndenumerate(values):
        digits = ".1f" if value >= 1 else ".2g" if value >= 0.01 else ".1g"
        text = "–" if np.isnan(value) else f"{value:{digits}}"
        dark = np.isfinite(value) and norm(value) < 0.6
        axis.text(
            *(column, row, text),
            ha="center",
            va="center",
            color="white" if dark else "black",
            fontsize="x-small",
        )
    return image
