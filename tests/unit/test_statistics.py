"""Intervals over seeds."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lossgeo.statistics import mean_interval, ratio_of_means


def test_a_t_interval_by_hand():
    """1, 2, 3, 4: mean 2.5, s^2 = 5/3, t(0.975, 3) = 3.18245."""
    found = mean_interval(np.array([1.0, 2.0, 3.0, 4.0]))
    half = 3.182446305284263 * math.sqrt(5 / 3 / 4)
    assert found.mean == 2.5
    assert found.low == pytest.approx(2.5 - half, rel=1e-12)
    assert found.high == pytest.approx(2.5 + half, rel=1e-12)
    assert found.n == 4


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=12), st.sampled_from([0.5, 0.9, 0.95, 0.99])
)
def test_the_interval_is_mean_plus_minus_t_standard_errors(values, level):
    n, mean = len(values), math.fsum(values) / len(values)
    s = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = stats.t.ppf(0.5 + level / 2, n - 1) * s / math.sqrt(n)
    found = mean_interval(np.array(values), level)
    assert found.mean == pytest.approx(mean, rel=1e-9, abs=1e-9)
    assert found.high - found.low == pytest.approx(2 * half, rel=1e-6, abs=1e-6)
    assert (found.high + found.low) / 2 == pytest.approx(mean, rel=1e-6, abs=1e-6)


def test_the_interval_covers_the_truth_as_often_as_it_says(rng):
    """2,000 experiments with five normal seeds each, at 95 %: binomial error 0.5 %."""
    hits = 0
    for sample in rng.normal(3.0, 2.0, size=(2000, 5)):
        found = mean_interval(sample, 0.95)
        hits += found.low <= 3.0 <= found.high
    assert hits / 2000 == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 2000))


def test_a_logarithmic_interval_is_multiplicative():
    """1, 10, 100: geometric mean 10, the interval symmetric on the logarithms."""
    found = mean_interval(np.array([1.0, 10.0, 100.0]), log=True)
    assert found.mean == pytest.approx(10.0, rel=1e-12)
    factor = math.exp(stats.t.ppf(0.975, 2) * math.log(10) / math.sqrt(3))
    assert found.high == pytest.approx(10.0 * factor, rel=1e-12)
    assert found.low == pytest.approx(10.0 / factor, rel=1e-12)


def test_a_logarithmic_interval_refuses_what_is_not_positive():
    with pytest.raises(ValueError, match=r"positive values, found -2\.0"):
        mean_interval(np.array([1.0, -2.0]), log=True)


def test_one_value_has_a_mean_but_no_interval():
    found = mean_interval(np.array([4.0]))
    assert found.mean == 4.0
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.n == 1


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("values", [[], [math.nan, math.inf]])
def test_no_finite_value_has_neither(values, log):
    found = mean_interval(np.array(values), log=log)
    assert all(math.isnan(v) for v in found[:3])
    assert found.n == 0


def test_what_is_not_finite_is_left_out_and_n_says_so():
    found = mean_interval(np.array([1.0, math.nan, 3.0, math.inf]))
    assert found == mean_interval(np.array([1.0, 3.0]))
    assert found.n == 2


def test_equal_values_have_an_interval_of_no_width():
    assert mean_interval(np.array([2.0, 2.0, 2.0])) == (2.0, 2.0, 2.0, 3)


def test_the_ratio_of_means_has_the_scatter_of_its_replicates(rng):
    """a = 3 b + noise: the stated error is the scatter over 4,000 replicates, within 5 %."""
    b = rng.uniform(1, 3, (4000, 60))
    a = 3 * b + rng.normal(0, 0.5, b.shape)
    ratio, error = ratio_of_means(a, b)
    assert ratio.shape == error.shape == (4000,)
    assert ratio.mean() == pytest.approx(3.0, abs=4 * ratio.std() / math.sqrt(4000))
    assert error.mean() == pytest.approx(ratio.std(), rel=0.05)


def test_proportional_pairs_have_a_ratio_without_an_error():
    ratio, error = ratio_of_means(np.array([2.0, 4.0, 8.0]), np.array([1.0, 2.0, 4.0]))
    assert (ratio, error) == (2.0, 0.0)
