"""Similarity of two networks: against kernels, index tuples and leaving samples out."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from lossgeo.models import build
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten, unflatten
from lossgeo.permutations import find_groups, permute
from lossgeo.similarity import (
    debiased_cka,
    disagreement,
    hidden_activations,
    linear_cka,
    unit_correlation,
)

CKAS = (linear_cka, debiased_cka)


@pytest.fixture
def features(generator) -> tuple[torch.Tensor, torch.Tensor]:
    """40 samples of 5 features and of 7 that have to do with them."""
    x = torch.randn(40, 5, generator=generator, dtype=torch.float64)
    mixed = x @ torch.randn(5, 7, generator=generator, dtype=torch.float64)
    return x + 3, mixed + torch.randn(40, 7, generator=generator, dtype=torch.float64)


def test_linear_cka_is_the_alignment_of_centred_kernels(features):
    x, y = features
    centre = torch.eye(40, dtype=torch.float64) - 1 / 40
    k, l = (centre @ f @ f.T @ centre for f in (x, y))  # noqa: E741
    expected = float((k * l).sum() / (k.norm() * l.norm()))
    assert linear_cka(x, y).value == pytest.approx(expected, rel=1e-12)


def u_statistic(x: np.ndarray, y: np.ndarray) -> float:
    """The mean of K_ij (L_ij + L_qr - 2 L_iq) over all tuples of four different samples."""
    k, l = x @ x.T, y @ y.T  # noqa: E741
    return np.mean(
        [
            k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q])
            for i, j, q, r in itertools.permutations(range(len(x)), 4)
        ]
    )


def test_the_debiased_cka_is_made_of_u_statistics(generator):
    """By brute force over tuples, the features not centred."""
    x = torch.randn(7, 2, generator=generator, dtype=torch.float64) + 1
    y = x @ torch.randn(2, 3, generator=generator, dtype=torch.float64) - 2
    y[:, 0] += torch.randn(7, generator=generator, dtype=torch.float64)
    cross, own_x, own_y = (u_statistic(*(f.numpy() for f in p)) for p in ((x, y), (x, x), (y, y)))
    assert debiased_cka(x, y).value == pytest.approx(cross / math.sqrt(own_x * own_y), rel=1e-10)


@pytest.mark.parametrize("cka", CKAS)
def test_cka_does_not_see_rotations_scales_shifts_and_orders(cka, features, generator):
    x, y = features
    expected = cka(x, y)
    turn, _ = torch.linalg.qr(torch.randn(7, 7, generator=generator, dtype=torch.float64))
    order = torch.randperm(7, generator=generator)
    for other in (y @ turn, 3 * y - 5, y[:, order]):
        found = cka(x, other)
        assert found.value == pytest.approx(expected.value, rel=1e-10)
        assert found.se == pytest.approx(expected.se, rel=1e-8)
    assert cka(y, x).value == pytest.approx(expected.value, rel=1e-12)
    assert cka(x, x).value == pytest.approx(1.0, rel=1e-12)
    assert cka(x, x).se == pytest.approx(0.0, abs=1e-12)


def test_unrelated_features_have_a_debiased_cka_of_about_zero(generator):
    """30 samples of 50 features: the plain one is far above."""
    draws = [torch.randn(2, 30, 50, generator=generator, dtype=torch.float64) for _ in range(100)]
    found = [[cka(*pair).value for cka in CKAS] for pair in draws]
    plain, debiased = np.mean(found, axis=0)
    assert plain > 0.5
    assert abs(debiased) < 4 * np.std([row[1] for row in found]) / 10


@pytest.mark.parametrize("measure", [linear_cka, unit_correlation])
def test_the_error_is_that_of_leaving_samples_out(measure, generator):
    """The delete-one jackknife, which agrees to 1 / N."""
    n = 300
    x = torch.randn(n, 4, generator=generator, dtype=torch.float64)
    y = x + torch.randn(n, 4, generator=generator, dtype=torch.float64)
    left = np.array([measure(*(f[torch.arange(n) != i] for f in (x, y))).value for i in range(n)])
    jackknife = math.sqrt((n - 1) ** 2 / n * left.var(ddof=1))
    assert measure(x, y).se == pytest.approx(jackknife, rel=0.05)


def test_the_correlation_of_units_is_the_mean_of_pearsons(features):
    x, y = features
    y = y[:, :5]
    expected = np.mean([np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(5)])
    assert unit_correlation(x, y).value == pytest.approx(expected, rel=1e-12)


def test_units_that_are_dead_in_either_are_left_out(features):
    x, y = features[0].clone(), features[1][:, :5].clone()
    expected = unit_correlation(x[:, 2:], y[:, 2:])
    x[:, 0] = y[:, 1] = 0.0
    assert unit_correlation(x, y) == pytest.approx(expected, rel=1e-12)
    assert math.isnan(unit_correlation(torch.zeros_like(x), y).value)


def test_disagreement_is_the_share_of_other_predictions(generator):
    a = torch.randn(3, 20, generator=generator)
    b = a.clone()
    b[:, :5] = a[:, :5].roll(1, dims=0)
    found = disagreement(a, b)
    assert found.value == 0.25
    assert found.se == pytest.approx(math.sqrt(0.25 * 0.75 / 19))
    assert disagreement(a, a) == (0.0, 0.0)


def test_what_is_not_finite_is_nan(features):
    x, y = features
    broken = x.clone()
    broken[3, 2] = math.nan
    for measure in CKAS:
        assert math.isnan(measure(broken, y).value)
        assert math.isnan(measure(broken, y).se)
    assert math.isnan(unit_correlation(broken, y[:, :5]).value)
    logits = torch.zeros(3, 20)
    assert math.isnan(disagreement(logits, logits * math.nan).value)


@pytest.mark.kernels
def test_hidden_activations_are_what_the_output_layer_reads(case):
    """The output layer on top gives the network's outputs."""
    hidden = hidden_activations(case.objective, case.theta)
    weight, bias = case.theta[-3 * (hidden.shape[1] + 1) : -3], case.theta[-3:]
    with torch.no_grad():
        parameters = unflatten(case.theta, case.objective.layout)
        expected = functional_call(case.objective.model, parameters, (case.inputs.clone(),))
    torch.testing.assert_close(hidden @ weight.view(3, -1).T + bias, expected, rtol=0, atol=1e-12)


