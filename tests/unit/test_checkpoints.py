"""Weights from elsewhere become the theta that they are, or one line says why not."""

import json
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn

import hessian
import train
import trajectory
import weights
from lossgeo import buffers, checkpoints, checks, probe, sections, store, study, tables
from lossgeo.data import FILES
from lossgeo.models import build
from lossgeo.parameters import flatten, layout_of, unflatten

from .configs import SCHEMA, with_own_data
from .conftest import dense_hessian

MLP = {"family": "mlp", "width": 4}


def mlp(seed: int = 1) -> nn.Module:
    return build(MLP, (1, 3, 3), 3, seed=seed)


class Tied(nn.Module):
    """Two layers with one weight, and a constant that the file may hold or not."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.register_buffer("mask", torch.tensor([1.0, 0.0, 1.0, 1.0]))

    def forward(self, x):
        return self.second(self.first(x.flatten(1)) * self.mask)


def bring(content: dict, path: Path) -> Path:
    """A file of torch.save, or of safetensors."""
    save_file(content, path) if path.suffix == ".safetensors" else torch.save(content, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth", ".bin"])
def test_theta_is_that_of_the_file(tmp_path, suffix):
    model = mlp()
    found = checkpoints.load(bring(model.state_dict(), tmp_path / f"w{suffix}"), mlp(seed=2))
    torch.testing.assert_close(found.theta, flatten(model), rtol=0, atol=0)
    assert found.dtype == "float32"


@pytest.mark.parametrize("key", checkpoints.NESTED)
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_a_state_dict_is_found_inside_and_under_what_wrappers_add(tmp_path, key, prefix):
    model = mlp()
    inside = {f"{prefix}{name}": tensor for name, tensor in model.state_dict().items()}
    path = bring({"epoch": 3, "best": 0.9, key: inside}, tmp_path / "w.pt")
    assert torch.equal(checkpoints.load(path, mlp(seed=2)).theta, flatten(model))


def test_a_prefix_that_the_model_has_itself_stays(tmp_path):
    model = nn.Sequential()
    model.add_module("model", mlp())
    path = bring(model.state_dict(), tmp_path / "w.pt")
    assert torch.equal(checkpoints.load(path, model).theta, flatten(model))


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.float16, "float16"), (torch.bfloat16, "bfloat16"), (torch.float64, "float64")],
)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_other_precisions_are_cast_and_said(tmp_path, dtype, name, suffix):
    model = mlp()
    state = {key: tensor.to(dtype) for key, tensor in model.state_dict().items()}
    found = checkpoints.load(bring(state, tmp_path / f"w{suffix}"), mlp(seed=2))
    assert found.theta.dtype == torch.float32
    assert torch.equal(found.theta, flatten(model).to(dtype).float())
    assert found.dtype == name
    state["output.bias"] = state["output.bias"].float()
    mixed = checkpoints.load(bring(state, tmp_path / f"w2{suffix}"), mlp())
    assert mixed.dtype == ", ".join(sorted([name, "float32"]))


def test_theta_strings_parameters_up_in_the_models_order(tmp_path):
    model = mlp()
    turned = dict(reversed(model.state_dict().items()))
    assert torch.equal(
        checkpoints.load(bring(turned, tmp_path / "w.pt"), mlp(2)).theta, flatten(model)
    )


def test_tied_weights_are_there_once_or_twice(tmp_path):
    torch.manual_seed(0)
    model = Tied()
    both = bring(model.state_dict(), tmp_path / "both.pt")
    save_model(model, tmp_path / "once.safetensors")  # leaves one of the two names out
    without = {n: t for n, t in model.state_dict().items() if n not in ("first.weight", "mask")}
    second = bring(without, tmp_path / "second.pt")
    for path in (both, tmp_path / "once.safetensors", second):
        found = checkpoints.load(path, Tied())
        assert torch.equal(found.theta, flatten(model))
        assert found.theta.shape == (4 * 4 + 2 * 4,)


class Runs:
    """A pickle that runs a command when it is read as one."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    command = f"touch {tmp_path / 'ran'}"
    torch.save({"state_dict": mlp().state_dict(), "x": Runs(command)}, tmp_path / "a.pt")
    with open(tmp_path / "b.bin", "wb") as file:
        pickle.dump(Runs(command), file)
    torch.save(mlp(), tmp_path / "c.pth")
    for name, what in (("a.pt", "posix.system"), ("b.bin", ""), ("c.pth", "Sequential")):
        with pytest.raises(checkpoints.CheckpointError) as raised:
            checkpoints.load(tmp_path / name, mlp())
        for part in (name, "holds more than tensors", "could run code", what, "state_dict()"):
            assert part in str(raised.value)
        assert "\n" not in str(raised.value)
    assert not (tmp_path / "ran").exists()


