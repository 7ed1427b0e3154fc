"""Training of a user's own leaves the same kind of run as ours."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lossgeo import runs
from lossgeo.models import build
from lossgeo.objective import evaluate, make_objective
from lossgeo.parameters import layout_of
from lossgeo.training import UNKNOWN, train

SPEC = {"family": "mlp", "width": 5}


def fit(model, inputs, targets, *, epochs, generator, lr=0.5, halves=False, average=False):
    """Plain SGD on batches of 10; the average is of all states after an epoch."""
    mean = {}
    for epoch in range(epochs):
        order = torch.randperm(len(inputs), generator=generator).split(10)
        for number, batch in enumerate(order, start=1):
            model.zero_grad()
            nn.functional.cross_entropy(model(inputs[batch]), targets[batch]).backward()
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter -= lr * parameter.grad
            if halves and 2 * number == len(order):
                yield epoch + 0.5, None
        state = model.state_dict()
        mean = {n: mean.get(n, 0) + (v - mean.get(n, 0)) / (epoch + 1) for n, v in state.items()}
        yield mean if average else None


def run(**arguments):
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(40, 1, 4, 4, generator=generator)
    targets = inputs[:, 0, 0, :3].argmax(1)
    model = build(SPEC, (1, 4, 4), 3, seed=1)
    objective = make_objective(copy.deepcopy(model), inputs, targets)
    found = train(
        model,
        inputs,
        targets,
        objective,
        objective,
        optimizer={"train": {"factory": f"{__name__}:fit", "arguments": arguments}},
        epochs=6,
        batch_size=7,
        evaluations_per_epoch=3,
        snapshots_per_epoch=2,
        generator=torch.Generator().manual_seed(0),
        matched=(objective, 0.7),
    )
    return found, objective, layout_of(model)


def test_every_state_is_a_snapshot_and_a_row_of_history():
    found, objective, _ = run(halves=True)
    np.testing.assert_array_equal(found.history["epoch"], np.arange(13) / 2)
    np.testing.assert_array_equal(found.history["step"], [0] + 12 * [UNKNOWN])
    np.testing.assert_array_equal(found.snapshot_rows, np.arange(13))
    assert np.isnan(found.history["lr"]).all()
    for theta, loss in zip(found.snapshots, found.history["train_loss"], strict=True):
        assert evaluate(objective, torch.from_numpy(theta)).loss == pytest.approx(loss, abs=1e-6)
    assert not found.diverged
    assert found.preconditioners is None
    assert found.states == {}


def test_it_is_what_ours_would_be():
    """The same loop: batches of ten in the order of the same generator."""
    found, *_ = run(halves=True)
    whole, objective, _ = run()
    np.testing.assert_array_equal(whole.snapshots, found.snapshots[::2])
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(40, 1, 4, 4, generator=generator)
    settings = {"batch_size": 10, "evaluations_per_epoch": 1, "snapshots_per_epoch": 1}
    ours = train(
        build(SPEC, (1, 4, 4), 3, seed=1),
        inputs,
        inputs[:, 0, 0, :3].argmax(1),
        objective,
        objective,
        optimizer={"name": "SGD", "lr": 0.5},
        epochs=6,
        generator=torch.Generator().manual_seed(0),
        **settings,
    )
    np.testing.assert_allclose(whole.snapshots, ours.snapshots, rtol=0, atol=1e-6)


def test_a_state_dict_is_measured_and_leaves_the_learner_alone():
    plain, *_ = run()
    mean, *_ = run(average=True)
    cumulative = plain.snapshots[1:].cumsum(0) / np.arange(1, 7)[:, None]
    np.testing.assert_allclose(mean.snapshots[1:], cumulative, rtol=1e-4, atol=1e-6)


def test_the_first_state_below_the_target_is_matched():
    found, objective, _ = run()
    losses = found.history["train_loss"]
    first = int(np.argmax(losses <= 0.7))
    assert 0 < first < 6
    at = int(found.matched.epoch)
    assert at == first or found.matched.loss > losses[first]
    np.testing.assert_array_equal(found.matched.theta, found.snapshots[at])
    assert found.matched.step == UNKNOWN
    assert found.matched.loss == evaluate(objective, torch.from_numpy(found.matched.theta)).loss


def test_a_state_that_is_not_finite_ends_the_run():
    found, *_ = run(lr=1e30)
    assert found.diverged
    assert len(found.snapshots) < 7
    assert np.isnan(found.history["train_loss"][-1])


def test_its_file_has_no_states_and_no_rate_of_its_own():
    found, _, layout = run()
    groups = runs.as_groups(found)
    assert set(groups) == {"/", "matched"}
    assert not runs.describe(found, layout)["preconditioned"]


def test_running_statistics_come_with_a_state():
    """An epoch of one batch: they are those of one forward pass in training mode."""
    generator = torch.Generator().manual_seed(3)
    inputs, targets = torch.randn(10, 4, generator=generator), torch.arange(10) % 3
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    once = copy.deepcopy(model)
    once(inputs)
    objective = make_objective(copy.deepcopy(model), inputs, targets, statistics="frozen")
    settings = {"batch_size": 7, "evaluations_per_epoch": 1, "snapshots_per_epoch": 1}
    found = train(
        model,
        inputs,
        targets,
        objective,
        objective,
        optimizer={"train": {"factory": f"{__name__}:fit"}},
        epochs=1,
        generator=generator,
        **settings,
    )
    assert found.buffers.shape == (2, 10)
    expected = torch.cat([once[1].running_mean, once[1].running_var])
    np.testing.assert_allclose(found.buffers[1], expected, rtol=1e-5, atol=1e-6)
