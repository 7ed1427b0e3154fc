"""What a config asks for, and one clear sentence for whatever is wrong with it."""

import copy
import gzip
import hashlib
import io
import struct
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

from lossgeo import study
from lossgeo.data import DATASETS, FILES

SCHEMA = Path(__file__).parents[2] / "workflow" / "schemas" / "config.schema.yaml"

CONFIG = """
data: {folder: nowhere}
connectivity: {at: [epoch12]}
seeds: [0, 1, 2, 5, 7]
models:
  mlp-32: {family: mlp, width: 32}
  mlp-128: {family: mlp, width: 128}
  cnn-16: {family: cnn, width: 16}
optimizers:
  sgd: {name: SGD, lr: 0.1}
  momentum: {name: SGD, lr: 0.01, momentum: 0.9}
experiments:
  architecture:
    models: [mlp-32, mlp-128, cnn-16]
    optimizers: [momentum]
    epochs: published
    points: [matched, epoch12]
    stages: [landscape, hessian, flatness, trajectory, connectivity]
  optimizer:
    models: [mlp-128]
    optimizers: [sgd, momentum]
    epochs: 20
    points: [epoch5, final]
    stages: [landscape, hessian]
"""


def completed(text: str = CONFIG) -> dict:
    """The config with the schema's defaults, as the workflow completes it."""
    config = yaml.safe_load(text)
    validate(config, str(SCHEMA))
    return config


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


def test_a_model_has_the_first_so_many_seeds(config):
    config["models"]["cnn-16"]["seeds"] = 3
    seeds = [run.seed for run in study.get_runs(config) if run.model == "cnn-16"]
    assert seeds == [0, 1, 2]
    assert [p[2:] for p in study.get_pairs(config) if p.model == "cnn-16"] == [("seed0", "seed1")]
    config["models"]["cnn-16"]["seeds"] = 9
    with pytest.raises(study.ConfigError, match=r"cnn-16\.seeds: found 9, .* at most the 5"):
        study.check(config)


def test_a_model_without_seeds_waits(config):
    """As if it were not there, in its experiments too."""
    config["models"]["cnn-16"]["seeds"] = 0
    kept = study.without_dropped(config)
    assert "cnn-16" not in kept["models"]
    assert all("cnn-16" not in entry["models"] for entry in kept["experiments"].values())
    assert len(study.get_runs(kept)) == 15


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
    """mlp-128's runs are forked after none and three epochs, for two of the seeds."""
    config["experiments"]["fork"] = {
        "models": ["mlp-128"],
        "optimizers": ["momentum"],
        "epochs": 6,
        "points": ["epoch6"],
        "stages": ["instability"],
    }
    config["instability"] |= {"epochs": [0, 3], "runs": 2}
    config["connectivity"]["at"] = "last"
    return config


def test_forks_are_those_of_the_first_seeds(forked):
    study.check(forked)
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
    refused(forked, "connectivity.at", "epoch3", "after 3 epochs", "trained to 6")
    forked["connectivity"]["at"] = "last"
    forked["experiments"]["fork"]["points"] = ["epoch5", "epoch3"]
    refused(forked, "experiments.fork.points", "epoch3", "after 3 epochs")


def test_a_fork_has_epochs_left(forked):
    forked["instability"]["epochs"] = [0, 6]
    refused(forked, "instability.epochs", "found 6", "mlp-128/momentum", "6 epochs", "fewer")


def test_the_renormalised_line_is_an_aligned_one(config):
    config["connectivity"]["rungs"] = ["line", "renormalised"]
    refused(config, "connectivity.rungs", "renormalised", "expected aligned")


def test_an_overlays_null_drops_models_optimizers_and_experiments(config):
    config["models"]["cnn-16"] = None
    config["experiments"]["optimizer"] = None
    config["optimizers"]["sgd"] = None
    kept = study.without_dropped(config)
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


