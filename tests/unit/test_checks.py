"""One clear sentence for whatever is wrong with a config, or with what is asked for under it."""

import copy
import gzip
import io
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import yaml
from snakemake.utils import update_config

from lossgeo import checks, study
from lossgeo.checks import ConfigError
from lossgeo.data import DATASETS, FILES, MNIST, Contents

from .configs import CONFIG, ROOT, SCHEMA, completed, put_data, with_fork, with_own_data


@pytest.fixture
def config(tmp_path, monkeypatch) -> dict:
    monkeypatch.chdir(tmp_path)
    return completed()


# Names, grids, points


def test_a_sound_config_passes(config):
    check(config)


def test_the_projects_own_configs_pass(tmp_path, monkeypatch):
    """config.yaml, and each overlay put over it, which keeps the experiments that it names."""
    monkeypatch.chdir(tmp_path)
    quick = {"architecture", "matched", "connectivity", "optimizer", "samples", "instability"}
    for overlay, named in (
        (None, quick | {"wide", "matched-optimizer", "matched-sgd", "widths"}),
        ("config.quick.yaml", quick),
        ("config.connectivity.yaml", {"instability", "width"}),
    ):
        config = checks.read_yaml(ROOT / "config.yaml")
        files = [ROOT / overlay] if overlay else []
        for file in files:
            update_config(config, checks.read_yaml(file))
        made = checks.complete(config, SCHEMA, checks.named_experiments(files))
        assert set(made["experiments"]) == named
        used = {model for entry in made["experiments"].values() for model in entry["models"]}
        assert set(made["models"]) == used


def check(config: dict) -> None:
    """All that is checked before any job starts."""
    checks.check_models(checks.complete(config, SCHEMA), {})


