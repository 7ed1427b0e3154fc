"""L(theta) is the model's mean cross-entropy, and probing it changes nothing."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from lossgeo import curvature, directions, paths, sharpness, surface
from lossgeo.objective import evaluate, evaluate_many, loss_of_block, make_objective, sample_losses
from lossgeo.parameters import flatten, unflatten


@pytest.fixture
def loaded(case):
    """The case's network as a user would hold it: theta written into its parameters."""
    model = copy.deepcopy(case.model).eval()
    nn.utils.vector_to_parameters(case.theta, model.parameters())
    return model


def test_the_loss_is_the_models_own(case, loaded):
    with torch.no_grad():
        logits = loaded(case.inputs)
    expected = nn.functional.cross_entropy(logits, case.targets)
    accuracy = (logits.argmax(1) == case.targets).double().mean()
    found = evaluate(case.objective, case.theta)
    assert found.loss == pytest.approx(float(expected), rel=1e-13)
    assert found.accuracy == pytest.approx(float(accuracy), rel=1e-15)


def test_the_standard_error_is_numpys_of_the_per_sample_losses(case, loaded):
    with torch.no_grad():
        log_p = torch.log_softmax(loaded(case.inputs), 1).numpy()
    losses = -log_p[np.arange(len(log_p)), case.targets.numpy()]
    expected = losses.std(ddof=1) / math.sqrt(len(losses))
    assert evaluate(case.objective, case.theta).loss_se == pytest.approx(expected, rel=1e-12)
    found, correct = sample_losses(case.objective, case.theta)
    np.testing.assert_allclose(found, losses, rtol=1e-12)
    np.testing.assert_array_equal(correct, log_p.argmax(1) == case.targets.numpy())


@pytest.mark.parametrize("block", [1, 5, 24, 1000, None])
def test_the_loss_does_not_depend_on_the_size_of_the_blocks(case, block):
    other = make_objective(
        copy.deepcopy(case.model), case.inputs, case.targets, dtype=torch.float64, block=block
    )
    assert other.samples == len(case.targets)
    assert evaluate(other, case.theta) == pytest.approx(
        evaluate(case.objective, case.theta), abs=1e-12
    )


def test_the_blocks_shares_add_up_to_the_loss(case):
    parameters = unflatten(case.theta, case.objective.layout)
    shares = [loss_of_block(case.objective, parameters, *block) for block in case.objective.blocks]
    assert float(sum(shares)) == pytest.approx(float(case.loss(case.theta)), rel=1e-13)


def test_float32_agrees_with_float64(case):
    """To the rounding of a few layers."""
    narrow = make_objective(copy.deepcopy(case.model), case.inputs, case.targets)
    assert narrow.dtype == torch.float32
    found, exact = evaluate(narrow, case.theta), evaluate(case.objective, case.theta)
    assert found.loss == pytest.approx(exact.loss, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_theta_that_is_not_finite_scores_nan(case, bad):
    theta = case.theta.clone()
    theta[3] = bad
    assert all(math.isnan(value) for value in evaluate(case.objective, theta))


def test_a_loss_that_overflows_is_reported_as_not_finite(mlp):
    narrow = make_objective(copy.deepcopy(mlp.model), mlp.inputs, mlp.targets)
    assert not math.isfinite(evaluate(narrow, torch.full_like(mlp.theta, 1e30)).loss)


def test_one_sample_has_no_standard_error(mlp):
    one = make_objective(copy.deepcopy(mlp.model), mlp.inputs[:1], mlp.targets[:1])
    found = evaluate(one, mlp.theta)
    assert math.isfinite(found.loss)
    assert math.isnan(found.loss_se)


def test_the_model_is_in_evaluation_mode():
    """Dropout is off: the loss is a function of theta."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
    x, y = torch.randn(9, 1, 4, 4), torch.randint(0, 3, (9,))
    expected = nn.functional.cross_entropy(model[2](x.flatten(1)), y).detach()
    theta = flatten(model)
    objective = make_objective(model, x, y)
    assert evaluate(objective, theta).loss == pytest.approx(float(expected), rel=1e-6)
    assert evaluate(objective, theta) == evaluate(objective, theta)


def test_many_thetas_are_scored_one_by_one(mlp):
    thetas = [mlp.theta, 2 * mlp.theta, torch.full_like(mlp.theta, torch.nan)]
    found = evaluate_many(mlp.objective, thetas)
    assert set(found) == {"loss", "loss_se", "accuracy"}
    for i, theta in enumerate(thetas):
        row = [found[name][i] for name in ("loss", "loss_se", "accuracy")]
        np.testing.assert_array_equal(row, evaluate(mlp.objective, theta))


def test_inputs_and_targets_of_different_lengths_are_refused(mlp):
    with pytest.raises(ValueError, match=r"30 inputs and 29 targets"):
        make_objective(mlp.model, mlp.inputs, mlp.targets[:-1])
    with pytest.raises(ValueError, match=r"0 inputs and 0 targets"):
        make_objective(mlp.model, mlp.inputs[:0], mlp.targets[:0])


def probe_line(case, d, generator):
    surface.line(case.objective, case.theta, d, np.array([-1.0, 0.0, 1.0]))


def probe_plane(case, d, generator):
    alphas = np.array([-1.0, 0.0, 1.0])
    surface.plane(case.objective, case.theta, d, -d, alphas, alphas)


def probe_hessian(case, d, generator):
    curvature.hessian_operator(case.objective, case.theta) @ d
    curvature.gradient(case.objective, case.theta)


def probe_flatness(case, d, generator):
    sharpness.average_rise(
        case.objective, case.theta, np.array([0.1]), "filter", 2, generator=generator
    )


def probe_path(case, d, generator):
    path = paths.straight_line(case.theta, case.theta + d)
    paths.profile(case.objective, path, np.linspace(0, 1, 3))


@pytest.mark.parametrize(
    "probe", [probe_line, probe_plane, probe_hessian, probe_flatness, probe_path]
)
def test_probing_changes_neither_theta_nor_the_model(case, probe, generator):
    """Bit for bit; nor the direction, nor the global random state."""
    theta, own = case.theta.clone(), flatten(case.objective.model)
    d = directions.random_direction(theta, case.objective.layout, "filter", generator=generator)
    before, state = d.clone(), torch.get_rng_state()
    probe(case, d, generator)
    assert torch.equal(case.theta, theta)
    assert torch.equal(flatten(case.objective.model), own)
    assert all(p.grad is None for p in case.objective.model.parameters())
    assert torch.equal(d, before)
    assert torch.equal(torch.get_rng_state(), state)
