"""Tables: one row per observation, nothing dropped, every column explained."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lossgeo import pair_tables, published_tables, store, tables, verdicts
from lossgeo.store import Group, Variable

from .artefacts import (
    CELLS,
    ESTIMATES,
    LABELS,
    NAN,
    OBJECTIVE,
    POINTS,
    SEEDS,
    identity_of,
    pair_identity,
    path_profile,
    status_of,
    trajectory_status_of,
)

LIMITS = {"loss": 0.05, "error": 0.02}
RUNS = [(*cell, seed) for cell in CELLS for seed in SEEDS]

MAKERS = {
    "history": lambda files: tables.history(files["history"]),
    "runs": lambda files: tables.runs(files["history"] + files["snapshots"], 0.3, 0.9),
    "eigenvalues": lambda files: tables.eigenvalues(files["hessian"]),
    "curvature": lambda files: tables.curvature(files["hessian"]),
    "spectrum": lambda files: tables.spectrum(files["hessian"]),
    "layers": lambda files: tables.layers(files["hessian"]),
    "layer_curvature": lambda files: tables.layer_curvature(files["hessian"]),
    "ladder": lambda files: tables.ladder(files["ladder"]),
    "landscape": lambda files: tables.landscape(files["landscape"], 0.1, 0.01),
    "flatness": lambda files: tables.flatness(files["flatness"]),
    "worst_case": lambda files: tables.worst_case(files["flatness"]),
    "invariance": lambda files: tables.invariance(files["flatness"]),
    "trajectory": lambda files: tables.trajectory(files["trajectory"]),
    "trajectory_path": lambda files: tables.trajectory_path(files["trajectory"]),
    "parabola": lambda files: tables.parabola(files["trajectory"]),
    "published": lambda files: published_tables.published(files["published"]),
    "connectivity": lambda files: pair_tables.connectivity(files["pairs"]),
    "connectivity_path": lambda files: pair_tables.connectivity_path(files["pairs"]),
    "barriers": lambda files: pair_tables.barriers(files["pairs"], LIMITS),
    "similarity": lambda files: pair_tables.similarity(files["pairs"]),
    "alignment": lambda files: pair_tables.alignment(files["alignment"]),
    "instability": lambda files: pair_tables.instability(files["forks"], LIMITS),
    "kernels": lambda files: tables.kernels([*files["hessian"], *files["ladder"]]),
    "endpoints": lambda files: judged(files)[0],
    "verdicts": lambda files: judged(files)[1],
}


def judged(files) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Our own claims, of which this study has next to no data."""
    registry = yaml.safe_load((Path(__file__).parents[2] / "claims.yaml").read_text())
    return verdicts.judge({"runs": MAKERS["runs"](files)}, registry)


def as_made(table: pd.DataFrame) -> pd.DataFrame:
    """As scripts/table.py writes it; endpoints and verdicts are of claims, not of models."""
    return tables.with_labels(table, LABELS) if "model" in table else table