def changed(tie: bool = False, **entries) -> dict:
    """The state dict of a model with some entries changed; None takes one away."""
    state = dict((Tied() if tie else mlp()).state_dict())
    for name, value in entries.items():
        state[name.replace("__", ".")] = value
    return {name: value for name, value in state.items() if value is not None}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            changed(hidden__weight=None, extra=torch.ones(2), output__bias=torch.ones(5)),
            ["missing: hidden.weight", "unexpected: extra", "output.bias (5,), in the model (3,)"],
        ),
        (changed(output__bias=torch.arange(3)), ["of other values: output.bias", "int64"]),
        (changed(output__bias=torch.tensor([0, np.nan, 1])), ["output.bias", "not finite"]),
        (
            changed(output__bias=torch.full((3,), 1e300, dtype=torch.float64)),
            ["output.bias", "not finite in float32"],
        ),
        ({f"layer{n}": torch.ones(1) for n in range(9)}, ["layer5, and 3 more", "missing: hidden"]),
        ({"epoch": 3}, ["holds the keys epoch", "expected a state dict", "model_state_dict"]),
        ([1, 2], ["holds a list", "expected a state dict"]),
        ({}, ["expected a state dict"]),
    ],
)
def test_what_does_not_fit_is_listed_in_one_line(tmp_path, content, words):
    path = tmp_path / "w.pt"
    torch.save(content, path)
    with pytest.raises(checkpoints.CheckpointError) as raised:
        checkpoints.load(path, mlp())
    assert "\n" not in str(raised.value)
    for word in (str(path), *words):
        assert word in str(raised.value)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"second__weight": torch.eye(4)}, ["second.weight, which the model ties to first.weight"]),
        ({"mask": torch.ones(4)}, ["mask, a buffer"]),
        ({"mask": torch.ones(5)}, ["mask, a buffer"]),
    ],
)
def test_what_theta_does_not_hold_must_be_as_the_model_has_it(tmp_path, entry, words):
    torch.save(changed(tie=True, **entry), tmp_path / "w.pt")
    with pytest.raises(checkpoints.CheckpointError, match=", ".join(words)):
        checkpoints.load(tmp_path / "w.pt", Tied())


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights at all"])
def test_what_is_no_file_of_weights_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(checkpoints.CheckpointError, match=name):
        checkpoints.load(tmp_path / name, mlp())


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_a_file_that_was_cut_is_refused(tmp_path, name):
    path = bring(mlp().state_dict(), tmp_path / name)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(checkpoints.CheckpointError, match=name):
        checkpoints.load(path, mlp())


# As a run of the study


@pytest.fixture
def study_of(tmp_path, monkeypatch):
    """A function that completes a config of models and an experiment, on data of eight samples."""
    monkeypatch.chdir(tmp_path)

    def complete(models: dict, experiment: dict) -> dict:
        config = {"data": {}, "models": models, "experiments": {"all": experiment}, "seeds": [0, 3]}
        config["optimizers"] = {"sgd": {"name": "SGD", "lr": 0.3}}
        config["hessian"] = {"top": 2, "steps": 20, "max_steps": 60, "tolerance": 1e-5}
        config["trajectory"] = {"components": 2}
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return checks.complete(with_own_data(config, folder), SCHEMA)

    return complete


