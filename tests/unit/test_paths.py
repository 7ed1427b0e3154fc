"""Paths between minima, and the barriers on them (Entezari et al. 2021)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lossgeo.objective import evaluate, make_objective
from lossgeo.paths import MEASURES, Profile, barrier, line, logits_at, logits_on, profile, temper
from lossgeo.permutations import find_groups, permute, weight_matching

T = np.linspace(0.0, 1.0, 25)


def straight(objective, a, b, t=T) -> Profile:
    """The profile of the straight line."""
    return profile(t, logits_on(objective, [a, b], line(t)), objective.targets)


@pytest.fixture
def ends(case, generator):
    noise = torch.randn(len(case.theta), generator=generator, dtype=torch.float64)
    return case.theta, case.theta + 0.5 * noise


@pytest.mark.kernels
def test_a_path_is_what_its_coefficients_say(case, ends):
    """On the span of its vectors, and the same as at the thetas one by one."""
    a, b = ends
    middle = 0.3 * a + 0.1 * b
    coefficients = np.stack([(1 - T) ** 2, 2 * T * (1 - T), T**2], axis=1)
    thetas = [(1 - t) ** 2 * a + 2 * t * (1 - t) * middle + t**2 * b for t in T]
    torch.testing.assert_close(
        logits_on(case.objective, [a, middle, b], coefficients),
        logits_at(case.objective, thetas),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.kernels
def test_from_a_minimum_to_itself_there_is_no_barrier(case):
    found = straight(case.objective, case.theta, case.theta)
    for one in found.barriers.values():
        assert one.height == pytest.approx(0.0, abs=1e-12)
        assert one.height_se == pytest.approx(0.0, abs=1e-12)


@pytest.mark.kernels
def test_a_profile_is_the_objective_along_the_path(case, ends):
    a, b = ends
    found = straight(case.objective, a, b)
    scores = [evaluate(case.objective, (1 - t) * a + t * b) for t in T]
    np.testing.assert_allclose(found.means["loss"], [s.loss for s in scores], rtol=1e-12)
    np.testing.assert_allclose(found.errors["loss"], [s.loss_se for s in scores], rtol=1e-10)
    np.testing.assert_allclose(
        found.means["error"], [1 - s.accuracy for s in scores], rtol=1e-12, atol=1e-15
    )
    p, n = found.means["error"], case.objective.samples
    np.testing.assert_allclose(
        found.errors["error"], np.sqrt(p * (1 - p) / (n - 1)), rtol=1e-10, atol=1e-9
    )


def test_the_barrier_is_the_largest_height_above_the_chord(case, ends):
    found = straight(case.objective, *ends)
    for name in MEASURES:
        values = found.means[name]
        chord = (1 - T) * values[0] + T * values[-1]
        highest = 1 + (values - chord)[1:-1].argmax()
        assert found.barriers[name].height == pytest.approx((values - chord).max(), abs=1e-14)
        assert found.barriers[name].t == T[highest]


@pytest.mark.kernels
def test_walking_the_other_way_meets_the_same_barriers(case, ends):
    there, back = straight(case.objective, *ends), straight(case.objective, *ends[::-1])
    for name in MEASURES:
        one, other = there.barriers[name], back.barriers[name]
        # the temperature is searched for to 1e-4, on other kernels along another way
        fine = name != "tempered_loss"
        assert one.height == pytest.approx(other.height, abs=1e-12 if fine else 1e-6)
        assert one.height_se == pytest.approx(other.height_se, abs=1e-12 if fine else 1e-4)


def aligned(case, a, b) -> torch.Tensor:
    """b with its hidden units in the order that matches a's."""
    layout, groups = case.objective.layout, find_groups(case.objective.model)
    generator = torch.Generator().manual_seed(4)
    found = weight_matching(a, b, layout, groups, starts=3, generator=generator)
    return permute(b, layout, groups, found.permutations)


@pytest.mark.kernels
def test_a_permuted_copy_is_matched_back_and_has_no_barrier(case, ends, generator):
    a, _ = ends
    groups = find_groups(case.objective.model)
    orders = [torch.randperm(group.units, generator=generator) for group in groups]
    copy = permute(a, case.objective.layout, groups, orders)
    assert straight(case.objective, a, copy).barriers["loss"].height > 0.01
    back = aligned(case, a, copy)
    assert torch.equal(back, a)
    for one in straight(case.objective, a, back).barriers.values():
        assert one.height == pytest.approx(0.0, abs=1e-12)


