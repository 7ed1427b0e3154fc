"""Figures: every one is drawn from what a study leaves, says what is missing, and repeats."""

import io
import re
from importlib import import_module

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.text import Text

from lossgeo import store, study
from lossgeo.plots.panels import seeds_note, style_of
from lossgeo.quadrature import cumulative_bounds
from lossgeo.store import Group, Variable
from lossgeo.verdicts import judge

from .artefacts import LABELS, MODELS, NAN
from .test_tables import MAKERS, as_made

STYLE = {"column_width": 3.4, "font_size": 8, "dpi": 30, "confidence": 0.95}
FIGURES = {  # and the module that draws them
    "training": "training",
    "lines": "surfaces",
    "planes": "surfaces",
    "surfaces": "surfaces",
    "spectra": "spectra",
    "eigenvalues": "spectra",
    "ladder": "spectra",
    "flatness": "flatness",
    "invariance": "flatness",
    "connectivity": "paths",
    "pair_planes": "paths",
    "barriers": "barriers",
    "instability": "barriers",
    "widths": "widths",
    "taxonomy": "taxonomy",
    "trajectory": "trajectories",
    "verdicts": "verdicts",
    "forest": "forest",
    "published": "published",
    "steps": "speed",
    "correlations": "correlations",
    "curvature_by_width": "scaling",
    "layer_curvature": "layers",
}
FILES = {  # the files that a figure reads beside the tables
    "lines": ["landscape"],
    "planes": ["landscape"],
    "surfaces": ["landscape"],
    "trajectory": ["trajectory"],
    "published": ["published", "landscape"],
    "pair_planes": ["planes"],
}
CONFIG = {  # the part of a config that figures are told of
    "models": LABELS,
    "optimizers": {
        "momentum": {"name": "SGD", "lr": 0.1, "momentum": 0.9},
        "wild": {"name": "Adam", "lr": 1.0},
        "plain": {"name": "SGD", "lr": 0.4},
    },
    "training": {"matched_loss": 0.3, "target_accuracy": 0.9},
    "landscape": {"normalization": "layer"},
    "connectivity": {"at": ["final", "matched"], "limits": {"loss": 0.05, "error": 0.02}},
    "experiments": {
        "architecture": {
            "models": ["mlp-4", "mlp-8", "cnn-2"],
            "optimizers": ["momentum"],
            "points": ["matched", "final"],
            "epochs": 3,
        },
        "optimizer": {  # two of its runs of `wild` diverged, one at the first seed
            "models": ["mlp-4", "cnn-2"],
            "optimizers": ["momentum", "wild"],
            "points": ["final"],
            "epochs": 3,
        },
        "small": {
            "models": ["mlp-4"],
            "optimizers": ["momentum"],
            "points": ["final"],
            "epochs": 3,
        },
        "diverged": {
            "models": ["mlp-4"],
            "optimizers": ["wild"],
            "points": ["final"],
            "epochs": 3,
        },
    },
}
EXPERIMENTS = {
    name: study.get_shown(CONFIG, name)
    | {"connected_points": study.get_shown_points(CONFIG, name)}
    | {"cells": [(m, o, "matched") for m in found["models"] for o in found["optimizers"]]}
    for name, found in CONFIG["experiments"].items()
}


REGISTRY = {
    "smallest_effects": {"ratio": 1.25},
    "quantities": {"x": {"table": "curvature", "column": "filter_curvature"}},
    "claims": {
        "width-lowers-curvature": {
            "section": "1",
            "statement": "Wider networks are flatter.",
            "corrected": [
                {"part": "MLP", "contrast": "ratio", "quantity": "x", "side": "below"}
                | {"of": "mlp-8/momentum/final", "to": "mlp-4/momentum/final"},
            ],
            "controls": [
                {"part": "diverged", "contrast": "ratio", "quantity": "x", "side": "below"}
                | {"of": "mlp-8/wild/final", "to": "mlp-4/wild/final"},
            ],
        }
    },
}


def read_back(files, folder) -> dict[str, pd.DataFrame]:
    """The tables as figures get them: from CSV."""
    made = {name: as_made(make(files)) for name, make in MAKERS.items()}
    made["endpoints"], made["verdicts"] = judge(made, REGISTRY)
    for name, table in made.items():
        store.write_csv(table, folder / f"{name}.csv")
    return {name: pd.read_csv(folder / f"{name}.csv") for name in made}


@pytest.fixture(scope="module")
def tables(artefacts, tmp_path_factory):
    return read_back(artefacts, tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def tables_of_one(one_seed, tmp_path_factory):
    return read_back(one_seed, tmp_path_factory.mktemp("tables_of_one"))


def draw(name, tables, artefacts, experiment, style=STYLE, **changes):
    experiment = EXPERIMENTS[experiment] | changes
    wanted = [
        path
        for stage in FILES.get(name, [])
        for path in artefacts[stage]
        if path.parts[-4] in experiment["models"] and path.parts[-3] in experiment["optimizers"]
    ]
    return figure_of(name, tables, wanted, experiment, style)


def figure_of(name, tables, files, experiment, style=STYLE):
    """As scripts/figure.py draws it."""
    with mpl.rc_context(style_of(style)):
        function = getattr(import_module(f"lossgeo.plots.{FIGURES[name]}"), name)
        return function(tables, files, experiment, style)


def saved(figure, suffix: str) -> bytes:
    """As scripts/figure.py saves it."""
    metadata = {"pdf": {"CreationDate": None}, "png": {"Software": None}}[suffix]
    with mpl.rc_context(style_of(STYLE)):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, metadata=metadata)
    return buffer.getvalue()


def words(figure) -> str:
    """All its texts, one a line, however they are wrapped."""
    return "\n".join(" ".join(artist.get_text().split()) for artist in figure.findobj(Text))


@pytest.mark.parametrize(
    ("name", "experiment"),
    [
        (name, experiment)
        for name in FIGURES
        for experiment in ("architecture", "optimizer", "diverged")
    ],
)
def test_a_figure_is_drawn_without_a_warning_and_says_how_much_it_shows(
    tables, artefacts, name, experiment
):
    """Runs that diverged and points that were not reached among the others, or nothing else."""
    figure = draw(name, tables, artefacts, experiment)
    assert saved(figure, "png").startswith(b"\x89PNG")
    text = words(figure)
    assert re.search(r"seeds?\b|no run", text), "how many seeds, or which, or that there are none"
    for axis in figure.axes:
        for label in (axis.get_xlabel(), axis.get_ylabel()):
            assert "_" not in label, "axes are labelled in words"


@pytest.mark.parametrize("name", FIGURES)
def test_a_single_seed_is_drawn_too(one_seed, tables_of_one, name):
    figure = draw(name, tables_of_one, one_seed, "small")
    assert saved(figure, "png").startswith(b"\x89PNG")
    if name in ("training", "eigenvalues", "ladder", "flatness"):
        assert "One seed: no interval." in words(figure)


@pytest.mark.parametrize(
    "name", ["training", "lines", "spectra", "eigenvalues", "ladder", "flatness"]
)
def test_runs_with_nothing_to_show_are_named_on_the_panel(tables, artefacts, name):
    text = words(draw(name, tables, artefacts, "optimizer"))
    assert "diverged: mlp-4/wild all seeds" in text
    assert "cnn-2/wild seed 0" in text
    assert "momentum seed" not in text
    assert "not finite" not in text
    assert "not reached" not in text


# A point that was not reached


def unreached(tables, models=("mlp-4", "mlp-8")) -> dict[str, pd.DataFrame]:
    """The tables as if no run of these models had reached the matched point."""
    labels = ("converged", "matrix", "point", "status", "split", "end", "trace_method")
    out = dict(tables)
    for name in ("eigenvalues", "curvature", "spectrum", "ladder"):
        table = tables[name].copy()
        rows = table["model"].isin(models) & (table["point"] == "matched")
        table.loc[rows, "status"] = "not reached"
        if "converged" in table:
            table.loc[rows, "converged"] = False
        after = list(table.columns[list(table.columns).index("status") + 1 :])
        integers = ("rank", "probe", "samples", "subset", "step", "products")
        for column in after:
            if column not in labels and not column.endswith(integers):
                table[column] = table[column].astype(float).mask(rows)
        out[name] = table
    return out


@pytest.mark.parametrize("name", ["lines", "spectra", "eigenvalues", "ladder", "flatness"])
def test_a_point_that_a_run_did_not_reach_is_named_as_that(tables, artefacts, name):
    points = ["final", "matched"]
    figure = draw(name, tables, artefacts, "architecture", points=points)
    text = words(figure)
    assert text.count("not reached: mlp-8/momentum seed 1") == 1
    assert "not finite" not in text


@pytest.mark.parametrize("name", ["planes", "surfaces"])
def test_a_surface_whose_point_was_not_reached_says_so(tables, artefacts, name):
    """And nothing else of it: no eigenvalues `nan`. Only seed 1 lacks it, so it is drawn first."""
    files = {"landscape": [p for p in artefacts["landscape"] if p.parts[-2] == "seed1"]}
    text = words(draw(name, tables, files, "architecture", points=["final", "matched"]))
    assert "not reached" in text
    assert "nan" not in text


@pytest.mark.parametrize("name", ["spectra", "eigenvalues", "ladder"])
def test_a_panel_whose_point_nobody_reached_has_its_axes_and_says_so(tables, artefacts, name):
    full = draw(name, tables, artefacts, "architecture", points=["final", "matched"])
    none = draw(name, unreached(tables), artefacts, "architecture", points=["final", "matched"])
    assert len(none.axes) == len(full.axes)
    assert [a.get_title() for a in none.axes] == [a.get_title() for a in full.axes]
    everyone = "not reached: every run" if name != "eigenvalues" else "not reached: mlp-4/momentum"
    assert everyone in words(none)
    assert saved(none, "png").startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["spectra", "eigenvalues", "ladder"])
def test_where_nobody_reached_any_point_the_figure_is_there_and_says_so(tables, artefacts, name):
    """As an optimizer too slow for the matched loss leaves an experiment of its own."""
    nobody = unreached(tables, tuple(MODELS))
    figure = draw(name, nobody, artefacts, "small", points=["matched"], models=["mlp-8"])
    assert "not reached: every run" in words(figure)
    assert saved(figure, "png").startswith(b"\x89PNG")


def test_the_legend_has_what_the_first_panel_lacks(tables, artefacts):
    """No mlp reached the matched point, but two are drawn at the end."""
    figure = draw("eigenvalues", unreached(tables), artefacts, "architecture")
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "mlp",
        "cnn",
        "full-batch stability",
    ]
    whole = draw("eigenvalues", tables, artefacts, "architecture")
    assert [text.get_text() for text in whole.legends[0].get_texts()][:2] == ["mlp", "cnn"]


