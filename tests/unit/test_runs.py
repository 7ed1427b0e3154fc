"""A run's file gives back what training left, and a fork goes on from it."""

import copy

import h5py
import numpy as np
import pytest
import torch

from lossgeo import probe, runs, store
from lossgeo.models import build
from lossgeo.objective import make_objective
from lossgeo.parameters import layout_of
from lossgeo.training import train

OPTIMIZERS = {
    "sgd": {"name": "SGD", "lr": 0.1},
    "momentum": {"name": "SGD", "lr": 0.05, "momentum": 0.9},
    "adam": {"name": "Adam", "lr": 0.01},
    "amsgrad": {"name": "AdamW", "lr": 0.01, "amsgrad": True},
    "wild": {"name": "Adam", "lr": 1e30},
}
IDENTITY = dict.fromkeys(probe.IDENTITY, "this one")


def trained(optimizer, start=None, seed=0):
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(40, 1, 3, 3, generator=generator), torch.arange(40) % 3
    model = build({"family": "mlp", "width": 4}, (1, 3, 3), 3)
    objective = make_objective(copy.deepcopy(model), inputs, targets)
    found = train(
        model,
        inputs,
        targets,
        objective,
        objective,
        optimizer=OPTIMIZERS[optimizer],
        epochs=4,
        batch_size=16,
        evaluations_per_epoch=2,
        snapshots_per_epoch=1 if start else 2,
        generator=torch.Generator().manual_seed(seed),
        matched=None if start else (objective, 1.09),
        start=start,
    )
    return found, layout_of(model)


def write(path, found, layout, groups=None):
    identity = IDENTITY | {"parameters": layout.size}
    attributes = identity | runs.describe(found, layout)
    store.write(path, groups or runs.as_groups(found), attributes)
    return path


@pytest.fixture(params=["sgd", "momentum", "adam", "amsgrad"])
def parent(request, tmp_path):
    found, layout = trained(request.param)
    return request.param, found, write(tmp_path / "snapshots.h5", found, layout)


@pytest.mark.parametrize("k", [0, 2, 3])
def test_a_start_is_where_the_run_was(parent, k):
    _, found, file = parent
    start = runs.load_start(file, k)
    assert start.epoch == k
    np.testing.assert_array_equal(start.theta, found.snapshots[2 * k])
    assert set(start.states) == (set(found.states) if k else set())
    for name, vector in start.states.items():
        np.testing.assert_array_equal(vector, found.states[name][k - 1])


@pytest.mark.kernels
@pytest.mark.parametrize("k", [0, 1, 3])
def test_a_run_goes_on_from_its_file_as_it_did(parent, k):
    optimizer, found, file = parent
    fork, _ = trained(optimizer, runs.load_start(file, k))
    np.testing.assert_array_equal(fork.snapshots, found.snapshots[2 * k :: 2])


def test_points_of_a_fork(parent, tmp_path):
    optimizer, found, file = parent
    fork, layout = trained(optimizer, runs.load_start(file, 2), seed=1)
    path = write(tmp_path / "fork2.h5", fork, layout, {"/": runs.as_groups(fork)["/"]})
    shared, later, final = (probe.load_point(path, p) for p in ("epoch2", "epoch3", "final"))
    np.testing.assert_array_equal(shared.theta, found.snapshots[4])
    np.testing.assert_array_equal(later.theta, fork.snapshots[1])
    np.testing.assert_array_equal(final.theta, fork.snapshots[2])
    assert [point.step for point in (shared, later, final)] == [6, 9, 12]
    assert {probe.load_point(path, p).status for p in ("init", "epoch1", "epoch5", "matched")} == {
        "not reached"
    }
    assert (shared.preconditioner is not None) == (optimizer in ("adam", "amsgrad"))


def test_a_fork_of_a_run_that_had_diverged_has_no_theta(tmp_path):
    found, layout = trained("wild")
    assert found.diverged
    file = write(tmp_path / "snapshots.h5", found, layout)
    fork, _ = trained("wild", runs.load_start(file, 3))
    path = write(tmp_path / "fork3.h5", fork, layout)
    assert store.attributes(path)["diverged"]
    for point in ("final", "epoch3", "epoch4"):
        nothing = probe.load_point(path, point)
        assert nothing.status == "diverged"
        assert nothing.theta.isnan().all()


def test_everything_in_a_runs_file_has_a_unit_and_says_what_it_is(parent):
    optimizer, found, file = parent
    seen = []

    def check(name, node):
        if isinstance(node, h5py.Dataset):
            assert node.attrs["units"]
            assert len(node.attrs["long_name"]) > 5, name
            seen.append(name)

    with h5py.File(file) as opened:
        opened.visititems(check)
    assert {f"optimizer/{name}" for name in found.states} <= set(seen)
    assert ("optimizer" in store.subgroups(file)) == (optimizer != "sgd")
    assert "matched/theta" in seen