@pytest.fixture(scope="module")
def made(artefacts) -> dict[str, pd.DataFrame]:
    return {name: as_made(make(artefacts)) for name, make in MAKERS.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_every_column_has_a_unit_and_a_description(made, name):
    assert len(made[name])
    for column in made[name].columns:
        unit, description = tables.columns().loc[column]
        assert description
        numeric = pd.api.types.is_float_dtype(made[name][column])
        assert unit or not numeric, f"{column} is a number without a unit"


@pytest.mark.parametrize(
    "name",
    [
        *("trajectory", "trajectory_path", "parabola", "published"),
        *("connectivity", "connectivity_path"),
    ],
)
def test_a_table_without_pairs_or_a_pca_still_has_described_columns(name):
    """Stages that measured nothing give a table without rows, not an error."""
    table = MAKERS[name]({"trajectory": [], "published": [], "pairs": []})
    assert len(table) == 0
    assert len(table.columns)
    assert set(table.columns) <= set(tables.columns().index)


MEASURED = (
    "eigenvalues",
    "curvature",
    "layers",
    "layer_curvature",
    "spectrum",
    "landscape",
    "flatness",
    "worst_case",
)


@pytest.mark.parametrize(
    "name", [*MEASURED, "invariance", "trajectory", "trajectory_path", "parabola"]
)
def test_every_row_says_on_which_split_and_how_many_samples_it_was_measured(made, name):
    assert (made[name]["split"] == OBJECTIVE["split"]).all()
    assert (made[name]["samples"] == OBJECTIVE["samples"]).all()
    assert made[name]["samples"].dtype == int
    columns = ["model", *LABELS["mlp-4"], "parameters", "optimizer", "seed", "split", "samples"]
    assert list(made[name].columns[:8]) == columns


@pytest.mark.parametrize("name", ["connectivity", "connectivity_path"])
def test_pairs_have_rows_of_both_splits(made, name):
    assert set(made[name]["split"]) == {"train", "test"}


@pytest.mark.parametrize("name", MAKERS)
def test_a_table_survives_its_csv(made, name, tmp_path):
    store.write_csv(made[name], tmp_path / "t.csv")
    back = pd.read_csv(tmp_path / "t.csv")
    assert list(back.columns) == list(made[name].columns)
    pd.testing.assert_frame_equal(back, made[name], check_dtype=False, check_exact=True)


def test_every_description_is_of_a_column_that_exists(made):
    used = {column for table in made.values() for column in table.columns}
    assert set(tables.columns().index) == used


def test_the_dictionary_has_a_row_for_every_column_of_every_table(made):
    found = tables.dictionary(made)
    assert list(found.columns) == ["table", "column", "unit", "description"]
    pairs = [(name, column) for name, table in made.items() for column in table.columns]
    assert list(zip(found["table"], found["column"], strict=True)) == pairs


@pytest.mark.parametrize("name", [*MEASURED, "ladder"])
def test_every_run_has_its_rows_at_every_point_with_its_status(made, name):
    """Diverged runs and points that were not reached too."""
    rows = made[name].groupby(["model", "optimizer", "seed", "point"], sort=False)
    expected = [(*run, point) for run in RUNS for point in POINTS]
    assert sorted(rows.groups) == sorted(expected)
    for _, sizes in rows.size().groupby("optimizer"):
        assert sizes.nunique() == 1
    for (*run, point), part in rows:
        assert (part["status"] == status_of(*run, point)).all()


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("eigenvalues", ["eigenvalue", "eigenvalue_se", "residual"]),
        ("curvature", ["loss", "loss_se", *ESTIMATES, "outliers", "outlier_gap"]),
        ("curvature", ["step", "products", "gauss_newton_products"]),
        ("layers", ["gauss_newton_trace", "gauss_newton_trace_se"]),
        ("layer_curvature", ["trace", "trace_se", "eigenvalue", "eigenvalue_se", "residual"]),
        ("spectrum", ["node", "weight"]),
        ("ladder", ["eigenvalue", "eigenvalue_se", "residual"]),
        ("landscape", ["curvature", "curvature_se", "second_difference", "radius", "minima"]),
        ("landscape", ["convex_fraction", "convex_low", "convex_high", "stencils", "roughness"]),
        ("landscape", ["radius_censored", "evaluated", "held_out", "interpolation_error"]),
        ("flatness", ["rise", "rise_se"]),
        ("connectivity", ["barrier", "barrier_se", "barrier_t", "length_ratio"]),
        ("connectivity_path", ["loss", "loss_se", "error_se", "tempered_loss", "temperature"]),
        ("instability", ["barrier", "barrier_se", "barrier_t"]),
    ],
)
def test_what_was_not_measured_is_nan_and_what_was_is_a_number(made, name, numbers):
    table = made[name]
    ok = table["status"] == "ok"
    assert 0 < ok.sum() < len(table)
    assert np.isfinite(table.loc[ok, numbers].astype(float)).all(axis=None)
    assert table.loc[~ok, numbers].isna().all(axis=None)


def test_the_history_is_every_row_of_every_run(made, artefacts):
    parts = [pd.read_csv(path) for path in artefacts["history"]]
    assert len(made["history"]) == sum(map(len, parts))
    assert list(made["history"].drop(columns=[*LABELS["mlp-4"]])) == list(parts[0].columns)
    last = made["history"].groupby(["model", "optimizer", "seed"], sort=False).tail(1)
    for row in last.itertuples():
        expected = status_of(row.model, row.optimizer, row.seed, "final") == "diverged"
        assert row.diverged == expected
        assert math.isnan(row.train_loss) == expected