@pytest.mark.kernels
def test_it_does_not_matter_which_end_is_aligned_to_the_other(case, ends):
    """The permutations are each other's inverses, the lines the same functions."""
    a, b = ends
    there = straight(case.objective, a, aligned(case, a, b))
    back = straight(case.objective, b, aligned(case, b, a))
    for name in ("loss", "error"):
        one, other = there.barriers[name], back.barriers[name]
        assert one.height == pytest.approx(other.height, abs=1e-12)
    np.testing.assert_allclose(there.means["loss"], back.means["loss"][::-1], rtol=1e-11)


def test_a_convex_loss_has_no_barrier(generator):
    """Softmax regression: the chord lies above."""
    x = torch.randn(40, 1, 2, 2, generator=generator)
    y = torch.randint(0, 3, (40,), generator=generator)
    objective = make_objective(
        nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), x, y, dtype=torch.float64
    )
    a, b = torch.randn(2, 15, generator=generator, dtype=torch.float64)
    found = straight(objective, a, b).barriers["loss"]
    assert found.height == 0.0
    assert found.height_se > 0.0, "that it is 0 is known from a sample"


@pytest.mark.kernels
def test_the_temperature_is_the_best_there_is(case, ends):
    """Of a fine grid none is better, and the tempered loss is the loss at it."""
    logits = logits_on(case.objective, ends, line(T[:3]))
    targets = case.objective.targets
    temperatures, losses = temper(logits, targets)
    for one, temperature, found in zip(logits, temperatures, losses, strict=True):
        at = nn.functional.cross_entropy(one.T / temperature, targets, reduction="none")
        torch.testing.assert_close(found, at, rtol=0, atol=1e-12)
        for other in np.geomspace(0.01, 100, 400):
            mean = float(nn.functional.cross_entropy(one.T / other, targets))
            assert float(found.mean()) <= mean + 1e-6


def test_lost_confidence_is_no_ridge_for_the_tempered_loss():
    """Half way the logits are a tenth of what they are at the ends, and rank the same."""
    generator = torch.Generator().manual_seed(1)
    ends = 3 * torch.randn(4, 50, generator=generator, dtype=torch.float64)
    targets = ends.argmax(0)
    targets[:10] = (targets[:10] + 1) % 4  # some are wrong: the best temperature is finite
    found = profile(np.array([0.0, 0.5, 1.0]), torch.stack([ends, 0.1 * ends, ends]), targets)
    assert found.barriers["loss"].height > 0.05
    assert found.barriers["error"].height == 0.0
    assert found.barriers["tempered_loss"].height == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(found.temperature[1], 0.1 * found.temperature[0], rtol=1e-3)


def test_a_barrier_of_values_made_by_hand():
    """Two samples over t = 0, 1/2, 1: heights 3 and 1 above a chord at 2 and 4."""
    values = torch.tensor([[1.0, 5.0], [5.0, 5.0], [3.0, 3.0]])
    found = barrier(np.array([0.0, 0.5, 1.0]), values)
    assert found.height == pytest.approx(2.0)
    assert found.t == 0.5
    assert found.height_se == pytest.approx(np.std([3.0, 1.0], ddof=1) / math.sqrt(2))


def test_a_path_below_its_chord_has_no_barrier_and_still_an_error():
    """The highest inner point is the second, 0.5 and 1.5 below."""
    values = torch.tensor([[4.0, 4.0], [0.0, 0.0], [3.5, 2.5], [4.0, 4.0]])
    found = barrier(np.array([0.0, 0.25, 0.5, 1.0]), values)
    assert (found.height, found.t) == (0.0, 0.5)
    assert found.height_se == pytest.approx(0.5)


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
    found = straight(case.objective, case.theta, broken)
    for name in MEASURES:
        assert math.isnan(found.barriers[name].height)
        assert math.isnan(found.barriers[name].height_se)
        assert np.isnan(found.means[name]).all()
    assert np.isnan(found.temperature).all()


def test_a_loss_that_is_not_finite_within_the_path_makes_the_barrier_nan():
    values = torch.zeros(3, 4)
    values[1, 2] = math.inf
    assert math.isnan(barrier(np.array([0.0, 0.5, 1.0]), values).height)
