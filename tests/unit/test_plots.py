"""Figures: every one is drawn from what a study leaves, says what is missing, and repeats."""

import io
import re

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from lossgeo import plots, store

from .test_tables import MAKERS

STYLE = {"column_width": 3.4, "font_size": 8, "dpi": 30, "confidence": 0.95}
FILES = {  # the files that a figure reads beside the tables
    "lines": "landscape",
    "planes": "landscape",
    "surfaces": "landscape",
    "trajectory": "trajectory",
}
EXPERIMENTS = {
    "architecture": {
        "models": ["mlp-4", "mlp-8", "cnn-2"],
        "optimizers": ["momentum"],
        "points": ["matched", "final"],
    },
    "optimizer": {  # two of its runs of `wild` diverged, one at the first seed
        "models": ["mlp-4", "cnn-2"],
        "optimizers": ["momentum", "wild"],
        "points": ["final"],
    },
    "small": {"models": ["mlp-4"], "optimizers": ["momentum"], "points": ["final"]},
    "diverged": {"models": ["mlp-4"], "optimizers": ["wild"], "points": ["final"]},
}


def read_back(files, folder) -> dict[str, pd.DataFrame]:
    """The tables as figures get them: from CSV."""
    tables = {}
    for name, make in MAKERS.items():
        store.write_csv(make(files), folder / f"{name}.csv")
        tables[name] = pd.read_csv(folder / f"{name}.csv")
    return tables


@pytest.fixture(scope="module")
def tables(artefacts, tmp_path_factory):
    return read_back(artefacts, tmp_path_factory.mktemp("tables"))


def draw(name, tables, artefacts, experiment, style=STYLE):
    experiment = EXPERIMENTS[experiment]
    wanted = [
        path
        for path in artefacts.get(FILES.get(name), [])
        if path.parts[-4] in experiment["models"] and path.parts[-3] in experiment["optimizers"]
    ]
    return plots.draw(name, tables, wanted, experiment, style)


def saved(figure, suffix: str) -> bytes:
    """As scripts/figure.py saves it."""
    metadata = {"pdf": {"CreationDate": None}, "png": {"Software": None}}[suffix]
    with mpl.rc_context(plots.style_of(STYLE)):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, metadata=metadata)
    return buffer.getvalue()


def words(figure) -> str:
    return "\n".join(artist.get_text() for artist in figure.findobj(Text))


@pytest.mark.parametrize(
    ("name", "experiment"),
    [
        (name, experiment)
        for name in plots.FIGURES
        for experiment in ("architecture", "optimizer", "diverged")
        if name != "connectivity" or experiment == "architecture"  # the others connect nothing
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


@pytest.mark.parametrize("name", [n for n in plots.FIGURES if n != "connectivity"])
def test_a_single_seed_is_drawn_too(one_seed, tmp_path, name):
    tables = read_back(one_seed, tmp_path)
    figure = draw(name, tables, one_seed, "small")
    assert saved(figure, "png").startswith(b"\x89PNG")
    if name in ("training", "eigenvalues", "flatness"):
        assert "One seed: no interval." in words(figure)


@pytest.mark.parametrize("name", ["training", "lines", "spectra", "eigenvalues", "flatness"])
def test_runs_with_nothing_to_show_are_named_on_the_panel(tables, artefacts, name):
    text = words(draw(name, tables, artefacts, "optimizer"))
    assert "mlp-4/wild seed 0" in text
    assert "cnn-2/wild seed 0" in text
    assert "momentum seed" not in text


@pytest.mark.parametrize("name", ["planes", "surfaces"])
def test_a_surface_that_diverged_says_so_in_its_place(tables, artefacts, name):
    assert "diverged" in words(draw(name, tables, artefacts, "optimizer"))


def test_a_pair_without_a_path_is_named_on_the_panel(tables, artefacts):
    assert "mlp-8/momentum" in words(draw("connectivity", tables, artefacts, "architecture"))


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
        for name, table in tables.items()
    }
    figure = draw("eigenvalues", own, artefacts, "architecture")
    assert "optimizer" in words(figure)
    assert "mlp-8" in words(figure)
    assert saved(figure, "png").startswith(b"\x89PNG")