def test_a_run_is_one_row_with_its_end_and_its_steps_to_a_fixed_loss(tmp_path):
    one = pd.DataFrame(
        {
            "model": "mlp-4",
            "parameters": 200,
            "optimizer": "sgd",
            "seed": 3,
            "diverged": False,
            "step": [0, 5, 10, 15],
            "epoch": [0.0, 0.5, 1.0, 1.5],
            "train_loss": [2.3, 0.5, 0.25, 0.28],
            "train_accuracy": [0.1, 0.8, 0.9, 0.88],
            "test_loss": [2.4, 0.6, 0.3, 0.33],
            "test_accuracy": [0.1, 0.7, 0.85, 0.84],
        }
    )
    other = one.assign(seed=4, train_loss=[2.3, 1.5, 1.0, NAN], diverged=[False] * 3 + [True])
    paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
    for frame, path in zip((one, other), paths, strict=True):
        store.write_csv(frame, path)
    snapshots = [tmp_path / "a.h5", tmp_path / "b.h5"]
    numbers = {"step": 9, "epoch": 0.9, "loss": 0.295, "loss_se": 0.01}
    at = {n: Variable((), np.array(v), "1", n) for n, v in numbers.items()}
    store.write(snapshots[0], {"matched": Group(at)}, {"initial_gradient_norm": 1.5})
    store.write(snapshots[1], {}, {"initial_gradient_norm": 2.5})
    found = tables.runs(paths + snapshots, 0.3, 0.8)
    assert list(found["seed"]) == [3, 4]
    assert list(found["steps_to_train_loss"].fillna(-1)) == pytest.approx([5 + 5 * 0.2 / 0.25, -1])
    assert list(found["steps_to_test_accuracy"]) == pytest.approx([5 + 5 * 0.1 / 0.15] * 2)
    assert list(found["initial_gradient_norm"]) == [1.5, 2.5]
    assert list(found["step"]) == [15, 15]
    assert list(found["diverged"]) == [False, True]
    assert found["train_loss"][0] == 0.28
    assert math.isnan(found["train_loss"][1])
    assert found["test_accuracy"][0] == 0.84
    columns = ["matched_step", "matched_epoch", "matched_loss_reached", "matched_loss_se"]
    assert list(found.loc[0, columns]) == [9, 0.9, 0.295, 0.01]
    assert found.loc[1, columns].isna().all()


def test_eigenvalues_are_ranked_from_the_outside(made, artefacts):
    at = made["eigenvalues"].query("model == 'mlp-4' and optimizer == 'momentum'")
    at = at.query("seed == 0 and point == 'final' and matrix == 'hessian'")
    stored = store.read(artefacts["hessian"][0], "final").variables
    top = at[at["end"] == "top"]
    assert list(top["rank"]) == [1, 2, 3]
    np.testing.assert_array_equal(top["eigenvalue"], stored["top_eigenvalues"].values)
    assert list(top["converged"]) == [True, True, False]
    assert made["eigenvalues"]["converged"].dtype == bool
    bottom = at[at["end"] == "bottom"]
    np.testing.assert_array_equal(bottom["eigenvalue"], stored["bottom_eigenvalues"].values)


def test_a_ladder_has_a_row_for_every_subset_and_rank(made, artefacts):
    """Under the subset's own number of samples, not the objective's."""
    table = made["ladder"]
    assert (table["split"] == OBJECTIVE["split"]).all()
    rungs = ["samples", "subset", "rank"]
    costs = ["products", "coarse_samples", "coarse_products"]
    for _, part in table.groupby(["model", "optimizer", "seed", "point"]):
        measured = part["status"].iloc[0] == "ok"
        assert list(map(tuple, part[rungs].to_numpy())) == [
            *((50, 0, 1), (50, 0, 2), (50, 1, 1), (50, 1, 2), (100, 0, 1), (100, 0, 2))
        ]
        assert part[costs].notna().all(axis=None) == measured
        assert part[costs].isna().all(axis=None) != measured
        assert not measured or list(map(tuple, part[costs].to_numpy())) == [
            *[(3, 10, 16)] * 2,
            *[(4, 10, 17)] * 2,
            *[(5, 20, 18)] * 2,
        ]
    assert {str(kind) for kind in table.dtypes[rungs]} == {"int64"}
    assert {str(kind) for kind in table.dtypes[costs]} == {"Int64"}


def test_a_ladder_has_the_eigenvalues_and_residuals_that_were_stored(made, artefacts):
    at = made["ladder"].query("model == 'mlp-4' and optimizer == 'momentum'")
    at = at.query("seed == 0 and point == 'final'")
    stored = store.read(artefacts["ladder"][0], "final").variables
    np.testing.assert_array_equal(at["eigenvalue"], stored["eigenvalues"].values.ravel())
    np.testing.assert_array_equal(at["eigenvalue_se"], stored["eigenvalue_se"].values.ravel())
    np.testing.assert_array_equal(at["residual"], stored["residuals"].values.ravel())
    assert list(at["converged"]) == [True] * 5 + [False]
    assert made["ladder"]["converged"].dtype == bool


def test_no_rung_of_a_run_that_was_not_measured_has_converged(made):
    lost = made["ladder"].query("status != 'ok'")
    assert set(lost["status"]) == {"diverged", "not reached"}
    assert not lost["converged"].any()


def test_the_curvature_of_a_point_comes_with_its_loss(made, artefacts):
    """The objective's own loss there: by how much runs differ that a point calls alike."""
    ok = made["curvature"].query("status == 'ok'")
    assert (ok["loss"] == 0.25).all()
    assert (ok["loss_se"] == 0.02).all()
    assert (ok["trace_method"] == "exact").all()
    assert made["curvature"].query("status != 'ok'")["trace_method"].isna().all()
    for name, value in ESTIMATES.items():
        assert (ok[name] == value).all()
        assert (ok[f"{name}_se"] == value / 20).all()