def test_seeds_that_are_missing_are_named_one_by_one(tables, artefacts):
    some = changed(tables, "eigenvalues", "eigenvalue", {0: NAN, 2: NAN})
    text = words(draw("eigenvalues", some, artefacts, "architecture"))
    assert "not finite: mlp-4/momentum seeds 0, 2" in text


def test_a_model_that_cannot_be_rescaled_is_named_on_the_panel(tables, artefacts):
    assert "cnn-2: not available" in words(draw("invariance", tables, artefacts, "architecture"))


def test_kink_ratios_are_drawn_below_the_rises_with_a_line_at_one(tables, artefacts):
    """Of mlp-4, one point for each radius: the mean over the seeds."""
    axis = draw("flatness", tables, artefacts, "architecture").axes[3]
    rows = tables["flatness"].query("model == 'mlp-4' and optimizer == 'momentum'")
    rows = rows.query("point == 'final' and noise == 'normalized'")
    expected = rows.groupby("noise_radius")["kink_ratio"].mean()
    thick = next(line for line in axis.lines if line.get_label() == "mlp-4")
    np.testing.assert_allclose(thick.get_ydata(), expected, rtol=1e-12)
    assert any(set(line.get_ydata()) == {1} for line in axis.lines)


@pytest.mark.parametrize("name", ["planes", "surfaces"])
def test_a_surface_that_diverged_says_so_in_its_place(tables, artefacts, name):
    assert "diverged" in words(draw(name, tables, artefacts, "optimizer"))


@pytest.mark.parametrize(
    ("name", "suffix"), [("training", "png"), ("training", "pdf"), ("surfaces", "pdf")]
)
def test_the_same_figure_is_the_same_bytes(tables, artefacts, name, suffix):
    a, b = (saved(draw(name, tables, artefacts, "architecture"), suffix) for _ in range(2))
    assert a == b


def test_drawing_leaves_the_callers_settings_alone(tables, artefacts):
    before = dict(mpl.rcParams)
    draw("training", tables, artefacts, "architecture")
    assert dict(mpl.rcParams) == before


def test_a_figure_is_two_print_columns_wide(tables, artefacts):
    narrow, wide = (
        draw("training", tables, artefacts, "architecture", STYLE | {"column_width": w})
        for w in (3.0, 4.0)
    )
    assert narrow.get_figwidth() == pytest.approx(2.1 * 3.0)
    assert wide.get_figwidth() / narrow.get_figwidth() == pytest.approx(4 / 3)


def test_the_band_of_the_training_curve_is_the_t_interval_over_seeds(tables, artefacts):
    """Three seeds: mean and t(0.975, 2) standard errors, at the last epoch."""
    figure = draw("training", tables, artefacts, "architecture")
    history = tables["history"].query("model == 'cnn-2' and optimizer == 'momentum'")
    values = history[history["epoch"] == 3.0]["train_loss"].to_numpy()
    half = 4.302652729911275 * values.std(ddof=1) / np.sqrt(3)
    axis = next(a for a in figure.axes if a.get_title() == "CNN")
    band = axis.collections[0].get_paths()[0].vertices
    at_end = band[np.isclose(band[:, 0], 3.0), 1]
    assert at_end.min() == pytest.approx(values.mean() - half, rel=1e-9)
    assert at_end.max() == pytest.approx(values.mean() + half, rel=1e-9)


def test_two_seeds_show_their_range(tables, artefacts):
    two = {n: t[t["seed"] < 2] if "seed" in t else t for n, t in tables.items()}
    figure = draw("training", two, artefacts, "architecture")
    values = two["history"].query("model == 'cnn-2' and epoch == 3.0 and optimizer == 'momentum'")
    axis = next(a for a in figure.axes if a.get_title() == "CNN")
    band = axis.collections[0].get_paths()[0].vertices
    at_end = band[np.isclose(band[:, 0], 3.0), 1]
    assert at_end.min() == pytest.approx(values["train_loss"].min(), rel=1e-12)
    assert at_end.max() == pytest.approx(values["train_loss"].max(), rel=1e-12)
    assert "range over 2 seeds" in words(figure)


def test_lines_are_drawn_where_they_were_measured(tables, artefacts):
    """Every direction of every seed is one thin line, and their mean a thick one."""
    figure = draw("lines", tables, artefacts, "architecture")
    axis = next(a for a in figure.axes if a.get_title() == "CNN")
    thin = [line.get_ydata() for line in axis.lines if line.get_linewidth() < 1]
    thick = [line.get_ydata() for line in axis.lines if line.get_linewidth() >= 1]
    assert len(thin) == 2 * 3
    np.testing.assert_allclose(thick[0], np.mean(thin, axis=0), rtol=1e-12)


def test_a_users_model_without_a_width_is_drawn_beside_the_others(tables, artefacts):
    """Then the axis is the optimizer, not the width."""
    own = {
        name: table.assign(width=table["width"].where(table["model"] != "mlp-8", -1))
        if "width" in table
        else table
        for name, table in tables.items()
    }
    figure = draw("eigenvalues", own, artefacts, "architecture")
    assert "optimizer" in words(figure)
    assert "mlp-8" in words(figure)
    assert saved(figure, "png").startswith(b"\x89PNG")


def panel(figure, title: str):
    return next(axis for axis in figure.axes if axis.get_title() == title)


def drawn(axis) -> list[str]:
    """What a panel's own texts say, its labels and legend aside."""
    return [text.get_text() for text in axis.texts]


# An experiment's own part of shared runs


def test_training_ends_where_the_experiment_ends(tables, artefacts):
    """A run that another experiment trains for longer is cut, model by model."""
    epochs = {"mlp-4": 1, "mlp-8": 2, "cnn-2": 3}
    figure = draw("training", tables, artefacts, "architecture", epochs=epochs)
    for axis, ends in ((panel(figure, "MLP"), {1.0, 2.0}), (panel(figure, "CNN"), {3.0})):
        assert {line.get_xdata()[-1] for line in axis.lines} == ends
    whole = draw("training", tables, artefacts, "architecture")
    lengths = {len(line.get_xdata()) for line in panel(whole, "MLP").lines}
    assert lengths == {7}


def test_what_diverged_after_the_experiments_end_is_not_missing_from_it(tables, artefacts):
    """`wild` diverges after an epoch: an experiment of half an epoch has nothing missing."""
    assert "diverged" in words(draw("training", tables, artefacts, "optimizer"))
    epochs = {"mlp-4": 0.5, "cnn-2": 0.5}
    assert "diverged" not in words(draw("training", tables, artefacts, "optimizer", epochs=epochs))


@pytest.mark.parametrize("name", ["lines", "planes", "surfaces"])
def test_lengths_are_in_the_units_of_the_configs_normalisation(tables, artefacts, name):
    text = words(draw(name, tables, artefacts, "architecture"))
    assert "layer-normalised" in text
    assert "filter" not in text
    assert "none-normalised" in words(
        draw(name, tables, artefacts, "architecture", normalization="none")
    )


# Lines


@pytest.fixture
def broken(tmp_path):
    """Write lines files of mlp-4 with given losses (directions, 3) per (optimizer, seed)."""

    def write(losses: dict) -> list:
        alphas = Variable(("alpha",), np.array([-1.0, 0.0, 1.0]), "1", "offset")
        paths = []
        for (optimizer, seed), loss in losses.items():
            path = tmp_path / f"{optimizer}-{seed}.h5"
            measured = Variable(("direction", "alpha"), np.array(loss), "nats", "loss")
            group = Group({"alpha": alphas, "loss": measured}, {"status": "ok", "step": 1})
            identity = {"model": "mlp-4", "parameters": 200, "optimizer": optimizer, "seed": seed}
            store.write(path, {"final/lines": group}, identity)
            paths.append(path)
        return paths

    return write


def draw_lines(paths, optimizers):
    experiment = EXPERIMENTS["small"] | {"optimizers": optimizers}
    return figure_of("lines", {}, paths, experiment, STYLE)


def test_only_whole_lines_are_averaged(broken):
    """A line with a gap is drawn as far as it goes; the mean is of lines without one."""
    one, two, holed = [3.0, 1.0, 5.0], [5.0, 1.0, 3.0], [100.0, 1.0, NAN]
    figure = draw_lines(broken({("a", 0): [one, holed], ("a", 1): [two, two]}), ["a"])
    axis = panel(figure, "MLP")
    thick = [line for line in axis.lines if line.get_linewidth() >= 1]
    assert len(thick) == 1
    np.testing.assert_allclose(thick[0].get_ydata(), np.mean([one, two, two], axis=0), rtol=1e-12)
    assert len([line for line in axis.lines if line.get_linewidth() < 1]) == 4
    assert drawn(axis) == [], "seed 0 has a line to show"


@pytest.mark.parametrize("order", [["good", "bad"], ["bad", "good"]])
def test_runs_without_a_whole_line_are_named_in_any_order_of_the_series(broken, order):
    """And have no mean; the run that is named is the one without."""
    good, bad = [[3.0, 1.0, 5.0]], [[NAN, NAN, NAN]]
    paths = broken({("good", 0): good, ("bad", 0): bad, ("good", 1): bad, ("bad", 1): good})
    axis = panel(draw_lines(paths, order), "mlp-4")
    (text,) = drawn(axis)
    named = text.removeprefix("not finite: ").split("\n  ")
    assert sorted(named) == ["mlp-4/bad seed 0", "mlp-4/good seed 1"]
    only = panel(draw_lines(broken({("good", 0): good, ("bad", 0): bad}), order), "mlp-4")
    assert drawn(only) == ["not finite: mlp-4/bad seed 0"]
    assert len([line for line in only.lines if line.get_linewidth() >= 1]) == 1


# What intervals contain


@pytest.mark.parametrize(
    ("name", "mean"),
    [("training", "Mean"), ("eigenvalues", "Geometric mean"), ("ladder", "Geometric")],
)
def test_an_interval_over_seeds_says_what_it_contains_and_of_which_mean(
    tables, artefacts, name, mean
):
    text = words(draw(name, tables, artefacts, "architecture"))
    assert mean in text
    # The matched point of mlp-8 was reached by two seeds only.
    left = "" if name == "training" else " (range, where two are left)"
    assert f"95 % t interval{left} over 3 seeds" in text
    assert "initialisation, order of the data and samples" in text


@pytest.mark.parametrize("name", ["eigenvalues", "ladder"])
def test_bars_of_single_runs_are_standard_errors_over_samples(tables, artefacts, name):
    assert "standard error over samples" in words(draw(name, tables, artefacts, "architecture"))


def test_the_subsets_of_a_ladder_are_said_to_belong_to_the_seed(tables, artefacts):
    text = words(draw("ladder", tables, artefacts, "architecture"))
    assert "the same for all models and optimizers of a seed" in text


