"""Flatness as the rise of the loss: on average under noise, and at worst within a ball.

All rises are of single samples, paired with the sample's own loss at theta: their means are the
rises of the loss, their standard errors those over samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from lossgeo.directions import random_direction
from lossgeo.hessian import gradient
from lossgeo.objective import Objective, sample_losses
from lossgeo.span import spanned


def random_directions(
    objective: Objective, theta: Tensor, normalization: str, draws: int, *, generator: Generator
) -> Tensor:
    """Independent directions d ~ N(0, I), normalised to theta (see `directions.normalize`): (D, P).

    With `none`, a step of r along them is Gaussian noise of standard deviation r on every
    parameter; with `element`, of standard deviation r |theta_j|.
    """
    return torch.stack(
        [
            random_direction(theta, objective.layout, normalization, generator=generator)
            for _ in range(draws)
        ]
    )


def average_rises(
    objective: Objective, theta: Tensor, directions: Tensor, radii: Sequence[float]
) -> Tensor:
    """[L_i(theta + r d) + L_i(theta - r d)] / 2 - L_i(theta) in nats, (R, D, N) float64.

    Of each sample i, along D directions d (D, P), at R radii r.

    d and -d are equally likely, so taking both changes no expectation and cancels the slope, which
    at small radii is all that a single draw would show. While no ReLU switches, the mean over
    samples is r^2 / 2 d'Hd to second order; at larger radii the kinks add to it. NaN where theta is
    not finite.
    """
    steps = np.concatenate([[0.0], radii, np.negative(radii)])
    coefficients = np.stack([np.ones_like(steps), steps], axis=1)
    rises = []
    for d in directions:
        losses, _ = spanned(objective, (theta, d))(coefficients)
        at, *around = losses.double().cpu().split([1, len(radii), len(radii)])
        rises.append((around[0] + around[1]) / 2 - at)
    return torch.stack(rises, dim=1)


@dataclass(frozen=True)
class WorstCase:
    """The largest rise of the loss that was found in each of R balls."""

    rises: Tensor  # (R, N) float64, nats: of each sample, at the displacement that was found
    best: np.ndarray  # (R, steps + 1) nats: the largest mean rise after so many gradients
    first_order: np.ndarray  # (R,) nats: radius * ||T grad L||, the rise of the linearised loss


def worst_case(
    objective: Objective,
    theta: Tensor,
    radii: Sequence[float],
    steps: int,
    *,
    scale: Tensor | None = None,
) -> WorstCase:
    """max L(theta + delta) - L(theta) over balls ||T^-1 delta|| <= radius, R radii ascending.

    T is the identity (the ball of SAM, Foret et al. 2021) or diag(`scale`), scale (P,) >= 0; with
    scale = |theta| the ball, and so the rise, is the same after every rescaling of units that
    leaves a ReLU network's function as it is (ASAM, element-wise; Kwon et al. 2021).

    The search is `ascend`, from the gradient in the smallest ball and from the last ball's best
    displacement, stretched, in the others. What it finds is a lower bound of the maximum; how much
    the last steps still added (`best`) says how near it may be. NaN where theta or a loss at theta
    is not finite.
    """
    theta = theta.to(objective.device, objective.dtype)
    losses = sample_losses(objective, theta)[0].double()
    if not (torch.isfinite(theta).all() and torch.isfinite(losses).all()):
        nan = np.full((len(radii), steps + 1), np.nan)
        return WorstCase(
            torch.full((len(radii), objective.samples), torch.nan).double(), nan, nan[:, 0]
        )
    scale = torch.ones_like(theta) if scale is None else scale.to(theta)

    def rises_at(u: Tensor) -> Tensor:
        return sample_losses(objective, theta + scale * u)[0].double() - losses

    def gradient_at(u: Tensor) -> Tensor:
        return scale * gradient(objective, theta + scale * u)

    slope = gradient_at(torch.zeros_like(theta))
    found, best = [], []
    at, rises = slope, torch.zeros_like(losses)
    for radius in radii:
        at, rises, gains = ascend(rises_at, gradient_at, at, rises, radius, steps)
        found.append(rises)
        best.append(gains)
    return WorstCase(
        torch.stack(found).cpu(), np.array(best), np.asarray(radii) * float(slope.norm())
    )


def ascend(
    values_at: Callable[[Tensor], Tensor],
    gradient_at: Callable[[Tensor], Tensor],
    start: Tensor,
    values: Tensor,
    radius: float,
    steps: int,
) -> tuple[Tensor, Tensor, list[float]]:
    """The largest mean of `values_at(u)` found in ||u|| <= radius, by projected ascent.

    From `start`, stretched to the sphere, each step goes to where the projection of
    u + eta grad takes it for a large eta: u = radius grad / ||grad||. In a convex function no step
    descends; in a quadratic this is the power iteration of g + H u. `values` (N,) are those of a
    point inside the ball that is known already.

    Returns the best u, its values (N,), and the best mean after 0, ..., `steps` gradients.
    """
    best_u, best = start, float(values.mean())
    u, means = start, []
    for step in range(steps + 1):
        if step:
            u = gradient_at(u)
        if not (norm := float(u.norm())):  # a stationary point
            means += [best] * (steps + 1 - step)
            break
        u = u * (radius / norm)
        found = values_at(u)
        if float(found.mean()) > best:
            best_u, best, values = u, float(found.mean()), found
        means.append(best)
    return best_u, values, means
