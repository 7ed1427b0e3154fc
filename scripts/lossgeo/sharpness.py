"""Flatness as the rise of the loss under random perturbations of theta."""

import numpy as np
import torch
from torch import Tensor

from lossgeo.directions import normalize
from lossgeo.objective import Objective
from lossgeo.span import spanned, summaries


def average_rise(
    objective: Objective,
    theta: Tensor,
    radii: np.ndarray,
    normalization: str,
    draws: int,
    *,
    generator: torch.Generator,
) -> np.ndarray:
    """Rise of the loss, [L(theta + r d) + L(theta - r d)] / 2 - L(theta) in nats, (R, D).

    R radii r and D random directions d.

    d ~ N(0, I), normalised to theta as `normalization` says (see `directions.normalize`); with
    `none` the radius is the standard deviation of the noise on every parameter. d and -d are
    equally likely, so taking both changes no expectation and cancels the slope, which at small
    radii is all that a single draw would show. One draw serves all radii. While no ReLU
    switches, the mean over draws is r^2 / 2 E[d'Hd] to second order; at larger radii the kinks add
    to it. NaN where theta is not finite.
    """
    steps = np.concatenate([[0.0], radii, -radii])
    coefficients = np.stack([np.ones_like(steps), steps], axis=1)
    rises = []
    for _ in range(draws):
        noise = torch.randn(len(theta), generator=generator).to(theta)
        direction = normalize(noise, theta, objective.layout, normalization)
        loss = summaries(spanned(objective, (theta, direction)), coefficients)["loss"]
        above, below = np.split(loss[1:], 2)
        rises.append((above + below) / 2 - loss[0])
    return np.stack(rises, axis=1)
