"""The one style of all figures, and what their panels have in common.

A figure is a function of `tables` (name -> DataFrame), `files` (paths of surface files), the
`experiment` whose runs it shows (see `study.get_shown`) and the `style`, and returns a matplotlib
Figure. An experiment with one optimizer is about models: panels are families and colours are
models. With several optimizers, panels are models and colours are optimizers.

Intervals are Student's t over seeds from three seeds on; with two seeds the range is drawn. A seed
has its own initialisation, order of the data and samples, so that intervals over seeds contain all
three. What a panel cannot show is named on it, with the reason: not reached, diverged, not finite.
"""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lossgeo import store
from lossgeo.statistics import mean_interval

Tables = Mapping[str, pd.DataFrame]
Files = Sequence[Path | str]

# Okabe and Ito's colours, which stay apart for colour-blind readers and in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
SURFACE_COLOURS = "viridis"
GIVEN = "given"  # the optimizer of weights from elsewhere (`study.GIVEN`)


def style_of(style: Mapping) -> dict:
    """The rcParams of the config's figure style."""
    size = style["font_size"]
    return {
        "font.size": size,
        "axes.titlesize": size,
        "axes.labelsize": size,
        "legend.fontsize": size - 1,
        "xtick.labelsize": size - 1,
        "ytick.labelsize": size - 1,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "lines.linewidth": 1.2,
        "lines.markersize": 3.5,
        "legend.frameon": False,
        "figure.dpi": style["dpi"],
        "savefig.dpi": style["dpi"],
        "svg.hashsalt": "lossgeo",
        "figure.constrained_layout.use": True,
    }


def axes_grid(
    style: Mapping, rows: int, columns: int, height: float, **options
) -> tuple[Figure, np.ndarray]:
    """A figure of two print columns' width with rows x columns axes of a height in inches."""
    figure = Figure(figsize=(2.1 * style["column_width"], height * rows + 0.35))
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def rows_of(frame: pd.DataFrame, experiment: Mapping) -> pd.DataFrame:
    """The experiment's rows."""
    return frame[
        frame["model"].isin(experiment["models"])
        & frame["optimizer"].isin(experiment["optimizers"])
    ]


def rows_at(frame: pd.DataFrame, point: str) -> pd.DataFrame:
    return frame[frame["point"] == point]


def panels_of(frame: pd.DataFrame, experiment: Mapping) -> dict[str, list[tuple]]:
    """Panel title -> (label, colour, rows) of its series, in the experiment's order."""
    about_models = len(experiment["optimizers"]) == 1
    panel, hue = ("family", "model") if about_models else ("model", "optimizer")
    order = experiment["models"] if about_models else experiment["optimizers"]
    titles = in_order(frame["family"]) if about_models else experiment["models"]
    panels = {}
    for title in titles:
        part = frame[frame[panel] == title]
        present = [name for name in order if name in set(part[hue])]
        coloured = present if about_models else order  # an optimizer has one colour in all panels
        series = [
            (name, COLOURS[coloured.index(name) % len(COLOURS)], part[part[hue] == name])
            for name in present
        ]
        if series:
            panels[title.upper() if title in ("mlp", "cnn") else title] = series
    return panels


def in_order(values: pd.Series) -> list:
    return list(dict.fromkeys(values))


def intervals(
    rows: pd.DataFrame, x: str, y: str, style: Mapping, *, log: bool = False
) -> pd.DataFrame:
    """Mean and interval of y over seeds at each x; with two seeds the range."""
    out = {}
    for value, part in rows.groupby(x):
        values = part[y].to_numpy()
        values = values[np.isfinite(values) & ((values > 0) | (not log))]
        interval = mean_interval(values, style["confidence"], log=log)
        low, high = interval.low, interval.high
        if interval.n == 2:
            low, high = values.min(), values.max()
        out[value] = {"mean": interval.mean, "low": low, "high": high}
    return pd.DataFrame.from_dict(out, orient="index").sort_index()


def run_of(path: Path | str) -> dict:
    attributes = store.attributes(path)
    return {name: attributes[name] for name in ("model", "optimizer", "seed")}


def first_seed(files: Files, experiment: Mapping) -> dict[tuple[str, str], Path | str]:
    """(model, optimizer) -> the file of its first seed, in the experiment's order."""
    found: dict[tuple[str, str], Path | str] = {}
    for path in files:
        identity = run_of(path)
        found.setdefault((identity["model"], identity["optimizer"]), path)
    return {cell: found[cell] for cell in cells_of(experiment) if cell in found}


def cells_of(experiment: Mapping) -> list[tuple[str, str]]:
    """(model, optimizer) in the experiment's order."""
    return [(m, o) for m in experiment["models"] for o in experiment["optimizers"]]