def idx(values: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + values.tobytes()


@pytest.fixture
def own(config, tmp_path) -> dict:
    """A config with data of the user's own: 6 x 5 pixels, four classes."""
    folder = tmp_path / "own" / "mine"
    folder.mkdir(parents=True)
    for images, labels, n in ((FILES[0], FILES[1], 8), (FILES[2], FILES[3], 4)):
        (folder / images).write_bytes(idx(np.zeros((n, 6, 5), np.uint8)))
        (folder / labels).write_bytes(idx(np.arange(n, dtype=np.uint8) % 4))
    own = {"name": "mine", "folder": str(folder.parent), "source": "files", "mean": 0.5, "std": 0.2}
    config["data"] |= own
    return config


def put_data(config: dict, name: str, labels: np.ndarray, shape: tuple = (6, 5)) -> None:
    """Put labels, and as many images of a shape, in the place of a split's files."""
    images, targets = FILES[:2] if name == "train" else FILES[2:]
    folder = study.get_data_folder(config)
    (folder / images).write_bytes(idx(np.zeros((len(labels), *shape), np.uint8)))
    (folder / targets).write_bytes(idx(labels.astype(np.uint8)))


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
    study.check(own)


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
        "optimizers": ["adam", "sgd", "momentum"],
        "points": ["epoch5", "final"],
        "epochs": {"mlp-128": 20},
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


# What is wrong with a config: names, grids, points


def test_a_sound_config_passes(config):
    study.check(config)


def test_the_projects_own_configs_pass(tmp_path, monkeypatch):
    """config.yaml, and the quick overlay put over it."""

    def merge(base, over):
        for key, value in over.items():
            if isinstance(value, dict) and isinstance(base.get(key), dict):
                merge(base[key], value)
            else:
                base[key] = value
        return base

    root = SCHEMA.parents[2]
    monkeypatch.chdir(tmp_path)
    for overlay in ({}, yaml.safe_load((root / "config.quick.yaml").read_text())):
        base = yaml.safe_load((root / "config.yaml").read_text())
        config = study.without_dropped(merge(base, copy.deepcopy(overlay)))
        validate(config, str(SCHEMA))
        study.check(config)


def refused(config: dict, *words: str) -> None:
    with pytest.raises(study.ConfigError) as raised:
        study.check(config)
    message = str(raised.value)
    assert message.startswith("config key ")
    assert "\n" not in message
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"


@pytest.mark.parametrize("key", ["radii", "worst.euclidean", "worst.elementwise"])
def test_radii_that_do_not_ascend_are_refused(config, key):
    section = config["flatness"]
    *path, last = key.split(".")
    for name in path:
        section = section[name]
    section[last] = [0.2, 0.05]
    refused(config, f"flatness.{key}", "[0.2, 0.05]", "ascending")


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


@pytest.mark.parametrize("kind", ["models", "optimizers"])
def test_an_unknown_name_is_listed_with_the_known_ones(config, kind):
    config["experiments"]["optimizer"][kind].append("typo")
    refused(config, f"experiments.optimizer.{kind}", "'typo'", ", ".join(config[kind]))


@pytest.mark.parametrize("kind", ["models", "optimizers"])
def test_what_no_experiment_uses_is_named_with_a_remedy(config, kind):
    config[kind]["idle"] = copy.deepcopy(next(iter(config[kind].values())))
    refused(config, f"{kind}.idle", "no experiment", "idle: null")


def test_epochs_per_model_must_name_every_model(config):
    config["experiments"]["architecture"]["epochs"] = {"mlp-32": 2, "cnn-16": 3}
    refused(config, "experiments.architecture.epochs", "{'mlp-32': 2, 'cnn-16': 3}", "'mlp-128'")


def test_published_epochs_are_not_for_factories(config):
    config["models"]["mlp-32"] = {"factory": "my:model"}
    refused(config, "experiments.architecture.epochs", "'published'", "'mlp-32'", "number")


@pytest.mark.parametrize(
    "key",
    [
        "landscape.lines.points",
        "landscape.planes.points",
        "landscape.eigenplane.points",
        "trajectory.plane.points",
        "trajectory.parabola.points",
    ],
)
def test_a_grid_has_an_odd_number_of_points(config, key):
    *path, last = key.split(".")
    section = config
    for name in path:
        section = section[name]
    section[last] = 24
    refused(config, f"{key}:", "24", "odd", "25")


def test_a_krylov_run_has_as_many_steps_as_eigenpairs_are_wanted(config):
    config["hessian"] |= {"steps": 11, "top": 10, "bottom": 2}
    refused(config, "hessian.steps", "11", "at least", "12")


def test_no_more_eigenvectors_than_eigenvalues_are_kept(config):
    config["hessian"] |= {"eigenvectors": 4, "top": 3}
    refused(config, "hessian.eigenvectors", "4", "at most", "3")


def test_a_point_must_be_reached(config):
    config["experiments"]["optimizer"]["points"] = ["epoch21"]
    refused(config, "experiments.optimizer.points", "'epoch21'", "mlp-128/sgd", "20 epochs")


def test_a_shared_run_reaches_what_the_longer_experiment_trains(config):
    """mlp-128/momentum is trained for 20 epochs, of which `architecture` asks only 12."""
    config["experiments"]["architecture"] |= {"models": ["mlp-128"], "points": ["epoch20"]}
    for name in ("mlp-32", "cnn-16"):
        del config["models"][name]
    study.check(config)


def test_final_is_refused_where_another_experiment_trains_the_run_for_longer(config):
    """The run ends where the longest experiment does; the shorter one must say which epoch."""
    config["experiments"]["architecture"]["points"] = ["matched", "final"]
    refused(
        config,
        "experiments.architecture.points",
        "'final'",
        "mlp-128/momentum for 20 epochs",
        "experiments.architecture for 12",
        "'epoch12'",
    )
    config["experiments"]["optimizer"]["epochs"] = 12
    study.check(config)
    config["experiments"]["optimizer"] |= {"epochs": 3, "points": ["final"]}
    refused(config, "experiments.optimizer.points", "'final'", "12 epochs", "'epoch3'")


def test_final_is_the_longer_experiments_to_say(config):
    """`optimizer` trains mlp-128/momentum for its 20 epochs: its end is the run's."""
    assert "final" in config["experiments"]["optimizer"]["points"]
    study.check(config)


def test_final_may_not_be_connected_either_where_the_run_is_trained_for_longer(config):
    config["connectivity"]["at"] = ["final"]
    refused(config, "connectivity.at", "'final'", "mlp-128/momentum", "20 epochs", "'epoch12'")
    config["connectivity"]["at"] = ["epoch12"]
    study.check(config)


def test_who_connects_nothing_does_not_mind_the_point_that_is_connected(config):
    config["connectivity"]["at"] = ["final"]
    config["experiments"]["architecture"]["stages"] = ["hessian"]
    study.check(config)


def test_the_point_that_is_connected_must_be_reached(config):
    config["connectivity"]["at"] = ["epoch15"]
    refused(config, "connectivity.at", "'epoch15'", "cnn-16/momentum", "14 epochs")


def test_components_need_snapshots(config):
    config["experiments"]["architecture"] |= {"epochs": 4, "points": ["epoch4"]}
    config["connectivity"]["at"] = ["epoch4"]
    config["trajectory"]["components"] = 5
    refused(config, "trajectory.components", "found 5", "5 snapshots", "snapshots_per_epoch")
    config["training"]["snapshots_per_epoch"] = 2
    study.check(config)


def test_landscapes_need_the_hessian(config):
    config["experiments"]["optimizer"]["stages"] = ["landscape"]
    refused(config, "experiments.optimizer.stages", "landscape without hessian", "both")


def test_published_estimators_need_an_end_of_training(config):
    config["experiments"]["optimizer"] |= {"stages": ["published"], "points": ["matched"]}
    refused(config, "experiments.optimizer.points", "['matched']", "published", "final or epochN")


def test_connectivity_needs_two_seeds(config):
    config["seeds"] = [4]
    refused(config, "seeds", "[4]", "at least two", "experiments.architecture.stages")


# Data


def test_an_unknown_data_set_needs_files_of_ones_own(config):
    config["data"]["name"] = "minst"
    refused(config, "data.name", "'minst'", "auto", "mnist, fashion-mnist", "source: files")


@pytest.mark.parametrize("key", ["mean", "std"])
def test_data_of_ones_own_need_mean_and_std(own, key):
    del own["data"][key]
    refused(own, f"data.{key}", "'mine'")


@pytest.mark.parametrize("name", FILES)
def test_files_of_ones_own_must_be_there(own, name):
    (study.get_data_folder(own) / name).unlink()
    refused(own, "data.folder", name, "missing")


def test_a_known_data_set_must_be_what_it_is_called(own):
    """Whatever the source: files with other digests are not MNIST."""
    folder = study.get_data_folder(own)
    folder.rename(folder.with_name("mnist"))
    own["data"] |= {"name": "mnist", "source": "auto"}
    refused(own, "data.folder", FILES[0], "sha256", DATASETS["mnist"].sha256[FILES[0]], "delete it")


@pytest.mark.parametrize("name", FILES)
def test_gzipped_files_of_ones_own_are_not_idx_files(own, name):
    """Images or labels: they are read before any job starts, with a user's model or without."""
    path = study.get_data_folder(own) / name
    path.write_bytes(gzip.compress(path.read_bytes()))
    refused(own, "data.folder", name, "not an IDX file")


@pytest.mark.parametrize(("split", "held"), [("train", 8), ("test", 4)])
def test_more_samples_than_the_files_hold_are_refused(own, split, held):
    key = f"{split}_samples"
    own["data"][key] = held
    study.check(own)
    own["data"][key] = held + 1
    refused(own, f"data.{key}", f"found {held + 1}", f"hold {held}", "null for all")


@pytest.mark.parametrize("shape", [(3, 28), (28, 3), (1, 1)])
def test_a_cnn_needs_images_that_can_be_pooled_twice(own, shape):
    for split in ("train", "test"):
        put_data(own, split, np.arange(4), shape)
    refused(own, "models.cnn-16", f"{shape[0]} x {shape[1]}", "4 x 4", "mlp")


def test_images_of_four_pixels_square_are_large_enough_and_mlps_take_any(own):
    for split in ("train", "test"):
        put_data(own, split, np.arange(4), (4, 4))
    study.check(own)
    for split in ("train", "test"):
        put_data(own, split, np.arange(4), (1, 2))
    del own["models"]["cnn-16"]
    own["experiments"]["architecture"]["models"].remove("cnn-16")
    study.check(own)


# Factories


@pytest.fixture
def factory(own, tmp_path):
    """Put a module with the user's model into the working directory; return its config."""

    def write(source: str, **arguments) -> dict:
        (tmp_path / "my_models.py").write_text(textwrap.dedent(source))
        spec = {"factory": "my_models:make", "arguments": arguments}
        own["models"]["mlp-32"] = spec
        own["experiments"]["architecture"]["epochs"] = 20
        return own

    return write


GOOD = """
    from torch import nn

    def make(input_shape, classes, extra=0):
        assert tuple(input_shape) == (1, 6, 5), input_shape
        return nn.Sequential(nn.Flatten(), nn.Linear(30, classes + extra))
"""


def test_a_users_model_is_built_before_any_job_starts(factory):
    """For the data's own shape and classes, and in another process: this one stays light."""
    study.check(factory(GOOD))
    assert "my_models" not in sys.modules


@pytest.mark.parametrize("fuller", ["train", "test"])
def test_classes_are_counted_over_both_splits(factory, fuller):
    """The user's model is built for seven classes, whichever split has the seventh."""
    config = factory(
        """
        from torch import nn

        def make(input_shape, classes):
            assert classes == 7, classes
            return nn.Sequential(nn.Flatten(), nn.Linear(30, classes))
        """
    )
    refused(config, "models.mlp-32", "my_models:make")  # four as yet
    put_data(config, fuller, np.array([0, 1, 6, 2]))
    study.check(config)


@pytest.mark.parametrize(
    ("source", "arguments", "words"),
    [
        ("def build(): ...", {}, ["cannot be imported", "package.module:function"]),
        (GOOD, {"extra": 1}, ["(2, 5)", "(2, 4)"]),
    ],
    ids=["another name", "wrong shape"],
)
def test_a_users_model_that_cannot_be_probed_is_refused(factory, source, arguments, words):
    refused(factory(source, **arguments), "models.mlp-32", "my_models:make", *words)


def test_a_users_model_that_cannot_take_the_images_is_refused_by_its_key(factory):
    source = """
        from torch import nn

        def make(input_shape, classes):
            return nn.Linear(29, classes)
    """
    refused(factory(source), "models.mlp-32", "my_models:make")


DEEP = """
    from torch import nn

    def make(input_shape, classes):
        layers = [nn.Flatten(), nn.Linear(30, 4), nn.LayerNorm(4), nn.Linear(4, classes)]
        return nn.Sequential(*layers)
"""


def test_a_true_table_of_permutations_passes_and_one_that_is_not_is_refused_by_its_key(factory):
    config = factory(DEEP)
    table = {"1.weight": 0, "1.bias": 0, "2.weight": 0, "2.bias": 0, "3.weight": [1]}
    config["models"]["mlp-32"]["permutations"] = {"hidden": table}
    study.check(config)
    del table["2.bias"]
    refused(config, "models.mlp-32.permutations: group hidden", "axis 0 of 2.bias")


# What the schema finds, explained


def explained(change) -> str:
    config = yaml.safe_load(CONFIG)
    change(config)
    with pytest.raises(WorkflowError) as raised:
        validate(config, str(SCHEMA))
    message = study.explain(raised.value.__context__)
    assert message.startswith("config key ")
    return message


def put(key: str, value):
    """A change of a config that puts a value, as YAML reads it, at a dotted key."""

    def change(config):
        *path, last = key.split("/")
        for name in path:
            config = config.setdefault(name, {})
        config[last] = yaml.safe_load(value)

    return change


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seeds", "[]", ["seeds", "[]", "one run each"]),
        ("seeds", "[0, 0]", ["seeds", "[0, 0]"]),
        ("seeds", "[-1]", ["seeds.0", "-1", "minimum"]),
        ("device", "gpu", ["device", "'gpu'", "auto"]),
        ("objective/split", "validation", ["objective.split", "'validation'", "train or test"]),
        ("objective/samples", "1", ["objective.samples", "found 1", "minimum of 2"]),
        ("ladder/samples", "[]", ["ladder.samples", "[]", "sizes of the subsets"]),
        ("ladder/samples", "[128, 128]", ["ladder.samples", "[128, 128]"]),
        ("ladder/samples", "[128, 1]", ["ladder.samples.1", "found 1", "minimum of 2"]),
        ("ladder/samples", "[0.5]", ["ladder.samples.0", "0.5"]),
        ("ladder/subsets", "0", ["ladder.subsets", "found 0", "minimum of 1"]),
        ("ladder/top", "0", ["ladder.top", "found 0", "minimum of 1"]),
        ("ladder/tolerance", "0", ["ladder.tolerance", "found 0", "minimum of 0"]),
        ("landscape/lines/points", "2.5", ["landscape.lines.points", "2.5", "odd number"]),
        ("landscape/lines/points", "3", ["landscape.lines.points", "3", "5"]),
        ("landscape/lines/distance", "-1", ["landscape.lines.distance", "-1", "minimum of 0"]),
        ("landscape/normalization", "weight", ["landscape.normalization", "'weight'", "filter"]),
        ("training/matched_loss", "low", ["training.matched_loss", "'low'", "number"]),
        ("optimizers/sgd/lr", "0", ["optimizers.sgd.lr", "found 0", "minimum of 0"]),
        ("optimizers/sgd/name", "Sgd", ["optimizers.sgd.name", "'Sgd'", "SGD", "Adam"]),
        ("models/mlp-32/family", "mpl", ["models.mlp-32.family", "'mpl'", "mlp or cnn"]),
        ("models/mlp-32/width", "0", ["models.mlp-32.width", "found 0", "minimum of 1"]),
        ("models/mlp-32/activation", "tanh", ["models.mlp-32.activation", "'tanh'", "gelu"]),
        ("experiments/optimizer/points", "[last]", ["optimizer.points.0", "'last'"]),
        ("experiments/optimizer/stages", "[hesian]", ["optimizer.stages.0", "'hesian'", "hessian"]),
        ("experiments/optimizer/stages", "[lader]", ["optimizer.stages.0", "'lader'", "ladder"]),
        ("experiments/optimizer/epochs", "0", ["experiments.optimizer.epochs", "found 0"]),
        ("figures/confidence", "95", ["figures.confidence", "95", "maximum of 1"]),
        ("data/source", "web", ["data.source", "'web'", "mirror"]),
    ],
)
def test_a_value_out_of_range_is_named_with_key_value_and_expectation(key, value, words):
    message = explained(put(key, value))
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"