def test_a_points_trace_is_told_by_tensor(made):
    part = made["layers"].query("model == 'mlp-4' and seed == 0 and point == 'final'").head(2)
    assert list(part["tensor"]) == ["a.weight", "a.bias"]
    assert list(part["entries"]) == [180, 20]
    assert list(part["gauss_newton_trace"]) == [30.0, 8.0]


def test_other_matrices_have_their_own_eigenvalues(made):
    at = made["eigenvalues"].query("model == 'cnn-2' and seed == 1 and point == 'final'")
    of = {m: p["eigenvalue"].to_numpy() for m, p in at.query("end == 'top'").groupby("matrix")}
    wild = at["optimizer"] == "wild"
    assert set(at.loc[wild, "matrix"]) == {"hessian", "gauss_newton", "filter", "preconditioned"}
    assert set(at.loc[~wild, "matrix"]) == {"hessian", "gauss_newton", "filter"}
    np.testing.assert_allclose(of["gauss_newton"], 0.9 * of["hessian"], rtol=1e-12)
    cosines = at.query("optimizer == 'momentum' and matrix == 'gauss_newton'")["cosine"]
    assert list(cosines) == [1.0, 0.9, 0.8]
    assert at.query("matrix == 'hessian'")["cosine"].isna().all()


def test_the_weights_of_every_probe_sum_to_one(made):
    ok = made["spectrum"].query("status == 'ok'")
    sums = ok.groupby(["model", "optimizer", "seed", "point", "probe"])["weight"].sum()
    np.testing.assert_allclose(sums, 1.0, rtol=1e-12)


def test_the_geometry_of_known_surfaces(made):
    """Planes of 2 a^2 + b^2 and eigenplanes of 4 a^2 - b^2 / 2."""
    ok = made["landscape"].query("status == 'ok'")
    plane, eigenplane = (ok[ok["surface"] == s] for s in ("plane", "eigenplane"))
    np.testing.assert_allclose(plane["second_difference"], 3.0, rtol=1e-9)
    np.testing.assert_allclose(eigenplane["second_difference"], 3.5, rtol=1e-9)
    np.testing.assert_allclose(ok["curvature"], ok["second_difference"], rtol=1e-9)
    np.testing.assert_allclose(ok["curvature_se"], 0.1 * ok["curvature"], rtol=1e-12)
    np.testing.assert_allclose(plane["anisotropy"], 2.0, rtol=1e-9)
    np.testing.assert_allclose(plane["cosine"], 0.01)
    np.testing.assert_allclose(eigenplane["anisotropy"], -8.0, rtol=1e-9)
    np.testing.assert_allclose(eigenplane["cosine"], 0.0)
    assert (plane["convex_fraction"] == 1).all()
    assert (eigenplane["convex_fraction"] == 0).all()
    lines = ok[ok["surface"] == "line"]
    assert sorted(lines["index"].unique()) == [0, 1]
    assert lines["cosine"].isna().all()
    assert lines["anisotropy"].isna().all()


def test_the_shape_of_an_interpolated_surface_is_that_of_its_evaluated_stencils(
    artefacts, tmp_path
):
    """Bowls whose interpolated points are a dome: two stencils, a bowl each, and no roughness."""
    stored = artefacts["landscape"][0]
    groups = {}
    for name in ("lines", "planes", "eigenplane"):
        group = store.read(stored, f"final/{name}")
        old = {k: group.variables[k] for k in ("loss", "evaluated", "stencils")}
        loss, evaluated = old["loss"].values.copy(), old["evaluated"].values.copy()
        stencils = np.zeros_like(evaluated)
        sample = [(2,), (5,)] if name == "lines" else [(2, 2), (5, 6)]
        apart = np.ones_like(evaluated, dtype=bool)
        for centre in sample:
            stencils[:, *centre] = 1
            apart[:, *(slice(i - 1, i + 2) for i in centre)] = False
        loss[apart], evaluated[apart] = -loss[apart], 0
        arrays = {"loss": loss, "evaluated": evaluated, "stencils": stencils}
        changed = {k: replace(old[k], values=v) for k, v in arrays.items()}
        groups[f"final/{name}"] = Group({**group.variables, **changed}, group.attributes)
    store.write(tmp_path / "l.h5", groups, identity_of("mlp-4", "momentum", 0) | OBJECTIVE)
    found = tables.landscape([tmp_path / "l.h5"], 0.1, 0.01)
    convex = (found["surface"] != "eigenplane").astype(float)  # which is a saddle
    np.testing.assert_array_equal(found["convex_fraction"], convex)
    assert (found["stencils"] == 2).all()
    assert (found["convex_high"] - found["convex_low"] > 0.8).all()
    assert found["roughness"].isna().all()
    assert (found["evaluated"] < 1).all()