def cell_name(cell: tuple[str, str], experiment: Mapping) -> str:
    model, optimizer = cell
    return model if len(experiment["optimizers"]) == 1 else f"{model}, {optimizer}"


def loss_norm(losses: list[np.ndarray]) -> LogNorm:
    """A logarithmic colour scale over all finite losses, at most four decades down from the top."""
    values = np.concatenate([np.ravel(loss) for loss in losses]) if losses else np.array([1.0])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return LogNorm(0.1, 1.0)
    return LogNorm(max(values.min(), values.max() / 1e4), max(values.max(), values.min() * 1.01))


def contours(axis: Axes, group: store.Group, loss: np.ndarray, norm: LogNorm):
    """Filled contours with alpha to the right and beta upwards; None where nothing is finite."""
    alphas, betas = group.variables["alpha"].values, group.variables["beta"].values
    axis.set(xlim=(alphas[0], alphas[-1]), ylim=(betas[0], betas[-1]))
    if not np.isfinite(loss).any():
        return None
    levels = np.geomspace(norm.vmin, norm.vmax, 17)
    shown = np.ma.masked_invalid(np.clip(loss, norm.vmin, norm.vmax)).T
    axis.set_facecolor("0.85")
    filled = axis.contourf(alphas, betas, shown, levels, norm=norm, cmap=SURFACE_COLOURS)
    axis.contour(alphas, betas, shown, levels[::2], colors="white", linewidths=0.3)
    return filled


def units_of(style: Mapping) -> str:
    """The units of the loss, and of its curvature; "1": it has none (see `study.get_style`)."""
    return style["loss"]["units"] if "loss" in style else "nats"


def labelled(quantity: str, units: str, between: str = " ") -> str:
    """The label of an axis: the quantity, and its units in brackets, where it has any."""
    return quantity if units == "1" else f"{quantity}{between}({units})"


def with_units(number: str, units: str) -> str:
    return number if units == "1" else f"{number} {units}"


def colorbar(figure: Figure, mappable, axes: list[Axes], units: str) -> None:
    """The colour scale of the loss beside these axes, labelled with plain numbers."""
    label = labelled("loss", units)
    bar = figure.colorbar(
        mappable, ax=axes, label=label, fraction=0.05, shrink=0.8, aspect=15, pad=0.01
    )
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    bar.ax.yaxis.set_minor_locator(NullLocator())


def plain_log(axis: Axis) -> None:
    """Decimal labels on a logarithmic axis, the more per decade the fewer decades it spans."""
    low, high = axis.get_view_interval()
    if 0 < low <= high < 1.01 * low:  # one value, and its rounding: no range
        low, high = low / 1.2, high * 1.2
        getattr(axis.axes, f"set_{axis.axis_name}lim")(low, high)
    if low > 0 and high / low < 1e3:
        within = ((10, (1, 1.5, 2, 3, 4, 5, 7)), (100, (1, 2, 5)), (1000, (1, 3)))
        axis.set_major_locator(LogLocator(subs=next(s for most, s in within if high / low < most)))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.10g}"))
        axis.set_minor_locator(NullLocator())


