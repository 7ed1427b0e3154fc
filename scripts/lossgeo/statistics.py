"""Intervals, and effects: over seeds, directions, draws and pairs."""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import scipy  # whose parts are imported when they are used: stats takes a second

LEVEL = 0.95
RESAMPLES = 1999  # of a bootstrap, and of a permutation test over clusters
UNDEFINED = 0.1  # share of the draws of a bootstrap that may be without a value
FLIPS = 2**14  # of a sign-flip test: exact for up to 14 values


class Interval(NamedTuple):
    """A mean with its confidence interval; `low` and `high` are NaN for fewer than two values."""

    mean: float
    low: float
    high: float
    n: int  # finite values that went in


class Effect(NamedTuple):
    """A number that is 0 where there is no effect, and what its values say of it."""

    estimate: float
    low: float  # of the interval
    high: float
    n: int  # independent values: seeds, pairs or models
    interval: str  # "t", "BCa bootstrap", "percentile bootstrap", "exact binomial" or "range"
    p: float = math.nan  # two-sided, of "it is 0"
    p_floor: float = math.nan  # the smallest that p can be with so few values
    p_equivalent: float = math.nan  # of "it is at least the smallest effect" (two one-sided tests)


def mean_interval(values: np.ndarray, level: float = LEVEL, *, log: bool = False) -> Interval:
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
        quantile = scipy.stats.t.ppf((1 + level) / 2, n - 1)
        low, high = mean + np.array([-1, 1]) * quantile * scipy.stats.sem(values)
    back = np.exp if log else float
    return Interval(float(back(mean)), float(back(low)), float(back(high)), n)


