"""THE loss that everything probes: L(theta), the mean cross-entropy over one fixed set of samples.

Lines, planes, Hessian products, paths and flatness all take an `Objective`, so that each can be
checked against the others: the second difference of a surface is the Hessian's quadratic form
because both are of the same function.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lossgeo.models import in_memory_format, memory_format
from lossgeo.parameters import Layout, layout_of, unflatten


@dataclass(frozen=True)
class Objective:
    """A model in evaluation mode and N samples, cut into blocks that fit the CPU's cache.

    The model is a mould: its own parameters are never read or written, theta is put in their place.
    """

    model: nn.Module
    layout: Layout
    blocks: tuple[tuple[Tensor, Tensor], ...]  # inputs (n, channels, height, width), targets (n,)

    @property
    def samples(self) -> int:
        """N."""
        return sum(len(targets) for _, targets in self.blocks)

    @property
    def dtype(self) -> torch.dtype:
        return self.blocks[0][0].dtype

    @property
    def device(self) -> torch.device:
        return self.blocks[0][0].device


class Evaluation(NamedTuple):
    """What one theta scores on the samples."""

    loss: float  # mean cross-entropy, nats
    loss_se: float  # its standard error over the N samples, nats
    accuracy: float  # fraction of the samples classified correctly


def make_objective(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    block: int | None = None,
) -> Objective:
    """The objective of `model` on inputs (N, channels, height, width) and targets (N,).

    `block` is the number of samples that go through the network together. Unless given it is 64
    for networks with convolutions, 512 for others: beyond that the activations leave the cache.
    """
    if len(inputs) != len(targets) or not len(inputs):
        raise ValueError(f"{len(inputs)} inputs and {len(targets)} targets: need as many, and some")
    layout_in_memory = memory_format(model)
    if block is None:
        block = 64 if layout_in_memory == torch.channels_last else 512
    blocks = tuple(
        (in_memory_format(x, layout_in_memory), y)
        for x, y in zip(
            inputs.to(device, dtype).split(block), targets.to(device).split(block), strict=True
        )
    )
    mould = model.to(device=device, dtype=dtype, memory_format=layout_in_memory)
    return Objective(mould.eval(), layout_of(model), blocks)


def sample_losses(objective: Objective, theta: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy (N,) of each sample at theta (P,), nats, and whether it is classified right."""
    parameters = unflatten(theta.to(objective.device, objective.dtype), objective.layout)
    losses, correct = [], []
    with torch.no_grad():
        for inputs, targets in objective.blocks:
            logits = functional_call(objective.model, parameters, (inputs,))
            losses.append(nn.functional.cross_entropy(logits, targets, reduction="none"))
            correct.append(logits.argmax(1) == targets)
    return torch.cat(losses), torch.cat(correct)


def evaluate(objective: Objective, theta: Tensor) -> Evaluation:
    """Loss, standard error and accuracy at theta (P,); all NaN where theta is not finite.

    The standard error is that of the mean of N samples, s / sqrt(N) with s^2 the unbiased variance.
    Infinite and NaN losses are returned as they are; with a NaN loss the accuracy is NaN too.
    """
    if not torch.isfinite(theta).all():
        return Evaluation(math.nan, math.nan, math.nan)
    losses, correct = sample_losses(objective, theta)
    mean, standard_error = mean_and_error(losses)
    accuracy = math.nan if math.isnan(mean) else float(correct.double().mean())
    return Evaluation(mean, standard_error, accuracy)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Mean of values (N,) and its standard error (NaN for one value), summed in float64."""
    values = values.double()
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(values.mean()), error


def evaluate_many(objective: Objective, thetas: Iterable[Tensor]) -> dict[str, np.ndarray]:
    """`evaluate` at each of M thetas: arrays (M,) under `loss`, `loss_se` and `accuracy`."""
    rows = np.array([evaluate(objective, theta) for theta in thetas]).reshape(-1, 3)
    return dict(zip(Evaluation._fields, rows.T, strict=True))


def loss_of_block(
    objective: Objective, parameters: dict[str, Tensor], inputs: Tensor, targets: Tensor
) -> Tensor:
    """This block's share of L: the sum of its cross-entropies divided by N, differentiable."""
    logits = functional_call(objective.model, parameters, (inputs,))
    return nn.functional.cross_entropy(logits, targets, reduction="sum") / objective.samples
