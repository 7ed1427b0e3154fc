"""Paths between two minima and the barriers on them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lossgeo.objective import Objective, mean_and_error, sample_losses


def straight_line(theta_a: Tensor, theta_b: Tensor) -> Callable[[float], Tensor]:
    """The path t -> (1 - t) theta_a + t theta_b; its ends are theta_a and theta_b bit for bit."""

    def path(t: float) -> Tensor:
        if t in (0.0, 1.0):
            return theta_b.clone() if t else theta_a.clone()
        return (1 - t) * theta_a + t * theta_b

    return path


@dataclass(frozen=True)
class Barrier:
    """The height of a path above the chord between its ends, at its highest point."""

    height: (
        float  # max_t [L(t) - ((1 - t) L(0) + t L(1))]; nats for a loss, a fraction for an error
    )
    height_se: float  # standard error over the N samples, paired between the path and its ends
    t: float  # where


@dataclass(frozen=True)
class Profile:
    """A path as the objective sees it, at T values of t."""

    t: np.ndarray  # (T,)
    loss: np.ndarray  # (T,) nats
    loss_se: np.ndarray  # (T,)
    error: np.ndarray  # (T,) fraction of the samples classified wrongly
    error_se: np.ndarray  # (T,)
    loss_barrier: Barrier
    error_barrier: Barrier


def profile(objective: Objective, path: Callable[[float], Tensor], t: np.ndarray) -> Profile:
    """Loss, error and their barriers along `path` at t (T,), which runs from 0 to 1.

    The barrier is that of Entezari et al. (2021); it is never below 0, because at the ends the path
    is the chord. Where some loss on the path is not finite, its barrier is NaN.
    """
    thetas = [path(float(value)) for value in t]
    if all(torch.isfinite(theta).all() for theta in thetas):
        scored = [sample_losses(objective, theta) for theta in thetas]
        losses = torch.stack([loss for loss, _ in scored]).double()  # (T, N)
        errors = torch.stack([~correct for _, correct in scored]).double()
        errors[losses.isnan()] = torch.nan
    else:
        losses = errors = torch.full((len(t), objective.samples), torch.nan, dtype=torch.float64)
    barriers = barrier(t, losses), barrier(t, errors)
    return Profile(t, *mean_and_error(losses), *mean_and_error(errors), *barriers)


def barrier(t: np.ndarray, values: Tensor) -> Barrier:
    """The barrier of per-sample values (T, N) along t (T,)."""
    weights = torch.as_tensor(t, dtype=torch.float64, device=values.device).unsqueeze(1)
    rises = values.double() - ((1 - weights) * values[0] + weights * values[-1])
    heights = rises.mean(1)
    if not torch.isfinite(heights).all():
        return Barrier(np.nan, np.nan, np.nan)
    highest = int(heights.argmax())
    height, error = mean_and_error(rises[highest])
    return Barrier(float(height), float(error), float(t[highest]))