def test_an_eigenplane_says_how_far_its_surface_has_its_eigenvalue(made):
    """Second difference / eigenvalue along the first eigenvector; other surfaces have none."""
    table = made["landscape"]
    measured = (table["surface"] == "eigenplane") & (table["status"] == "ok")
    np.testing.assert_allclose(table.loc[measured, "eigenvalue_ratio"], 7.6 / 8.0, rtol=1e-14)
    assert table.loc[~measured, "eigenvalue_ratio"].isna().all()
    assert {"line", "plane", "eigenplane"} == set(table.loc[~measured, "surface"])


@pytest.mark.parametrize(
    ("second", "eigenvalue", "ratio"),
    [(-3.0, -2.0, 1.5), (3.0, -2.0, -1.5), (1.0, 0.0, NAN), (NAN, NAN, NAN), (NAN, 2.0, NAN)],
)
def test_the_ratio_of_any_eigenvalue(artefacts, tmp_path, second, eigenvalue, ratio):
    """Of negative ones too; of zero there is none."""
    stored = artefacts["landscape"][0]
    groups = {f"final/{name}": store.read(stored, f"final/{name}") for name in ("lines", "planes")}
    plane = store.read(stored, "final/eigenplane")
    changed = {"second_difference_alpha": second, "eigenvalue_alpha": eigenvalue}
    groups["final/eigenplane"] = Group(plane.variables, {**plane.attributes, **changed})
    store.write(tmp_path / "l.h5", groups, identity_of("mlp-4", "momentum", 0) | OBJECTIVE)
    found = tables.landscape([tmp_path / "l.h5"], 0.1, 0.01)
    row = found[found["surface"] == "eigenplane"].iloc[0]
    assert row["eigenvalue_ratio"] == pytest.approx(ratio, rel=1e-14, nan_ok=True)


def test_rises_are_means_over_draws_with_their_standard_error(made, artefacts):
    row = made["flatness"].query("model == 'mlp-4' and point == 'matched' and seed == 0").iloc[1]
    rises = store.read(artefacts["flatness"][0], "matched/normalized").variables["rise"].values[1]
    assert row["noise_radius"] == 0.2
    assert row["rise"] == pytest.approx(rises.mean(), rel=1e-14)
    assert row["rise_se"] == pytest.approx(rises.std(ddof=1) / 2, rel=1e-12)
    assert row["draws"] == 4
    assert set(made["flatness"]["noise"]) == {"normalized", "elementwise", "isotropic"}


def test_the_kink_ratio_is_the_mean_rise_over_its_quadratic(made, artefacts):
    """A ratio of means over the draws; the error is that of the paired deviations."""
    row = made["flatness"].query("model == 'mlp-4' and point == 'matched' and seed == 0").iloc[1]
    stored = store.read(artefacts["flatness"][0], "matched/normalized").variables
    rises, forms = stored["rise"].values[1], stored["curvature"].values
    quadratic = 0.2**2 / 2 * forms
    ratio = rises.mean() / quadratic.mean()
    deviations = (rises - ratio * quadratic) / quadratic.mean()
    assert row["curvature"] == pytest.approx(forms.mean(), rel=1e-14)
    assert row["curvature_se"] == pytest.approx(forms.std(ddof=1) / 2, rel=1e-12)
    assert row["kink_ratio"] == pytest.approx(ratio, rel=1e-14)
    assert row["kink_ratio_se"] == pytest.approx(deviations.std(ddof=1) / 2, rel=1e-10)
    assert row["kink_ratio_sample_se"] == 0.03
    assert row["curvature_sample_se"] == 0.2


def test_a_point_that_was_not_measured_has_neither_a_rise_nor_a_worst_case(made):
    for name, numbers in (
        ("flatness", ["rise", "rise_sample_se", "curvature", "kink_ratio", "kink_ratio_se"]),
        ("worst_case", ["worst_rise", "worst_rise_se", "first_order", "late_gain"]),
    ):
        lost = made[name]["status"] != "ok"
        assert lost.any()
        assert made[name].loc[lost, numbers].isna().all(axis=None)
        assert np.isfinite(made[name].loc[~lost, numbers]).all(axis=None)


def test_worst_cases_say_how_much_the_last_gradients_added(made, artefacts):
    row = made["worst_case"].query("point == 'final' and ball == 'elementwise'").iloc[1]
    stored = store.read(artefacts["flatness"][0], "final/worst/elementwise").variables
    assert row["ball_radius"] == 1.0
    assert row["worst_rise"] == stored["rise"].values[1]
    assert row["worst_rise_se"] == stored["rise_sample_se"].values[1]
    assert row["gradients"] == 4
    assert row["late_gain"] == pytest.approx(0.2, rel=1e-12)