# Spectra


def of_small(tables, nodes: list, weights: list, extremes: dict) -> dict[str, pd.DataFrame]:
    """Tables of mlp-4/momentum's first two seeds alone, one probe each, with these values.

    `extremes` is (seed, end) -> (eigenvalues, converged).
    """
    spectrum, values = (
        tables[name].query("model == 'mlp-4' and optimizer == 'momentum' and point == 'final'")
        for name in ("spectrum", "eigenvalues")
    )
    first = [spectrum[spectrum["seed"] == seed].iloc[[0]] for seed in (0, 1)]
    rows = [
        pd.concat([one] * len(n)).assign(probe=0, node=n, weight=w)
        for one, n, w in zip(first, nodes, weights, strict=True)
    ]
    ends = [
        pd.concat([values[values["seed"] == seed].iloc[[0]]] * len(found)).assign(
            end=end, rank=range(1, len(found) + 1), eigenvalue=found, converged=good
        )
        for (seed, end), (found, good) in extremes.items()
    ]
    return {**tables, "spectrum": pd.concat(rows), "eigenvalues": pd.concat(ends)}


NODES = [[-0.5, 0.001, 2.0, 9.0], [-0.3, 0.0, 3.0, 8.0]]
WEIGHTS = [[0.01, 0.97, 0.015, 0.005], [0.02, 0.96, 0.015, 0.005]]
EXTREMES = {
    (0, "top"): ([9.0, 4.0, 2.0], [True, True, True]),
    (1, "top"): ([8.0, 5.0, 3.0], [True, True, False]),  # so nothing is exact below 5
    (0, "bottom"): ([-0.5], [True]),
    (1, "bottom"): ([-0.3], [True]),
}


def counts_panel(tables, artefacts):
    return draw("spectra", of_small(tables, NODES, WEIGHTS, EXTREMES), artefacts, "small").axes[1]


def test_the_band_of_counts_is_the_mean_of_the_bounds_times_the_parameters(tables, artefacts):
    """200 parameters: at every point of the band, above lambda > 0 and below lambda < 0."""
    axis = counts_panel(tables, artefacts)
    bands = [c for c in axis.collections if isinstance(c, PolyCollection)]
    assert len(bands) == 2
    nodes, weights = np.array(NODES), np.array(WEIGHTS)
    for band in bands:
        points = band.get_paths()[0].vertices
        x, where = np.unique(points[:, 0], return_inverse=True)
        sign = np.sign(x[0])
        assert (np.sign(x) == sign).all()
        low, high = cumulative_bounds(-sign * nodes, weights, np.sort(-sign * x))
        bounds = 200 * np.array([low, high])[:, np.argsort(np.argsort(-sign * x))]
        for edge, choose in ((0, min), (1, max)):
            drawn_here = [choose(points[where == i, 1]) for i in range(len(x))]
            np.testing.assert_allclose(drawn_here, bounds[edge], rtol=1e-9, atol=1e-9)


def test_converged_eigenvalues_are_counted_exactly_as_far_as_every_seed_has_them(tables, artefacts):
    """From the largest: 9, 8 and 5 are 0.5, 1 and 1.5 a seed; 4 is beyond what seed 1 knows."""
    axis = counts_panel(tables, artefacts)
    top, bottom = (line for line in axis.lines if line.get_drawstyle() == "steps-post")
    np.testing.assert_array_equal(top.get_xydata(), [[9.0, 0.5], [8.0, 1.0], [5.0, 1.5]])
    np.testing.assert_array_equal(bottom.get_xydata(), [[-0.5, 0.5]])


def test_spectra_are_of_the_hessian_alone(tables, artefacts):
    other = tables["eigenvalues"].assign(matrix="gauss_newton", eigenvalue=1e6, converged=True)
    both = {**tables, "eigenvalues": pd.concat([tables["eigenvalues"], other])}
    for axis in draw("spectra", both, artefacts, "architecture").axes:
        assert max(np.max(line.get_xdata(), initial=0) for line in axis.lines) < 1e6


# Eigenvalues


def with_matrices(tables, **values) -> dict[str, pd.DataFrame]:
    """The tables with the top eigenvalue of further matrices at the final point."""
    table = tables["eigenvalues"]
    hessian = table[(table["matrix"] == "hessian") & (table["end"] == "top")]
    rows = [hessian.assign(matrix=name, **columns) for name, columns in values.items()]
    table = pd.concat([table[table["matrix"] == "hessian"], *rows], ignore_index=True)
    return {**tables, "eigenvalues": table}


def row_of(figure, label: str):
    return next(axis for axis in figure.axes if label in axis.get_ylabel())


def test_other_matrices_have_rows_of_their_own_where_the_table_has_them(tables, artefacts):
    hessian = {**tables, "eigenvalues": tables["eigenvalues"].query("matrix == 'hessian'")}
    without = [a.get_ylabel() for a in draw("eigenvalues", hessian, artefacts, "small").axes]
    assert not any("Gauss" in label or "precond" in label for label in without)
    some = with_matrices(
        tables,
        gauss_newton={"eigenvalue": 7.0, "converged": True},
        preconditioned={"eigenvalue": 900.0, "converged": True},
    )
    figure = draw("eigenvalues", some, artefacts, "small", preconditioned_ceilings={})
    assert means_of(row_of(figure, "Gauss-Newton"), "mlp") == {4.0: pytest.approx(7.0)}
    assert means_of(row_of(figure, "preconditioned"), "mlp") == {4.0: pytest.approx(900.0)}
    assert means_of(row_of(figure, "Hessian"), "mlp")[4.0] < 100
    assert means_of(row_of(figure, "E[d′Hd]"), "mlp")[4.0] > 0


def test_the_preconditioned_sharpness_has_a_ceiling_of_its_own(tables, artefacts):
    some = with_matrices(tables, preconditioned={"eigenvalue": 900.0, "converged": True})
    figure = draw(
        "eigenvalues",
        some,
        artefacts,
        "optimizer",
        ceilings={"momentum": 38.0},
        preconditioned_ceilings={"wild": 380.0},
    )
    assert dotted(row_of(figure, "Hessian")) == [38.0]
    assert dotted(row_of(figure, "preconditioned")) == [380.0]
    assert dotted(row_of(figure, "trace")) == []


def test_single_eigenvalues_have_their_standard_errors_as_bars(tables, artefacts):
    values = changed(tables, "eigenvalues", "eigenvalue", {0: 4.0, 1: 9.0, 2: 30.0})
    good = changed(values, "eigenvalues", "converged", dict.fromkeys(range(3), True))
    some = changed(good, "eigenvalues", "eigenvalue_se", {0: 0.5, 1: 1.0, 2: 2.0})
    axis = draw("eigenvalues", some, artefacts, "small").axes[0]
    bars = next(c for c in axis.containers if len(c.lines[0].get_xdata()) == 3)
    ends = [sorted(segment[:, 1]) for segment in bars.lines[2][0].get_segments()]
    assert ends == [[3.5, 4.5], [8.0, 10.0], [28.0, 32.0]]


def means_of(axis, label: str) -> dict[float, float]:
    """x -> the geometric mean that is drawn there."""
    container = next(c for c in axis.containers if c.get_label() == label)
    line = container.lines[0]
    return dict(zip(line.get_xdata(), line.get_ydata(), strict=True))


def changed(tables, name: str, column: str, values: dict) -> dict[str, pd.DataFrame]:
    """The tables with other values for mlp-4/momentum's seeds at the final point."""
    table = tables[name].copy()
    rows = (table["model"] == "mlp-4") & (table["optimizer"] == "momentum")
    rows &= table["point"] == "final"
    if name == "eigenvalues":
        rows &= (table["end"] == "top") & (table["rank"] == 1) & (table["matrix"] == "hessian")
    for seed, value in values.items():
        table.loc[rows & (table["seed"] == seed), column] = value
    return {**tables, name: table}


def test_eigenvalues_that_have_not_converged_are_not_in_the_mean(tables, artefacts):
    values = changed(tables, "eigenvalues", "eigenvalue", {0: 4.0, 1: 9.0, 2: 1e6})
    some = changed(values, "eigenvalues", "converged", {0: True, 1: True, 2: False})
    figure = draw("eigenvalues", some, artefacts, "small")
    axis = panel(figure, "at final")
    assert means_of(axis, "mlp") == {4.0: pytest.approx(6.0, rel=1e-12)}
    hollow = [line for line in axis.lines if line.get_markerfacecolor() == "none"]
    assert [list(line.get_ydata()) for line in hollow if len(line.get_ydata())] == [[1e6]]
    assert "Hollow: not converged, not in the mean" in words(figure)


def test_where_nothing_has_converged_there_is_no_mean(tables, artefacts):
    some = changed(tables, "eigenvalues", "converged", dict.fromkeys(range(3), False))
    axis = panel(draw("eigenvalues", some, artefacts, "small"), "at final")
    assert "mlp" not in {c.get_label() for c in axis.containers}
    hollow = [line for line in axis.lines if line.get_markerfacecolor() == "none"]
    assert sum(len(line.get_ydata()) for line in hollow) == 3


def test_traces_that_are_not_positive_are_counted_and_not_in_the_mean(tables, artefacts):
    """A logarithmic axis cannot show them."""
    some = changed(tables, "curvature", "trace", {0: 4.0, 1: 9.0, 2: -3.0})
    figure = draw("eigenvalues", some, artefacts, "small")
    top, trace = row_of(figure, "Hessian"), row_of(figure, "trace")
    assert means_of(trace, "mlp") == {4.0: pytest.approx(6.0, rel=1e-12)}
    assert drawn(trace) == ["1 of 3 not positive"]
    assert drawn(top) == []
    assert "not positive" not in words(draw("eigenvalues", tables, artefacts, "small"))


def test_an_eigenvalue_that_is_not_positive_is_not_in_the_mean(tables, artefacts):
    values = changed(tables, "eigenvalues", "eigenvalue", {0: 4.0, 1: 9.0, 2: -1.0})
    axis = draw("eigenvalues", values, artefacts, "small").axes[0]
    assert means_of(axis, "mlp") == {4.0: pytest.approx(6.0, rel=1e-12)}


def test_single_traces_have_their_standard_errors_as_bars(tables, artefacts):
    values = changed(tables, "curvature", "trace", {0: 4.0, 1: 9.0, 2: 30.0})
    some = changed(values, "curvature", "trace_se", {0: 0.5, 1: 1.0, 2: 2.0})
    figure = draw("eigenvalues", some, artefacts, "small")
    trace = row_of(figure, "trace")
    bars = next(c for c in trace.containers if len(c.lines[0].get_xdata()) == 3)
    ends = [sorted(segment[:, 1]) for segment in bars.lines[2][0].get_segments()]
    assert ends == [[3.5, 4.5], [8.0, 10.0], [28.0, 32.0]]
    assert "standard error over samples" in words(figure)


