"""A bad config stops before any job, with one message: which key, what was found, what to do."""

import shutil

import pytest
import yaml

from workflow.conftest import edit_config, snakemake


def put(path: str, value):
    """A change of the config: the key at a dotted path gets a value."""

    def change(config: dict) -> None:
        *parents, last = path.split("/")
        for parent in parents:
            config = config.setdefault(parent, {})
        config[last] = value

    return change


BAD = {
    "unknown key": (put("trainnig", 1), ["trainnig", "unknown", "training"]),
    "unknown nested key": (
        put("training/batchsize", 8),
        ["training.batchsize", "8", "batch_size"],
    ),
    "number as text": (
        put("optimizers/momentum", {"name": "SGD", "lr": "1e-1"}),
        ["optimizers.momentum.lr", "'1e-1'", "text", "1.0e-1"],
    ),
    "wrong type": (put("training/batch_size", 8.5), ["training.batch_size", "8.5", "integer"]),
    "no width": (put("models/mlp-4", {"family": "mlp"}), ["models.mlp-4", "width"]),
    "unknown family": (
        put("models/mlp-4", {"family": "resnet", "width": 4}),
        ["models.mlp-4.family", "resnet", "mlp"],
    ),
    "optimizer that no experiment knows": (
        put("optimizers/slow", {"name": "SGD", "lr": 0.001}),
        ["optimizers.slow", "no experiment"],
    ),
    "experiment with an unknown optimizer": (
        put("experiments/optimizer/optimizers", ["momentum", "wild", "lion"]),
        ["experiments.optimizer.optimizers", "lion", "momentum"],
    ),
    "even grid": (put("landscape/planes", {"points": 6}), ["landscape.planes.points", "6", "odd"]),
    "negative seed": (put("seeds", [0, -1]), ["seeds.1", "-1", "minimum of 0"]),
    "negative learning rate": (
        put("optimizers/momentum", {"name": "SGD", "lr": -0.1}),
        ["optimizers.momentum.lr", "-0.1"],
    ),
    "unknown point": (
        put("experiments/optimizer/points", ["end"]),
        ["experiments.optimizer.points.0", "'end'", "final"],
    ),
    "point after the end": (
        put("experiments/optimizer/points", ["epoch3"]),
        ["experiments.optimizer.points", "epoch3", "epochs"],
    ),
    "factory that cannot be imported": (
        put("models/own", {"factory": "my_model:two_layers"}),
        ["models.own", "my_model", "package.module:function"],
    ),
    "factory without that function": (
        put("models/own", {"factory": "my_models:three_layers"}),
        ["models.own", "three_layers"],
    ),
    "factory with wrong arguments": (
        put("models/own", {"factory": "my_models:two_layers", "arguments": {"depth": 3}}),
        ["models.own", "depth"],
    ),
    "published epochs of a user's model": (
        put("experiments/architecture/epochs", "published"),
        ["experiments.architecture.epochs", "published", "own"],
    ),
    "missing data file": (put("data/folder", "elsewhere"), ["data.folder", "elsewhere", "missing"]),
    "wrong checksum": (
        put("data", {"name": "mnist", "folder": "data", "source": "auto"}),
        ["data.folder", "sha256", "expected ba891046", "delete it"],
    ),
    "unknown data set": (
        put("data", {"name": "cifar", "folder": "nowhere", "source": "auto"}),
        ["data.name", "cifar", "mnist"],
    ),
    "more samples than there are": (
        put("data/train_samples", 151),
        ["data.train_samples", "151", "150", "null"],
    ),
    "final of a run that another experiment trains for longer": (
        put("experiments/optimizer/points", ["final"]),
        ["experiments.optimizer.points", "'final'", "'epoch1'"],
    ),
    "a name that tables would read as missing": (
        put("optimizers/null", {"name": "SGD", "lr": 0.1}),
        ["optimizers", "null", "letter"],
    ),
    "more eigenpairs than steps": (put("hessian/top", 20), ["hessian.steps", "8", "21"]),
    "a fork with nothing left to train": (
        put("instability/epochs", [0, 2]),
        ["instability.epochs", "found 2", "mlp-4/momentum", "2 epochs"],
    ),
    "a table of permutations that is not true": (
        put(
            "models/own",
            {
                "factory": "my_models:two_layers",
                "arguments": {"width": 5},
                "permutations": {"hidden": {"1.weight": 0, "1.bias": 0}},
            },
        ),
        ["models.own.permutations", "hidden", "3.weight"],
    ),
    "pairs without a second seed": (put("seeds", [0]), ["seeds", "[0]", "at least two"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_config_stops_before_any_job(fresh, name):
    change, expected = BAD[name]
    shutil.copytree(fresh / "data" / "stripes", fresh / "data" / "mnist")  # not MNIST at all
    edit_config(fresh, change)
    done = snakemake(fresh)
    message = done.stdout + done.stderr
    assert done.returncode != 0
    for part in expected:
        assert part in message
    assert message.count("config key") == 1
    assert "Traceback" not in message
    assert not (fresh / "results").exists()


SHARPEST = "claims/sgd-sharpest/corrected"
BAD_CLAIMS = {
    "unknown key": (put("claims/sgd-sharpest/armed", []), ["claims.sgd-sharpest.armed", "needs"]),
    "no endpoint": (put(SHARPEST, []), ["claims.sgd-sharpest.corrected", "[]"]),
    "unknown contrast": (
        put(SHARPEST, [{"part": "p", "contrast": "odds", "quantity": "eigenvalue"}]),
        ["claims.sgd-sharpest.corrected.0.contrast", "'odds'", "ratio"],
    ),
    "half a ratio": (
        put(SHARPEST, [{"part": "p", "contrast": "ratio", "quantity": "eigenvalue", "of": "a/b"}]),
        ["claims.sgd-sharpest.corrected.0", "'to'"],
    ),
    "unknown table": (
        put("quantities/gap/table", "run"),
        ["quantities.gap.table", "'run'", "runs"],
    ),
}


@pytest.mark.parametrize("name", BAD_CLAIMS)
def test_a_bad_registry_stops_before_any_job(fresh, name):
    change, expected = BAD_CLAIMS[name]
    registry = yaml.safe_load((fresh / "claims.yaml").read_text())
    change(registry)
    (fresh / "mine.yaml").write_text(yaml.safe_dump(registry))
    edit_config(fresh, put("claims", "mine.yaml"))
    done = snakemake(fresh)
    message = done.stdout + done.stderr
    assert done.returncode != 0
    for part in ("mine.yaml: registry key", *expected):
        assert part in message
    assert "Traceback" not in message
    assert not (fresh / "results").exists()


def test_a_registry_that_is_not_there_is_named(fresh):
    edit_config(fresh, put("claims", "nowhere.yaml"))
    done = snakemake(fresh)
    assert done.returncode != 0
    assert "config key claims: found 'nowhere.yaml'" in done.stdout + done.stderr