def test_the_invariance_of_a_measure_is_its_ratio_after_each_rescaling(made):
    table = made["invariance"].set_index(["model", "rescaling", "sharpness"])
    assert len(table) == 3 * 2 * 3
    row = table.loc[("mlp-4", "node", "eigenvalue")]
    assert (row["value"], row["rescaled"], row["ratio"]) == (8.0, 26.0, 3.25)
    assert (row["rescaled_se"], row["ratio_se"]) == (pytest.approx(2.6), 0.25)
    assert not row["converged"]
    assert table.loc[("mlp-4", "layer", "eigenvalue"), "converged"]
    assert table.loc[("mlp-8", "layer", "worst_asam"), "ratio"] == 1.0


def test_what_cannot_be_rescaled_says_so_and_has_no_numbers(made):
    lost = made["invariance"].query("model == 'cnn-2'")
    assert set(lost["status"]) == {"not available"}
    assert lost[["value", "rescaled", "ratio", "ratio_se", "converged"]].isna().all(axis=None)


def test_null_bands_are_percentiles_of_the_null_trajectories(made, artefacts):
    row = made["trajectory"].query("null_model == 'drift' and component == 2").iloc[0]
    drawn = np.sort(
        store.read(artefacts["trajectory"][0], "pca").variables["explained_drift"].values[:, 1]
    )
    assert drawn[0] < row["null_low"] < drawn[1]
    assert drawn[-2] < row["null_high"] < drawn[-1]
    assert row["null_mean"] == pytest.approx(drawn.mean(), rel=1e-12)
    assert row["explained"] == 0.2


def without_pca(table: pd.DataFrame) -> pd.Series:
    return pd.Series(
        [
            trajectory_status_of(*run) != "ok"
            for run in zip(table["model"], table["optimizer"], table["seed"], strict=True)
        ]
    )


def test_a_path_has_every_snapshot(made):
    path = made["trajectory_path"]
    lost = without_pca(path)
    assert path.loc[lost, ["loss", "loss_se", "coordinate_1", "epoch"]].isna().all(axis=None)
    sizes = path.groupby([lost, "model", "optimizer", "seed"]).size()
    assert (sizes[False] == 6).all()
    assert (sizes[True] == 1).all()
    last = path.groupby(["model", "optimizer", "seed"]).tail(1)
    assert not last.loc[~lost, ["coordinate_1", "coordinate_2", "residual_distance"]].any(axis=None)


def test_a_run_without_a_pca_has_its_rows_with_its_status(made):
    """As in every other table: a run that is missing from a table is missed by nobody.

    Diverged too early, or its snapshots span too few dimensions ("no PCA").
    """
    table = made["trajectory"]
    lost = without_pca(table)
    assert set(table.loc[lost, "status"]) == {"diverged", "no PCA"}
    assert set(table.loc[~lost, "status"]) == {"ok"}
    numbers = ["explained", "null_mean", "null_low", "null_high"]
    assert table.loc[lost, numbers].isna().all(axis=None)
    assert np.isfinite(table.loc[~lost, numbers]).all(axis=None)
    for name in ("trajectory", "trajectory_path"):
        runs = made[name].groupby(["model", "optimizer", "seed"])["status"].unique()
        assert {run: list(found) for run, found in runs.items()} == {
            run: [trajectory_status_of(*run)] for run in RUNS
        }
    rows = table.groupby(["model", "optimizer", "seed"])[["component", "null_model"]]
    assert {tuple(map(tuple, part.to_numpy())) for _, part in rows} == {
        tuple((c, null) for null in tables.NULLS for c in (1, 2, 3))
    }


def test_barriers_of_both_splits_and_measures(made):
    one = made["connectivity"].query("model == 'mlp-4' and seed_a == 0")
    assert list(dict.fromkeys(one["rung"])) == list(pair_tables.RUNGS)
    assert list(dict.fromkeys(zip(one["split"], one["measure"], strict=True))) == [
        (split, measure) for split in ("train", "test") for measure in pair_tables.MEASURES
    ]
    line = one[one["rung"] == "line"]
    np.testing.assert_allclose(line["barrier"], [0.25, 0.075, 0.125] * 2)
    np.testing.assert_allclose(line["length_ratio"], 1.25)
    assert (line["barrier_t"] == 0.5).all()
    path = made["connectivity_path"].query(
        "model == 'mlp-4' and split == 'train' and rung == 'curve' and seed_a == 2"
    )
    np.testing.assert_allclose(path["t"], np.linspace(0, 1, 5))
    assert set(made["connectivity"]["status"]) == {"ok", "not reached", "not available"}


