"""The figures: one function each, all in one style, from tables and surface files alone.

Every function takes `tables` (name -> DataFrame), `files` (paths of surface files), the
`experiment` whose runs it shows (see `study.get_shown`) and the `style`, and returns a matplotlib
Figure. An experiment with one optimizer is about models: panels are families and colours are
models. With several optimizers, panels are models and colours are optimizers.

Intervals are Student's t over seeds from three seeds on; with two seeds the range is drawn. What
is not finite is left out and named on the panel.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator
from scipy.interpolate import RegularGridInterpolator

from lossgeo import store
from lossgeo.statistics import density, mean_interval

Tables = Mapping[str, pd.DataFrame]
Files = Sequence[Path | str]

# Okabe and Ito's colours, which stay apart for colour-blind readers and in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
SURFACE_COLOURS = "viridis"
LINEAR = 0.1  # nats; spectra are linear within it and logarithmic beyond
DENSITY_WIDTH = 0.1  # of the Gaussian that smooths spectra, in asinh(lambda / LINEAR)


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


def draw(name: str, tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """The figure `name` of an experiment, drawn in the style."""
    with matplotlib.rc_context(style_of(style)):
        return FIGURES[name](tables, files, experiment, style)


def training(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Training loss and test error against epochs."""
    history = _of(tables["history"], experiment)
    history = history[history["epoch"] <= history["model"].map(experiment["epochs"])]
    history = history.assign(test_error=100 * (1 - history["test_accuracy"]))
    panels = _panels(history, experiment)
    figure, axes = _grid(style, 2, len(panels), height=1.5, sharex="col", sharey="row")
    for column, (title, series) in enumerate(panels.items()):
        for row, quantity in enumerate(("train_loss", "test_error")):
            axis = axes[row, column]
            for label, colour, rows in series:
                for _, run in rows.groupby("seed"):
                    axis.plot(run["epoch"], run[quantity], color=colour, lw=0.4, alpha=0.5)
                mean = _intervals(rows, "epoch", quantity, style)
                axis.plot(mean.index, mean["mean"], color=colour, label=label)
                axis.fill_between(mean.index, mean["low"], mean["high"], color=colour, alpha=0.15)
            axis.set_yscale("log")
            _plain_log(axis.yaxis)
        _name_missing(axes[0, column], pd.concat([rows for *_, rows in series]), "train_loss")
        _title_and_legend(axes[0, column], title)
        axes[1, column].set_xlabel("epochs")
    axes[0, 0].set_ylabel("training loss (nats)")
    axes[1, 0].set_ylabel("test error (%)")
    return _with_note(figure, style, _seeds_note(history, style))


