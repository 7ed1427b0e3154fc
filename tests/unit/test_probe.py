"""What a stage leaves: its artefact and where that comes from."""

import json
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from snakemake.iocontainers import InputFiles, OutputFiles, Params

from lossgeo import probe
from lossgeo.data import sha256
from lossgeo.numerics import kernels
from lossgeo.store import Group, Variable

from .artefacts import identity_of

GROUPS = {"final": Group({"loss": Variable(("draw",), np.arange(3.0), "nats", "a loss")})}


@pytest.fixture
def job(tmp_path):
    """A job of the workflow: two files by name, and the data as a list."""
    names = ("snapshots", "hessian", "images", "labels")
    files = {name: tmp_path / name for name in names}
    for name, file in files.items():
        file.write_text(name)
    inputs = {
        "snapshots": str(files["snapshots"]),
        "hessian": str(files["hessian"]),
        "data": [str(files["images"]), str(files["labels"])],
    }
    return SimpleNamespace(
        input=InputFiles(fromdict=inputs),
        output=OutputFiles([str(tmp_path / "artefact.h5")]),
        params=Params(fromdict={"config": {"samples": 7}, "code": {"probe.py": "abc"}}),
        config={"device": "cpu"},
    )


def test_an_artefact_says_what_it_is_made_of(job):
    probe.write(job, GROUPS, packages=("hessian-eigenthings",), model="mlp-32", seed=3)
    with h5py.File(job.output[0]) as file:
        attributes = dict(file.attrs)
        np.testing.assert_array_equal(file["final/loss"][:], [0.0, 1.0, 2.0])
    assert attributes["model"] == "mlp-32"
    assert attributes["seed"] == 3
    assert attributes["kernels"] == kernels(torch.device("cpu"))
    assert json.loads(attributes["config"]) == {"samples": 7}
    assert json.loads(attributes["code"]) == {"probe.py": "abc"}
    assert json.loads(attributes["inputs"]) == {
        "snapshots": sha256(job.input.snapshots),
        "hessian": sha256(job.input.hessian),
    }
    assert "hessian-eigenthings" in json.loads(attributes["versions"])


def test_packages_that_a_stage_does_not_use_are_not_named(job):
    probe.write(job, GROUPS)
    with h5py.File(job.output[0]) as file:
        assert "hessian-eigenthings" not in json.loads(file.attrs["versions"])


def file_of(artefacts, model, optimizer, seed):
    (found,) = (
        p for p in artefacts["snapshots"] if p.parts[-4:-1] == (model, optimizer, f"seed{seed}")
    )
    return found


def test_a_point_is_a_snapshot_or_what_training_kept(artefacts):
    file = file_of(artefacts, "mlp-8", "momentum", 0)
    final, matched = (probe.load_point(file, name) for name in ("final", "matched"))
    assert (final.status, final.step) == ("ok", 30)
    assert (matched.status, matched.step) == ("ok", 20)
    assert (final.theta == 0).all()
    assert (matched.theta == 1).all()
    assert final.preconditioner is None
    assert matched.preconditioner is None


def test_a_point_of_adam_has_its_preconditioner(artefacts):
    file = file_of(artefacts, "cnn-2", "wild", 1)
    init, final, matched = (probe.load_point(file, n) for n in ("init", "final", "matched"))
    assert init.status == "ok"
    assert init.preconditioner is None
    assert (final.preconditioner == 2).all()
    assert (matched.preconditioner == 3).all()


@pytest.mark.parametrize(
    ("run", "point", "status"),
    [
        (("mlp-8", "momentum", 1), "matched", "not reached"),
        (("mlp-8", "momentum", 0), "epoch2", "not reached"),
        (("cnn-2", "wild", 0), "matched", "diverged"),
        (("cnn-2", "wild", 0), "final", "diverged"),
    ],
)
def test_a_point_that_was_not_reached_is_nan_and_says_why(artefacts, run, point, status):
    found = probe.load_point(file_of(artefacts, *run), point)
    assert (found.status, found.step) == (status, -1)
    assert found.theta.shape == (identity_of(*run)["parameters"],)
    assert found.theta.isnan().all()
    assert (found.preconditioner is None) == (run[1] == "momentum")
    assert found.preconditioner is None or found.preconditioner.isnan().all()
