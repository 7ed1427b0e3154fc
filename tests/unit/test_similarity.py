"""Similarity of predictions and activations against brute force, resampling and simulation."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from lossgeo.models import build
from lossgeo.objective import make_objective, sample_logits
from lossgeo.parameters import flatten, unflatten
from lossgeo.similarity import (
    debiased_cka,
    disagreement,
    hidden_activations,
    linear_cka,
    unit_correlation,
)

CKA = {"plain": linear_cka, "debiased": debiased_cka}


@pytest.fixture(params=CKA)
def cka(request):
    return CKA[request.param]


def normal(generator, *shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def related(generator, samples=40, mixing=1.0):
    """Activations of 5 and 3 units that share two signals; ReLUs leave them far from normal."""
    signal = normal(generator, samples, 2)
    x = torch.relu(signal @ torch.tensor([[1.0, 0, 2, -1, 1], [0, 1, 1, 1, -2]]).double())
    y = torch.relu(mixing * x[:, :3] + normal(generator, samples, 3))
    return x, y


def jackknife(measure, x, y) -> float:
    """The standard error from leaving out each sample in turn."""
    n = len(x)
    keep = [[j for j in range(n) if j != i] for i in range(n)]
    values = np.array([measure(x[rows], y[rows]).value for rows in keep])
    return float(np.sqrt((n - 1) / n * ((values - values.mean()) ** 2).sum()))


def test_disagreement_is_the_share_of_samples_that_are_classified_differently():
    a = torch.tensor([[3.0, 0, 1, 0, 5], [1, 2, 0, 9, 4], [0, 1, 2, 0, 3]])  # 0, 1, 2, 1, 0
    b = torch.tensor([[3.0, 0, 4, 0, 1], [1, 2, 0, 9, 4], [0, 1, 2, 0, 3]])  # 0, 1, 0, 1, 1
    found = disagreement(a, b)
    assert found.value == pytest.approx(0.4, abs=1e-15)
    assert found.se == pytest.approx(math.sqrt(0.4 * 0.6 / 4), abs=1e-15)
    assert disagreement(a, a) == (0.0, 0.0)
    assert disagreement(a, 3 * a - 7) == (0.0, 0.0)


def test_a_logit_that_is_nan_makes_disagreement_nan():
    a = torch.zeros(3, 4)
    a[0] = 1.0
    broken = a.clone()
    broken[1, 2] = math.nan
    assert all(math.isnan(number) for number in disagreement(a, broken))
    assert all(math.isnan(number) for number in disagreement(broken, a))


@pytest.mark.kernels
def test_hidden_activations_are_what_the_last_layer_reads(case):
    """With its weight and bias they give the logits."""
    x = hidden_activations(case.objective, case.theta)
    parts = unflatten(case.theta, case.objective.layout)
    logits = x @ parts["output.weight"].T + parts["output.bias"]
    expected = sample_logits(case.objective, case.theta).T
    assert x.shape == (case.objective.samples, parts["output.weight"].shape[1])
    assert (x >= 0).all()  # after the activation
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-12)


def test_hidden_activations_of_an_end_that_diverged_are_nan(case):
    broken = case.theta.clone()
    broken[-1] = math.inf  # of the last layer, which is not read
    assert hidden_activations(case.objective, broken).isnan().all()


@pytest.mark.parametrize(
    "model",
    [
        nn.Sequential(nn.Flatten(), nn.Linear(36, 3)),
        nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(36, 4)), nn.Linear(4, 3)),
    ],
)
def test_without_a_chain_or_a_hidden_layer_there_are_no_activations(mlp, model):
    objective = make_objective(copy.deepcopy(model), mlp.inputs, mlp.targets)
    theta = torch.zeros(sum(p.numel() for p in model.parameters()))
    assert hidden_activations(objective, theta) is None


def test_activations_of_a_convolution_are_strung_up(generator):
    """Where nothing but pooling follows the last convolution."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 3), nn.AvgPool2d(2), nn.Flatten()
    )
    objective = make_objective(model, torch.randn(5, 1, 6, 6, generator=generator), torch.arange(5))
    assert hidden_activations(objective, flatten(model)).shape == (5, 2 * 4 * 4)


