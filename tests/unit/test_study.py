"""What a config asks for."""

import hashlib
from pathlib import Path

import pytest

from lossgeo import study
from lossgeo.data import DATASETS, FILES

from .configs import CONFIG, completed, with_fork, with_own_data


@pytest.fixture
def config(tmp_path, monkeypatch) -> dict:
    monkeypatch.chdir(tmp_path)
    return completed()


# What a config asks for


def test_runs_are_those_of_the_experiments_in_the_order_of_their_lists(config):
    runs = study.get_runs(config)
    assert [run[:2] for run in runs[::5]] == [
        ("mlp-32", "momentum"),
        ("mlp-128", "momentum"),
        ("cnn-16", "momentum"),
        ("mlp-128", "sgd"),
    ]
    assert [run.seed for run in runs[:5]] == [0, 1, 2, 5, 7]
    assert len(set(runs)) == len(runs) == 20, "a run that two experiments share is trained once"


def test_every_run_whose_surfaces_are_measured_has_as_many_tiles(config):
    assert study.get_tiles(config) == []
    config["landscape"]["tiles"] = 3
    tiles = study.get_tiles(config)
    runs = study.get_runs(config, "landscape")
    assert [tile[:3] for tile in tiles[::3]] == [tuple(run) for run in runs]
    assert [tile[3:] for tile in tiles[:3]] == [(1, 3), (2, 3), (3, 3)]
    config["experiments"]["architecture"]["stages"] = ["hessian"]
    config["experiments"]["optimizer"]["stages"] = ["hessian"]
    assert study.get_tiles(config) == []


def test_a_model_has_the_first_so_many_seeds(config):
    config["models"]["cnn-16"]["seeds"] = 3
    seeds = [run.seed for run in study.get_runs(config) if run.model == "cnn-16"]
    assert seeds == [0, 1, 2]
    assert [p[2:] for p in study.get_pairs(config) if p.model == "cnn-16"] == [("seed0", "seed1")]


def test_a_model_without_seeds_waits(config):
    """As if it were not there, in its experiments too."""
    config["models"]["cnn-16"]["seeds"] = 0
    kept = study.without_idle(config)
    assert "cnn-16" not in kept["models"]
    assert all("cnn-16" not in entry["models"] for entry in kept["experiments"].values())
    assert len(study.get_runs(kept)) == 15
    config["models"]["mlp-128"]["seeds"] = 0
    assert list(study.without_idle(config)["experiments"]) == ["architecture"]


def test_what_no_experiment_uses_is_ignored(config):
    """So that an overlay need not drop it."""
    kept = study.without_idle(config)
    config["models"]["idle"] = {"factory": "nowhere:nothing"}
    config["optimizers"]["idle"] = {"name": "SGD", "lr": 1.0}
    assert study.without_idle(config) == kept
    del config["experiments"]["optimizer"]
    assert list(study.without_idle(config)["optimizers"]) == ["momentum"]


def test_a_stage_has_the_runs_of_the_experiments_that_measure_it(config):
    flat = {run[:2] for run in study.get_runs(config, "flatness")}
    assert flat == {("mlp-32", "momentum"), ("mlp-128", "momentum"), ("cnn-16", "momentum")}
    assert {run[:2] for run in study.get_runs(config, "hessian")} == flat | {("mlp-128", "sgd")}


def test_points_are_merged_without_repetition(config):
    assert study.get_points(config, "mlp-128", "momentum", "hessian") == [
        "matched",
        "epoch12",
        "epoch5",
        "final",
    ]
    assert study.get_points(config, "mlp-128", "momentum", "flatness") == ["matched", "epoch12"]
    assert study.get_points(config, "mlp-128", "sgd", "hessian") == ["epoch5", "final"]
    assert study.get_points(config, "mlp-128", "sgd", "flatness") == []


def test_published_estimators_measure_ends_and_the_last_is_that_of_the_longest(config):
    for experiment in config["experiments"].values():
        experiment["stages"].append("published")
    points = study.get_published_points(config, "mlp-128", "momentum")
    assert points == ["epoch12", "epoch5", "final"]
    assert study.get_last_point(points) == "final"
    assert study.get_last_point(["epoch5", "epoch12", "init"]) == "epoch12"


def test_a_shared_run_is_trained_for_as_long_as_the_longest_asks(config):
    assert study.get_epochs(config, "mlp-128", "momentum") == 20
    assert study.get_epochs(config, "mlp-32", "momentum") == 24
    config["experiments"]["optimizer"]["epochs"] = 3
    assert study.get_epochs(config, "mlp-128", "momentum") == 12
    config["experiments"]["architecture"]["epochs"] = {"mlp-32": 2, "mlp-128": 4, "cnn-16": 6}
    assert study.get_epochs(config, "mlp-128", "momentum") == 4
    assert study.get_epochs(config, "cnn-16", "momentum") == 6