def test_a_barrier_over_pairs_has_an_interval_and_says_whether_it_counts(made):
    """Of two pairs; mlp-8 has one left, which decides nothing."""
    found = made["barriers"].set_index(["model", "split", "rung", "measure"])
    line = found.loc["mlp-4", "train", "line", "loss"]
    assert (line["pairs"], line["limit"], line["exceeded"]) == (2, 0.05, "yes")
    half = 12.706204736 * 0.0025  # of Student's t with one degree of freedom
    ends = line[["barrier_mean", "barrier_low", "barrier_high"]].astype(float)
    np.testing.assert_allclose(ends, 0.2525 + np.array([0, -half, half]))
    assert line["pairs_below"] == 0
    assert line["share_below_high"] == pytest.approx(1 - 0.025**0.5)  # (1 - p)^2 = 0.025
    curve = found.loc["mlp-4", "train", "curve", "error"]
    assert (curve["limit"], curve["exceeded"], curve["pairs_below"]) == (0.02, "no", 2)
    single = found.loc["mlp-8", "train", "line", "loss"]
    assert (single["pairs"], single["exceeded"]) == (1, "undecided")
    assert math.isnan(single["barrier_low"])
    none = found.loc["cnn-2", "test", "aligned", "loss"]
    assert (none["pairs"], none["exceeded"]) == (0, "no pair")


def test_a_pair_whose_path_is_not_finite_leaves_the_limit_undecided(tmp_path):
    """Two low barriers, and one path that overflows between sound ends."""
    paths = []
    for seeds, status in (((0, 1), "ok"), ((2, 3), "ok"), ((4, 5), "not finite")):
        paths.append(tmp_path / f"{seeds[0]}.h5")
        groups = {"final": Group({}, {"status": "ok"})}
        for split in ("train", "test"):
            groups[f"final/line/{split}"] = path_profile(0.001, status, split)
        identity = pair_identity("mlp-4", "momentum", *seeds)
        store.write(paths[-1], groups, store.provenance({}, {}, {}, **identity))
    found = pair_tables.barriers(paths, LIMITS).query("split == 'test' and measure == 'loss'")
    (row,) = found.to_dict("records")
    assert (row["pairs"], row["pairs_below"], row["exceeded"]) == (2, 2, "undecided")
    assert row["share_below_high"] < 1  # of three
    assert pair_tables.barriers(paths[:2], LIMITS)["exceeded"].iloc[0] == "no"


def test_ends_in_one_place_have_no_ratio_of_lengths(tmp_path):
    profile = path_profile(0.0, "ok", "train")
    profile = Group(profile.variables, profile.attributes | {"distance": 0.0, "length": 0.0})
    groups = {"final": Group({}, {"status": "ok"})}
    groups |= {f"final/line/{split}": profile for split in ("train", "test")}
    identity = pair_identity("mlp-4", "momentum", 0, 1)
    store.write(tmp_path / "p.h5", groups, store.provenance({}, {}, {}, **identity))
    assert pair_tables.connectivity([tmp_path / "p.h5"])["length_ratio"].isna().all()


def test_similarity_is_there_for_both_kinds_of_ends(made):
    one = made["similarity"].query("model == 'mlp-4' and seed_a == 0 and split == 'test'")
    values = one.set_index(["ends", "quantity"])["similarity"]
    assert values["naive", "unit_correlation"] == 0.3
    assert values["aligned", "unit_correlation"] == 0.6
    assert values["naive", "disagreement"] == values["aligned", "disagreement"] == 0.1
    assert (one["samples"] == OBJECTIVE["samples"] - 100).all()
    unknown = made["similarity"].query("model == 'cnn-2'").set_index("ends")
    assert (unknown.loc["naive", "status"] == "ok").all()
    assert (unknown.loc["aligned", "status"] == "not available").all()
    lost = made["similarity"].query("model == 'mlp-8' and seed_a == 0")
    assert (lost["status"] == "not reached").all()


def test_every_start_of_an_alignment_is_recorded(made):
    one = made["alignment"].query("model == 'mlp-4'")
    assert list(one["objective"]) == [39.0, 40.0, 38.0]
    assert list(one["kept"]) == [False, True, False]
    assert set(made["alignment"]["status"]) == {"ok", "not reached", "not available"}


def test_a_fork_has_the_epochs_that_it_shares(made):
    one = made["instability"].query("model == 'mlp-4' and split == 'train' and measure == 'loss'")
    assert list(zip(one["seed"], one["shared_epochs"], strict=True)) == [
        (seed, shared) for seed in SEEDS for shared in (0, 1)
    ]
    np.testing.assert_allclose(one["barrier"].iloc[:2], [0.2, 0.2 / 11])
    lost = made["instability"].query("model == 'mlp-8' and seed == 2")
    assert (lost["status"] == "diverged").all()
    assert lost["barrier"].isna().all()


SURFACES = [name for name in published_tables.NUMBERS if name.startswith(("plane", "line"))]


