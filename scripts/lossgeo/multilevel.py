"""Lines and planes from few of their points: level by level, until the next one is predicted.

A level is a set of grid points. The first is a coarse grid; each further one is drawn at random
from what is left, with the lowest points expected there, and is predicted from all levels before it
until the prediction is right to within the standard errors of the points themselves. Every
evaluated point has all samples.

The predictor interpolates the square root of the loss: a loss that rises from near zero by two or
three orders of magnitude rises almost linearly there, and the smallest losses, which have the
smallest standard errors, are not drowned by the largest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import RBFInterpolator
from torch import Tensor

from lossgeo.objective import Objective
from lossgeo.span import spanned, summaries

COARSE = 7  # points per axis of the first level
DRAWN = 24  # points drawn for the second level, over all K; later levels grow with what is known
RMS, LARGEST = 0.5, 2.0  # standard errors by which the last level may have been mispredicted
ESTIMATORS = ("multilevel", "full")

Measure = Callable[[np.ndarray], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class Levels:
    """Which points of K surfaces were evaluated, and how well the others could be predicted."""

    evaluated: np.ndarray  # (points,) bool: where the objective itself was asked
    held_out: int  # predictions (points x K) tested by the last level; 0 if all was evaluated
    held_out_rms: float  # root mean square of their prediction errors, in their standard errors
    held_out_max: float  # the largest


def lines(
    objective: Objective,
    theta: Tensor,
    directions: Sequence[Tensor],
    alphas: np.ndarray,
    *,
    estimator: str,
    generator: np.random.Generator,
) -> tuple[dict[str, np.ndarray], Levels]:
    """`surface.line` along D directions: `loss`, `loss_se`, `accuracy` (D, A), and their levels.

    All lines are evaluated at the same alphas, and go on to the next level together.
    """
    losses = [spanned(objective, (theta, direction)) for direction in directions]

    def measure(points: np.ndarray) -> dict[str, np.ndarray]:
        coefficients = np.stack([np.ones(len(points)), alphas[points]], axis=1)
        rows = [summaries(one, coefficients) for one in losses]
        return {name: np.stack([row[name] for row in rows]) for name in rows[0]}

    return estimate(measure, (alphas,), estimator=estimator, generator=generator)


def plane(
    objective: Objective,
    theta: Tensor,
    direction_1: Tensor,
    direction_2: Tensor,
    alphas: np.ndarray,
    betas: np.ndarray,
    *,
    estimator: str,
    generator: np.random.Generator,
) -> tuple[dict[str, np.ndarray], Levels]:
    """`surface.plane`: `loss`, `loss_se`, `accuracy` (A, B), and its levels."""
    losses = spanned(objective, (theta, direction_1, direction_2))

    def measure(points: np.ndarray) -> dict[str, np.ndarray]:
        a, b = np.unravel_index(points, (len(alphas), len(betas)))
        coefficients = np.stack([np.ones(len(points)), alphas[a], betas[b]], axis=1)
        return {k: v[np.newaxis] for k, v in summaries(losses, coefficients).items()}

    values, levels = estimate(measure, (alphas, betas), estimator=estimator, generator=generator)
    return {k: v.reshape(len(alphas), len(betas)) for k, v in values.items()}, levels


def estimate(
    measure: Measure,
    axes: Sequence[np.ndarray],
    *,
    estimator: str,
    generator: np.random.Generator,
) -> tuple[dict[str, np.ndarray], Levels]:
    """K surfaces on the grid of `axes`: every point (full), or as few as their shape allows.

    `measure` takes the flat indices (m,) of grid points and returns `loss`, `loss_se` and
    `accuracy` (K, m); this function returns them for all points (K, A B ...), in row-major order.

    multilevel: the first level is a grid of COARSE points per axis and, where 0 is on every axis,
    its nearest neighbours there, so that curvatures at the centre are measured. Of each later
    level, drawn by `generator`, the losses are first predicted from all points known by then: a
    cubic radial basis function interpolates sqrt(L). To what is drawn come a third as many points,
    those of the lowest predicted loss (mean of the surfaces): at the bottom of a basin sqrt(L)
    bends most and standard errors are least. Once the errors, in units of the standard errors
    there, have a root mean square of at most RMS and no larger value than LARGEST, the same
    interpolation fills what was not evaluated, now from the last level too. Standard errors are
    interpolated like losses, accuracies as they are. Evaluated points keep their values. Where half
    of the points would not do, and where a value is not finite, all are evaluated.

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
    drawn = max(3, min(-(-DRAWN // len(values["loss"])), len(known) // 8))
    while (
        min(shape) > 1
        and 2 * (known.sum() + drawn + drawn // 3) <= len(known)
        and _finite(values, known)
    ):
        left = np.flatnonzero(~known)
        expected = _interpolate("loss", values, coordinates, known, np.arange(len(known)))
        lowest = left[np.argsort(expected.mean(axis=0)[left], kind="stable")[: drawn // 3]]
        level = np.union1d(generator.choice(left, drawn, replace=False), lowest)
        evaluate(level)
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = (expected - values["loss"])[:, level] / values["loss_se"][:, level]
        rms, largest = float(np.sqrt(np.mean(errors**2))), float(np.abs(errors).max())
        if rms <= RMS and largest <= LARGEST and _finite(values, known):
            rest = np.flatnonzero(~known)
            for name in values:
                values[name][:, rest] = _interpolate(name, values, coordinates, known, rest)
            return values, Levels(known, errors.size, rms, largest)
        drawn = known.sum() // 2
    if not known.all():
        evaluate(np.flatnonzero(~known))
    return values, Levels(known, 0, np.nan, np.nan)


def _first_level(axes: Sequence[np.ndarray]) -> np.ndarray:
    """Flat indices of the coarse grid and of the centre's neighbourhood."""
    first = np.zeros([len(axis) for axis in axes], dtype=bool)
    first[np.ix_(*(np.linspace(0, len(a) - 1, COARSE).round().astype(int) for a in axes))] = True
    zeros = [np.flatnonzero(axis == 0) for axis in axes]
    if all(len(zero) == 1 for zero in zeros):
        centre = np.ravel_multi_index([zero[0] for zero in zeros], first.shape)
        first.ravel()[_around(centre, first.shape)] = True
    return np.flatnonzero(first)


def _around(point: int, shape: tuple[int, ...]) -> np.ndarray:
    """Flat indices of a grid point and of its neighbours, diagonal ones included."""
    chosen = np.zeros(shape, dtype=bool)
    chosen[tuple(slice(max(i - 1, 0), i + 2) for i in np.unravel_index(point, shape))] = True
    return np.flatnonzero(chosen)


def _finite(values: dict[str, np.ndarray], known: np.ndarray) -> bool:
    return all(np.isfinite(one[:, known]).all() for one in values.values())


def _interpolate(
    name: str, values: dict, coordinates: np.ndarray, known: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """The values (K, m) of `name` at `points`, from those at the known ones."""
    there = values[name][:, known].T
    if name != "accuracy":
        there = np.sqrt(there)
    found = RBFInterpolator(coordinates[known], there, kernel="cubic")(coordinates[points]).T
    return found.clip(0, 1) if name == "accuracy" else found.clip(0) ** 2