def job_of(config: dict, run, rule: str, folder: Path, **inputs) -> SimpleNamespace:
    """What Snakemake hands to the script of a rule."""
    folder.mkdir(exist_ok=True)
    files = {"snapshots": folder / "snapshots.h5", "history": folder / "history.csv"}

    class Output(SimpleNamespace):
        def __getitem__(self, number):
            return folder / f"{rule}.h5"

    class Input(SimpleNamespace):
        def items(self):
            return vars(self).items()

    return SimpleNamespace(
        threads=1,
        resources=SimpleNamespace(mem_mb=2000),
        input=Input(data=[study.get_data_folder(config) / name for name in FILES], **inputs),
        output=Output(**files),
        wildcards=SimpleNamespace(**run._asdict()),
        params=SimpleNamespace(config=getattr(sections, rule)(config, run), code={}),
        config=config,
    )


def test_a_run_that_is_brought_in_again_is_the_same_point(study_of, tmp_path):
    """Its theta to the bit, its losses, and the curvature of the dense Hessian."""
    experiment = {"models": ["mine"], "points": ["final"], "stages": ["hessian"]}
    trained = study_of({"mine": MLP}, experiment | {"optimizers": ["sgd"], "epochs": 5})
    (run, _), folder = study.get_runs(trained), tmp_path / "trained"
    train.main(job_of(trained, run, "train", folder))
    theta = probe.load_point(folder / "snapshots.h5", "final").theta
    layout = layout_of(build(MLP, (1, 6, 5), 4))
    save_file(
        {name: part.clone() for name, part in unflatten(theta, layout).items()},
        tmp_path / "final.safetensors",
    )

    given = study_of({"mine": MLP | {"weights": "final.safetensors"}}, experiment)
    (again,), other = study.get_runs(given), tmp_path / "given"
    assert again == ("mine", "given", 0)
    weights.main(job_of(given, again, "weights", other, weights=["final.safetensors"]))
    point = probe.load_point(other / "snapshots.h5", "final")
    assert torch.equal(point.theta, theta)
    assert (point.status, point.step, point.preconditioner) == ("ok", -1, None)
    last, only = (pd.read_csv(at / "history.csv").iloc[-1] for at in (folder, other))
    losses = ["train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    assert only[losses].tolist() == pytest.approx(last[losses].tolist(), rel=1e-6)
    assert np.isnan(only["step"])
    assert only["epoch"] == 0

    found = {}
    for config, one, at in ((trained, run, folder), (given, again, other)):
        snapshots = str(at / "snapshots.h5")
        hessian.main(job_of(config, one, "hessian", at, snapshots=snapshots))
        found[at.name] = store.read(at / "hessian.h5", "final")
    assert found["given"].attributes["trace"] == pytest.approx(found["trained"].attributes["trace"])
    inputs, targets = probe.load_split(
        [study.get_data_folder(given) / name for name in FILES], study.get_data_spec(given), "train"
    )
    dense = dense_hessian(
        build(MLP, (1, 6, 5), 4).double(), inputs.double(), targets, theta.double()
    )
    exact = torch.linalg.eigvalsh(dense).flip(0)
    for group in found.values():
        values = group.variables["top_eigenvalues"].values
        np.testing.assert_allclose(values, exact[:2], rtol=1e-5)
        assert group.attributes["trace"] == pytest.approx(float(dense.trace()), rel=1e-5)


def test_files_in_order_are_the_points_of_a_run(study_of, tmp_path):
    thetas = []
    for number in range(4):
        model = build(MLP, (1, 6, 5), 4, seed=number)
        thetas.append(flatten(model))
        torch.save(model.half().state_dict(), tmp_path / f"{number}.pt")
    files = [f"{number}.pt" for number in range(4)]
    config = study_of(
        {"mine": MLP | {"weights": files}},
        {"models": ["mine"], "points": ["init", "epoch2", "final"], "stages": ["trajectory"]},
    )
    (run,), folder = study.get_runs(config), tmp_path / "given"
    weights.main(job_of(config, run, "weights", folder, weights=files))
    path = folder / "snapshots.h5"
    for point, number in {"init": 0, "epoch1": 1, "epoch2": 2, "epoch3": 3, "final": 3}.items():
        assert torch.equal(probe.load_point(path, point).theta, thetas[number].half().float())
    assert probe.load_point(path, "matched").status == "not reached"
    attributes = store.attributes(path)
    assert json.loads(attributes["weights_dtypes"]) == ["float16"] * 4
    assert "initial_gradient_norm" not in attributes
    (row,) = tables.runs([folder / "history.csv", path], 0.1, 0.9).to_dict("records")
    unknown = ["step", "steps_to_train_loss", "steps_to_test_accuracy", "initial_gradient_norm"]
    assert all(pd.isna(row[name]) for name in unknown)
    assert row["optimizer"] == "given"
    trajectory.main(job_of(config, run, "trajectory", folder, snapshots=str(path)))
    steps = tables.trajectory_path([folder / "trajectory.h5"])
    assert steps["epoch"].tolist() == [0, 1, 2, 3]
    assert steps["step"].isna().all()
    found = store.read(folder / "trajectory.h5", "pca").variables["coordinates"].values
    spread = np.linalg.svd(np.stack(thetas) - np.mean(np.stack(thetas), 0), compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(found - found.mean(0), axis=0), spread[:2], rtol=1e-2)


def test_a_job_refuses_a_file_that_has_changed_since_it_was_planned(study_of, tmp_path):
    torch.save(build(MLP, (1, 6, 5), 4, seed=0).state_dict(), tmp_path / "a.pt")
    experiment = {"models": ["mine"], "points": ["final"], "stages": []}
    config = study_of({"mine": MLP | {"weights": "a.pt"}}, experiment)
    (run,) = study.get_runs(config)
    planned = job_of(config, run, "weights", tmp_path / "given", weights=["a.pt"])
    torch.save(build(MLP, (1, 6, 5), 4, seed=1).state_dict(), tmp_path / "a.pt")
    with pytest.raises(SystemExit, match=r"a\.pt is not the file that snakemake read"):
        weights.main(planned)


def test_each_list_of_files_is_a_run_under_one_of_the_seeds(study_of, tmp_path):
    for name in "abc":
        torch.save({}, tmp_path / f"{name}.pt")
    mine = MLP | {"weights": [["a.pt"], ["b.pt", "c.pt"]]}
    config = study_of(
        {"mine": mine, "other": MLP},
        {
            "models": ["mine", "other"],
            "optimizers": ["sgd"],
            "epochs": 3,
            "points": ["final"],
            "stages": ["connectivity"],
        },
    )
    runs = study.get_runs(config)
    assert study.get_runs(config, "weights") == [("mine", "given", 0), ("mine", "given", 3)]
    assert study.get_runs(config, "train") == [("other", "sgd", 0), ("other", "sgd", 3)]
    assert runs == study.get_runs(config, "weights") + study.get_runs(config, "train")
    assert study.get_weight_files(config, "mine", 3) == ["b.pt", "c.pt"]
    pairs = [("mine", "given", "seed0", "seed3"), ("other", "sgd", "seed0", "seed3")]
    assert study.get_pairs(config) == pairs
    shown = study.get_shown(config, "all")
    assert shown["ceilings"].keys() == {"sgd"}
    assert study.only_trained(shown)["models"] == ["other"]
    before = sections.weights(config, runs[1])
    torch.save({"w": torch.ones(1)}, tmp_path / "c.pt")
    after = sections.weights(config, runs[1])
    assert after["weights"][0] == before["weights"][0]
    assert after["weights"][1] != before["weights"][1]


class Normalised(nn.Module):
    """A frozen layer, batch normalisation and an output."""

    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.fixed, self.norm, self.output = nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2)
        with torch.no_grad():
            self.fixed.weight.fill_(0.5 + shift)
            self.fixed.bias.fill_(0.25)
        self.fixed.requires_grad_(False)

    def forward(self, x):
        return self.output(self.norm(self.fixed(x.flatten(1))))