def title_and_legend(axis: Axes, title: str) -> None:
    """A title, and under it, above the panel, the legend: nothing covers the curves."""
    handles, labels = axis.get_legend_handles_labels()
    columns = 2 if sum(map(len, labels)) > 21 else 4
    if handles:
        axis.legend(
            loc="lower center",
            bbox_to_anchor=(0.5, 0.98),
            ncols=min(columns, len(handles)),
            handlelength=1.2,
            columnspacing=1.0,
            borderpad=0.1,
        )
    lines = -(-len(handles) // columns)
    axis.set_title(title, pad=4 + lines * 1.5 * matplotlib.rcParams["legend.fontsize"])


def legend_of_all(figure: Figure, order: Sequence[str]) -> None:
    """One legend above all panels of every label that any of them has; those of `order` first."""
    found = {}
    for axis in figure.axes:
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    labels = [label for label in order if label in found]
    labels += [label for label in found if label not in labels]
    if labels:
        handles = [found[label] for label in labels]
        columns = -(
            -len(labels) // -(-len(labels) // 6)
        )  # rows of at most 6, as long as each other
        figure.legend(handles, labels, loc="outside upper center", ncols=columns)


def name_missing(axis: Axes, rows: pd.DataFrame, quantity: str) -> None:
    """Write on the panel which runs have nothing to show, under their status.

    Of a history, whose rows have no status, the last row counts.
    """
    history = "status" not in rows
    finite, missing = np.isfinite(rows[quantity]), {}
    for run, part in rows.assign(finite=finite).groupby(["model", "optimizer", "seed"], sort=False):
        if part["finite"].iloc[-1] if history else part["finite"].any():
            continue
        status = part["status"].iloc[-1] if not history else "ok"
        if history and part["diverged"].any():
            status = "diverged"
        missing.setdefault("not finite" if status == "ok" else status, []).append(run)
    lines = []
    for status, runs in missing.items():
        named = _names(runs, rows)
        more = ["…"] if len(named) > 4 else []
        lines.append(f"{status}: " + "\n  ".join(named[:4] + more))
    if lines:
        write_on(axis, "\n".join(lines))


def _names(runs: list[tuple], rows: pd.DataFrame) -> list[str]:
    """model/optimizer and seeds of these runs among all that the rows are of."""
    every = rows.drop_duplicates(["model", "optimizer", "seed"])
    if len(runs) == len(every):
        return ["every run"]
    named = []
    for model, optimizer in dict.fromkeys(run[:2] for run in runs):
        seeds = [str(seed) for *cell, seed in runs if cell == [model, optimizer]]
        of_cell = (every["model"] == model) & (every["optimizer"] == optimizer)
        if 1 < len(seeds) == of_cell.sum():
            which = "all seeds"
        else:
            which = ("seed " if len(seeds) == 1 else "seeds ") + ", ".join(seeds)
        named.append(f"{model}/{optimizer} {which}")
    return named


def count_nonpositive(axis: Axes, values: pd.Series) -> None:
    """Write on a logarithmic panel how many values it cannot show."""
    if hidden := int((values <= 0).sum()):
        write_on(axis, f"{hidden} of {len(values)} not positive")


def is_unavailable(rows: pd.DataFrame, quantity: str) -> bool:
    """Whether no row has the quantity, though some have a loss: accuracy, where it has no classes.

    `rows` are of a history or of runs.
    """
    known = rows[np.isfinite(rows["test_loss"])]
    return len(known) > 0 and bool(known[quantity].isna().all())


def write_on(axis: Axes, text: str) -> None:
    """A remark in the panel's corner, under those that are there."""
    if axis.texts:
        axis.texts[0].set_text(f"{axis.texts[0].get_text()}\n{text}")
        return
    axis.text(
        0.03,
        0.04,
        text,
        transform=axis.transAxes,
        fontsize="x-small",
        color="#B00020",
        zorder=0.5,  # no curve is hidden
    )


def given_note(experiment: Mapping) -> str:
    """A sentence on the models that figures of training leave out; empty: there are none."""
    given = ", ".join(experiment.get("given", ()))
    return f" Without {given}: weights from elsewhere have no history." if given else ""


def span(counts: Sequence[int]) -> str:
    """What counts are, where they are the same; else from the smallest to the largest."""
    low, high = (int(end) for end in (min(counts, default=0), max(counts, default=0)))
    return f"{low}" if low == high else f"{low} to {high}"


def seeds_of(frame: pd.DataFrame) -> pd.Series:
    """How many seeds each model and optimizer has."""
    return frame.groupby(["model", "optimizer"])["seed"].nunique()


def seeds_note(frame: pd.DataFrame, style: Mapping, *, log: bool = False) -> str:
    """What the mean is, and what its interval is of and contains; with `log` it is geometric.

    Models can have different numbers of seeds: the note has the fewest and the most.
    """
    seeds, given = seeds_of(frame), frame["optimizer"] == GIVEN
    if max(seeds, default=0) < 2:
        return "One seed: no interval."
    kind = f"{100 * style['confidence']:g} % t interval" if seeds.max() > 2 else "range"
    if seeds.max() > 2:
        left = [seeds]
        if "status" in frame:
            names = [name for name in ("model", "optimizer", "point") if name in frame]
            left.append(frame[frame["status"] == "ok"].groupby(names)["seed"].nunique())
        kind += " (range, where two are left)" if (pd.concat(left) == 2).any() else ""
    own = "samples" if given.all() else "initialisation, order of the data and samples"
    others = " (weights from elsewhere: samples)" if given.any() and not given.all() else ""
    return (
        f"{'Geometric mean' if log else 'Mean'} and {kind} over {span(seeds)} seeds: each has its "
        f"own {own}{others}."
    )


def with_note(figure: Figure, style: Mapping, note: str) -> Figure:
    """The figure with what its intervals, points and n are, below; and which loss it is of, where
    that is not the cross-entropy itself."""
    if "loss" in style:
        note += f" Loss: {style['loss']['name']}."
    size = style["font_size"] - 1.5
    letters = int(figure.get_figwidth() * 72 / (0.54 * size))
    figure.supxlabel(textwrap.fill(note, letters), fontsize=size, color="0.35", x=0.01, ha="left")
    return figure