def test_a_misspelt_word_for_epochs_is_told_what_is_possible():
    message = explained(put("experiments/optimizer/epochs", "publshed"))
    assert "experiments.optimizer.epochs" in message
    assert "'publshed'" in message
    assert "published" in message.replace("publshed", "")
    assert "number" in message


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("objectiv", ["objectiv ", "unknown", "objective"]),
        ("ladder/sample", ["ladder.sample ", "unknown", "samples", "subsets", "tolerance"]),
        ("landscape/line", ["landscape.line ", "unknown", "lines", "planes"]),
        (
            "optimizers/sgd/momentun",
            ["optimizers.sgd.momentun ", "unknown", "momentum", "nesterov"],
        ),
        ("models/mlp-32/widht", ["models.mlp-32.widht ", "unknown", "family, seeds, width"]),
        ("experiments/optimizer/point", ["experiments.optimizer.point ", "unknown", "points"]),
    ],
)
def test_an_unknown_key_is_named_with_its_value_and_the_known_ones(key, words):
    message = explained(put(key, "7"))
    for word in (*words, "value 7"):
        assert word in message, f"{word!r} is not in: {message}"


def test_an_argument_of_another_optimizer_is_unknown():
    """Adam has no momentum."""
    message = explained(put("optimizers/sgd", "{name: Adam, lr: 0.1, momentum: 0.9}"))
    for word in ("optimizers.sgd.momentum", "0.9", "unknown", "betas"):
        assert word in message


