"""Lines and planes of an objective."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from lossgeo.objective import Objective
from lossgeo.span import spanned, summaries


def centred_grid(distance: float, points: int) -> np.ndarray:
    """`points` coordinates from -distance to distance; the middle one is exactly 0.

    Raises ValueError for an even number of points, which would leave the centre out.
    """
    if points % 2 == 0 or points < 3:
        raise ValueError(f"a grid of {points} points has no centre: take an odd number from 3")
    half = np.linspace(0.0, distance, points // 2 + 1)
    return np.concatenate([-half[:0:-1], half])


def line(objective: Objective, theta: Tensor, direction: Tensor, alphas: np.ndarray) -> dict:
    """The objective at theta + alpha d for each alpha (A,): `loss`, `loss_se`, `accuracy` (A,)."""
    losses = spanned(objective, (theta, direction))
    return summaries(losses, np.stack([np.ones_like(alphas), alphas], axis=1))


def second_difference(objective: Objective, theta: Tensor, direction: Tensor, step: float) -> float:
    """[L(theta + h d) - 2 L(theta) + L(theta - h d)] / h^2, which tends to d'Hd with h -> 0."""
    low, centre, high = line(objective, theta, direction, np.array([-step, 0.0, step]))["loss"]
    return (low - 2 * centre + high) / step**2


def plane(
    objective: Objective,
    theta: Tensor,
    direction_1: Tensor,
    direction_2: Tensor,
    alphas: np.ndarray,
    betas: np.ndarray,
    rows: slice = slice(None),
) -> dict:
    """The objective at theta + alpha d1 + beta d2: `loss`, `loss_se`, `accuracy` (A, B).

    `rows` picks a tile of the plane, alphas[rows] against all betas. Each row is computed by
    itself, by the same kernels on the same shapes in whichever tile, so tiles put together are the
    plane, bit for bit on one kind of CPU.
    """
    losses = spanned(objective, (theta, direction_1, direction_2))
    measured = []
    for alpha in alphas[rows]:
        coefficients = [np.ones_like(betas), np.full_like(betas, alpha), betas]
        measured.append(summaries(losses, np.stack(coefficients, axis=1)))
    return {name: np.stack([row[name] for row in measured]) for name in measured[0]}


def plane_through(
    theta_1: Tensor, theta_2: Tensor, theta_3: Tensor
) -> tuple[tuple[Tensor, Tensor], np.ndarray]:
    """Orthonormal axes (P,) of the plane through three points, and the points on them (3, 2).

    The first point is the origin, the second lies on the first axis, the third on the side of the
    second axis: coordinates are distances in parameter space. Raises ValueError where the three lie
    on one line, to a thousandth of the distance of the first two.
    """
    origin = theta_1.double()
    along, aside = theta_2.double() - origin, theta_3.double() - origin
    length = float(along.norm())
    first = along / length
    offset = float(first @ aside)
    across = aside - offset * first
    across -= (first @ across) * first  # again, for what rounding left
    height = float(across.norm())
    if not height > 1e-3 * length:
        raise ValueError("the three points lie on one line: they span no plane")
    axes = first.to(theta_1), (across / height).to(theta_1)
    return axes, np.array([[0.0, 0.0], [length, 0.0], [offset, height]])


def carried_along(corners: np.ndarray, values: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """What is affine on the plane through three points and has these values (B,) at them.

    `corners` (3, 2) are the points on the axes, as `plane_through` gives them. Returns the value at
    the origin and how much it grows along each axis, per unit.
    """
    (length, _), (offset, height) = corners[1:].tolist()
    first, second, third = (value.double() for value in values)
    along = (second - first) / length
    across = (third - first - offset * along) / height
    return tuple(part.to(values[0]) for part in (first, along, across))