def test_published_numbers_stand_beside_what_their_faults_amount_to(made, artefacts):
    row = made["published"].query("model == 'cnn-2' and optimizer == 'momentum' and seed == 0")
    (row,) = row.to_dict("records")
    group = store.read(artefacts["published"][6], "final/eigenvalues")
    values = group.variables["eigenvalue"].values
    assert row["eigenvalue"] == pytest.approx(values.mean())
    assert (row["eigenvalue_low"], row["eigenvalue_high"]) == (values.min(), values.max())
    assert (row["split"], row["samples"], row["stopped"]) == ("test", 20, 2)
    assert row["noise_rise"] == pytest.approx(2e-5)
    assert row["noise_spread"] == pytest.approx(1e-5)
    assert (row["plane_cosine"], row["plane_comb"], row["line_cosine"]) == (0.01, 3.0, 0.75)
    assert row["line_start_rise"] == pytest.approx(5.2 * 1.25 - 0.2)
    assert row["line_start_distance"] == 0.75
    assert row["line_lowest_rise"] == pytest.approx(5.0)
    assert row["line_range"] == pytest.approx(2.6 * 1.5**0.5)  # of ranges 2.6 and 3.9
    assert (row["train_loss_all"], row["test_loss_all"]) == (0.05, 0.07)
    assert (row["train_accuracy_all"], row["test_accuracy_all"]) == (0.99, 0.98)
    assert row["pc1_r2"] == 0.99
    assert row["pc1_range"] == pytest.approx(0.01 * (1.5**2 - (1.5 / 7) ** 2))


def test_published_rows_are_there_for_every_run_and_empty_where_nothing_was_measured(made):
    table = made["published"]
    assert len(table) == len(RUNS)
    lost = table["status"] != "ok"
    assert table.loc[lost, list(published_tables.NUMBERS)].isna().all(axis=None)
    ok = table[~lost]
    assert ok[["eigenvalue", "noise_rise", "stopped"]].notna().all(axis=None)
    assert ok.loc[ok["seed"] == 0, SURFACES].notna().all(axis=None)
    assert ok.loc[ok["seed"] != 0, SURFACES].isna().all(axis=None)
    assert set(map(tuple, ok.loc[ok["pc1_r2"].isna(), ["model", "seed"]].to_numpy())) == {
        ("mlp-8", 1)
    }


def test_a_parabola_along_pc1_stands_beside_those_along_random_directions(made):
    table = made["parabola"].set_index(["model", "optimizer", "seed"])
    row = table.loc["cnn-2", "momentum", 0]
    assert row["r2_random_mean"] == pytest.approx(0.98)
    assert row["r2_difference"] == pytest.approx(0.015)
    assert 0.97 < row["r2_random_low"] < 0.98 < row["r2_random_high"] < 0.99
    assert row["directions"] == 4
    assert table.loc[("cnn-2", "momentum", 1), "directions"] == 3  # one is flat
    lost = table[table["status"] != "ok"]
    assert len(table) == len(RUNS)
    assert (
        lost.drop(columns=["status", *LABELS["mlp-4"], "parameters", "split", "samples"])
        .isna()
        .all(axis=None)
    )


def test_a_study_that_mixes_kernels_says_how_many_files_are_of_which(tmp_path):
    paths = []
    for number, kernels in enumerate(["x86_64, AVX2, 1 thread", "x86_64, AVX512, 1 thread"] * 2):
        for kind in ("hessian", "snapshots")[: 1 + number // 3]:
            paths.append(tmp_path / str(number) / f"{kind}.h5")
            paths[-1].parent.mkdir(exist_ok=True)
            store.write(paths[-1], {}, {"kernels": kernels})
    found = tables.kernels(paths)
    assert found.to_dict("list") == {
        "artefact": ["hessian", "hessian", "snapshots"],
        "kernels": ["x86_64, AVX2, 1 thread", "x86_64, AVX512, 1 thread"] * 1
        + ["x86_64, AVX512, 1 thread"],
        "files": [2, 2, 1],
    }


def test_a_measure_that_a_loss_has_not_is_not_available(tmp_path):
    profile = path_profile(0.2, "ok", "train")
    none = {f"error_barrier{end}": NAN for end in ("", "_se", "_t")}
    attributes = profile.attributes | none | {"error_status": "not available"}
    groups = {"final": Group({}, {"status": "ok"})}
    groups |= {
        f"final/line/{split}": Group(profile.variables, attributes) for split in ("train", "test")
    }
    identity = pair_identity("mlp-4", "momentum", 0, 1)
    store.write(tmp_path / "p.h5", groups, store.provenance({}, {}, {}, **identity))
    pairs = pair_tables.connectivity([tmp_path / "p.h5"]).set_index(["split", "measure"])
    assert pairs.loc[("train", "error"), "status"] == "not available"
    assert pairs.loc[("train", "loss"), "status"] == "ok"
    means = pair_tables.barriers([tmp_path / "p.h5"], {"loss": 0.05, "error": 0.02})
    means = means.set_index(["split", "measure"])
    assert means.loc[("train", "error"), "exceeded"] == "no pair"
    assert means.loc[("train", "loss"), "pairs"] == 1