def test_running_statistics_come_along_and_frozen_parameters_stay(tmp_path):
    torch.manual_seed(0)
    model = Normalised().train()
    model(torch.randn(50, 4))
    torch.save(
        {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()},
        tmp_path / "w.pt",
    )
    fresh = Normalised()
    running = buffers.running_statistics(fresh, torch.randn(2, 4), "frozen")
    found = checkpoints.load(tmp_path / "w.pt", fresh, running)
    assert torch.equal(found.theta, flatten(model.half().float()))
    mean, variance = found.statistics.split(3)
    assert torch.equal(mean, model.norm.running_mean)
    assert torch.equal(variance, model.norm.running_var)
    with pytest.raises(checkpoints.CheckpointError, match=r"norm\.running_mean, a buffer"):
        checkpoints.load(tmp_path / "w.pt", fresh)

    without = {name: t for name, t in model.state_dict().items() if name != "norm.running_var"}
    torch.save(without, tmp_path / "w.pt")
    with pytest.raises(checkpoints.CheckpointError, match=r"missing: norm\.running_var$"):
        checkpoints.load(tmp_path / "w.pt", fresh, running)
    with pytest.raises(checkpoints.CheckpointError, match=r"fixed\.weight, a frozen parameter"):
        checkpoints.load(tmp_path / "w.pt", Normalised(shift=1.0))