@pytest.mark.parametrize(
    ("family", "width", "epochs"),
    [
        ("mlp", 32, 24),
        ("mlp", 64, 17),
        ("mlp", 128, 12),
        ("mlp", 260, 8),
        ("cnn", 16, 14),
        ("cnn", 32, 10),
        ("cnn", 64, 7),
    ],
)
def test_published_epochs(family, width, epochs):
    assert study.published_epochs(family, width) == epochs


@pytest.mark.parametrize(
    ("seeds", "pairs"),
    [([0, 1, 2, 5, 7], [(0, 1), (2, 5)]), ([3, 4], [(3, 4)]), ([0], [])],
)
def test_pairs_of_seeds_are_disjoint(config, seeds, pairs):
    """Each seed in one pair: pairs are independent."""
    config["seeds"] = seeds
    found = study.get_pairs(config)
    cells = [("mlp-32", "momentum"), ("mlp-128", "momentum"), ("cnn-16", "momentum")]
    assert found == [(*cell, f"seed{a}", f"seed{b}") for cell in cells for a, b in pairs]
    assert study.get_planes(config) == found[:: max(len(pairs), 1)]
    assert study.get_third_seed(config, "mlp-32") == {5: 2}.get(len(seeds))


def test_pairs_are_connected_at_the_last_point_of_each_experiment(config):
    """mlp-128/momentum is in both."""
    config["connectivity"]["at"] = "last"
    config["experiments"]["optimizer"]["stages"].append("connectivity")
    points = study.get_connected_points(config, "mlp-128", "momentum", "connectivity")
    assert points == ["epoch12", "final"]
    assert study.get_plane_points(config, "mlp-128", "momentum") == points
    assert study.get_connected_points(config, "cnn-16", "momentum", "connectivity") == ["epoch12"]
    assert study.get_shown_points(config, "optimizer") == ["final"]
    config["connectivity"]["at"] = ["epoch1", "epoch2"]
    for cell in (("mlp-128", "sgd"), ("cnn-16", "momentum")):
        found = study.get_connected_points(config, *cell, "connectivity")
        assert found == ["epoch1", "epoch2"]
        assert study.get_plane_points(config, *cell) == ["epoch2"]
    assert study.get_shown_points(config, "optimizer") == ["epoch1", "epoch2"]


def test_the_taxonomy_has_what_is_connected_where_its_hessian_is_measured(config):
    momentum = [(m, "momentum", "epoch12") for m in ("mlp-32", "mlp-128", "cnn-16")]
    assert study.get_taxonomy(config)["cells"] == momentum
    config["connectivity"]["at"] = "last"
    config["experiments"]["optimizer"]["stages"].append("connectivity")
    optimizer = [("mlp-128", o, "final") for o in ("sgd", "momentum")]
    assert study.get_taxonomy(config)["cells"] == momentum + optimizer
    config["connectivity"]["at"] = ["epoch3"]
    assert study.get_taxonomy(config)["cells"] == []


# Forks


@pytest.fixture
def forked(config) -> dict:
    return with_fork(config)


def test_forks_are_those_of_the_first_seeds(forked):
    assert study.get_forks(forked) == [
        ("mlp-128", "momentum", f"seed{seed}", f"fork{epoch}")
        for seed in (0, 1)
        for epoch in (0, 3)
    ]
    assert study.get_fork_epochs(forked, "mlp-128", "momentum") == 6  # its parent: 20
    assert study.get_rungs(forked, "fork3") == ["line"]
    assert len(study.get_rungs(forked, "seed1")) == 5


def test_a_fork_is_connected_where_it_has_been(forked):
    def points(*at: str) -> list[str]:
        forked["connectivity"]["at"] = list(at)
        return study.get_fork_points(forked, "mlp-128", "momentum", 3)

    at = ["epoch2", "epoch3", "epoch4", "epoch6", "epoch7", "matched", "init", "final"]
    assert points(*at) == ["epoch4", "epoch6", "final"]
    assert points("epoch3") == []  # where it still is its run


def test_an_overlays_null_drops_models_optimizers_and_experiments(config):
    config["models"]["cnn-16"] = None
    config["experiments"]["optimizer"] = None
    config["optimizers"]["sgd"] = None
    kept = study.without_nulls(config)
    assert list(kept["models"]) == ["mlp-32", "mlp-128"]
    assert list(kept["optimizers"]) == ["momentum"]
    assert list(kept["experiments"]) == ["architecture"]
    assert kept["data"] == config["data"]


def test_a_known_data_set_is_known_before_its_files_are_there(config):
    spec = study.get_data_spec(config)
    assert (spec["mean"], spec["std"]) == (0.1307, 0.3081)
    assert spec["sha256"] == dict(DATASETS["mnist"].sha256)
    assert spec["train_samples"] is None
    assert "folder" not in spec, "where the files are is not what they are"
    config["data"]["mean"] = 0.5
    assert study.get_data_spec(config)["mean"] == 0.5