@pytest.mark.parametrize(
    ("key", "missing"),
    [("experiments/optimizer", "epochs"), ("models/mlp-32", "width"), ("optimizers/sgd", "lr")],
)
def test_a_missing_key_is_named_with_where_it_belongs(key, missing):
    def change(config):
        section = config
        for name in key.split("/"):
            section = section[name]
        del section[missing]

    message = explained(change)
    assert key.replace("/", ".") in message
    assert repr(missing) in message


def test_a_missing_section_is_named():
    message = explained(lambda config: config.pop("models"))
    assert "top level" in message
    assert "'models'" in message


@pytest.mark.parametrize("text", ["1e-1", "1.0e5"])
def test_a_number_that_yaml_reads_as_text_is_explained(text):
    """YAML 1.1 wants a dot and a signed exponent."""
    message = explained(put("optimizers/sgd/lr", text))
    for word in ("optimizers.sgd.lr", repr(text), "text", "decimal number", "signed exponent"):
        assert word in message


ENTRIES = {
    "models": "{family: mlp, width: 2}",
    "optimizers": "{name: SGD, lr: 0.1}",
    "experiments": "{models: [mlp-32], optimizers: [sgd], epochs: 1, points: [final], stages: []}",
}
NAME = "a letter, then letters, digits, dot, hyphen or underscore; not na, nan, null, none"


