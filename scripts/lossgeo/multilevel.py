"""Lines and planes from few of their points: level by level, until the next one is predicted.

A level is a set of grid points. The first is a coarse grid; each further one is drawn at random
from what is left, with the lowest points expected there, and is predicted from all levels before it
until the prediction is right. Every evaluated point has all samples.

Right is a matter of shape: a point's error counts in units of its own rise above the centre,
|L - L(centre)|, or of that rise's standard error over the samples where this is larger. The
standard error of a loss is a poor unit for it. The samples are common to the whole surface, so that
it moves up and down as one; between neighbouring points it is known a hundred times better.

The predictor interpolates the square root of the loss: a loss that rises from near zero by two or
three orders of magnitude rises almost linearly there, and the smallest losses, which have the
smallest standard errors, are not drowned by the largest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from torch import Tensor

from lossgeo.objective import Objective
from lossgeo.span import at_first, spanned, summaries

COARSE = 7  # points per axis of the first level
DRAWN = 24  # points drawn for the second level, over all K; later levels grow with what is known
SAFETY = 1.5  # the stated error / the largest error of a random point of the last level
ACCEPTED = 0.2  # the stated error at most, as a share of the rise
LARGEST = 2.0  # standard errors by which a loss of the last level may have been mispredicted
ESTIMATORS = ("multilevel", "full")

Measure = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Levels:
    """Which points of K surfaces were evaluated, and how well the others are known."""

    evaluated: np.ndarray  # (points,) bool: where the objective itself was asked
    stencils: np.ndarray  # (points,) bool: centres of a random sample of evaluated stencils
    held_out: int  # random predictions (points x K) tested by the last level; 0 if all evaluated
    interpolation_error: float  # of 95 % of the other points at most, see `estimate`; 0 if none


def lines(
    objective: Objective,
    theta: Tensor,
    directions: Sequence[Tensor],
    alphas: np.ndarray,
    *,
    estimator: str,
    stencils: int = 0,
    generator: np.random.Generator,
) -> tuple[dict[str, np.ndarray], Levels]:
    """`surface.line` along D directions: `loss`, `loss_se`, `rise_se`, `accuracy` (D, A).

    `rise_se` is the standard error of L - L(theta) over the samples, which are the same in both.
    All lines are evaluated at the same alphas, and go on to the next level together: they have the
    same levels, which come second.
    """
    losses = [spanned(objective, (theta, direction)) for direction in directions]
    centres = [at_first(one, 2) for one in losses]

    def measure(points: np.ndarray) -> dict[str, np.ndarray]:
        coefficients = np.stack([np.ones(len(points)), alphas[points]], axis=1)
        rows = [
            summaries(one, coefficients, centre)
            for one, centre in zip(losses, centres, strict=True)
        ]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    return estimate(
        measure,
        (alphas,),
        np.array([float(centre.double().mean()) for centre in centres]),
        estimator=estimator,
        stencils=stencils,
        generator=generator,
    )


def plane(
    objective: Objective,
    theta: Tensor,
    direction_1: Tensor,
    direction_2: Tensor,
    alphas: np.ndarray,
    betas: np.ndarray,
    *,
    estimator: str,
    stencils: int = 0,
    generator: np.random.Generator,
) -> tuple[dict[str, np.ndarray], Levels]:
    """`surface.plane`: `loss`, `loss_se`, `rise_se`, `accuracy` (A, B), and its levels."""
    losses = spanned(objective, (theta, direction_1, direction_2))
    centre = at_first(losses, 3)

    def measure(points: np.ndarray) -> dict[str, np.ndarray]:
        a, b = np.unravel_index(points, (len(alphas), len(betas)))
        coefficients = np.stack([np.ones(len(points)), alphas[a], betas[b]], axis=1)
        return {k: v[np.newaxis] for k, v in summaries(losses, coefficients, centre).items()}

    values, levels = estimate(
        measure,
        (alphas, betas),
        np.array([float(centre.double().mean())]),
        estimator=estimator,
        stencils=stencils,
        generator=generator,
    )
    return {k: v.reshape(len(alphas), len(betas)) for k, v in values.items()}, levels


def estimate(
    measure: Measure,
    axes: Sequence[np.ndarray],
    centre: np.ndarray,
    *,
    estimator: str,
    stencils: int = 0,
    generator: np.random.Generator,
) -> tuple[dict[str, np.ndarray], Levels]:
    """K surfaces on the grid of `axes`: every point (full), or as few as their shape allows.

    `measure` takes the flat indices (m,) of grid points and returns `loss`, `loss_se`, `rise_se`
    and `accuracy` (K, m); this function returns them for all points (K, A B ...), in row-major
    order. `centre` (K,) are the losses from which the rises count.

    multilevel: the first level is a grid of COARSE points per axis and, where 0 is on every axis,
    its nearest neighbours there, so that differences at the centre are measured. Of each later
    level, drawn by `generator`, the losses are first predicted from all points known by then: a
    cubic radial basis function interpolates sqrt(L), or L where some are negative. To what is drawn
    come a third as many points, those of the lowest predicted loss (mean of the surfaces): at the
    bottom of a basin sqrt(L) bends most. The second level also has `stencils` whole stencils, 3
    points along each axis around random inner points: what is convex is judged by these alone
    (`geometry`).

    Errors of predictions count in units of max(|L - L(centre)|, `rise_se`). `interpolation_error`
    is SAFETY times the largest one of the last level's random points, stencils included. Once it
    is at most ACCEPTED, and no point of the level is off by more than LARGEST of its `loss_se`, the
    same interpolation fills what was not evaluated, now from the last level too. At least 95 % of
    the interpolated points are then off by at most `interpolation_error`. That is no theorem, as
    the level decides by its own points: benchmarks/surfaces.csv says how often it holds.

    Standard errors of losses are interpolated like losses, others and accuracies as they are.
    Evaluated points keep their values. Where half of the points would not do, and where a value is
    not finite, all are evaluated; then all stencils are in the sample.

    Raises ValueError for any other estimator.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator is {estimator!r}, expected one of {ESTIMATORS}")
    shape = tuple(len(axis) for axis in axes)
    coordinates = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
    coordinates = coordinates / np.maximum(np.array(shape) - 1, 1)  # (points, axes), in [0, 1]
    known = np.zeros(len(coordinates), dtype=bool)
    values: dict[str, np.ndarray] = {}

    def evaluate(points: np.ndarray) -> None:
        for name, measured in measure(points).items():
            values.setdefault(name, np.full((len(measured), len(known)), np.nan))
            values[name][:, points] = measured
        known[points] = True

    evaluate(_first_level(axes) if estimator == "multilevel" else np.arange(len(known)))
    inner = _inner(shape)
    sample = generator.choice(inner, min(stencils, len(inner)), replace=False)
    around = [_around(point, shape) for point in sample]
    drawn = max(3, min(-(-DRAWN // len(values["loss"])), len(known) // 8))
    while min(shape) > 1 and _finite(values, known):
        left = np.flatnonzero(~known)
        stencil_points = np.intersect1d(left, np.concatenate([left[:0], *around]))
        if 2 * (known.sum() + len(stencil_points) + drawn + drawn // 3) > len(known):
            break
        expected = _interpolate("loss", values, coordinates, known, np.arange(len(known)))
        lowest = left[np.argsort(expected.mean(axis=0)[left], kind="stable")[: drawn // 3]]
        random = np.union1d(stencil_points, generator.choice(left, drawn, replace=False))
        level = np.union1d(random, lowest)
        evaluate(level)
        errors = np.abs(expected - values["loss"])
        rises = np.abs(values["loss"] - centre[:, np.newaxis])
        unit = np.maximum(rises, values["rise_se"])
        with np.errstate(divide="ignore", invalid="ignore"):
            stated = float(SAFETY * (errors[:, random] / unit[:, random]).max())
            largest = float((errors[:, level] / values["loss_se"][:, level]).max())
        if stated <= ACCEPTED and largest <= LARGEST and _finite(values, known):
            rest = np.flatnonzero(~known)
            for name in values:
                values[name][:, rest] = _interpolate(name, values, coordinates, known, rest)
            held_out = len(values["loss"]) * len(random)
            return values, Levels(known, _mask(sample, len(known)), held_out, stated)
        drawn = known.sum() // 4
    if not known.all():
        evaluate(np.flatnonzero(~known))
    return values, Levels(known, _mask(inner, len(known)), 0, 0.0)


def _first_level(axes: Sequence[np.ndarray]) -> np.ndarray:
    """Flat indices of the coarse grid and of the centre's neighbourhood."""
    first = np.zeros([len(axis) for axis in axes], dtype=bool)
    first[np.ix_(*(np.linspace(0, len(a) - 1, COARSE).round().astype(int) for a in axes))] = True
    zeros = [np.flatnonzero(axis == 0) for axis in axes]
    if all(len(zero) == 1 for zero in zeros):
        centre = np.ravel_multi_index([zero[0] for zero in zeros], first.shape)
        first.ravel()[_around(centre, first.shape)] = True
    return np.flatnonzero(first)


def _inner(shape: tuple[int, ...]) -> np.ndarray:
    """Flat indices of the grid points that have neighbours on all sides."""
    inner = np.zeros(shape, dtype=bool)
    inner[(slice(1, -1),) * len(shape)] = True
    return np.flatnonzero(inner)


def _mask(points: np.ndarray, count: int) -> np.ndarray:
    """(count,) bool, true at `points`."""
    mask = np.zeros(count, dtype=bool)
    mask[points] = True
    return mask


def _around(point: int, shape: tuple[int, ...]) -> np.ndarray:
    """Flat indices of a grid point and of its neighbours, diagonal ones included."""
    chosen = np.zeros(shape, dtype=bool)
    chosen[tuple(slice(max(i - 1, 0), i + 2) for i in np.unravel_index(point, shape))] = True
    return np.flatnonzero(chosen)


def _finite(values: dict[str, np.ndarray], known: np.ndarray) -> bool:
    return all(
        np.isfinite(one[:, known]).all()
        for name, one in values.items()
        if name != "accuracy" or not np.isnan(one[:, known]).all()  # there are no classes
    )


def _interpolate(
    name: str, values: dict, coordinates: np.ndarray, known: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """The values (K, m) of `name` at `points`, from those at the known ones."""
    there = values[name][:, known].T
    if np.isnan(there).all():
        return np.full((there.shape[1], len(points)), np.nan)
    has_root = name in ("loss", "loss_se") and (there >= 0).all()
    if has_root:
        there = np.sqrt(there)
    found = scipy.interpolate.RBFInterpolator(coordinates[known], there, kernel="cubic")(
        coordinates[points]
    ).T
    if has_root:
        return found.clip(0) ** 2
    if name == "loss":
        return found
    return found.clip(0, 1 if name == "accuracy" else None)