@pytest.mark.parametrize("mode", ["frozen", "recalibrated"])
def test_batch_normalisation_goes_by_the_files_statistics_or_by_its_own(study_of, tmp_path, mode):
    """Losses, and the largest eigenvalues of the dense Hessian, of torch's own evaluation mode."""
    spec = {"factory": "workflow.my_models:normalised", "arguments": {"width": 3}}
    mine = spec | {"statistics": mode, "weights": "w.safetensors"}
    model = build(spec, (1, 6, 5), 4)
    with torch.no_grad():
        for _ in range(5):
            model.train()(2 * torch.randn(20, 1, 6, 5) + 1)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    experiment = {"models": ["mine"], "points": ["final"], "stages": ["hessian"]}
    config = study_of({"mine": mine}, experiment)
    (run,), folder = study.get_runs(config), tmp_path / "given"
    weights.main(job_of(config, run, "weights", folder, weights=["w.safetensors"]))
    snapshots = str(folder / "snapshots.h5")
    point = probe.load_point(snapshots, "final")
    assert torch.equal(point.theta, flatten(model))
    hessian.main(job_of(config, run, "hessian", folder, snapshots=snapshots))

    files = [study.get_data_folder(config) / name for name in FILES]
    inputs, targets = probe.load_split(files, study.get_data_spec(config), "train")
    if mode == "frozen":
        names = json.loads(store.attributes(snapshots)["buffer_names"])
        own = [model.get_buffer(name).reshape(-1) for name in names]
        assert torch.equal(point.buffers, torch.cat(own))
        with torch.no_grad():
            exact = nn.functional.cross_entropy(model.eval()(inputs), targets)
        values = store.read(folder / "hessian.h5", "final").variables["top_eigenvalues"].values
        dense = dense_hessian(model.double().eval(), inputs.double(), targets, point.theta.double())
        np.testing.assert_allclose(values, torch.linalg.eigvalsh(dense).flip(0)[:2], rtol=1e-4)
    else:
        assert point.buffers is None
        for layer in (model.norm1, model.norm2):
            layer.reset_running_stats()
            layer.momentum = None
        model.train().drop.eval()
        with torch.no_grad():
            model(inputs)
            exact = nn.functional.cross_entropy(model.eval()(inputs), targets)
    loss = pd.read_csv(folder / "history.csv")["train_loss"].item()
    assert loss == pytest.approx(float(exact), rel=1e-5)
