"""Paths between two minima and the barriers on them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor

from lossgeo.losses import CROSS_ENTROPY, Loss
from lossgeo.objective import Objective, mean_and_error, sample_logits, scorer
from lossgeo.span import at_points, spanned

MEASURES = ("loss", "error", "tempered_loss")

COLDEST, HOTTEST = 0.01, 100.0  # softmax temperatures that are tried


@dataclass(frozen=True)
class Barrier:
    """The height of a path above the chord between its ends, at its highest inner point.

    max_t [L(t) - ((1 - t) L(0) + t L(1))]; in the units of the loss, a fraction for an error.
    """

    height: float  # 0 where the path runs below its chord
    height_se: float  # of the rise at t over the N samples, paired between the path and its ends
    t: float


@dataclass(frozen=True)
class Profile:
    """A path as the samples see it, at T values of t."""

    t: np.ndarray  # (T,)
    means: dict[str, np.ndarray]  # of each of MEASURES (T,); NaN where there is none
    errors: dict[str, np.ndarray]  # their standard errors over the samples (T,)
    temperature: np.ndarray  # (T,) of the outputs, at which tempered_loss is smallest; or NaN
    barriers: dict[str, Barrier]  # of each of MEASURES


def line(t: np.ndarray) -> np.ndarray:
    """Coefficients (T, 2) of the ends on the straight line (1 - t) theta_a + t theta_b."""
    return np.stack([1 - t, t], axis=1)


def logits_on(objective: Objective, vectors: Sequence[Tensor], coefficients: np.ndarray) -> Tensor:
    """The network's outputs (T, ..., N) at theta_t = sum_k c_tk v_k, for vectors v_k (P,)."""
    if not all(torch.isfinite(vector).all() for vector in vectors):
        return logits_at(objective, [vectors[0] * torch.nan] * len(coefficients))
    return spanned(objective, vectors, lambda logits, _: (logits.clone(),))(coefficients)[0]


def logits_at(objective: Objective, thetas: Iterable[Tensor]) -> Tensor:
    """The network's outputs (T, ..., N) at T thetas (P,)."""
    return torch.stack([sample_logits(objective, theta) for theta in thetas])


def profile(t: np.ndarray, logits: Tensor, targets: Tensor, loss: Loss = CROSS_ENTROPY) -> Profile:
    """Loss, error and their barriers on a path, from its outputs (T, ..., N) at t (T,), 0 to 1.

    `tempered_loss` is the loss after dividing the logits at each t by one temperature, that which
    makes it smallest on these samples: part of a barrier of the cross-entropy is confidence that is
    lost, and no ridge between two classifications (temperature scaling: Guo et al. 2017). As the
    temperature is at its minimum, its own error adds nothing to that of the loss to first order. On
    samples that the ends were trained on they gain as well, by a temperature below 1, since they
    are hardly ever wrong there: the barrier of `tempered_loss` can then exceed that of the loss.

    Where an output on the path is not finite, all its barriers are NaN. So is the error where there
    are no classes, and the tempered loss where outputs are no logits (`Loss.is_tempered`).
    """
    if torch.isfinite(logits).all():
        losses, correct = at_points(scorer(loss, targets))(logits.clone(), targets)
        temperature, tempered = temper(logits, targets, loss)
        values = (losses.double(), 1 - correct.double(), tempered)
    else:
        nothing = torch.full((len(t), len(targets)), torch.nan, dtype=torch.float64)
        values, temperature = (nothing,) * 3, np.full(len(t), np.nan)
    by_measure = dict(zip(MEASURES, values, strict=True))
    summary = {name: mean_and_error(value) for name, value in by_measure.items()}
    return Profile(
        t,
        {name: mean for name, (mean, _) in summary.items()},
        {name: error for name, (_, error) in summary.items()},
        temperature,
        {name: barrier(t, value) for name, value in by_measure.items()},
    )


def temper(
    logits: Tensor, targets: Tensor, loss: Loss = CROSS_ENTROPY
) -> tuple[np.ndarray, Tensor]:
    """Softmax temperatures (T,) that minimise the mean loss, and its values (T, N) there.

    NaN where outputs are no logits. The mean is convex in 1 / temperature. Where everything is
    classified rightly it falls on towards COLDEST, where it is 0 for practical purposes.
    """
    if not loss.is_tempered:
        nothing = logits.new_full((len(logits), len(targets)), torch.nan, dtype=torch.float64)
        return np.full(len(logits), np.nan), nothing
    found, tempered, finish = [], [], scorer(loss, targets)
    for one in logits.double():  # (..., N)

        def losses(log_temperature: float, one: Tensor = one) -> Tensor:
            return finish(one / np.exp(log_temperature), targets)[0]

        best = scipy.optimize.minimize_scalar(
            lambda x, losses=losses: float(losses(x).mean()),
            bounds=(np.log(COLDEST), np.log(HOTTEST)),
            method="bounded",
            options={"xatol": 1e-4},
        )
        found.append(np.exp(best.x))
        tempered.append(losses(best.x))
    return np.array(found), torch.stack(tempered)


def barrier(t: np.ndarray, values: Tensor) -> Barrier:
    """The barrier of per-sample values (T, N) along t (T,), which runs from 0 to 1; T >= 3.

    It is that of Entezari et al. (2021), and never below 0, because at the ends the path is the
    chord. Its error is that of the highest inner point, also where that lies below the chord: no
    barrier is known to be 0 without one. The highest of T points is as much too high as their
    errors let it be; `height_se` does not contain the choice.
    """
    weights = torch.as_tensor(t, dtype=torch.float64, device=values.device).unsqueeze(1)
    rises = values.double() - ((1 - weights) * values[0] + weights * values[-1])
    heights = rises.mean(1)
    if not torch.isfinite(heights).all():
        return Barrier(np.nan, np.nan, np.nan)
    highest = 1 + int(heights[1:-1].argmax())
    height, error = mean_and_error(rises[highest])
    return Barrier(max(0.0, float(height)), float(error), float(t[highest]))