@pytest.mark.kernels
def test_permuted_units_change_nothing_but_their_correlation(generator):
    model = build({"family": "mlp", "width": 12}, (1, 6, 6), 3).double()
    inputs = normal(generator, 60, 1, 6, 6)
    objective = make_objective(
        model, inputs, torch.zeros(60, dtype=torch.long), dtype=torch.float64
    )
    order = torch.randperm(12, generator=generator)
    theta = flatten(model)
    parts = {name: part.clone() for name, part in unflatten(theta, objective.layout).items()}
    parts["hidden.weight"], parts["hidden.bias"] = (
        parts[f"hidden.{kind}"][order] for kind in ("weight", "bias")
    )
    parts["output.weight"] = parts["output.weight"][:, order]
    permuted = torch.cat([part.reshape(-1) for part in parts.values()])
    x, y = (hidden_activations(objective, v) for v in (theta, permuted))
    assert linear_cka(x, y).value == pytest.approx(1.0, abs=1e-10)
    assert debiased_cka(x, y).value == pytest.approx(1.0, abs=1e-10)
    assert unit_correlation(x, y).value < 0.5
    assert unit_correlation(x[:, order], y).value == pytest.approx(1.0, abs=1e-10)
    logits = (sample_logits(objective, v) for v in (theta, permuted))
    assert disagreement(*logits) == (0.0, 0.0)


@pytest.mark.kernels
def test_a_network_is_like_itself(cka, generator):
    x, _ = related(generator)
    found = cka(x, x)
    assert found.value == pytest.approx(1.0, abs=1e-12)
    assert found.se == pytest.approx(0.0, abs=1e-12)


@pytest.mark.kernels
def test_cka_is_symmetric_and_sees_no_rotation_scale_shift_or_order(cka, generator):
    x, y = related(generator)
    expected = cka(x, y)
    rotation, _ = torch.linalg.qr(normal(generator, 5, 5))
    moved = {
        "swapped": (y, x),
        "rotated": (x @ rotation, y),
        "scaled": (0.01 * x, -30 * y),
        "shifted": (x + normal(generator, 5), y - 100),
        "ordered": (x[:, [3, 1, 0, 4, 2]], y[:, [2, 0, 1]]),
    }
    for pair in moved.values():
        assert cka(*pair) == pytest.approx(expected, abs=1e-10)
    stretched = x * torch.arange(1, 6, dtype=torch.float64)
    assert abs(cka(stretched, y).value - expected.value) > 1e-3


@pytest.mark.kernels
def test_plain_cka_is_the_alignment_of_centred_gram_matrices(generator):
    x, y = related(generator)
    n = len(x)
    centring = torch.eye(n, dtype=torch.float64) - 1 / n
    of_x, of_y = (centring @ a @ a.T @ centring for a in (x, y))
    expected = float((of_x * of_y).sum() / (of_x.norm() * of_y.norm()))
    assert linear_cka(x, y).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.kernels
def test_debiased_cka_is_the_u_statistic_over_all_quadruples(generator):
    """h = 1/4! of the sum of k_st (m_st + m_uv - 2 m_su) over the orders of 4 samples."""
    x, y = related(generator, samples=6)

    def hsic(a, b):
        k, m = a @ a.T, b @ b.T
        terms = [
            k[s, t] * (m[s, t] + m[u, v] - 2 * m[s, u])
            for s, t, u, v in itertools.permutations(range(6), 4)
        ]
        return float(sum(terms)) / len(terms)

    expected = hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y))
    assert debiased_cka(x, y).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.kernels
def test_the_error_of_debiased_cka_is_the_jackknifes(generator):
    x, y = related(generator, samples=12)
    assert debiased_cka(x, y).se == pytest.approx(jackknife(debiased_cka, x, y), rel=1e-9)


@pytest.mark.parametrize("measure", [linear_cka, unit_correlation])
@pytest.mark.parametrize("mixing", [0.0, 0.3, 2.0])
def test_errors_of_first_order_are_near_the_jackknifes(measure, mixing, generator):
    """They differ by terms of the next order, 1 / N."""
    x, y = related(generator, samples=1000, mixing=mixing)
    x = x[:, : y.shape[1]]
    assert measure(x, y).se == pytest.approx(jackknife(measure, x, y), rel=0.03)


