"""Flatness as the rise of the loss under random perturbations of theta."""

import numpy as np
import torch
from torch import Tensor

from lossgeo.directions import normalize
from lossgeo.objective import Objective, evaluate


def average_rise(
    objective: Objective,
    theta: Tensor,
    radii: np.ndarray,
    normalization: str,
    draws: int,
    *,
    generator: torch.Generator,
) -> np.ndarray:
    """L(theta + r d) - L(theta) in nats for R radii and D random directions, (R, D).

    d ~ N(0, I), normalised to theta as `normalization` says (see `directions.normalize`); with
    `none` the radius is the standard deviation of the noise on every parameter. One draw serves all
    radii. To second order the mean over draws is r^2 / 2 E[d'Hd]. NaN where theta is not finite.
    """
    base = evaluate(objective, theta).loss
    rises = np.empty((len(radii), draws))
    for draw in range(draws):
        noise = torch.randn(len(theta), generator=generator).to(theta)
        direction = normalize(noise, theta, objective.layout, normalization)
        for i, radius in enumerate(radii):
            rises[i, draw] = evaluate(objective, theta + float(radius) * direction).loss - base
    return rises