def lines(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Loss along random lines: every line thin, the mean over lines and seeds thick."""
    point = experiment["points"][-1]
    rows = []
    for path in files:
        group = store.read(path, f"{point}/lines")
        alphas = group.variables["alpha"].values
        for index, loss in enumerate(group.variables["loss"].values):
            rows.append(
                _identity(path)
                | {"status": group.attributes["status"], "index": index}
                | {"alpha": alphas, "loss": loss}
            )
    frame = _of(pd.DataFrame(rows), experiment)
    panels = _panels(frame, experiment)
    figure, axes = _grid(style, 1, len(panels), height=2.1, sharey="row")
    for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
        for label, colour, part in series:
            for alphas, loss in zip(part["alpha"], part["loss"], strict=True):
                axis.plot(alphas, loss, color=colour, lw=0.3, alpha=0.35)
            whole = [loss for loss in part["loss"] if np.isfinite(loss).all()]
            if whole:
                axis.plot(part["alpha"].iloc[0], np.mean(whole, axis=0), color=colour, label=label)
        axis.set_yscale("log")
        _plain_log(axis.yaxis)
        axis.set_xlabel(f"offset α ({experiment['normalization']}-normalised units)")
        _title_and_legend(axis, title)
        rows = pd.concat([part for *_, part in series])
        _name_missing(axis, rows.assign(loss=rows["loss"].map(np.mean)), "loss")
    axes[0, 0].set_ylabel("loss (nats)")
    directions = frame["index"].nunique()
    note = f"At {point}; {directions} directions for each of {frame['seed'].nunique()} seeds."
    return _with_note(figure, style, note)


def planes(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Contours of the loss on a random plane and on the plane of the top two eigenvectors."""
    point = experiment["points"][-1]
    shown = _first_seed(files, experiment)
    columns = len(shown) if len(shown) <= 5 else 4
    blocks = -(-len(shown) // columns)
    figure, axes = _grid(style, 2 * blocks, columns, height=1.55)
    surfaces = {
        (kind, cell): store.read(path, f"{point}/{kind}")
        for cell, path in shown.items()
        for kind in ("planes", "eigenplane")
    }
    norm = _loss_norm([group.variables["loss"].values for group in surfaces.values()])
    _remove_rest(axes.reshape(blocks, 2, columns).swapaxes(1, 2), len(shown))
    filled = None
    for number, cell in enumerate(shown):
        for row, kind in enumerate(("planes", "eigenplane")):
            axis = axes[2 * (number // columns) + row, number % columns]
            group = surfaces[kind, cell]
            filled = _contours(axis, group, group.variables["loss"].values[0], norm) or filled
            axis.plot(0, 0, "+", color="white", ms=5, mew=1)
            if kind == "planes":
                axis.set_title(_name(cell, experiment))
                labels = "α (random)", "β (random)"
            else:
                values = (group.attributes[f"eigenvalue_{axis}"] for axis in ("alpha", "beta"))
                axis.set_title("λ = {:.3g}, {:.3g}".format(*values))
                labels = "α (along v₁)", "β (along v₂)"
            axis.set_xlabel(labels[0])
            axis.set_ylabel(labels[1] if number % columns == 0 else "")
            if group.attributes["status"] != "ok":
                _write(axis, group.attributes["status"])
    if filled:
        _colorbar(figure, filled, figure.axes)
    seed = store.attributes(next(iter(shown.values())))["seed"]
    note = (
        f"At {point}; seed {seed}. Units: {experiment['normalization']}-normalised directions; "
        "along eigenvectors, where the quadratic has risen by `rise`."
    )
    return _with_note(figure, style, note)


def surfaces(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """The random plane of every model as a surface in three dimensions."""
    point = experiment["points"][-1]
    shown = _first_seed(files, experiment)
    columns = len(shown) if len(shown) <= 5 else 4
    figure, axes = _grid(
        style,
        -(-len(shown) // columns),
        columns,
        height=1.8,
        subplot_kw={"projection": "3d"},
    )
    groups = {cell: store.read(path, f"{point}/planes") for cell, path in shown.items()}
    norm = _loss_norm([group.variables["loss"].values for group in groups.values()])
    _remove_rest(axes, len(shown))
    for axis, (cell, group) in zip(axes.flat, groups.items(), strict=False):
        loss = group.variables["loss"].values[0]
        alpha, beta = np.meshgrid(
            group.variables["alpha"].values, group.variables["beta"].values, indexing="ij"
        )
        axis.set_title(_name(cell, experiment), pad=-2)
        if np.isfinite(loss).any():
            axis.plot_surface(
                alpha,
                beta,
                np.log10(np.maximum(loss, norm.vmin)),
                facecolors=matplotlib.colormaps[SURFACE_COLOURS](norm(loss)),
                rstride=1,
                cstride=1,
                linewidth=0.1,
                edgecolor=(0, 0, 0, 0.2),
            )
        else:
            axis.text2D(0.5, 0.5, group.attributes["status"], transform=axis.transAxes)
        axis.set_zlim(np.log10(norm.vmin), np.log10(norm.vmax))
        axis.set_xlabel("α", labelpad=-12)
        axis.set_ylabel("β", labelpad=-12)
        axis.tick_params(pad=-5, labelsize=style["font_size"] - 2)
        axis.view_init(elev=28, azim=-55)
    _colorbar(figure, matplotlib.cm.ScalarMappable(norm, SURFACE_COLOURS), figure.axes)
    seed = store.attributes(next(iter(shown.values())))["seed"]
    note = (
        f"At {point}; seed {seed}; height: log₁₀ of the loss; α, β: "
        f"{experiment['normalization']}-normalised directions."
    )
    return _with_note(figure, style, note)


def spectra(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Spectral density of the Hessian, and its extreme eigenvalues as ticks.

    The density is of x = asinh(lambda / LINEAR), linear within LINEAR and logarithmic beyond, and
    smoothed in x: one width serves the bulk at 0 and outliers a thousand times as large.
    """
    point = experiment["points"][-1]
    nodes = _at(_of(tables["spectrum"], experiment), point)
    values = _at(_of(tables["eigenvalues"], experiment), point)
    panels = _panels(nodes, experiment)
    figure, axes = _grid(style, 1, len(panels), height=2.2, sharey="row")
    for axis, (title, series) in zip(axes[0], panels.items(), strict=True):
        for label, colour, rows in series:
            finite = rows[np.isfinite(rows["node"])]
            if finite.empty:
                continue
            runs = [part for _, part in finite.groupby(["seed", "probe"])]
            most = max(map(len, runs))
            x = _padded([np.arcsinh(part["node"].to_numpy() / LINEAR) for part in runs], most)
            weights = _padded([part["weight"].to_numpy() for part in runs], most)
            reach = np.nanmin(x) - 4 * DENSITY_WIDTH, np.nanmax(x) + 4 * DENSITY_WIDTH
            grid = np.linspace(*reach, 800)
            curve = density(x, weights, grid, DENSITY_WIDTH)
            axis.plot(LINEAR * np.sinh(grid), curve, color=colour, label=label)
            extremes = values[
                (values["model"].isin(rows["model"].unique()))
                & (values["optimizer"].isin(rows["optimizer"].unique()))
            ]
            found = extremes[extremes["converged"]]["eigenvalue"]
            axis.plot(found, np.full(len(found), 2e-7), "|", color=colour, ms=4, alpha=0.6)
        axis.set_yscale("log")
        axis.set_xscale("asinh", linear_width=LINEAR)
        axis.set_ylim(1e-7, 10)
        axis.xaxis.set_major_locator(FixedLocator([-10, -1, -0.1, 0.1, 1, 10, 100, 1000]))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xlabel("eigenvalue λ (nats)")
        _title_and_legend(axis, title)
        _name_missing(axis, pd.concat([rows for *_, rows in series]), "node")
    axes[0, 0].set_ylabel(f"density of asinh(λ / {LINEAR:g})")
    note = (
        f"At {point}; mean over probes and {nodes['seed'].nunique()} seeds, smoothed by a Gaussian "
        f"of width {DENSITY_WIDTH:g} in asinh(λ / {LINEAR:g}); ticks: converged eigenvalues."
    )
    return _with_note(figure, style, note)


def eigenvalues(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Largest eigenvalue and trace of the Hessian: against width, or against the optimizer."""
    top = _of(tables["eigenvalues"], experiment)
    top = top[(top["end"] == "top") & (top["rank"] == 1)]
    trace = _of(tables["curvature"], experiment).rename(columns={"trace": "value"})
    quantities = {
        "largest eigenvalue λ₁ (nats)": top.rename(columns={"eigenvalue": "value"}),
        "trace (nats)": trace.assign(converged=True, se=trace["trace_se"]),
    }
    points = [p for p in experiment["points"] if p in set(top["point"])]
    by_width = len(experiment["optimizers"]) == 1 and (top["width"] > 0).all()
    figure, axes = _grid(style, 2, len(points), height=1.8, sharex=True, sharey="row")
    groups = (
        _ordered(top["family"])
        if by_width
        else [m for m in experiment["models"] if m in set(top["model"])]
    )
    for column, point in enumerate(points):
        for row, (name, frame) in enumerate(quantities.items()):
            axis = axes[row, column]
            at = frame[frame["point"] == point]
            for number, group in enumerate(groups):
                colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
                part = at[at["family" if by_width else "model"] == group]
                part = part.assign(
                    x=part["width"].astype(float)
                    if by_width
                    else part["optimizer"].map(experiment["optimizers"].index)
                    + 0.12 * (number - (len(groups) - 1) / 2)
                )
                _estimates(axis, part, colour, marker, group, style, join=by_width)
            axis.set_yscale("log")
            _plain_log(axis.yaxis)
            if by_width:
                axis.set_xscale("log", base=2)
                axis.xaxis.set_major_locator(FixedLocator(sorted(at["width"].unique())))
                axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
                axis.xaxis.set_minor_locator(NullLocator())
            else:
                axis.set_xticks(range(len(experiment["optimizers"])), experiment["optimizers"])
                axis.tick_params("x", rotation=20)
                axis.set_xlim(-0.5, len(experiment["optimizers"]) - 0.5)
            if column == 0:
                axis.set_ylabel(name)
        axes[0, column].set_title(f"at {point}")
        _name_missing(axes[0, column], top[top["point"] == point], "eigenvalue")
        _count_nonpositive(axes[1, column], trace[trace["point"] == point]["value"])
        axes[1, column].set_xlabel("width (hidden units, or channels)" if by_width else "optimizer")
    for axis in axes[0]:
        for optimizer, ceiling in experiment["ceilings"].items():
            place = experiment["optimizers"].index(optimizer)
            if by_width:
                axis.axhline(ceiling, color="0.5", ls=":", lw=0.9)
            else:
                axis.hlines(ceiling, place - 0.4, place + 0.4, color="0.5", ls=":", lw=0.9)
    if experiment["ceilings"]:
        axes[0, 0].plot([], [], color="0.5", ls=":", lw=0.9, label="2 (1 + m) / lr")
    if axes[0, 0].get_legend_handles_labels()[0]:
        axes[0, 0].legend()
    note = (
        _seeds_note(top, style) + " Hollow: not converged, not in the mean. Bars of single traces: "
        "standard error over probes."
    )
    return _with_note(figure, style, note)


def ladder(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Largest eigenvalue against the number of samples it is measured on."""
    frame = _of(tables["ladder"], experiment)
    frame = frame[frame["rank"] == 1]
    points = [p for p in experiment["points"] if p in set(frame["point"])]
    panels = {point: _panels(_at(frame, point), experiment) for point in points}
    columns = max(map(len, panels.values()))
    figure, axes = _grid(style, len(points), columns, height=2.2, sharex=True, sharey=True)
    for row, point in zip(axes, points, strict=True):
        for axis, (title, series) in zip(row, panels[point].items(), strict=False):
            axis.set(xscale="log", yscale="log")
            for label, colour, rows in series:
                for converged, fill in ((True, colour), (False, "none")):
                    some = rows[rows["converged"] == converged]
                    axis.plot(
                        some["samples"],
                        some["eigenvalue"],
                        "o",
                        color=colour,
                        mfc=fill,
                        ms=2,
                        alpha=0.4,
                    )
                per_seed = rows[rows["converged"]].groupby(["seed", "samples"])["eigenvalue"]
                means = per_seed.mean().reset_index()  # over subsets: of those, the expectation
                mean = _intervals(means, "samples", "eigenvalue", style, log=True)
                if mean.empty:
                    continue
                axis.plot(mean.index, mean["mean"], "-", color=colour, label=label)
                axis.fill_between(mean.index, mean["low"], mean["high"], color=colour, alpha=0.15)
            axis.xaxis.set_major_locator(FixedLocator(sorted(frame["samples"].unique())))
            axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
            axis.xaxis.set_minor_locator(NullLocator())
            axis.tick_params("x", rotation=45)
            _title_and_legend(axis, f"{title} at {point}")
            shown = pd.concat([rows for *_, rows in series])
            _name_missing(axis, shown, "eigenvalue")
            if np.isfinite(shown["eigenvalue"]).all():
                _count_nonpositive(axis, shown["eigenvalue"])
        row[0].set_ylabel("largest eigenvalue λ₁ (nats)")
        for axis in row[len(panels[point]) :]:
            axis.remove()
    _plain_log(axes[0, 0].yaxis)
    for axis in axes[-1, : len(panels[points[-1]])]:
        axis.set_xlabel("samples")
    note = (
        f"Dots: disjoint subsets of the {frame['split'].iloc[0]} split, the same for all seeds; "
        "hollow: not converged, not in the mean. " + _seeds_note(frame, style)
    )
    return _with_note(figure, style, note)


def flatness(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Mean rise of the loss under normalised noise, and under the study's own noise."""
    point = experiment["points"][-1]
    frame = _at(_of(tables["flatness"], experiment), point)
    normalised = frame[frame["noise"] == "normalized"]
    isotropic = frame[frame["noise"] == "isotropic"]
    panels = _panels(normalised, experiment)
    figure, axes = _grid(style, 1, len(panels) + 1, height=2.4)
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
            mean = _intervals(rows, "noise_radius", "rise", style, log=True)
            axis.plot(mean.index, mean["mean"], "o-", color=colour, label=label)
            axis.fill_between(mean.index, mean["low"], mean["high"], color=colour, alpha=0.15)
            shown += [*mean["low"].dropna(), *mean["mean"].dropna(), *mean["high"].dropna()]
        axis.set(xscale="log", yscale="log", xlabel="noise radius r")
        axis.xaxis.set_major_locator(FixedLocator(sorted(normalised["noise_radius"].unique())))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.xaxis.set_minor_locator(NullLocator())
        _title_and_legend(axis, title)
        rows = pd.concat([rows for *_, rows in series])
        _name_missing(axis, rows, "rise")
        if np.isfinite(rows["rise"]).all():
            _count_nonpositive(axis, rows["rise"])
    positive = [value for value in shown if value > 0]
    for axis in axes[0, : len(panels)]:
        axis.set_ylim(min(positive, default=0.1) / 1.5, max(positive, default=1) * 4)
    axes[0, 0].set_ylabel("rise of the loss (nats)")
    last = axes[0, -1]
    found = dict(list(isotropic.groupby(["model", "optimizer"])))
    cells = [(cell, found[cell]) for cell in _cells(experiment) if cell in found]
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
        range(len(cells)), [_name(cell, experiment) for cell, _ in cells], rotation=60, ha="right"
    )
    radius = isotropic["noise_radius"].iloc[0]
    last.set(title=f"unnormalised, std {radius:g}", ylabel="rise of the loss (10⁻⁴ nats)")
    kinds = ", ".join(normalised["normalization"].unique())
    note = (
        f"At {point}; {kinds}-normalised Gaussian noise; bars: standard error over "
        f"{frame['draws'].iloc[0]} directions, each both ways. " + _seeds_note(frame, style)
    )
    return _with_note(figure, style, note)


def connectivity(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Loss and error on the straight line between pairs of seeds."""
    path = _of(tables["connectivity_path"], experiment)
    panels = _panels(path, experiment)
    figure, axes = _grid(style, 2, len(panels), height=1.6, sharex=True, sharey="row")
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
        _title_and_legend(axes[0, column], title)
        axes[1, column].set_xlabel("position t")
        missing = pd.concat([rows for *_, rows in series])
        _name_missing(axes[0, column], missing.assign(seed=missing["seed_a"]), "loss")
    axes[0, 0].set_ylabel("loss (nats)")
    axes[1, 0].set_ylabel("error (%)")
    handles = [Line2D([], [], color="0.3", ls=dash) for dash in ("-", "--")]
    axes[1, 0].legend(handles, ["train", "test"], loc="upper right")
    pairs = path.drop_duplicates(["model", "optimizer", "seed_a", "seed_b"])
    most = pairs.groupby(["model", "optimizer"]).size().max()
    note = (
        f"At {path['point'].iloc[0]}; disjoint pairs of seeds per model: {most}; "
        "bars: standard error over samples."
    )
    return _with_note(figure, style, note)


def trajectory(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Paths in their PCA planes, what the plane leaves out, and PCA's share against its nulls."""
    whole = [path for path in files if "pca" in store.subgroups(path)]
    shown = _first_seed(whole, experiment)
    absent = [cell for cell in _first_seed(files, experiment) if cell not in shown]
    explained = _of(tables["trajectory"], experiment)
    figure, axes = _grid(style, 4, max(len(shown), 1), height=1.35, sharey="row")
    groups = {cell: store.read(path, "plane") for cell, path in shown.items()}
    norm = _loss_norm([group.variables["loss"].values for group in groups.values()])
    filled = None
    for column, (cell, path) in enumerate(shown.items()):
        pca = store.read(path, "pca").variables
        plane = groups[cell].variables
        coordinates, epochs = pca["coordinates"].values[:, :2], pca["epoch"].values
        on_plane, losses, distances, shares = axes[:, column]
        on_plane.set_title(_name(cell, experiment))
        filled = _contours(on_plane, groups[cell], plane["loss"].values, norm) or filled
        on_plane.plot(*coordinates.T, "o-", color="white", ms=2, lw=0.8, mec="black", mew=0.3)
        on_plane.set(xlabel="PC 1")
        on_plane.xaxis.set_major_locator(MaxNLocator(3))

        projected = RegularGridInterpolator(
            (plane["alpha"].values, plane["beta"].values), plane["loss"].values, bounds_error=False
        )(coordinates)
        losses.plot(epochs, pca["loss"].values, "o-", color=COLOURS[0], ms=2, label="true loss")
        losses.plot(epochs, projected, "s--", color=COLOURS[1], ms=2, label="loss on the plane")
        losses.set_yscale("log")
        _plain_log(losses.yaxis)
        distances.plot(epochs, pca["residual"].values, "o-", color=COLOURS[0], ms=2)
        distances.set_xlabel("epochs")

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
    for axis, label in zip(
        axes[:, 0], ("PC 2", "loss (nats)", "distance off plane", "variance share"), strict=True
    ):
        axis.set_ylabel(label)
    if not shown:
        _write(axes[0, 0], "no run has enough finite snapshots")
        return figure
    _colorbar(figure, filled, list(axes[0]))
    for axis in axes[(1, 3), -1]:
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    note = (
        f"First three rows: first seed. Last row: {explained['seed'].nunique()} seeds; bands: "
        "central 95 % of null trajectories."
    )
    if absent:
        note += " No PCA: " + "; ".join(_name(cell, experiment) for cell in absent) + "."
    return _with_note(figure, style, note)


FIGURES = {
    "training": training,
    "lines": lines,
    "planes": planes,
    "surfaces": surfaces,
    "spectra": spectra,
    "eigenvalues": eigenvalues,
    "ladder": ladder,
    "flatness": flatness,
    "connectivity": connectivity,
    "trajectory": trajectory,
}


def _grid(
    style: Mapping, rows: int, columns: int, height: float, **options
) -> tuple[Figure, np.ndarray]:
    """A figure of two print columns' width with rows x columns axes of a height in inches."""
    figure = Figure(figsize=(2.1 * style["column_width"], height * rows + 0.35))
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _remove_rest(axes: np.ndarray, used: int) -> None:
    """Take away the axes of the grid's cells (rows, columns, ...) after the first `used`."""
    for axis in axes.reshape(-1, *axes.shape[2:])[used:].flat:
        axis.remove()


def _of(frame: pd.DataFrame, experiment: Mapping) -> pd.DataFrame:
    """The experiment's rows."""
    return frame[
        frame["model"].isin(experiment["models"])
        & frame["optimizer"].isin(experiment["optimizers"])
    ]


def _at(frame: pd.DataFrame, point: str) -> pd.DataFrame:
    return frame[frame["point"] == point]


def _panels(frame: pd.DataFrame, experiment: Mapping) -> dict[str, list[tuple]]:
    """Panel title -> (label, colour, rows) of its series, in the experiment's order."""
    about_models = len(experiment["optimizers"]) == 1
    panel, hue = ("family", "model") if about_models else ("model", "optimizer")
    order = experiment["models"] if about_models else experiment["optimizers"]
    titles = _ordered(frame["family"]) if about_models else experiment["models"]
    panels = {}
    for title in titles:
        part = frame[frame[panel] == title]
        present = [name for name in order if name in set(part[hue])]
        series = [
            (name, COLOURS[number % len(COLOURS)], part[part[hue] == name])
            for number, name in enumerate(present)
        ]
        if series:
            panels[title.upper() if title in ("mlp", "cnn") else title] = series
    return panels


def _ordered(values: pd.Series) -> list:
    return list(dict.fromkeys(values))


def _intervals(
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


def _estimates(
    axis: Axes,
    part: pd.DataFrame,
    colour: str,
    marker: str,
    label: str,
    style: Mapping,
    *,
    join: bool,
) -> None:
    """Every seed as a small marker and the geometric mean with its interval as a large one."""
    for converged, fill in ((True, colour), (False, "none")):
        some = part[part["converged"] == converged]
        error = some.get("se")
        axis.errorbar(
            some["x"], some["value"], error, fmt=marker, color=colour, mfc=fill, ms=2.5, alpha=0.5
        )
    counted = part[part["converged"] & (part["value"] > 0)]
    mean = _intervals(counted, "x", "value", style, log=True)
    if mean.empty:
        return
    bars = np.abs(mean[["low", "high"]].to_numpy().T - mean["mean"].to_numpy())
    axis.errorbar(
        mean.index,
        mean["mean"],
        np.nan_to_num(bars),
        fmt=f"{marker}-" if join else marker,
        color=colour,
        label=label,
        capsize=2,
        ms=5,
    )


def _identity(path: Path | str) -> dict:
    attributes = store.attributes(path)
    return {name: attributes[name] for name in ("model", "family", "width", "optimizer", "seed")}


def _first_seed(files: Files, experiment: Mapping) -> dict[tuple[str, str], Path | str]:
    """(model, optimizer) -> the file of its first seed, in the experiment's order."""
    found: dict[tuple[str, str], Path | str] = {}
    for path in files:
        identity = _identity(path)
        found.setdefault((identity["model"], identity["optimizer"]), path)
    return {cell: found[cell] for cell in _cells(experiment) if cell in found}


def _cells(experiment: Mapping) -> list[tuple[str, str]]:
    """(model, optimizer) in the experiment's order."""
    return [(m, o) for m in experiment["models"] for o in experiment["optimizers"]]


def _name(cell: tuple[str, str], experiment: Mapping) -> str:
    model, optimizer = cell
    return model if len(experiment["optimizers"]) == 1 else f"{model}, {optimizer}"


def _loss_norm(losses: list[np.ndarray]) -> LogNorm:
    """A logarithmic colour scale over all finite losses, at most four decades down from the top."""
    values = np.concatenate([np.ravel(loss) for loss in losses]) if losses else np.array([1.0])
    values = values[np.isfinite(values) & (values > 0)]
    if not len(values):
        return LogNorm(0.1, 1.0)
    return LogNorm(max(values.min(), values.max() / 1e4), max(values.max(), values.min() * 1.01))


def _contours(axis: Axes, group: store.Group, loss: np.ndarray, norm: LogNorm):
    """Filled contours with alpha to the right and beta upwards; None where nothing is finite."""
    if not np.isfinite(loss).any():
        return None
    alphas, betas = group.variables["alpha"].values, group.variables["beta"].values
    levels = np.geomspace(norm.vmin, norm.vmax, 17)
    shown = np.ma.masked_invalid(np.clip(loss, norm.vmin, norm.vmax)).T
    axis.set_facecolor("0.85")
    filled = axis.contourf(alphas, betas, shown, levels, norm=norm, cmap=SURFACE_COLOURS)
    axis.contour(alphas, betas, shown, levels[::2], colors="white", linewidths=0.3)
    return filled


def _colorbar(figure: Figure, mappable, axes: list[Axes]) -> None:
    """The colour scale of the loss beside these axes, labelled with plain numbers."""
    bar = figure.colorbar(
        mappable, ax=axes, label="loss (nats)", fraction=0.05, shrink=0.8, aspect=15, pad=0.01
    )
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    bar.ax.yaxis.set_minor_locator(NullLocator())


def _padded(rows: list[np.ndarray], width: int) -> np.ndarray:
    out = np.full((len(rows), width), np.nan)
    for row, values in zip(out, rows, strict=True):
        row[: len(values)] = values
    return out


def _plain_log(axis: Axis) -> None:
    """Decimal labels on a logarithmic axis: 1, 2, 5 per decade where it spans less than two."""
    low, high = axis.get_view_interval()
    if low > 0 and high / low < 1e3:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1e2 else (1, 3)))
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
        axis.set_minor_locator(NullLocator())


def _title_and_legend(axis: Axes, title: str) -> None:
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


def _name_missing(axis: Axes, rows: pd.DataFrame, quantity: str) -> None:
    """Write on the panel which runs have nothing finite to show."""
    finite = rows.assign(finite=np.isfinite(rows[quantity]))
    runs = finite.groupby(["model", "optimizer", "seed"], sort=False)["finite"]
    shown = runs.last() if "epoch" in rows else runs.any()
    missing = [f"{m}/{o} seed {s}" for (m, o, s), finite in shown.items() if not finite]
    if missing:
        _write(axis, "not finite:\n" + "\n".join(missing[:4]) + ("\n…" if len(missing) > 4 else ""))


def _count_nonpositive(axis: Axes, values: pd.Series) -> None:
    """Write on a logarithmic panel how many values it cannot show."""
    if hidden := int((values <= 0).sum()):
        _write(axis, f"{hidden} of {len(values)} not positive")


def _write(axis: Axes, text: str) -> None:
    axis.text(0.03, 0.03, text, transform=axis.transAxes, fontsize="x-small", color="#B00020")


def _seeds_note(frame: pd.DataFrame, style: Mapping) -> str:
    seeds = frame["seed"].nunique()
    if seeds < 2:
        return "One seed: no interval."
    kind = f"{100 * style['confidence']:g} % t interval" if seeds > 2 else "range"
    return f"Mean and {kind} over {seeds} seeds."


def _with_note(figure: Figure, style: Mapping, note: str) -> Figure:
    """The figure with what its intervals, points and n are, in one line below."""
    figure.supxlabel(note, fontsize=style["font_size"] - 1.5, color="0.35", x=0.01, ha="left")
    return figure
