"""Intervals over seeds, directions and draws."""

import math
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean with its confidence interval; `low` and `high` are NaN for fewer than two values."""

    mean: float
    low: float
    high: float
    n: int  # finite values that went in


def mean_interval(values: np.ndarray, level: float = 0.95, *, log: bool = False) -> Interval:
    """Student's t interval of the mean of values (n,), which are independent (one per seed).

    With `log` the mean is geometric and the interval is taken on the logarithms, as eigenvalues and
    radii ask for; values must then be positive. Values that are not finite are left out, and `n`
    says how many stayed.
    """
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if log:
        if (values <= 0).any():
            raise ValueError(f"a logarithmic interval needs positive values, found {values.min()}")
        values = np.log(values)
    n = len(values)
    mean = values.mean() if n else np.nan
    low = high = np.nan
    if n > 1:
        low, high = mean + np.array([-1, 1]) * stats.t.ppf((1 + level) / 2, n - 1) * stats.sem(
            values
        )
    back = np.exp if log else float
    return Interval(float(back(mean)), float(back(low)), float(back(high)), n)


def share_interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact binomial interval of a share, of which `count` of n were seen; NaN for n = 0.

    (Clopper and Pearson 1934.)
    """
    if not n:
        return np.nan, np.nan
    found = stats.binomtest(count, n).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def ratio_of_means(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mean(a) / mean(b) over the last axis of pairs (..., n), and its standard error.

    To first order (the delta method) the ratio R deviates by the mean of (a - R b) / mean(b), whose
    terms are independent from pair to pair: their s / sqrt(n).
    """
    ratio = a.mean(-1) / b.mean(-1)
    deviations = (a - ratio[..., None] * b) / b.mean(-1)[..., None]
    return ratio, deviations.std(-1, ddof=1) / math.sqrt(a.shape[-1])