def dotted(axis) -> list[float]:
    """Heights of a panel's dotted lines."""
    lines = [
        line.get_ydata()[0] for line in axis.lines if line.get_ls() == ":" and len(line.get_ydata())
    ]
    for collection in axis.collections:
        if isinstance(collection, LineCollection) and collection.get_linestyle()[0][1]:
            lines += [segment[0, 1] for segment in collection.get_segments()]
    return lines


def test_the_edge_of_stability_of_the_learning_rate_is_drawn(tables, artefacts):
    """2 (1 + 0.9) / 0.1 = 38, on the eigenvalues and not on the trace."""
    figure = draw("eigenvalues", tables, artefacts, "architecture")
    for axis in figure.axes[:2]:
        assert dotted(axis) == [pytest.approx(38.0)]
    for axis in figure.axes[2:]:
        assert dotted(axis) == []
    assert "full-batch stability" in words(figure)
    assert "the runs use mini-batches" in words(figure)


def test_each_optimizer_has_its_own_ceiling_at_its_own_place():
    """Of three optimizers, the second has none of H: Adam's is one of the preconditioned H."""
    config = CONFIG | {
        "experiments": {
            "e": CONFIG["experiments"]["small"] | {"optimizers": ["plain", "wild", "momentum"]}
        }
    }
    shown = study.get_shown(config, "e")
    assert shown["ceilings"] == {"plain": pytest.approx(5.0), "momentum": pytest.approx(38.0)}
    assert shown["preconditioned_ceilings"].keys() == {"wild"}


@pytest.mark.parametrize("optimizers", [["momentum", "wild"], ["wild", "momentum"]])
def test_a_ceiling_is_drawn_over_its_optimizers_tick(tables, artefacts, optimizers):
    figure = draw("eigenvalues", tables, artefacts, "optimizer", optimizers=optimizers)
    axis = figure.axes[0]
    (lines,) = [
        c for c in axis.collections if isinstance(c, LineCollection) and c.get_linestyle()[0][1]
    ]
    (segment,) = lines.get_segments()
    np.testing.assert_allclose(segment[:, 1], 38.0)
    assert segment[:, 0].mean() == pytest.approx(optimizers.index("momentum"))


def test_means_stand_beside_the_seeds_of_their_optimizer(tables, artefacts):
    """And so do the models: no interval is hidden, and each keeps to its tick."""
    axis = draw("eigenvalues", tables, artefacts, "optimizer").axes[0]
    means = [x for label in ("mlp-4", "cnn-2") for x in means_of(axis, label)]
    singles = {x for line in axis.lines if line.get_markersize() == 2.5 for x in line.get_xdata()}
    assert not singles & set(means)
    for tick in (0, 1):
        near = [x for x in (*singles, *means) if abs(x - tick) < 0.45]
        assert np.mean([min(near), max(near)]) == pytest.approx(tick, abs=0.2)
    assert all(min(abs(x), abs(x - 1)) < 0.45 for x in (*singles, *means))


def test_without_a_ceiling_the_legend_has_none(tables, artefacts):
    """`wild` is Adam: an entry without a line would make the reader search for it."""
    figure = draw("eigenvalues", tables, artefacts, "diverged")
    assert dotted(figure.axes[0]) == []
    assert "stability" not in words(figure)
    assert "Dotted" not in words(figure)


# Steps


def with_runs(tables, column: str, values: dict) -> dict[str, pd.DataFrame]:
    """The table of runs with other values of a column: (model, seed) -> value, of momentum."""
    runs = tables["runs"].copy()
    for (model, seed), value in values.items():
        rows = (runs["model"] == model) & (runs["seed"] == seed)
        runs.loc[rows & (runs["optimizer"] == "momentum"), column] = value
    return {**tables, "runs": runs}


def test_steps_have_the_geometric_mean_of_the_runs_that_got_there(tables, artefacts):
    """mlp-4: 4 and 9 steps, and a third run that never did; 30 steps are all there are."""
    values = {("mlp-4", 0): 4.0, ("mlp-4", 1): 9.0, ("mlp-4", 2): NAN}
    some = with_runs(tables, "steps_to_train_loss", values)
    figure = draw("steps", some, artefacts, "architecture")
    axis = panel(figure, "steps to a training loss of 0.3 nats")
    assert means_of(axis, "MLP")[0] == pytest.approx(6.0, rel=1e-12)
    assert bar_ends(axis, "MLP")[0] == pytest.approx([4, 9])
    assert drawn(axis)[0] == "1 of 3\nnever"
    assert axis.texts[0].get_position()[0] == 0, "above mlp-4"
    singles = {y for line in axis.lines if line.get_markersize() == 2.5 for y in line.get_ydata()}
    assert {4.0, 9.0} <= singles
    assert panel(figure, "steps to a test accuracy of 90 %")


def test_steps_after_the_experiments_end_do_not_count(tables, artefacts):
    """10 steps an epoch: of an experiment of one epoch, step 11 is beyond it."""
    steps = {("mlp-4", 0): 4.0, ("mlp-4", 1): 9.0, ("mlp-4", 2): 11.0}
    some = with_runs(tables, "steps_to_train_loss", steps)
    of_one = {"mlp-4": 1, "mlp-8": 3, "cnn-2": 3}
    axis = draw("steps", some, artefacts, "architecture", epochs=of_one).axes[0]
    assert means_of(axis, "MLP")[0] == pytest.approx(6.0, rel=1e-12)
    assert drawn(axis)[0] == "1 of 3\nnever"
    axis = draw("steps", some, artefacts, "architecture").axes[0]
    assert means_of(axis, "MLP")[0] == pytest.approx((4 * 9 * 11) ** (1 / 3), rel=1e-12)


def test_steps_of_several_optimizers_are_counted_by_model(tables, artefacts):
    """`wild` diverges with all seeds of mlp-4, and has nothing to show."""
    axis = draw("steps", tables, artefacts, "optimizer").axes[0]
    assert [text.get_text() for text in axis.get_xticklabels()] == ["momentum", "wild"]
    assert "3 of 3 never" in drawn(axis)
    assert all(x < 0.5 for x, y in means_of(axis, "mlp-4").items() if np.isfinite(y))


def test_runs_whose_steps_are_not_known_are_left_out_by_name(tables, artefacts):
    """A training of the user's own does not say what a step is."""
    runs = tables["runs"].copy()
    runs.loc[runs["optimizer"] == "wild", "step"] = pd.NA
    figure = draw("steps", {**tables, "runs": runs}, artefacts, "optimizer")
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["momentum"]
    assert "Without wild: what a training of its own counts as a step" in words(figure)


# Correlations


def test_each_run_is_one_mark_at_its_numbers(tables, artefacts):
    figure = draw("correlations", tables, artefacts, "architecture")
    axis = figure.axes[0]
    runs = tables["runs"].query("model == 'mlp-8' and optimizer == 'momentum'")
    top = tables["eigenvalues"].query("model == 'mlp-8' and point == 'final' and rank == 1")
    top = top.query("end == 'top' and matrix == 'hessian' and converged")
    both = runs.merge(top[["seed", "eigenvalue"]], on="seed")
    assert len(both)
    (marks_of,) = (line for line in axis.lines if line.get_label() == "mlp-8")
    np.testing.assert_array_equal(marks_of.get_xydata(), both[["eigenvalue", "test_loss"]])
    gap = next(line for line in figure.axes[2].lines if line.get_label() == "mlp-8")
    np.testing.assert_allclose(gap.get_ydata(), both["test_loss"] - both["train_loss"])
    assert "100" not in figure.axes[6].get_ylabel()
    accuracy = next(line for line in figure.axes[6].lines if line.get_label() == "mlp-8")
    np.testing.assert_allclose(accuracy.get_ydata(), 100 * both["test_accuracy"])


def test_taus_are_of_pairs_within_models_and_of_all_runs(tables, artefacts):
    """Within each model the loss falls with the curvature; from model to model it rises.

    Nine runs: of 36 pairs the 9 within models are discordant, so that tau is (27 - 9) / 36.
    """
    curvature, losses = tables["curvature"].copy(), {}
    for number, model in enumerate(MODELS):
        for seed in (0, 1, 2):
            losses[model, seed] = 1.0 + 10 * number - seed
            rows = (curvature["model"] == model) & (curvature["seed"] == seed)
            curvature.loc[rows, "filter_curvature"] = 1.0 + 10 * number + seed
    some = with_runs({**tables, "curvature": curvature}, "test_loss", losses)
    title = draw("correlations", some, artefacts, "architecture").axes[1].get_title()
    assert title == "τ −1.00 within models, +0.50 in all, n = 9"
    fewer = with_runs(some, "test_loss", {("mlp-4", 0): NAN})
    title = draw("correlations", fewer, artefacts, "architecture").axes[1].get_title()
    assert title.endswith("n = 8 of 9")


def test_eigenvalues_that_have_not_converged_do_not_correlate(tables, artefacts):
    some = changed(tables, "eigenvalues", "converged", dict.fromkeys(range(3), True))
    whole = draw("correlations", some, artefacts, "small").axes[0]
    assert whole.get_title().endswith("n = 3")
    some = changed(some, "eigenvalues", "converged", {1: False})
    axis = draw("correlations", some, artefacts, "small").axes[0]
    assert axis.get_title().endswith("n = 2 of 3")
    assert sum(len(line.get_xdata()) for line in axis.lines) == 2


# Curvature against the width


def by_width(tables, curvature: dict, column: str = "filter_curvature") -> dict[str, pd.DataFrame]:
    """The tables with other curvatures at the final point: (model, seed) -> value."""
    table = tables["curvature"].copy()
    for (model, seed), value in curvature.items():
        rows = (table["model"] == model) & (table["seed"] == seed) & (table["point"] == "final")
        table.loc[rows & (table["optimizer"] == "momentum"), column] = value
    return {**tables, "curvature": table}


FACTORS = {0: 0.5, 1: 0.25, 2: 0.125}  # by seed: from width 4 to 8


def test_the_slope_is_the_geometric_mean_of_each_seeds_factor_per_doubling(tables, artefacts):
    values = {("mlp-4", seed): 2.0 + seed for seed in FACTORS}
    values |= {("mlp-8", seed): (2.0 + seed) * factor for seed, factor in FACTORS.items()}
    some = by_width(tables, values)
    figure = draw("curvature_by_width", some, artefacts, "architecture", points=["final"])
    axis = figure.axes[1]
    half = 4.302652729911275 * np.log(2) / np.sqrt(3)  # of logs that are log 2 apart
    low, high = np.exp(np.log(0.25) + half * np.array([-1, 1]))
    (label,) = (text.get_text() for text in axis.get_legend().get_texts())
    assert label == f"MLP × 0.25 [{low:.2f}, {high:.2f}], n = 3"
    assert means_of(axis, label) == {
        4: pytest.approx(24 ** (1 / 3), rel=1e-12),
        8: pytest.approx((24 / 64) ** (1 / 3), rel=1e-12),
    }
    singles = {y for line in axis.lines if line.get_markersize() == 2.5 for y in line.get_ydata()}
    assert singles == set(values.values())