def share_interval(count: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """The exact binomial interval of a share, of which `count` of n were seen; NaN for n = 0.

    (Clopper and Pearson 1934.)
    """
    if not n:
        return np.nan, np.nan
    found = scipy.stats.binomtest(count, n).proportion_ci(level, method="exact")
    return float(found.low), float(found.high)


def ratio_of_means(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """mean(a) / mean(b) over the last axis of pairs (..., n), and its standard error.

    To first order (the delta method) the ratio R deviates by the mean of (a - R b) / mean(b), whose
    terms are independent from pair to pair: their s / sqrt(n).
    """
    ratio = a.mean(-1) / b.mean(-1)
    deviations = (a - ratio[..., None] * b) / b.mean(-1)[..., None]
    return ratio, deviations.std(-1, ddof=1) / math.sqrt(a.shape[-1])


def mean_effect(values: np.ndarray, smallest: float, *, rng: np.random.Generator) -> Effect:
    """The mean of independent values (n,): differences, log-ratios or slopes, one per seed.

    The interval is Student's, of 95 %. p is of the sign-flip test: if the values are symmetric
    about 0, all 2^n ways to give them signs are equally likely, so that p cannot fall below
    2 / 2^n. It is exact for up to 14 values, and of 16,384 random flips beyond. Two one-sided t
    tests say whether the mean is within +-`smallest` (Schuirmann 1987). Values that are not finite
    are left out.
    """
    values = np.asarray(values, dtype=float)
    mean, low, high, n = mean_interval(values)
    values = values[np.isfinite(values)]
    if n < 2:
        return Effect(mean, low, high, n, "t")
    flipped = scipy.stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=FLIPS, vectorized=True, rng=rng
    )
    if np.ptp(values) > 1e-12 * np.abs(values).max():
        inside = max(
            scipy.stats.ttest_1samp(values, -smallest, alternative="greater").pvalue,
            scipy.stats.ttest_1samp(values, smallest, alternative="less").pvalue,
        )
    else:  # no scatter but that of rounding: t would be 0 / 0, or infinite
        inside = float(abs(mean) >= smallest)
    floor = max(2.0 ** (1 - n), 2 / (FLIPS + 1))
    return Effect(mean, low, high, n, "t", float(flipped.pvalue), floor, float(inside))


def share_effect(inside: np.ndarray, share: float) -> Effect:
    """The share of true among n independent booleans (n,), minus `share`; all of it is exact.

    With an interval of 95 % (Clopper and Pearson 1934). No equivalence is tested.
    """
    n, count = len(inside), int(np.sum(inside))
    if not n:
        return Effect(math.nan, math.nan, math.nan, 0, "exact binomial")
    low, high = share_interval(count, n)
    p, *floors = (float(scipy.stats.binomtest(k, n, share).pvalue) for k in (count, 0, n))
    return Effect(count / n - share, low - share, high - share, n, "exact binomial", p, min(floors))


def range_effect(values: np.ndarray) -> Effect:
    """The mean of values (n,); its interval is their range, from the smallest to the largest."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if not len(values):
        return Effect(math.nan, math.nan, math.nan, 0, "range")
    return Effect(
        float(values.mean()), values.min().item(), values.max().item(), len(values), "range"
    )


def cluster_effect(
    statistic: Callable[[np.ndarray], float],
    clusters: int,
    smallest: float,
    *,
    null: Callable[[np.random.Generator], float] | None = None,
    two_sided: bool = True,
    rng: np.random.Generator,
) -> Effect:
    """A statistic of all clusters together (a study's seeds), from resampling whole clusters.

    `statistic` takes indices (m,) of clusters, with repetitions, and returns a number, or NaN where
    it is not defined. The interval of 95 % is the bias-corrected and accelerated bootstrap's (Efron
    1987), or where that is not defined, of percentiles; equivalence is judged by the bootstrap's
    own distribution. Draws without a value are left out, if they are at most a tenth. `null` draws
    the statistic under "no effect", and p is the share of the draws that are as far from 0 (or, not
    `two_sided`, as far above it), with the observed one among them. Fewer than 3 clusters give no
    interval.
    """
    observed = float(statistic(np.arange(clusters)))
    p = floor = math.nan
    if null is not None and np.isfinite(observed):
        size = abs if two_sided else float
        drawn = np.array([size(null(rng)) for _ in range(RESAMPLES)])
        as_far = np.sum(drawn >= size(observed) - 1e-12 * abs(observed))
        p, floor = float((1 + as_far) / (1 + RESAMPLES)), 1 / (1 + RESAMPLES)
    if clusters < 3 or not np.isfinite(observed):
        return Effect(observed, math.nan, math.nan, clusters, "BCa bootstrap", p, floor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # BCa is not defined where all values are the same
        found = scipy.stats.bootstrap(
            (np.arange(clusters),),
            lambda chosen: statistic(np.asarray(chosen, dtype=int)),
            vectorized=False,
            confidence_level=LEVEL,
            method="BCa",
            n_resamples=RESAMPLES,
            rng=rng,
        )
    drawn = found.bootstrap_distribution
    known = drawn[np.isfinite(drawn)]
    if len(known) < (1 - UNDEFINED) * len(drawn):
        return Effect(observed, math.nan, math.nan, clusters, "BCa bootstrap", p, floor)
    kind, (low, high) = "BCa bootstrap", map(float, found.confidence_interval)
    if not np.isfinite([low, high]).all():
        kind = "percentile bootstrap"
        low, high = map(float, np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    outside = float(max(np.mean(known <= -smallest), np.mean(known >= smallest)))
    return Effect(observed, low, high, clusters, kind, p, floor, outside)


def kendall_tau(groups: Sequence[tuple[np.ndarray, np.ndarray]]) -> float:
    """Kendall's tau-b of x and y (n,) within groups: their mean, weighted by pairs of values.

    (Kendall 1945.) Groups where it is not defined, as all x are the same, do not count; NaN where
    no group is left. One group: its tau.
    """
    found = [(scipy.stats.kendalltau(x, y).statistic, len(x) * (len(x) - 1)) for x, y in groups]
    known = [(tau, weight) for tau, weight in found if np.isfinite(tau)]
    if not known:
        return math.nan
    values, weights = zip(*known, strict=True)
    return float(np.average(values, weights=weights))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's adjusted p (n,) of n tests: whoever rejects at or below alpha errs in all with alpha.

    max over the j <= i of (n - j) p_(j), in ascending order from j = 0, at most 1 (Holm 1979).
    Tests without a p (NaN) stay without, and do not count.
    """
    p = np.asarray(p, dtype=float)
    known = np.flatnonzero(np.isfinite(p))
    order = known[np.argsort(p[known], kind="stable")]
    adjusted = np.full(len(p), np.nan)
    steps = (len(order) - np.arange(len(order))) * p[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return adjusted