def refused(config: dict, *words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        check(config)
    message = str(raised.value)
    assert message.startswith("config key ")
    assert "\n" not in message
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"


def test_no_more_seeds_are_asked_for_than_there_are(config):
    config["models"]["cnn-16"]["seeds"] = 9
    refused(config, "cnn-16.seeds: found 9", "at most the 5")


def test_a_sound_fork_passes(config):
    check(with_fork(config))


def test_a_fork_is_connected_where_it_has_been(config):
    forked = with_fork(config)
    forked["connectivity"]["at"] = ["epoch3"]
    refused(forked, "connectivity.at", "epoch3", "after 3 epochs", "trained to 6")
    forked["connectivity"]["at"] = "last"
    forked["experiments"]["fork"]["points"] = ["epoch5", "epoch3"]
    refused(forked, "experiments.fork.points", "epoch3", "after 3 epochs")


def test_a_fork_has_epochs_left(config):
    forked = with_fork(config)
    forked["instability"]["epochs"] = [0, 6]
    refused(forked, "instability.epochs", "found 6", "mlp-128/momentum", "6 epochs", "fewer")


def test_the_renormalised_line_is_an_aligned_one(config):
    config["connectivity"]["rungs"] = ["line", "renormalised"]
    refused(config, "connectivity.rungs", "renormalised", "expected aligned")


@pytest.mark.parametrize("key", ["radii", "worst.euclidean", "worst.elementwise"])
def test_radii_that_do_not_ascend_are_refused(config, key):
    section = config["flatness"]
    *path, last = key.split(".")
    for name in path:
        section = section[name]
    section[last] = [0.2, 0.05]
    refused(config, f"flatness.{key}", "[0.2, 0.05]", "ascending")


@pytest.mark.parametrize("kind", ["models", "optimizers"])
def test_an_unknown_name_is_listed_with_the_known_ones(config, kind):
    config["experiments"]["optimizer"][kind].append("typo")
    refused(config, f"experiments.optimizer.{kind}", "'typo'", ", ".join(config[kind]))


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
    check(config)


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
    check(config)
    config["experiments"]["optimizer"] |= {"epochs": 3, "points": ["final"]}
    refused(config, "experiments.optimizer.points", "'final'", "12 epochs", "'epoch3'")


def test_final_is_the_longer_experiments_to_say(config):
    """`optimizer` trains mlp-128/momentum for its 20 epochs: its end is the run's."""
    assert "final" in config["experiments"]["optimizer"]["points"]
    check(config)


def test_final_may_not_be_connected_either_where_the_run_is_trained_for_longer(config):
    config["connectivity"]["at"] = ["final"]
    refused(config, "connectivity.at", "'final'", "mlp-128/momentum", "20 epochs", "'epoch12'")
    config["connectivity"]["at"] = ["epoch12"]
    check(config)


def test_who_connects_nothing_does_not_mind_the_point_that_is_connected(config):
    config["connectivity"]["at"] = ["final"]
    config["experiments"]["architecture"]["stages"] = ["hessian"]
    check(config)


def test_the_point_that_is_connected_must_be_reached(config):
    config["connectivity"]["at"] = ["epoch15"]
    refused(config, "connectivity.at", "'epoch15'", "cnn-16/momentum", "14 epochs")


def test_components_need_snapshots(config):
    config["experiments"]["architecture"] |= {"epochs": 4, "points": ["epoch4"]}
    config["connectivity"]["at"] = ["epoch4"]
    config["trajectory"]["components"] = 5
    refused(config, "trajectory.components", "found 5", "5 snapshots", "snapshots_per_epoch")
    config["training"]["snapshots_per_epoch"] = 2
    check(config)


def test_levels_are_not_cut_into_tiles(config):
    config["landscape"]["tiles"] = 16
    refused(config, "landscape.tiles", "found 16", "multilevel", "expected 1", "estimator: full")
    config["estimator"] = "full"
    check(config)


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


@pytest.fixture
def own(config, tmp_path) -> dict:
    return with_own_data(config, tmp_path)


def test_sound_data_of_ones_own_pass(own):
    check(own)


def test_an_unknown_data_set_needs_files_of_ones_own(config):
    config["data"]["name"] = "minst"
    refused(config, "data.name", "'minst'", "auto", "mnist, fashion-mnist", "source: files")


def test_what_data_hold_is_known_or_read(config, tmp_path):
    assert checks.get_contents(config) == MNIST, "whether its files are there or not"
    config["data"]["name"] = "cifar-100"
    assert checks.get_contents(config) == Contents((3, 32, 32), 100, 50_000, 10_000)
    own = with_own_data(config, tmp_path)
    for split, count in (("train", 8), ("test", 4)):
        put_data(own, split, np.arange(count) % 3, (6, 5))
    assert checks.get_contents(own) == Contents((1, 6, 5), 3, 8, 4)
    ids = np.arange(12).reshape(4, 3)
    path = tmp_path / "ids.npz"
    arrays = {"inputs": ids, "targets": ids, "test_inputs": ids[:2], "test_targets": ids[:2]}
    np.savez(path, **arrays)
    own["data"] |= {"source": "npz", "file": str(path)}
    assert checks.get_contents(own) == Contents((3,), 12, 4, 2, entry_bytes=8)


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
    check(own)
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
    check(own)
    for split in ("train", "test"):
        put_data(own, split, np.arange(4), (1, 2))
    del own["models"]["cnn-16"]
    own["experiments"]["architecture"]["models"].remove("cnn-16")
    check(own)


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
    check(factory(GOOD))
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
    check(config)


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
    check(config)
    del table["2.bias"]
    refused(config, "models.mlp-32.permutations: group hidden", "axis 0 of 2.bias")


# What the schema finds, explained


def explained(change) -> str:
    config = yaml.safe_load(CONFIG)
    change(config)
    with pytest.raises(ConfigError) as raised:
        checks.validate(config, SCHEMA)
    message = str(raised.value)
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
        (
            "models/mlp-32/widht",
            ["models.mlp-32.widht ", "unknown", "family, parameters, seeds, weights, width"],
        ),
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
    [("experiments/optimizer", "points"), ("models/mlp-32", "width"), ("optimizers/sgd", "lr")],
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
    checks.validate(config, SCHEMA)
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
    checks.validate(config, SCHEMA)
    spec = "{family: mlp, width: 2, permutations: {units: {w: 0}}}"
    assert "models.own.permutations" in explained(put("models/own", spec))


# Files that the study does not have


@pytest.mark.parametrize(
    ("names", "stage", "words"),
    [
        ({"experiment": "nobody"}, None, ["experiment 'nobody'", "architecture, optimizer, fork"]),
        ({"model": "nobody", "optimizer": "sgd", "seed": "0"}, None, ["'nobody'", "mlp-32, mlp"]),
        (
            {"model": "mlp-32", "optimizer": "sgd", "seed": "0"},
            "hessian",
            ["optimizer 'sgd' of mlp-32 with the stage hessian", "one of: momentum"],
        ),
        ({"model": "mlp-32", "optimizer": "momentum", "seed": "3"}, None, ["seed '3'", "0, 1, 2"]),
        ({"model": "mlp-32", "optimizer": "momentum", "seed": "01"}, None, ["seed '01'"]),
        ({"model": "mlp-128", "optimizer": "sgd", "seed": "0"}, "flatness", ["'sgd'", "flatness"]),
        ({"model": "mlp-128", "optimizer": "momentum", "seed": "0"}, "ladder", ["there is none"]),
        (
            {"model": "mlp-128", "optimizer": "sgd", "a": "seed0", "b": "seed1"},
            None,
            ["'sgd'", "connectivity"],
        ),
        (
            {"model": "mlp-128", "optimizer": "momentum", "a": "seed0", "b": "seed9"},
            None,
            ["seed '9'", "0, 1, 2, 5, 7"],
        ),
        (
            {"model": "mlp-128", "optimizer": "momentum", "a": "seed0", "b": "fork2"},
            None,
            ["epoch of a fork '2'", "0, 3"],
        ),
        (
            {"model": "mlp-128", "optimizer": "momentum", "seed": "1", "epoch": "1"},
            "instability",
            ["epoch of a fork '1'", "0, 3"],
        ),
        (
            {"model": "mlp-128", "optimizer": "momentum", "seed": "7", "epoch": "3"},
            "instability",
            ["epoch of a fork '3'", "there is none"],
        ),
    ],
)
def test_a_target_outside_the_study_is_told_what_there_is(config, names, stage, words):
    with pytest.raises(ConfigError) as raised:
        checks.check_target(with_fork(config), names, stage)
    message = str(raised.value)
    assert message.startswith("target outside the study: found the ")
    for word in words:
        assert word in message, f"{word!r} is not in: {message}"


def test_what_the_study_has_may_be_asked_for(config):
    with_fork(config)
    for run in study.get_runs(config, "hessian"):
        names = run._asdict() | {"seed": str(run.seed)}
        checks.check_target(config, names, "hessian")
    for pair in (*study.get_pairs(config), *study.get_forks(config)):
        checks.check_target(config, pair._asdict())
    for fork in study.get_forks(config):
        names = {"seed": fork.a.removeprefix("seed"), "epoch": fork.b.removeprefix("fork")}
        checks.check_target(config, {**fork._asdict(), **names, "a": "seed0"}, "instability")
    checks.check_target(config, {"experiment": "fork"})


def test_a_tile_that_surfaces_are_not_cut_into_is_outside_the_study(config):
    config["landscape"]["tiles"] = 3
    for tile in study.get_tiles(config):
        names = {name: str(value) for name, value in tile._asdict().items()}
        checks.check_target(config, names, "landscape")
    with pytest.raises(ConfigError, match="found the tile '1-of-4', expected one of: 1-of-3, 2-"):
        checks.check_target(config, names | {"tile": "1", "tiles": "4"}, "landscape")
    config["landscape"]["tiles"] = 1
    with pytest.raises(ConfigError, match="found the tile '3-of-3', but there is none"):
        checks.check_target(config, names, "landscape")


# Overlays


def test_the_last_overlay_that_names_experiments_decides(tmp_path):
    def overlay(name: str, text: str):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    files = [
        overlay("quick.yaml", "experiments: {architecture: {epochs: 1}, optimizer: {}}"),
        overlay("style.yaml", "figures: {dpi: 100}"),
        overlay("drop.yaml", "experiments: {optimizer: null}"),
    ]
    assert checks.named_experiments([]) is None
    assert checks.named_experiments(files[1:]) is None
    assert checks.named_experiments(files) == ["architecture", "optimizer"]
    mine = overlay("mine.json", '{\n\t"experiments": {"mine": {"epochs": 2}, "optimizer": null}}')
    assert checks.named_experiments([*files, mine]) == ["mine"]


def test_a_user_lists_their_own_models_and_experiments_alone(config):
    """The rest of the study goes with its experiments; nothing has to be dropped by name."""
    config["models"]["mine"] = {"family": "mlp", "width": 8}
    config["experiments"]["mine"] = copy.deepcopy(config["experiments"]["optimizer"])
    config["experiments"]["mine"] |= {"models": ["mine"], "optimizers": ["sgd"]}
    made = checks.complete(config, SCHEMA, ["mine"])
    assert list(made["models"]) == list(made["experiments"]) == ["mine"]
    assert {run[:2] for run in study.get_runs(made)} == {("mine", "sgd")}


def test_a_file_that_is_no_yaml_is_named_in_one_line(tmp_path):
    path = tmp_path / "mine.yaml"
    for content in (b"a: [1,\nb", b"\xff\xfe\x00", b"a: 1\n  b: 2"):
        path.write_bytes(content)
        with pytest.raises(ConfigError) as raised:
            checks.read_yaml(path)
        assert str(path) in str(raised.value)
        assert "\n" not in str(raised.value)


def test_what_is_read_is_plain_and_whole(tmp_path):
    """Merged and repeated sections are no duplicates, and floats stay floats."""
    path = tmp_path / "mine.yaml"
    path.write_text("base: &base {lr: 1.0}\na: {<<: *base, momentum: 0.5}\nb: {<<: *base}\n")
    assert checks.read_yaml(path)["a"] == {"lr": 1.0, "momentum": 0.5}
    made = completed()
    assert type(made["optimizers"]["sgd"]["lr"]) is float
    assert type(made["hessian"]["tolerance"]) is float


def test_a_good_model_is_tried_again_only_when_its_code_changes(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake").mkdir()
    config["models"]["own"] = {"factory": "torch.nn:Linear"}
    tried = []

    def try_out(steps, *shape, limit, example):
        tried.append(list(steps))
        return found

    monkeypatch.setattr(checks, "try_out", try_out)
    found = ["models.own: it hangs"]
    for _ in range(2):  # a bad one is tried on every call
        with pytest.raises(ConfigError, match=r"models\.own: it hangs"):
            checks.check_models(config, {"own": {"own.py": "a"}})
    found = [None]
    for code in ("a", "a", "b", "a"):
        checks.check_models(config, {"own": {"own.py": code}})
    assert tried == 4 * [["models.own"]]
    for _ in range(2):  # nobody knows when it changes
        checks.check_models(config, {})
    checks.check_models(config | {"device": "cuda:0"}, {"own": {"own.py": "a"}})
    assert tried[4:] == [["models.own"], ["models.own"], ["device", "models.own"]]