def test_a_slope_is_of_the_seeds_that_have_all_widths(tables, artefacts):
    values = {("mlp-4", seed): 2.0 for seed in FACTORS}
    values |= {("mlp-8", 0): 1.0, ("mlp-8", 1): NAN, ("mlp-8", 2): 1.0}
    axis = draw("curvature_by_width", by_width(tables, values), artefacts, "architecture").axes[-2]
    (label,) = (text.get_text() for text in axis.get_legend().get_texts())
    assert label == "MLP × 0.50 [0.50, 0.50], n = 2"
    assert means_of(axis, label)[4] == pytest.approx(2)


def test_curvatures_have_a_row_for_each_point_and_leave_out_a_single_width(tables, artefacts):
    figure = draw("curvature_by_width", tables, artefacts, "architecture")
    titles = [axis.get_title("left") for axis in figure.axes]
    assert titles == ["at matched", "", "", "at final", "", ""]
    text = words(figure)
    assert "Left out: cnn-2 (the only width of its family)." in text
    assert "not reached: mlp-8/momentum seed 1" in text


def test_eigenvalues_that_have_not_converged_have_no_slope(tables, artefacts):
    some = changed(tables, "eigenvalues", "converged", dict.fromkeys(range(3), False))
    figure = draw("curvature_by_width", some, artefacts, "architecture", points=["final"])
    assert "not converged: mlp-4/momentum all seeds" in words(figure)
    assert 4 not in means_of_any(figure.axes[0])


def means_of_any(axis) -> set[float]:
    return {x for c in axis.containers for x in c.lines[0].get_xdata()}


def test_an_experiment_of_widths_has_two_of_a_family_and_one_optimizer():
    def experiment(models, optimizers=("momentum",)):
        found = {"models": models, "optimizers": list(optimizers)}
        gelu = {"family": "mlp", "width": 9, "activation": "gelu"}
        own = {"factory": "a:b", "width": 3}
        known = CONFIG["models"] | {"gelu": gelu, "own": own}
        return study.is_of_widths({"experiments": {"e": found}, "models": known}, "e")

    assert experiment(["mlp-4", "mlp-8"])
    assert not experiment(["mlp-4", "mlp-8"], ["momentum", "wild"])
    assert not experiment(["mlp-4", "cnn-2", "gelu", "own"])


# Ladders


def climbing(tables, values: dict, converged: dict | None = None) -> dict[str, pd.DataFrame]:
    """The tables with other first eigenvalues for mlp-4/momentum at the final point.

    (seed, samples, subset) -> the value; where no flag is given it has converged.
    """
    table = tables["ladder"].copy()
    of_run = (table["model"] == "mlp-4") & (table["optimizer"] == "momentum")
    of_run &= (table["point"] == "final") & (table["rank"] == 1)
    for (seed, samples, subset), value in values.items():
        rows = of_run & (table["seed"] == seed)
        rows &= (table["samples"] == samples) & (table["subset"] == subset)
        assert rows.sum() == 1
        table.loc[rows, "eigenvalue"] = value
        table.loc[rows, "converged"] = (converged or {}).get((seed, samples, subset), True)
    return {**tables, "ladder": table}


RUNGS = {  # (seed, samples, subset) -> eigenvalue
    (0, 50, 0): 2.0,
    (0, 50, 1): 6.0,
    (1, 50, 0): 9.0,
    (1, 50, 1): 9.0,
    (2, 50, 0): 2.0,
    (2, 50, 1): 10.0,
    (0, 100, 0): 1.0,
    (1, 100, 0): 3.0,
    (2, 100, 0): 9.0,
}


def mean_line(axis, label: str) -> dict[float, float]:
    """Samples -> the mean that is drawn there."""
    (line,) = (line for line in axis.lines if line.get_label() == label)
    return dict(zip(*line.get_data(), strict=True))


def dots(axis, *, hollow: bool) -> set[tuple[float, float]]:
    return {
        tuple(point)
        for line in axis.lines
        if line.get_marker() == "o" and (line.get_markerfacecolor() == "none") == hollow
        for point in line.get_xydata()
    }


def test_a_ladders_mean_is_over_seeds_of_each_seeds_mean_over_subsets(tables, artefacts):
    """Geometric over seeds, of arithmetic ones: (4 x 9 x 6)^(1/3) = 6 and (1 x 3 x 9)^(1/3)."""
    some = climbing(tables, RUNGS)
    axis = panel(draw("ladder", some, artefacts, "small"), "MLP at final")
    assert mean_line(axis, "mlp-4") == {
        50: pytest.approx(6.0, rel=1e-12),
        100: pytest.approx(3.0, rel=1e-12),
    }
    assert dots(axis, hollow=False) == {(n, value) for (_, n, _), value in RUNGS.items()}


def test_a_seed_with_fewer_subsets_counts_as_much(tables, artefacts):
    """One of the first seed's two has not converged: its mean is the other one."""
    some = climbing(tables, RUNGS, {(0, 50, 1): False})
    axis = panel(draw("ladder", some, artefacts, "small"), "MLP at final")
    assert mean_line(axis, "mlp-4")[50] == pytest.approx((2 * 9 * 6) ** (1 / 3), rel=1e-12)


def test_the_band_of_a_ladder_is_the_t_interval_of_logarithms_over_seeds(tables, artefacts):
    some = climbing(tables, RUNGS)
    axis = panel(draw("ladder", some, artefacts, "small"), "MLP at final")
    logs = np.log([4.0, 9.0, 6.0])
    half = 4.302652729911275 * logs.std(ddof=1) / np.sqrt(3)
    band = next(c for c in axis.collections if isinstance(c, PolyCollection))
    band = band.get_paths()[0].vertices
    at = band[band[:, 0] == 50, 1]
    assert np.log(at.min()) == pytest.approx(logs.mean() - half, rel=1e-9)
    assert np.log(at.max()) == pytest.approx(logs.mean() + half, rel=1e-9)


def test_a_rung_that_has_not_converged_is_hollow_and_not_in_the_mean(tables, artefacts):
    some = climbing(tables, RUNGS | {(2, 100, 0): 1e6}, {(2, 100, 0): False})
    figure = draw("ladder", some, artefacts, "small")
    axis = panel(figure, "MLP at final")
    assert dots(axis, hollow=True) == {(100, 1e6)}
    assert (100, 1e6) not in dots(axis, hollow=False)
    assert mean_line(axis, "mlp-4")[100] == pytest.approx(3**0.5, rel=1e-12)
    assert "hollow: not converged, not in the mean" in words(figure)


def test_a_ladder_of_which_nothing_has_converged_has_no_mean(tables, artefacts):
    some = climbing(tables, RUNGS, dict.fromkeys(RUNGS, False))
    axis = panel(draw("ladder", some, artefacts, "small"), "MLP at final")
    assert "mlp-4" not in {line.get_label() for line in axis.lines}
    assert dots(axis, hollow=True) == {(n, value) for (_, n, _), value in RUNGS.items()}


def test_a_rung_that_is_not_positive_is_not_in_the_mean(tables, artefacts):
    some = climbing(tables, RUNGS | {(2, 100, 0): -1.0})
    axis = panel(draw("ladder", some, artefacts, "small"), "MLP at final")
    assert mean_line(axis, "mlp-4")[100] == pytest.approx(3**0.5, rel=1e-12)


def test_a_ladder_shows_the_largest_eigenvalue_only(tables, artefacts):
    """Other ranks are in the table."""
    table = tables["ladder"].copy()
    table.loc[table["rank"] > 1, "eigenvalue"] = 1e9
    axes = draw("ladder", {**tables, "ladder": table}, artefacts, "architecture").axes
    assert axes
    assert max(y for axis in axes for _, y in dots(axis, hollow=False)) < 100


def test_a_ladder_has_a_row_of_panels_for_every_point_and_a_tick_for_every_size(tables, artefacts):
    figure = draw("ladder", tables, artefacts, "architecture")
    titles = [axis.get_title() for axis in figure.axes]
    assert titles == ["MLP at matched", "CNN at matched", "MLP at final", "CNN at final"]
    for axis in figure.axes:
        assert list(axis.xaxis.get_major_locator()()) == [50, 100]
    (missing,) = drawn(panel(figure, "MLP at matched"))
    assert missing == "not reached: mlp-8/momentum seed 1"
    assert drawn(panel(figure, "MLP at final")) == []


def test_a_ladder_says_of_which_split_its_subsets_are(tables, artefacts):
    other = {**tables, "ladder": tables["ladder"].assign(split="test")}
    assert "subsets of the train split" in words(draw("ladder", tables, artefacts, "small"))
    assert "subsets of the test split" in words(draw("ladder", other, artefacts, "small"))


# Trajectories


def test_the_trajectory_is_that_of_the_first_seed_with_a_pca(tables, artefacts):
    """cnn-2 with wild lost its first seed: the second is shown, from its own file."""
    figure = draw("trajectory", tables, artefacts, "optimizer")
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    assert titles == ["mlp-4, momentum", "cnn-2, momentum", "cnn-2, wild"]
    path = next(
        path for path in artefacts["trajectory"] if path.parts[-4:-1] == ("cnn-2", "wild", "seed1")
    )
    expected = store.read(path, "pca").variables["coordinates"].values[:, :2]
    shown = panel(figure, "cnn-2, wild").lines[0].get_xydata()
    np.testing.assert_array_equal(shown, expected)


def test_what_has_no_pca_at_all_is_named(tables, artefacts):
    assert "No PCA: mlp-4, wild." in words(draw("trajectory", tables, artefacts, "optimizer"))
    assert "No PCA" not in words(draw("trajectory", tables, artefacts, "architecture"))


def test_where_no_run_has_a_pca_the_figure_says_so(tables, artefacts):
    assert "no run has enough finite snapshots" in words(
        draw("trajectory", tables, artefacts, "diverged")
    )


# Paths between minima

T_OF_ONE = 12.706204736432095  # t(0.975, 1): intervals of the two pairs here


