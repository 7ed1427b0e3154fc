"""What trains a study is tried before any job starts, and what is wrong with it is said."""

import textwrap
from types import SimpleNamespace

import pytest
import torch

from lossgeo import checks, fits, sections
from lossgeo.models import ModelError, build
from lossgeo.numerics import torch_generator

from .configs import completed

MLP = {"mlp": {"family": "mlp", "width": 3}}
FUNCTIONS = """
import torch
from torch import nn

def fit(model, inputs, targets, *, epochs, generator, lr=0.1):
    for epoch in range(epochs):
        for batch in torch.randperm(len(inputs), generator=generator).split(4):
            model.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= lr * p.grad
        yield

def idle(model, inputs, targets, *, epochs, generator):
    return
    yield

def plain(model, inputs, targets, *, epochs, generator):
    return model

def backwards(model, inputs, targets, *, epochs, generator):
    yield 0.5, None
    yield 0.25, None

def late(model, inputs, targets, *, epochs, generator):
    yield epochs + 1, None

def others(model, inputs, targets, *, epochs, generator):
    yield {"weight": torch.zeros(3)}

def number(model, inputs, targets, *, epochs, generator):
    yield 3.5

def elsewhere(model, inputs, targets, *, epochs, generator):
    nn.init.normal_(next(model.parameters()), generator=torch.Generator().manual_seed(seed()))
    yield

def seed(found=[]):
    found.append(0)
    return len(found)

def noise(inputs, generator):
    return inputs + torch.randn(inputs.shape, generator=generator)

def crop(inputs, generator):
    return inputs[..., 1:]

def shared(inputs, generator):
    return inputs + torch.randn(inputs.shape)

def double(inputs, generator):
    return inputs.double()

def leaves(inputs, generator):
    raise SystemExit(3)
"""


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(textwrap.dedent(FUNCTIONS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def of_torch(name, **arguments):
    return {"name": name, "lr": 0.1} | arguments


def of_own(function, **arguments):
    return {"train": {"factory": f"mine:{function}", "arguments": arguments}}


SOUND = {
    "rmsprop": of_torch("RMSprop", alpha=0.5, centered=True, clip=1.0, sam={"rho": 0.1}),
    "adafactor": of_torch("Adafactor", eps=[None, 0.001]),
    "augment": of_torch("SGD", augment="mine:noise"),
    "own": of_own("fit", lr=0.5),
}
BAD = {
    "argument": (of_torch("RMSprop", alfa=0.5), ["found 'alfa'", "torch.optim.RMSprop: alpha"]),
    "value": (of_torch("NAdam", betas=[2, 0.5]), ["torch.optim.NAdam refuses", "beta"]),
    "type": (of_torch("Adagrad", eps="small"), ["torch.optim.Adagrad refuses", "small"]),
    "shape": (of_torch("SGD", augment="mine:crop"), ["mine:crop", "(8, 1, 4, 3)", "same shape"]),
    "shared": (of_torch("SGD", augment="mine:shared"), ["mine:shared", "another generator"]),
    "double": (of_torch("SGD", augment="mine:double"), ["mine:double", "torch.float64"]),
    "none": (of_torch("SGD", augment="mine:gone"), ["mine:gone", "cannot be imported"]),
    "leaves": (of_torch("SGD", augment="mine:leaves"), ["mine:leaves called sys.exit(3)"]),
    "idle": (of_own("idle"), ["mine:idle", "yielded nothing"]),
    "plain": (of_own("plain"), ["mine:plain", "expected a generator"]),
    "others": (of_own("others"), ["mine:others", "state of another model"]),
    "number": (of_own("number"), ["mine:number", "yielded a float", "state dict"]),
    "elsewhere": (of_own("elsewhere"), ["mine:elsewhere", "two calls with the same seed"]),
    "arguments": (of_own("fit", rate=1), ["training failed", "rate"]),
}


def test_what_cannot_train_is_told_why(at_home):
    specs = SOUND | {name: spec for name, (spec, _) in BAD.items()}
    config = {
        "optimizers": specs,
        "models": MLP,
        "experiments": {"e": {"models": list(MLP), "optimizers": list(specs)}},
    }
    steps = checks._trainings(config)
    found = dict(zip(steps, checks.try_out(steps, (1, 4, 4), 3), strict=True))
    for name in SOUND:
        assert found[f"optimizers.{name}"] is None
    for name, (_, words) in BAD.items():
        message = found[f"optimizers.{name}"]
        assert message.startswith(f"optimizers.{name}: ")
        for word in words:
            assert word in message, f"{word!r} is not in: {message}"


def test_what_the_schema_knows_in_full_is_not_tried():
    specs = {"a": of_torch("SGD", clip=1.0), "b": of_torch("AdamW"), "c": of_torch("RMSprop")}
    config = {"optimizers": specs, "models": {}, "experiments": {}}
    assert list(checks._trainings(config)) == ["optimizers.c"]


@pytest.mark.parametrize(("function", "found"), [("backwards", "0.25"), ("late", "4")])
def test_epochs_of_a_users_training_grow_up_to_the_last(at_home, function, found):
    model = build(MLP["mlp"], (1, 4, 4), 3)
    inputs, targets = torch.zeros(6, 1, 4, 4), torch.arange(6) % 3
    spec = {"factory": f"mine:{function}"}
    states = fits.states(spec, model, inputs, targets, epochs=3, generator=torch_generator("x"))
    with pytest.raises(ModelError, match=f"yielded epoch {found} after"):
        list(states)


def test_a_training_is_tried_again_only_when_its_code_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".snakemake").mkdir()
    config = completed()
    config["optimizers"]["momentum"] = of_own("fit")
    config["optimizers"]["sgd"] = of_torch("RMSprop")
    tried = []

    def try_out(steps, *shape, **_):
        tried.append(list(steps))
        return [None, None]

    monkeypatch.setattr(checks, "try_out", try_out)
    for code in ("a", "a", "b", "a"):
        checks.check_models(config, {"optimizers.momentum": {"mine.py": code}})
    assert tried == 2 * [["optimizers.sgd", "optimizers.momentum"]]
    checks.check_models(config, {})  # nobody knows when it changes
    assert len(tried) == 3


def test_what_a_training_depends_on():
    """Batches and rows of history are nothing to a training of the user's own."""
    config = completed()
    config["optimizers"]["momentum"] = of_own("fit")
    run = SimpleNamespace(model="mlp-128", optimizer="momentum", seed="0")
    section = sections.train(config, run)
    assert section["optimizer"] == of_own("fit")
    config["training"] |= {"batch_size": 5, "snapshots_per_epoch": 9, "evaluations_per_epoch": 9}
    config["optimizers"]["sgd"]["clip"] = 0.5
    assert sections.train(config, run) == section
    run.optimizer = "sgd"
    assert sections.train(config, run)["optimizer"]["clip"] == 0.5
