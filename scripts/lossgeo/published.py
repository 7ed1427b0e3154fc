"""The estimators of the study under audit as it used them, faults included.

Nothing here is to be relied on: each function says what is wrong with what it measures, and
which module of this library does it right. They take our own models, so that a published number and
its corrected counterpart are of the same theta.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import loss_landscapes
import loss_landscapes.metrics
import numpy as np
import torch
from torch import Generator, Tensor, nn

from lossgeo import surface
from lossgeo.directions import cosine
from lossgeo.hessian import hessian_operator
from lossgeo.models import in_memory_format, memory_format
from lossgeo.objective import Objective, evaluate, evaluate_many
from lossgeo.parameters import join, put
from lossgeo.trajectory import pca

Metric = Callable[[object], float]  # of loss-landscapes: its model wrapper -> a number


@dataclass(frozen=True)
class Surfaces:
    """A plane of S x S points and K lines of T points, as loss-landscapes draws them, in nats."""

    minimum: float  # the loss at theta
    plane: np.ndarray  # (S, S), along the first and the second direction
    plane_cosine: float  # of the angle between these two
    lines: np.ndarray  # (K, T)
    starts: np.ndarray  # (K,) the loss where each line takes off
    distances: np.ndarray  # (K,) of these places from theta, as shares of ||theta||
    line_cosine: float  # mean over pairs of lines of the cosine between their directions


def power_eigenvalues(
    product: Callable[[Tensor], Tensor], start: Tensor, *, count: int, steps: int, tolerance: float
) -> tuple[np.ndarray, np.ndarray]:
    """`count` eigenvalues of a symmetric matrix by power iteration with deflation, and whether each
    was stopped by the tolerance: both (count,), in the order in which they were found.

    From v = start / ||start||, lambda <- v'Av and v <- Av / ||Av||, at most `steps` times, until
    lambda has changed by less than `tolerance` of itself; then A <- A - lambda v v', and v goes on
    as the start of the next. This is the mode power_iter of pytorch-hessian-eigenthings before its
    version 1, which the study used; version 1 also asks for a small residual, and starts anew.

    The faults: it finds what is largest in magnitude, it stops where lambda is slow and not where
    it is right (lambda is a lower bound of the largest eigenvalue), and what has not converged is
    deflated all the same. `spectrum` has residuals.
    """
    found: list[tuple[float, Tensor]] = []
    stopped = np.zeros(count, dtype=bool)
    v = start / start.norm()
    for index in range(count):
        eigenvalue, before = 0.0, 0.0
        for _ in range(steps):
            image = product(v)
            for known, vector in found:
                image = image - known * (vector @ v) * vector
            eigenvalue = float(v @ image)
            norm = image.norm()
            if not norm > 0:  # v lies in the null space: nothing is left
                stopped[index] = True
                break
            v = image / norm
            if abs(eigenvalue - before) < tolerance * abs(eigenvalue):
                stopped[index] = True
                break
            before = eigenvalue
        found.append((eigenvalue, v))
    return np.array([eigenvalue for eigenvalue, _ in found]), stopped


def top_eigenvalue(
    batch: Objective,
    theta: Tensor,
    *,
    count: int,
    steps: int,
    tolerance: float,
    generator: Generator,
) -> tuple[float, bool]:
    """The largest of `count` eigenvalues (nats) of the Hessian of a mini-batch, and whether it was
    stopped by the tolerance; see `power_eigenvalues`.

    The start is uniform on [0, 1], as published. The published number is the mean over five test
    batches of 128. The fault: E[lambda_max(H_B)] >= lambda_max(E[H_B]), so that it is a property of
    the size of the batch; `ladder` measures that.
    """
    theta = theta.to(batch.device, batch.dtype)
    start = torch.rand(batch.layout.size, generator=generator).to(theta)
    operator = hessian_operator(batch, theta)
    values, stopped = power_eigenvalues(
        operator.matvec, start, count=count, steps=steps, tolerance=tolerance
    )
    best = int(np.argmax(values))
    return float(values[best]), bool(stopped[best])


def noise_rises(
    objective: Objective, theta: Tensor, scale: float, draws: int, *, generator: Generator
) -> np.ndarray:
    """L(theta + e) - L(theta) (draws,), nats, for noise e ~ N(0, scale^2 I) on every parameter.

    The fault: to second order the mean is scale^2 / 2 tr H, whatever the size of the weights, and
    at the published scale of 1e-3 that is next to nothing for every network. `sharpness` has noise
    in units of the weights.
    """
    noise = (
        theta + scale * torch.randn(len(theta), generator=generator).to(theta) for _ in range(draws)
    )
    return evaluate_many(objective, noise)["loss"] - evaluate(objective, theta).loss


def pc1_line(
    objective: Objective, snapshots: np.ndarray, points: int
) -> tuple[np.ndarray, np.ndarray]:
    """Offsets a in [-1, 1] and the losses (nats) at theta + a PC1, both (points,).

    theta is the last of the snapshots (S, P), and PC1 their first principal component of unit
    norm, centred: the leading right singular vector. The published snapshots are of whole epochs,
    without the initialisation. The fault: near a minimum the loss is a parabola along any direction
    (Taylor), so that one along PC1 says nothing of PC1; the stage trajectory sets random directions
    beside it.

    Raises ValueError for fewer than three snapshots, or where they are all in one place.
    """
    axis = torch.from_numpy(pca(snapshots, 1).axes[0])
    alphas = np.linspace(-1.0, 1.0, points)
    theta = torch.from_numpy(snapshots[-1])
    return alphas, surface.line(objective, theta, axis.to(theta), alphas)["loss"]


def peer_surfaces(
    batch: Objective,
    theta: Tensor,
    *,
    distance: float,
    steps: int,
    line_count: int,
    line_distance: float,
    line_steps: int,
    seed: int,
) -> Surfaces:
    """A plane and lines by loss-landscapes itself, filter-normalised, on a copy of the network.

    As published: one `random_plane`, and then `line_count` times `random_line` on the same network.
    The faults, of its version 3.0.6:

    - Directions are uniform on [0, 1], so that all weights grow; two lines have cosine 3/4. (The
      plane's second direction is orthogonal to its first before both are normalised.)
    - A surface reaches ||theta|| / distance, not ||theta|| times it: the plane ends at 1 / (2
      distance) of the direction on each side, and a line goes to one side alone.
    - Every other column of the plane is evaluated one step off: a comb.
    - The network is left where the last point was, so that the first line takes off from a corner
      of the plane, each next one where the last ended, and none passes through theta.
    - Biases move by |b|, and frozen parameters as others do.

    The draws are from torch's global generator, seeded here and restored. Runs on the CPU.
    """
    inputs, targets = (torch.cat(parts).cpu() for parts in zip(*batch.blocks, strict=True))
    network = copy.deepcopy(batch.model).cpu()
    inputs = in_memory_format(inputs, memory_format(network))
    put(network, theta.cpu())
    theta = _everything(network)
    loss = loss_landscapes.metrics.Loss(nn.functional.cross_entropy, inputs, targets)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        minimum = loss_landscapes.point(network, loss)
        kept: dict[int, Tensor] = {}
        plane = loss_landscapes.random_plane(
            network,
            _recorded(loss, (0, 1, steps - 1, steps), kept),
            distance=distance,
            steps=steps,
            normalization="filter",
            deepcopy_model=False,
        )
        # along the first column, and from its end to that of the second, which is run backwards
        second = kept[1] - kept[0]
        first = kept[steps] - kept[steps - 1] + second
        lines, starts, places = [], [], [_everything(network)]
        for _ in range(line_count):
            starts.append(loss_landscapes.point(network, loss))
            lines.append(
                loss_landscapes.random_line(
                    network,
                    loss,
                    distance=line_distance,
                    steps=line_steps,
                    normalization="filter",
                    deepcopy_model=False,
                )
            )
            places.append(_everything(network))
    displaced = torch.stack(places) - theta
    return Surfaces(
        minimum=minimum,
        plane=plane,
        plane_cosine=cosine(first, second),
        lines=np.stack(lines),
        starts=np.array(starts),
        distances=(displaced[:-1].norm(dim=1) / theta.norm()).double().numpy(),
        line_cosine=_mean_cosine(displaced.diff(dim=0)),
    )


def comb(plane: np.ndarray) -> float:
    """How much rougher loss-landscapes makes a plane (S, S) across its columns: 1 for not at all.

    Mean |second difference| along the first axis, as drawn over as evaluated: column i is drawn
    beside its neighbours one step off for odd i, and put back for the denominator. NaN where that
    is 0, or not finite.
    """
    drawn, evaluated = plane[:, :-1], plane[:, :-1].copy()
    evaluated[1::2] = plane[1::2, 1:]
    if not np.isfinite(plane).all():
        return np.nan
    rough, smooth = (np.abs(np.diff(one, 2, axis=0)).mean() for one in (drawn, evaluated))
    return float(rough / smooth) if smooth > 0 else np.nan


def _recorded(metric: Metric, calls: tuple[int, ...], kept: dict[int, Tensor]) -> Metric:
    """The metric, which also keeps theta of some of its calls, by their number."""
    number = 0

    def asked(wrapper) -> float:
        nonlocal number
        if number in calls:
            kept[number] = _everything(wrapper.modules[0])
        number += 1
        return metric(wrapper)

    return asked


def _everything(network: nn.Module) -> Tensor:
    """All parameters as one vector: loss-landscapes moves, and freezes, every one of them."""
    return join(p.detach() for p in network.parameters())


def _mean_cosine(directions: Tensor) -> float:
    """Mean over pairs of directions (K, P); NaN for one."""
    unit = directions.double() / directions.double().norm(dim=1, keepdim=True)
    pairs = torch.triu_indices(len(unit), len(unit), 1)
    return float((unit @ unit.T)[pairs[0], pairs[1]].mean())