@pytest.mark.parametrize("measure", [linear_cka, debiased_cka, unit_correlation])
def test_errors_are_the_spread_over_draws(measure, generator):
    """200 draws tell it to 5 %; four times that are allowed."""
    draws = [related(generator, samples=300, mixing=0.5) for _ in range(200)]
    found = np.array([measure(x[:, :3], y)[:2] for x, y in draws])
    assert found[:, 1].mean() == pytest.approx(found[:, 0].std(ddof=1), rel=0.2)


def test_unrelated_activations_have_no_debiased_cka(generator):
    """64 samples of 48 units in either network; the plain one is far from 0."""
    pairs = [(normal(generator, 64, 48), normal(generator, 64, 48)) for _ in range(100)]
    plain, debiased = (np.array([m(*pair).value for pair in pairs]) for m in CKA.values())
    assert plain.mean() > 0.4
    assert abs(debiased.mean()) < 4 * debiased.std() / 10
    assert debiased.std() < 0.05


@pytest.mark.kernels
def test_unit_correlation_is_the_mean_of_pearsons_over_units(generator):
    x, y = related(generator)
    x = x[:, :3]
    expected = np.mean([np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(3)])
    found = unit_correlation(x, y)
    assert found.value == pytest.approx(expected, abs=1e-12)
    assert found.units == 3
    assert unit_correlation(x, -2 * x + 1) == pytest.approx((-1.0, 0.0, 3), abs=1e-12)


def test_dead_units_are_left_out_and_counted(generator):
    x, y = related(generator)
    x = x[:, :3].clone()
    expected = unit_correlation(x[:, 1:2], y[:, 1:2])
    x[:, 0], y[:, 2] = 0.0, 0.1
    assert unit_correlation(x, y) == pytest.approx(expected, abs=1e-12)
    assert unit_correlation(x, y).units == 1
    none = unit_correlation(x[:, :1], y[:, :1])
    assert math.isnan(none.value)
    assert math.isnan(none.se)
    assert none.units == 0


def test_the_error_of_one_pearson_correlation_of_normals_is_known(generator):
    """(1 - r^2) / sqrt(N)."""
    x = normal(generator, 20_000, 1)
    y = 0.6 * x + 0.8 * normal(generator, 20_000, 1)
    assert unit_correlation(x, y).se == pytest.approx((1 - 0.36) / math.sqrt(20_000), rel=0.03)


@pytest.mark.parametrize("measure", [linear_cka, debiased_cka, unit_correlation])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_activations_that_are_not_finite_give_nan(measure, bad, generator):
    x = normal(generator, 20, 3)
    broken = x.clone()
    broken[4, 1] = bad
    for found in (measure(x, broken), measure(broken, x)):
        assert math.isnan(found.value)
        assert math.isnan(found.se)


@pytest.mark.parametrize("measure", [linear_cka, debiased_cka, unit_correlation])
def test_a_network_whose_units_are_all_dead_is_like_nothing(measure, generator):
    x = normal(generator, 41, 3)  # as many 0.1 have a mean that is not 0.1
    found = measure(x, torch.full_like(x, 0.1))
    assert math.isnan(found.value)
    assert math.isnan(found.se)


def test_debiased_cka_takes_four_samples(generator):
    x, y = normal(generator, 4, 3), normal(generator, 4, 3)
    assert math.isnan(debiased_cka(x[:3], y[:3]).value)
    assert math.isfinite(debiased_cka(x, x).value)
    assert math.isnan(debiased_cka(x, x).se)


def test_samples_and_units_must_be_as_many(generator):
    x = normal(generator, 6, 3)
    for measure in (linear_cka, debiased_cka, unit_correlation):
        with pytest.raises(ValueError, match="need the same"):
            measure(x, x[:5])
    with pytest.raises(ValueError, match="need the same"):
        disagreement(x, x[:, :2])
    with pytest.raises(ValueError, match="need the same shape"):
        unit_correlation(x, x[:, :2])