@pytest.mark.parametrize("kind", ENTRIES)
@pytest.mark.parametrize(
    "name",
    [
        *("my model", "a/b", "-x", "", "8", "32-mlp", "1e3", "_x", ".x"),
        *("NA", "NaN", "nan", "NULL", "null", "None"),
    ],
)
def test_a_name_that_is_no_folder_or_would_not_survive_a_csv_is_refused(kind, name):
    """Pandas reads 8 as a number and NA as nothing."""
    message = explained(lambda config: config[kind].update({name: yaml.safe_load(ENTRIES[kind])}))
    for word in (kind, repr(name), NAME):
        assert word in message, f"{word!r} is not in: {message}"


@pytest.mark.parametrize("name", ["a", "NAN-1", "nan2", "None_", "na", "Null.5", "e3"])
def test_names_that_survive_a_csv_pass(name):
    config = yaml.safe_load(CONFIG)
    config["models"][name] = {"family": "mlp", "width": 2}
    validate(config, str(SCHEMA))
    frame = pd.read_csv(io.StringIO(f"model\n{name}\n"))
    assert list(frame["model"]) == [name]


@pytest.mark.parametrize("reference", ["my_models", "my_models.make", "my-models:make", "a:b:c"])
def test_a_factory_is_a_module_and_a_function(reference):
    message = explained(put("models/own", f"{{factory: '{reference}'}}"))
    for word in ("models.own.factory", repr(reference), "package.module:function"):
        assert word in message


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("{}", "permutations"),
        ("{a/b: {w: 0}}", "permutations"),
        ("{units: {}}", "permutations.units"),
        ("{units: {w: x}}", "permutations.units.w"),
        ("{units: {w: -1}}", "permutations.units.w"),
        ("{units: {w: []}}", "permutations.units.w"),
        ("{units: {w: [0, 0]}}", "permutations.units.w"),
        ("{units: {w: [0.5]}}", "permutations.units.w.0"),
    ],
)
def test_a_table_of_permutations_names_groups_parameters_and_axes(table, key):
    spec = f"{{factory: 'a:b', permutations: {table}}}"
    assert f"models.own.{key}: " in explained(put("models/own", spec))


def test_a_table_of_permutations_passes_the_schema_and_is_for_factories_alone():
    config = yaml.safe_load(CONFIG)
    table = {"units": {"0.weight": 0, "2.weight": [0, 1]}}
    config["models"]["own"] = {"factory": "a:b", "permutations": table}
    validate(config, str(SCHEMA))
    spec = "{family: mlp, width: 2, permutations: {units: {w: 0}}}"
    assert "models.own.permutations" in explained(put("models/own", spec))