def barriers_of(tables, **values) -> dict[str, pd.DataFrame]:
    """The tables with other barriers of mlp-4's two pairs, rung by rung, on every split."""
    pairs = tables["connectivity"].copy()
    for rung, heights in values.items():
        for seed_a, height in zip((0, 2), heights, strict=True):
            rows = (pairs["model"] == "mlp-4") & (pairs["rung"] == rung)
            pairs.loc[rows & (pairs["seed_a"] == seed_a), "barrier"] = height
    means = tables["barriers"].copy()
    for rung, (a, b) in values.items():
        rows = (means["model"] == "mlp-4") & (means["rung"] == rung)
        half = T_OF_ONE * abs(a - b) / 2  # the standard error of two is half their distance
        means.loc[rows, ["barrier_mean", "barrier_low", "barrier_high"]] = (
            np.array([0, -half, half]) + (a + b) / 2
        )
    return {**tables, "connectivity": pairs, "barriers": means}


def marks(axis, label: str) -> list[tuple[float, float]]:
    """(x, y) of the means under this label."""
    container = next(c for c in axis.containers if c.get_label().removeprefix("_") == label)
    return [tuple(point) for point in container.lines[0].get_xydata()]


def bar_ends(axis, label: str) -> list[list[float]]:
    """Lower and upper ends of the bars of these means."""
    container = next(c for c in axis.containers if c.get_label().removeprefix("_") == label)
    return [list(segment[:, 1]) for segment in container.lines[2][-1].get_segments()]


def titled(figure, row: int, columns: int):
    return figure.axes[row * columns : (row + 1) * columns]


def test_the_ladder_has_a_row_for_each_model_and_a_column_for_each_rung(tables, artefacts):
    figure = draw("connectivity", tables, artefacts, "architecture")
    assert len(figure.axes) == 3 * 5
    titles = [" ".join(axis.get_title().split()) for axis in titled(figure, 0, 5)]
    assert titles == [
        "straight line",
        "aligned",
        "aligned, renormalised",
        "trained curve",
        "aligned, trained curve",
    ]
    labels = [figure.axes[row * 5].get_ylabel().split("\n")[0] for row in range(3)]
    assert labels == ["mlp-4", "mlp-8", "cnn-2"]


def test_every_pair_is_a_thin_line_and_their_mean_a_thick_one(tables, artefacts):
    """By hand: 0.2 + 4 t (1 - t) h on train, for h = 0.25 and 0.255; half as high again on test."""
    axis = draw("connectivity", tables, artefacts, "architecture").axes[0]
    t = np.linspace(0, 1, 5)
    for dash, level in (("-", 0.2), ("--", 0.3)):
        found = [line for line in axis.lines if line.get_ls() == dash]
        colour = found[0].get_color()
        thin = [line.get_ydata() for line in found if line.get_lw() < 0.6]
        (thick,) = (
            line.get_ydata() for line in found if line.get_lw() > 1 and line.get_color() == colour
        )
        expected = [level + 4 * t * (1 - t) * height for height in (0.25, 0.255)]
        np.testing.assert_allclose(thin, expected, rtol=1e-12)
        np.testing.assert_allclose(thick, np.mean(expected, axis=0), rtol=1e-12)


def test_the_number_on_a_panel_is_the_mean_over_pairs_of_each_ones_barrier(tables, artefacts):
    """Not the barrier of the mean: these two are highest at different t, above sloping chords.

    0.8 - 0.75 x 0.4 = 0.5 at t = 1/4, and 0.9 - 0.75 x 0.8 = 0.3 at 3/4.
    """
    path = tables["connectivity_path"].copy()
    at = (path["model"] == "mlp-4") & (path["rung"] == "line") & (path["split"] == "train")
    path.loc[at & (path["seed_a"] == 0), "loss"] = [0.4, 0.8, 0.2, 0.1, 0.0]
    path.loc[at & (path["seed_a"] == 2), "loss"] = [0.0, 0.1, 0.2, 0.9, 0.8]
    figure = draw("connectivity", {**tables, "connectivity_path": path}, artefacts, "small")
    assert drawn(figure.axes[0])[-1] == "0.4"


def test_what_a_panel_of_the_ladder_lacks_is_named_on_it(tables, artefacts):
    """One pair of mlp-8, and every rung of cnn-2 that asks for an alignment."""
    figure = draw("connectivity", tables, artefacts, "architecture")
    assert all(drawn(axis)[0] == "" for axis in titled(figure, 0, 5))
    assert all(drawn(axis)[0] == "not reached: 0–1" for axis in titled(figure, 1, 5))
    missing = [drawn(axis)[0] for axis in titled(figure, 2, 5)]
    assert missing == ["", "not available", "not available", "", "not available"]


def test_a_path_that_is_not_finite_all_the_way_is_in_no_mean(tables, artefacts):
    path = tables["connectivity_path"].copy()
    at = (path["model"] == "mlp-4") & (path["rung"] == "line") & (path["seed_a"] == 2)
    path.loc[at & (path["t"] == 0.5), "loss"] = NAN
    figure = draw("connectivity", {**tables, "connectivity_path": path}, artefacts, "small")
    assert drawn(figure.axes[0]) == ["not finite: 2–3", "0.25"]
    assert drawn(figure.axes[1])[0] == ""


@pytest.mark.parametrize("name", ["connectivity", "barriers", "widths", "taxonomy"])
def test_figures_of_pairs_say_how_many_pairs_their_means_are_of(tables, artefacts, name):
    text = words(draw(name, tables, artefacts, "architecture"))
    expected = {"connectivity": "disjoint pairs of seeds per model: 2"}
    mean = "95 % t interval, cut at 0, over 1 to 2 disjoint pairs of seeds (none of a single one)"
    assert expected.get(name, mean) in text


def with_seeds(table: pd.DataFrame, counts: dict[str, int]) -> pd.DataFrame:
    """The table with so many seeds of these models: copies of the first."""
    parts = [table[~table["model"].isin(counts)]]
    for model, count in counts.items():
        first = table[(table["model"] == model) & (table["seed"] == 0)]
        parts += [first.assign(seed=seed) for seed in range(count)]
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("name", ["training", "eigenvalues", "ladder", "flatness", "spectra"])
def test_models_with_different_numbers_of_seeds_are_said_to_have_them(tables, artefacts, name):
    """Wide networks are dear: mlp-4 has ten, mlp-8 five, cnn-2 three."""
    some = {
        key: with_seeds(table, {"mlp-4": 10, "mlp-8": 5, "cnn-2": 3}) if "seed" in table else table
        for key, table in tables.items()
    }
    text = words(draw(name, some, artefacts, "architecture"))
    assert "over 3 to 10 seeds" in text
    assert "over 10 seeds" not in text


def test_an_interval_of_two_seeds_among_more_is_said_to_be_a_range():
    rows = pd.DataFrame({"model": list("aaabb"), "optimizer": "sgd", "seed": [0, 1, 2, 0, 1]})
    assert "95 % t interval (range, where two are left) over 2 to 3 seeds" in seeds_note(
        rows, STYLE
    )
    assert "range over 2 seeds" in seeds_note(rows[3:], STYLE)
    assert "95 % t interval over 3 seeds" in seeds_note(rows[:3], STYLE)
    assert seeds_note(rows[:1], STYLE) == "One seed: no interval."


@pytest.mark.parametrize("name", ["barriers", "widths"])
def test_one_pair_has_a_mark_and_no_interval(tables, artefacts, name):
    pairs = tables["connectivity"].query("seed_a == 0")
    means = tables["barriers"].assign(pairs=1, barrier_low=NAN, barrier_high=NAN)
    one = {**tables, "connectivity": pairs, "barriers": means}
    figure = draw(name, one, artefacts, "architecture")
    assert "One pair of seeds: no interval." in words(figure)
    assert all(low == high for low, high in bar_ends(figure.axes[0], "straight line"))


@pytest.mark.parametrize("name", ["barriers", "widths"])
def test_pairs_and_rungs_without_a_barrier_are_named_in_the_note(tables, artefacts, name):
    text = words(draw(name, tables, artefacts, "architecture"))
    assert "Not reached: mlp-8 (pair 0–1)." in text
    if name == "barriers":
        rungs = "aligned; aligned, renormalised; aligned, trained curve"
        assert f"Not available: cnn-2 ({rungs})." in text
    assert "Not available: cnn-2." not in text
    assert "mlp-4" not in text.split("Dotted")[1]


def test_a_cell_without_any_barrier_is_named_without_its_rungs(tables, artefacts):
    pairs = tables["connectivity"].copy()
    pairs.loc[pairs["model"] == "cnn-2", ["status", "barrier"]] = ["diverged", NAN]
    figure = draw("barriers", {**tables, "connectivity": pairs}, artefacts, "architecture")
    assert "Diverged: cnn-2." in words(figure)


def test_barriers_are_drawn_with_their_pairs_mean_interval_and_limit(tables, artefacts):
    """Loss on train: pairs 0.4 and 0.6 of mlp-4, whose interval is 0.5 ± t 0.1 cut at 0."""
    figure = draw("barriers", barriers_of(tables, line=(0.4, 0.6)), artefacts, "architecture")
    axis = figure.axes[0]
    (x, y) = marks(axis, "straight line")[0]
    assert y == pytest.approx(0.5, rel=1e-12)
    assert -0.5 < x < 0.5, "at the place of the first cell"
    assert bar_ends(axis, "straight line")[0] == pytest.approx([0, 0.5 + T_OF_ONE * 0.1])
    assert {0.4, 0.6} <= {y for line in axis.lines for y in line.get_ydata()}
    names = [text.get_text() for text in figure.axes[-1].get_xticklabels()]
    assert names == ["mlp-4", "mlp-8", "cnn-2"]
    assert [dotted(axis) for axis in figure.axes] == [
        [pytest.approx(limit)] for limit in (0.05, 0.05, 2.0, 2.0, 0.05, 0.05)
    ]


def test_errors_are_in_percent(tables, artefacts):
    """3/10 of 0.25 and of 0.255: the mean is 7.575 %."""
    axis = draw("barriers", tables, artefacts, "architecture").axes[2]
    assert "%" in axis.get_ylabel()
    assert marks(axis, "straight line")[0][1] == pytest.approx(7.575, rel=1e-12)


@pytest.mark.parametrize("name", ["barriers", "widths", "taxonomy"])
def test_a_barrier_of_zero_is_on_the_axis_and_so_is_one_of_nats(tables, artefacts, name):
    some = barriers_of(tables, line=(3.0, 3.0), aligned=(0.0, 0.0))
    figure = draw(name, some, artefacts, "architecture")
    axis = figure.axes[0]
    low, high = axis.get_ylim()
    assert low < 0 < 3 < high
    places = axis.transAxes.inverted().transform(axis.transData.transform([(1, 0), (1, 3)]))[:, 1]
    assert 0 < places[0] < places[1] < 1
    limit = axis.transAxes.inverted().transform(axis.transData.transform((1, 0.05)))[1]
    assert limit - places[0] > 0.15, "what lies below the limit has room"
    assert 0 in axis.get_yticks()


