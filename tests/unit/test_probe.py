"""What a stage leaves: its artefact and where that comes from."""

import json
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from snakemake.iocontainers import InputFiles, OutputFiles, Params

from lossgeo import probe
from lossgeo.data import sha256
from lossgeo.numerics import kernels
from lossgeo.store import Group, Variable

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
    )


def test_an_artefact_says_what_it_is_made_of(job):
    probe.write(job, GROUPS, packages=("hessian-eigenthings",), model="mlp-32", seed=3)
    with h5py.File(job.output[0]) as file:
        attributes = dict(file.attrs)
        np.testing.assert_array_equal(file["final/loss"][:], [0.0, 1.0, 2.0])
    assert attributes["model"] == "mlp-32"
    assert attributes["seed"] == 3
    assert attributes["kernels"] == kernels()
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