@pytest.mark.kernels
def test_a_permuted_network_is_the_same_function_but_not_unit_by_unit(case, generator):
    groups = find_groups(case.objective.model)
    orders = [torch.randperm(group.units, generator=generator) for group in groups]
    other = permute(case.theta, case.objective.layout, groups, orders)
    x, y = (hidden_activations(case.objective, theta) for theta in (case.theta, other))
    assert linear_cka(x, y).value == pytest.approx(1.0, abs=1e-12)
    assert unit_correlation(x, y).value < 0.9
    assert unit_correlation(x, x).value == pytest.approx(1.0, abs=1e-12)


def test_without_a_hidden_layer_there_are_no_activations(mlp):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    objective = make_objective(flat, mlp.inputs, mlp.targets)
    assert hidden_activations(objective, flatten(flat)) is None
    other = nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(36, 3)))
    objective = make_objective(other, mlp.inputs, mlp.targets)
    assert hidden_activations(objective, flatten(other)) is None


def test_measuring_leaves_the_samples_as_they_are():
    """Pooling and ReLU write into what they read, which is never a sample."""
    model = build({"family": "cnn", "width": 2}, (1, 8, 8), 3)
    inputs = torch.randn(5, 1, 8, 8)
    objective = make_objective(model, inputs, torch.zeros(5, dtype=torch.long))
    hidden_activations(objective, flatten(model))
    torch.testing.assert_close(objective.blocks[0][0], inputs, rtol=0, atol=0)