# Forks


def test_instability_is_drawn_against_the_shared_epochs(tables, artefacts):
    """By hand: 0.2 (1 + seed / 10) at k = 0, an eleventh of it at 1; three seeds."""
    figure = draw("instability", tables, artefacts, "architecture")
    axis = figure.axes[0]
    values = 0.2 * np.array([1.0, 1.1, 1.2])
    half = 4.302652729911275 * values.std(ddof=1) / np.sqrt(3)
    found = marks(axis, "mlp-4")
    assert [y for _, y in found] == pytest.approx([values.mean(), values.mean() / 11], rel=1e-9)
    assert [round(x) for x, _ in found] == [0, 1]
    ends = bar_ends(axis, "mlp-4")[0]
    assert ends == pytest.approx([values.mean() - half, values.mean() + half], rel=1e-9)
    assert list(figure.axes[-1].xaxis.get_major_locator()()) == [0, 1]
    assert [dotted(axis)[0] for axis in figure.axes] == pytest.approx([0.05, 0.05, 2, 2])


def test_a_fork_that_diverged_is_named(tables, artefacts):
    text = words(draw("instability", tables, artefacts, "architecture"))
    assert "Diverged: mlp-8 (seed 2)." in text
    table = tables["instability"].copy()
    rows = (table["model"] == "cnn-2") & (table["seed"] == 1) & (table["shared_epochs"] == 1)
    table.loc[rows, ["status", "barrier"]] = ["diverged", NAN]
    text = words(draw("instability", {**tables, "instability": table}, artefacts, "architecture"))
    assert "Diverged: mlp-8 (seed 2), cnn-2 (seed 1, k = 1)." in text


# Widths


def of_epochs(tables) -> dict[str, pd.DataFrame]:
    """The tables as if pairs were connected at epochs 1 and 10 (barriers a tenth), not matched."""
    out = dict(tables)
    for name, columns in (
        ("connectivity", ["barrier"]),
        ("barriers", ["barrier_mean", "barrier_low", "barrier_high"]),
    ):
        early = tables[name].assign(point="epoch1")
        late = tables[name].assign(point="epoch10")
        early[columns] *= 0.1
        out[name] = pd.concat([late, early], ignore_index=True)
    return out


def test_barriers_by_width_have_a_panel_for_each_family(tables, artefacts):
    """At widths 4 and 8: mlp-8 has one pair, of seed 2, with 2 % more."""
    some = dict(tables)
    for name in ("barriers", "connectivity"):
        second = tables[name].query("model == 'cnn-2'").assign(model="cnn-3", width=3)
        some[name] = pd.concat([tables[name], second], ignore_index=True)
    models = [*MODELS, "cnn-3"]
    figure = draw("widths", some, artefacts, "architecture", models=models)
    assert [axis.get_title() for axis in figure.axes] == ["MLP", "CNN", "MLP", "CNN"]
    axis = figure.axes[0]
    assert axis.get_xscale() == "log"
    assert list(axis.xaxis.get_major_locator()()) == [4, 8]
    found = marks(axis, "straight line")
    assert [y for _, y in found] == pytest.approx([0.2525, 0.255], rel=1e-12)
    assert [x for x, _ in found] == pytest.approx([4, 8], rel=0.1)
    assert "trained curve" not in words(figure)
    assert [dotted(axis)[0] for axis in figure.axes] == pytest.approx([0.05, 0.05, 2, 2])
    assert "On the train split" in words(figure)


def test_several_epochs_are_lines_by_width_and_a_map(tables, artefacts):
    points = ["epoch1", "epoch10"]
    figure = draw("widths", of_epochs(tables), artefacts, "architecture", connected_points=points)
    titles = [axis.get_title() for axis in figure.axes]
    assert titles.count("MLP, straight line") == titles.count("MLP, aligned") == 2
    lines, image = (axis for axis in figure.axes if axis.get_title() == "MLP, straight line")
    for width, shift, heights in (
        ("4", -0.1575, [0.02525, 0.2525]),
        ("8", 0.1575, [0.0255, 0.255]),
    ):
        found = np.array(marks(lines, width))  # side by side, so that bars are told apart
        np.testing.assert_allclose(found.T, [np.array([1, 10]) + shift, heights], rtol=1e-9)
    assert [text.get_text() for text in lines.get_legend().get_texts()] == ["4", "8"]
    expected = [[0.02525, 0.2525], [0.0255, 0.255]]  # widths upwards, epochs to the right
    np.testing.assert_allclose(image.images[0].get_array(), expected, rtol=1e-12)
    assert image.images[0].origin == "lower"
    assert [text.get_text() for text in image.get_yticklabels()] == ["4", "8"]
    assert [text.get_text() for text in image.get_xticklabels()] == ["1", "10"]
    assert drawn(image) == ["0.025", "0.25", "0.026", "0.26"]
    assert "against the width at epoch10" in words(figure)
    assert saved(figure, "png").startswith(b"\x89PNG")


def test_what_has_no_barrier_is_a_dash_on_the_map(tables, artefacts):
    some = of_epochs(tables)
    rows = (some["barriers"]["model"] == "mlp-8") & (some["barriers"]["rung"] == "aligned")
    some["barriers"].loc[rows, "barrier_mean"] = NAN
    points = ["epoch1", "epoch10"]
    figure = draw("widths", some, artefacts, "architecture", connected_points=points)
    _, image = (axis for axis in figure.axes if axis.get_title() == "MLP, aligned")
    assert drawn(image) == ["0.002", "0.02", "–", "–"]
    assert "At epoch1: Not reached: mlp-8 (pair 0–1)." in words(figure)


def test_maps_are_of_single_barriers_on_one_scale(tables, artefacts):
    points = ["epoch1", "epoch10"]
    figure = draw("widths", of_epochs(tables), artefacts, "architecture", connected_points=points)
    scales = {(i.norm.vmin, i.norm.vmax) for axis in figure.axes for i in axis.images}
    ((low, high),) = scales
    assert (low, high) == (0, pytest.approx(0.255))


def test_models_without_another_width_are_left_out_and_named(tables, artefacts):
    """cnn-2 as the only one, as a user's model, and as a variant of the first mlp."""
    for reason, columns in {
        "the only width of its family": {"width": 2},
        "no width": {"width": -1},
        "the width of another": {"width": 4, "family": "mlp"},
    }.items():
        some = dict(tables)
        for name in ("barriers", "connectivity"):
            some[name] = tables[name].copy()
            some[name].loc[some[name]["model"] == "cnn-2", list(columns)] = list(columns.values())
        figure = draw("widths", some, artefacts, "architecture")
        assert [axis.get_title() for axis in figure.axes] == ["MLP", "MLP"]
        assert f"Left out: cnn-2 ({reason})." in words(figure)
        assert len(marks(figure.axes[0], "straight line")) == 2


# Taxonomy


def test_the_taxonomy_sets_the_barrier_beside_the_geometric_mean_of_eigenvalues(tables, artefacts):
    some = tables["eigenvalues"].copy()
    at = (some["model"] == "mlp-4") & (some["point"] == "matched") & (some["end"] == "top")
    at &= (some["rank"] == 1) & (some["matrix"] == "hessian") & (some["optimizer"] == "momentum")
    some.loc[at, "eigenvalue"] = [4.0, 6.0, 9.0]
    some.loc[at, "converged"] = True
    figure = draw("taxonomy", {**tables, "eigenvalues": some}, artefacts, "architecture")
    logs = np.log([4.0, 6.0, 9.0])
    half = 4.302652729911275 * logs.std(ddof=1) / np.sqrt(3)
    for axis, height in zip(figure.axes, (0.2525, 0.0202, 0.0101), strict=False):
        assert axis.get_xscale() == "log"
        (container,) = (
            c for c in axis.containers if c.lines[0].get_xdata()[0] == pytest.approx(6.0)
        )
        assert container.lines[0].get_ydata()[0] == pytest.approx(height, rel=1e-12)
        (across,) = container.lines[2][0].get_segments()
        np.testing.assert_allclose(np.log(across[:, 0]), np.log(6) + half * np.array([-1, 1]))
        assert "mlp-4" in drawn(axis)
        assert dotted(axis) == [0.05]
    assert "flat, well connected" in words(figure)


def test_the_colour_of_the_taxonomy_is_the_mean_cka_and_the_marker_the_family(tables, artefacts):
    """On test, 0.84 and 0.86 of the pairs; on a scale from 0.8 to 1."""
    some = tables["similarity"].copy()
    at = (some["split"] == "test") & (some["quantity"] == "debiased_cka")
    at &= some["ends"] == "naive"
    some.loc[~at, "similarity"] = 0.99
    some.loc[at, "similarity"] = np.where(some.loc[at, "seed_a"] == 0, 0.84, 0.86)
    some = some[some["model"] != "mlp-8"]
    figure = draw("taxonomy", {**tables, "similarity": some}, artefacts, "architecture")
    points = {c.lines[0].get_marker(): c.lines[0] for c in figure.axes[0].containers[::2]}
    assert points.keys() == {"o", "s"}
    for point in points.values():
        expected = mpl.colormaps["viridis"](0.25)
        np.testing.assert_allclose(point.get_markerfacecolor(), expected, atol=0.01)


def test_cells_without_a_cka_are_grey(tables, artefacts):
    """As a model whose last hidden layer nobody knows."""
    some = tables["similarity"].assign(similarity=NAN)
    figure = draw("taxonomy", {**tables, "similarity": some}, artefacts, "architecture")
    assert {c.lines[0].get_markerfacecolor() for c in figure.axes[0].containers} == {"0.8"}
    assert "Grey: no CKA" in words(figure)
    assert "Grey" not in words(draw("taxonomy", tables, artefacts, "architecture"))


def test_the_trained_curve_is_the_aligned_one_where_there_is_one(tables, artefacts):
    some = barriers_of(tables, curve=(0.5, 0.5), aligned_curve=(0.125, 0.125))
    axis = draw("taxonomy", some, artefacts, "small").axes[2]
    assert [c.lines[0].get_ydata()[0] for c in axis.containers] == [0.125]
    figure = draw("taxonomy", tables, artefacts, "small", cells=[("cnn-2", "momentum", "matched")])
    curve = panel(figure, "trained curve, aligned where possible")
    assert [c.lines[0].get_ydata()[0] for c in curve.containers] == [pytest.approx(0.0101)]


def test_cells_that_lack_a_number_are_named_in_the_note_of_the_taxonomy(tables, artefacts):
    text = words(draw("taxonomy", tables, artefacts, "optimizer"))
    assert "Without both numbers: mlp-4, wild, cnn-2 (aligned), cnn-2, wild." in text
    assert "Where no optimizer is named: momentum." in text