@pytest.fixture
def own(config, tmp_path) -> dict:
    return with_own_data(config, tmp_path)


def test_the_files_of_a_data_set_lie_in_a_folder_of_its_name(config):
    """One setting of the folder serves several data sets: none takes another's files for its."""
    config["data"]["folder"] = "somewhere/data"
    assert study.get_data_folder(config) == Path("somewhere/data/mnist")
    config["data"]["name"] = "fashion-mnist"
    assert study.get_data_folder(config) == Path("somewhere/data/fashion-mnist")


def test_the_folder_of_the_data_is_by_default_beside_the_results():
    text = CONFIG.replace("data: {folder: nowhere}\n", "")
    assert study.get_data_folder(completed(text)) == Path("results/data/mnist")


def test_data_of_ones_own_are_known_by_their_digests_now(own):
    folder = study.get_data_folder(own)
    spec = study.get_data_spec(own)
    assert spec["mean"] == 0.5
    for name in FILES:
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        assert spec["sha256"][name] == digest


# Matched points


def test_only_runs_that_are_measured_at_matched_look_for_it(config):
    for experiment in config["experiments"].values():
        experiment["points"] = ["final"]
    cells = {(r.model, r.optimizer) for r in study.get_runs(config)}

    def looking():
        return {cell for cell in cells if study.has_matched_point(config, *cell)}

    assert looking() == set()
    config["experiments"]["optimizer"]["points"] = ["final", "matched"]
    optimizer = config["experiments"]["optimizer"]
    assert looking() == {(m, o) for m in optimizer["models"] for o in optimizer["optimizers"]}
    optimizer["points"] = ["final"]
    config["connectivity"]["at"] = ["matched"]
    assert looking() == {(r.model, r.optimizer) for r in study.get_runs(config, "connectivity")}
    assert looking()


# What its figures show


def test_a_figure_is_told_what_its_experiment_says(config):
    config["landscape"]["normalization"] = "layer"
    config["optimizers"]["adam"] = {"name": "Adam", "lr": 0.001}
    config["experiments"]["optimizer"]["optimizers"] = ["adam", "sgd", "momentum"]
    assert study.get_shown(config, "optimizer") == {
        "models": ["mlp-128"],
        "families": {"mlp-128": "mlp"},
        "optimizers": ["adam", "sgd", "momentum"],
        "points": ["epoch5", "final"],
        "epochs": {"mlp-128": 20},
        "matched_loss": 0.1,
        "target_accuracy": 0.97,
        "normalization": "layer",
        "ceilings": {"sgd": pytest.approx(20.0), "momentum": pytest.approx(380.0)},
        "preconditioned_ceilings": {"adam": pytest.approx(38000.0)},
    }


def test_a_figure_is_told_its_own_experiments_epochs(config):
    """Not those of the longer experiment with which it shares a run."""
    shown = study.get_shown(config, "architecture")
    assert shown["epochs"] == {"mlp-32": 24, "mlp-128": 12, "cnn-16": 14}
    assert shown["ceilings"] == {"momentum": pytest.approx(380.0)}
    assert shown["preconditioned_ceilings"] == {}
    assert shown["normalization"] == "filter"
    config["experiments"]["architecture"]["epochs"] = {"mlp-32": 2, "mlp-128": 4, "cnn-16": 6}
    assert study.get_shown(config, "architecture")["epochs"] == {
        "mlp-32": 2,
        "mlp-128": 4,
        "cnn-16": 6,
    }


def test_one_run_of_each_model_is_rescaled_at_the_last_point_of_its_first_experiment(config):
    experiments = config["experiments"]
    first = next(iter(experiments.values()))
    model, optimizer = first["models"][0], first["optimizers"][0]
    for experiment in experiments.values():
        experiment["stages"] = ["flatness"]
    seed, *others = config["seeds"]
    point = study.get_rescaled_point(config, model, optimizer, seed)
    assert point == first["points"][-1]
    for other in others:
        assert study.get_rescaled_point(config, model, optimizer, other) is None


def test_tables_group_a_gelu_twin_and_a_users_model_by_themselves():
    twin = {"family": "mlp", "width": 128, "activation": "gelu"}
    own = {"factory": "a:b", "arguments": {"width": 5}}
    models = {
        "plain": {"family": "mlp", "width": 128},
        "twin": twin,
        "own": own,
        "labelled": own | {"family": "deep", "width": 7},
    }
    assert study.get_labels({"models": models}) == {
        "plain": {"family": "mlp", "width": 128},
        "twin": {"family": "mlp-gelu", "width": 128},
        "own": {"family": "own", "width": -1},
        "labelled": {"family": "deep", "width": 7},
    }
