"""Straight lines between minima, and the barriers on them (Entezari et al. 2021)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lossgeo.objective import evaluate, make_objective
from lossgeo.paths import barrier, profile, straight_line

T = np.linspace(0.0, 1.0, 25)


@pytest.fixture
def ends(case, generator):
    noise = torch.randn(len(case.theta), generator=generator, dtype=torch.float64)
    return case.theta, case.theta + 0.5 * noise


def test_a_path_has_its_ends_bit_for_bit(generator):
    """Signed zeros too, and an end is itself even where the other is not finite."""
    a, b = torch.randn(2, 500, generator=generator)
    a[0], a[1] = -0.0, math.inf
    b[2], b[3] = -0.0, math.nan
    path = straight_line(a, b)
    assert torch.equal(path(0.0).view(torch.int32), a.view(torch.int32))
    assert torch.equal(path(1.0).view(torch.int32), b.view(torch.int32))
    assert torch.equal(path(0.25)[4:], (0.75 * a + 0.25 * b)[4:])


def test_the_ends_are_copies(mlp):
    """Writing to a point of a path does not reach the minima."""
    a = mlp.theta.clone()
    straight_line(a, a)(0.0).zero_()
    straight_line(a, a)(1.0).zero_()
    assert torch.equal(a, mlp.theta)


@pytest.mark.kernels
def test_from_a_minimum_to_itself_there_is_no_barrier(case):
    found = profile(case.objective, straight_line(case.theta, case.theta), T)
    for one in (found.loss_barrier, found.error_barrier):
        assert one.height == pytest.approx(0.0, abs=1e-14)
        assert one.height_se == pytest.approx(0.0, abs=1e-14)


@pytest.mark.kernels
def test_a_profile_is_the_objective_along_the_path(case, ends):
    path = straight_line(*ends)
    found = profile(case.objective, path, T)
    scores = [evaluate(case.objective, path(float(t))) for t in T]
    np.testing.assert_allclose(found.loss, [s.loss for s in scores], rtol=1e-14)
    np.testing.assert_allclose(found.loss_se, [s.loss_se for s in scores], rtol=1e-12)
    np.testing.assert_allclose(
        found.error, [1 - s.accuracy for s in scores], rtol=1e-12, atol=1e-15
    )
    p, n = found.error, case.objective.samples
    np.testing.assert_allclose(
        found.error_se, np.sqrt(p * (1 - p) / (n - 1)), rtol=1e-10, atol=1e-9
    )


def test_the_barrier_is_the_largest_height_above_the_chord(case, ends):
    found = profile(case.objective, straight_line(*ends), T)
    chord = (1 - T) * found.loss[0] + T * found.loss[-1]
    highest = (found.loss - chord).argmax()
    assert found.loss_barrier.height == pytest.approx((found.loss - chord).max(), abs=1e-14)
    assert found.loss_barrier.t == T[highest]


@pytest.mark.kernels
def test_walking_the_other_way_meets_the_same_barrier(case, ends):
    there = profile(case.objective, straight_line(*ends), T).loss_barrier
    back = profile(case.objective, straight_line(*ends[::-1]), T).loss_barrier
    assert there.height == pytest.approx(back.height, abs=1e-12)
    assert there.height_se == pytest.approx(back.height_se, abs=1e-12)


def test_a_convex_loss_has_no_barrier(generator):
    """Softmax regression: the chord lies above."""
    x = torch.randn(40, 1, 2, 2, generator=generator)
    y = torch.randint(0, 3, (40,), generator=generator)
    objective = make_objective(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), x, y, dtype=torch.float64
    )
    a, b = torch.randn(2, 15, generator=generator, dtype=torch.float64)
    found = profile(objective, straight_line(a, b), T)
    assert found.loss_barrier.height == 0.0
    assert found.loss_barrier.t in (0.0, 1.0)


def test_a_barrier_of_values_made_by_hand():
    """Two samples over t = 0, 1/2, 1: heights 3 and 1 above a chord at 2 and 4."""
    values = torch.tensor([[1.0, 5.0], [5.0, 5.0], [3.0, 3.0]])
    found = barrier(np.array([0.0, 0.5, 1.0]), values)
    assert found.height == pytest.approx(2.0)
    assert found.t == 0.5
    assert found.height_se == pytest.approx(np.std([3.0, 1.0], ddof=1) / math.sqrt(2))


def test_the_standard_error_is_paired_over_samples():
    """What samples have in common between the path and its ends cancels."""
    spread = torch.linspace(-100.0, 100.0, 50, dtype=torch.float64)
    values = torch.stack([spread, spread + 1.0, spread])
    found = barrier(np.array([0.0, 0.5, 1.0]), values)
    assert found.height == pytest.approx(1.0, abs=1e-12)
    assert found.height_se == pytest.approx(0.0, abs=1e-12)


@given(st.integers(0, 2**32), st.integers(3, 30))
def test_a_barrier_is_never_negative(seed, points):
    values = torch.randn(points, 7, generator=torch.Generator().manual_seed(seed))
    assert barrier(np.linspace(0, 1, points), values).height >= 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_end_that_diverged_has_no_barrier(case, bad):
    broken = case.theta.clone()
    broken[0] = bad
    found = profile(case.objective, straight_line(case.theta, broken), T)
    for one in (found.loss_barrier, found.error_barrier):
        assert math.isnan(one.height)
        assert math.isnan(one.height_se)
    assert np.isnan(found.loss[1:]).all()
    assert np.isnan(found.error[1:]).all()


def test_a_loss_that_is_not_finite_within_the_path_makes_the_barrier_nan():
    values = torch.zeros(3, 4)
    values[1, 2] = math.inf
    assert math.isnan(barrier(np.array([0.0, 0.5, 1.0]), values).height)