def test_cells_of_one_run_at_two_points_are_told_apart(tables, artefacts):
    """Of the second there are eigenvalues, and no barriers."""
    cells = [("mlp-4", "momentum", "matched"), ("mlp-4", "momentum", "final")]
    figure = draw("taxonomy", tables, artefacts, "small", cells=cells)
    assert "mlp-4" in drawn(figure.axes[0])
    assert "Where no point is named: matched." in words(figure)
    assert "Without both numbers: mlp-4, final." in words(figure)


def test_a_taxonomy_of_one_run_has_an_axis(tables, artefacts):
    """A single eigenvalue spans nothing."""
    one = tables["eigenvalues"].query("seed == 0")
    figure = draw("taxonomy", {**tables, "eigenvalues": one}, artefacts, "small")
    assert saved(figure, "png").startswith(b"\x89PNG")
    low, high = figure.axes[0].get_xlim()
    assert 0 < low < figure.axes[0].containers[0].lines[0].get_xdata()[0] < high


def test_the_taxonomy_names_what_its_eigenvalues_are_means_of(tables, artefacts):
    text = words(draw("taxonomy", tables, artefacts, "architecture"))
    assert "Eigenvalues: Geometric mean and 95 % t interval (range, where two are left)" in text
    assert "over 2 to 3 seeds" in text


@pytest.mark.parametrize("name", ["taxonomy", "widths"])
def test_rungs_that_nobody_asked_for_have_no_panels(tables, artefacts, name):
    some = dict(of_epochs(tables) if name == "widths" else tables)
    for table in ("barriers", "connectivity"):
        some[table] = some[table][some[table]["rung"] == "line"]
    changes = {"connected_points": ["epoch1", "epoch10"]} if name == "widths" else {}
    figure = draw(name, some, artefacts, "architecture", **changes)
    titles = [axis.get_title() for axis in figure.axes if axis.get_title()]
    if name == "taxonomy":
        assert titles == ["straight line"]
        assert "aligned" not in words(figure)
    else:
        assert titles == ["MLP", "MLP", "MLP, straight line", "MLP, straight line"]
        line, image = (axis.get_position() for axis in figure.axes[2:4])
        assert line.width == pytest.approx(figure.axes[0].get_position().width, rel=0.3)
        assert image.x0 > line.x1


def test_the_note_of_planes_explains_what_is_drawn(tables, artefacts):
    files = {"planes": [p for p in artefacts["planes"] if "mlp-4" in p.parts]}
    text = words(draw("pair_planes", tables, files, "small"))
    assert "diamond: the trained midpoint; triangle: a third seed. Solid" in text
    files = {"planes": [p for p in artefacts["planes"] if "cnn-2" in p.parts]}
    text = words(draw("pair_planes", tables, files, "small", models=["cnn-2"]))
    assert "triangle" not in text
    assert "diamond" in text


# Planes through minima


def plane_panels(figure) -> dict[str, list]:
    """Kind of plane -> its panels, cell by cell."""
    columns = 3
    rows = [figure.axes[i : i + columns] for i in range(0, 4 * columns, columns)]
    return {" ".join(row[0].get_ylabel().split()).removesuffix(" distance"): row for row in rows}


def test_a_curve_lies_on_its_plane_between_the_minima(tables, artefacts):
    """Corners (0, 0), (10, 0), (4, 3): at t = 1/2, (0 + 2 m + b) / 4 = (4.5, 1.5)."""
    figure = draw("pair_planes", tables, artefacts, "architecture")
    axis = plane_panels(figure)["trained curve"][0]
    curve = next(line.get_xydata() for line in axis.lines if len(line.get_xdata()) > 10)
    np.testing.assert_allclose(curve[[0, -1]], [[0, 0], [10, 0]], atol=1e-12)
    np.testing.assert_allclose(curve[len(curve) // 2], [4.5, 1.5], rtol=1e-12)
    t = np.linspace(0, 1, len(curve))
    np.testing.assert_allclose(curve[:, 1], 6 * t * (1 - t), atol=1e-12)
    (straight,) = (line.get_xydata() for line in axis.lines if line.get_ls() == "--")
    np.testing.assert_array_equal(straight, [[0, 0], [10, 0]])
    assert axis.get_aspect() == 1.0


def test_three_minima_are_the_corners_of_a_triangle(tables, artefacts):
    axis = plane_panels(draw("pair_planes", tables, artefacts, "architecture"))["three minima"][0]
    (sides,) = (line.get_xydata() for line in axis.lines if line.get_ls() == "--")
    np.testing.assert_array_equal(sides, [[0, 0], [10, 0], [4, 9], [0, 0]])
    points = [line for line in axis.lines if len(line.get_xdata()) == 1]
    assert [tuple(line.get_xydata()[0]) for line in points] == [(0, 0), (10, 0), (4, 9)]
    assert [line.get_marker() for line in points] == ["o", "s", "^"]


def test_a_plane_that_is_missing_says_why(tables, artefacts):
    panels = plane_panels(draw("pair_planes", tables, artefacts, "architecture"))
    assert {kind: [drawn(axis) for axis in row] for kind, row in panels.items()} == {
        "trained curve": [[], ["not reached"], []],
        "aligned, trained curve": [[], ["not reached"], ["not available"]],
        "three minima": [[], ["not reached"], ["needs three seeds"]],
        "three aligned minima": [[], ["not reached"], ["needs three seeds"]],
    }


# What was published


def stars(axis) -> list[tuple[float, float]]:
    return [
        tuple(point)
        for line in axis.lines
        if line.get_marker() == "*"
        for point in line.get_xydata()
    ]


def test_the_ladder_shows_what_was_published_at_the_size_of_its_batches(tables, artefacts):
    """The geometric mean over seeds, at the 20 samples of a batch; and the range as its bar."""
    values = tables["published"].query("model == 'mlp-4' and optimizer == 'momentum'")
    values = values["eigenvalue"]
    figure = draw("ladder", tables, artefacts, "small")
    axis = panel(figure, "MLP at final")
    ((samples, value),) = stars(axis)
    assert samples == 20
    assert value == pytest.approx(np.exp(np.log(values).mean()))
    ends = [
        path.vertices[:, 1]
        for bars in axis.collections
        if isinstance(bars, LineCollection)
        for path in bars.get_paths()
    ]
    assert any(np.allclose(sorted(y), [values.min(), values.max()]) for y in ends)
    assert "published estimator" in words(figure)


def test_the_ladder_is_drawn_in_a_study_that_measures_nothing_published(tables, artefacts):
    without = {name: table for name, table in tables.items() if name != "published"}
    figure = draw("ladder", without, artefacts, "architecture")
    assert not any(map(stars, figure.axes))
    assert "published" not in words(figure)


def test_published_surfaces_say_what_is_wrong_with_them(tables, artefacts):
    figure = draw("published", tables, artefacts, "architecture")
    text = words(figure)
    assert text.count("comb: 3 × as rough") == 3
    assert "reaches ±0.33 ‖θ‖" in text
    assert "starts (dots) 0.5 to 1 ‖θ‖ away from θ" in text
    lines = figure.axes[2]
    starts = lines.collections[0].get_offsets()
    np.testing.assert_allclose(starts[:, 0], -1.5)
    np.testing.assert_allclose(starts[:, 1], [5.2, 7.8])
    assert 0.2 in [line.get_ydata()[0] for line in lines.lines]  # the minimum: on none of them


def test_published_surfaces_that_are_not_there_leave_panels_with_a_reason(tables, artefacts):
    text = words(draw("published", tables, artefacts, "diverged"))
    assert text.count("diverged") == 4
    experiment = EXPERIMENTS["small"]
    later = [
        path
        for stage in ("published", "landscape")
        for path in artefacts[stage]
        if path.parts[-4:-1] == ("mlp-4", "momentum", "seed1")
    ]
    assert words(figure_of("published", tables, later, experiment)).count("not drawn") == 2


# Another loss than the cross-entropy


def in_units(units: str) -> dict:
    return STYLE | {"loss": {"name": "mine", "units": units}}


@pytest.mark.parametrize("name", [name for name in FIGURES if name != "published"])
def test_every_label_is_in_the_units_of_the_loss(tables, artefacts, name):
    """What a figure says of another loss is what it says of the cross-entropy, but for them."""
    plain, other, pure = (
        words(draw(name, tables, artefacts, "small", style)).replace(" Loss: mine.", "")
        for style in (STYLE, in_units("K"), in_units("1"))
    )
    assert other == plain.replace("nats", "K")
    assert pure == re.sub(r" \(nats\)|(; λ in)? nats", "", plain)


@pytest.mark.parametrize("name", ["training", "eigenvalues", "barriers"])
def test_a_figure_names_a_loss_that_is_not_the_cross_entropy(tables, artefacts, name):
    assert "Loss:" not in words(draw(name, tables, artefacts, "small"))
    assert words(draw(name, tables, artefacts, "small", in_units("1"))).count("Loss: mine.") == 1


@pytest.mark.parametrize("name", ["training", "steps", "correlations"])
def test_what_has_no_classes_has_no_accuracy(tables, artefacts, name):
    none = {
        table: tables[table].assign(test_accuracy=NAN, steps_to_test_accuracy=NAN)
        for table in ("history", "runs")
    }
    panels = 2 if name == "correlations" else 1
    figure = draw(name, tables | none, artefacts, "small")
    assert saved(figure, "png").startswith(b"\x89PNG")
    text = words(figure)
    assert text.count("not available") == panels
    assert "never" not in text
    assert "not available" not in words(draw(name, tables, artefacts, "small"))


@pytest.mark.parametrize(
    ("name", "panels"), [("barriers", 4), ("instability", 2), ("widths", 1), ("connectivity", 1)]
)
def test_what_has_no_classes_has_no_barrier_in_error(tables, artefacts, name, panels):
    def without(table: pd.DataFrame) -> pd.DataFrame:
        rows = (table["measure"] != "loss") & (table["status"] == "ok")
        table = table.assign(status=table["status"].mask(rows, "not available"))
        return table.assign(barrier=table["barrier"].mask(table["measure"] != "loss"))

    means = tables["barriers"].copy()
    means.loc[means["measure"] != "loss", ["barrier_mean", "barrier_low", "barrier_high"]] = NAN
    none = {table: without(tables[table]) for table in ("connectivity", "instability")}
    none["barriers"] = means
    none["connectivity_path"] = tables["connectivity_path"].assign(tempered_loss=NAN)
    experiment = "architecture" if name == "widths" else "small"
    figures = [draw(name, some, artefacts, experiment) for some in (tables, tables | none)]
    assert saved(figures[1], "png").startswith(b"\x89PNG")
    before, after = map(words, figures)
    assert after.count("not available") == before.count("not available") + panels
    assert after.count("Not available") == before.count("Not available")
    assert "not finite" not in after.lower()
