"""THE loss that everything probes: L(theta), the mean over one fixed set of samples.

That of the cross-entropy, or of another loss of a sample (`losses`).

Lines, planes, Hessian products, paths and flatness all take an `Objective`, so that each can be
checked against the others: the second difference of a surface is the Hessian's quadratic form
because both are of the same function.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lossgeo.attention import slow_path
from lossgeo.buffers import copy_with, has_batch_normalisation, running_statistics
from lossgeo.losses import CROSS_ENTROPY, Loss, PerSample, make_loss, total
from lossgeo.models import block_size, in_memory_format, memory_format
from lossgeo.parameters import NONE, Layout, copy_of, layout_of, unflatten
from lossgeo.recalibration import calibrated_once, calibration_size, recalibrate


@dataclass(frozen=True)
class Objective:
    """A model in evaluation mode and N samples, cut into blocks that fit the CPU's cache.

    The model is a template: theta is put in the place of its trained parameters, which are never
    read or written. Frozen ones (requires_grad=False) are constants of L.
    """

    model: nn.Module
    layout: Layout
    blocks: tuple[tuple[Tensor, Tensor], ...]  # inputs (n, ...), targets (n, ...)
    memory: float = math.inf  # bytes that graphs may take which are kept between products
    statistics: str | None = None  # which running statistics are meant (`buffers.MODES`), if any
    running: Layout = NONE  # of the B running statistics that are constants of L
    loss: Loss = CROSS_ENTROPY  # of a sample

    @property
    def samples(self) -> int:
        """N."""
        return sum(len(targets) for _, targets in self.blocks)

    @property
    def targets(self) -> Tensor:
        """(N,) classes, or (N, ...)."""
        return torch.cat([targets for _, targets in self.blocks])

    @property
    def dtype(self) -> torch.dtype:
        return next(self.model.parameters()).dtype

    @property
    def device(self) -> torch.device:
        return self.blocks[0][0].device


class Evaluation(NamedTuple):
    """What one theta scores on the samples."""

    loss: float  # mean over the samples, in the loss's units
    loss_se: float  # its standard error over the N samples
    accuracy: float  # fraction classified correctly; NaN where there are no classes


def make_objective(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    block: int | None = None,
    memory: float = math.inf,
    statistics: str | None = None,
    calibration: Tensor | None = None,
    loss: Loss | str | Mapping[str, Any] | PerSample = "cross-entropy",
) -> Objective:
    """The objective of `model`, which stays as it is, on inputs (N, ...) and targets (N, ...).

    It holds a copy of the model. Inputs that are not floating point (token ids) keep their type.

    `block` is the number of samples that go through the network together, `models.block_size`
    unless given. `memory` are the bytes that graphs may take which are kept between products with
    the Hessian or its kin: what does not fit is computed again for each, to the same numbers.

    A model with running statistics (batch normalisation) needs `statistics`: `frozen`, the model's
    own, or those of `at`; or `recalibrated`, computed at each theta on the inputs of `calibration`,
    (C, ...), C >= 2, or on all `inputs`. Raises ModelError without, see `buffers`.

    `loss` is as `losses.make_loss` takes it.
    """
    if len(inputs) != len(targets) or not len(inputs):
        raise ValueError(f"{len(inputs)} inputs and {len(targets)} targets: need as many, and some")
    layout, layout_in_memory = layout_of(model), memory_format(model)
    if not layout.names:
        raise ValueError(
            "the model has no parameter with requires_grad=True, expected some: theta is made of "
            "those"
        )
    running = running_statistics(model, inputs[:2], statistics)
    template = copy_of(model).to(device=device, dtype=dtype, memory_format=layout_in_memory)
    objective = Objective(template.eval(), layout, (), memory, loss=make_loss(loss))
    if statistics == "frozen" and running.names:
        objective = replace(objective, statistics=statistics, running=running)
    elif statistics == "recalibrated" and has_batch_normalisation(model):
        calibration = _as_inputs(template, inputs if calibration is None else calibration)
        recalibrate(template, calibration)
        objective = replace(objective, statistics=statistics)
    return with_samples(objective, inputs, targets, block=block)


def at(objective: Objective, statistics: Tensor | None) -> Objective:
    """The objective with the running statistics (B,) of a point, where they are constants of L."""
    if not objective.running.names:
        return objective
    if statistics is None:
        raise ValueError("the objective's statistics are frozen, and the point has none")
    return replace(objective, model=copy_with(objective.model, objective.running, statistics))


def with_running(objective: Objective) -> Objective:
    """The loss as a function of theta and running statistics strung together, (P + B,).

    On paths and planes between points both are interpolated. Where the statistics are no constants
    of L, the objective itself.
    """
    layout, running = objective.layout, objective.running
    both = Layout(layout.names + running.names, layout.shapes + running.shapes)
    return replace(objective, layout=both, running=NONE)


def with_samples(
    objective: Objective, inputs: Tensor, targets: Tensor, *, block: int | None = None
) -> Objective:
    """The same objective on other samples, inputs (N, ...) and targets (N,)."""
    block = block or max(block_size(objective.model, inputs), calibration_size(objective.model))
    blocks = tuple(
        (_as_inputs(objective.model, x), _placed(objective.model, y))
        for x, y in zip(inputs.split(block), targets.split(block), strict=True)
    )
    return replace(objective, blocks=blocks)


def _as_inputs(template: nn.Module, inputs: Tensor) -> Tensor:
    """Inputs where, how precisely and in which memory format the model takes them."""
    return in_memory_format(_placed(template, inputs), memory_format(template))


def _placed(template: nn.Module, values: Tensor) -> Tensor:
    """Values on the model's device, and in its precision unless they are whole numbers."""
    like = next(template.parameters())
    return values.to(like.device, like.dtype if values.is_floating_point() else None)


def score(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy (..., n) of logits (..., classes, n), nats, and whether they are right.

    Right is a sample whose own class has the strictly largest logit. `logits` must be contiguous
    and is overwritten. Samples come last because reducing over classes then is an operation on
    whole vectors, an order of magnitude faster.
    """
    samples = len(targets)
    own = targets.long() * samples + torch.arange(samples, device=targets.device)
    flat = logits.view(*logits.shape[:-2], -1)  # picking from it takes half the time of `gather`
    losses = torch.log_softmax(logits, -2).view_as(flat).index_select(-1, own).neg_()
    own_logits = flat.index_select(-1, own)
    flat.index_fill_(-1, own, -torch.inf)
    return losses, own_logits > logits.amax(-2)


def scorer(loss: Loss, targets: Tensor) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What makes losses (n,), and the share of each sample that is right, of outputs (..., n) and
    targets like these.

    Outputs have the samples last, and may be overwritten. `score` for the cross-entropy of classes.
    """
    if loss.is_plain(targets):
        return score

    def of_outputs(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        outputs = outputs.movedim(-1, 0)
        losses = loss.of_samples(outputs, targets).detach()
        if loss.right is None:
            return losses, torch.full_like(losses, torch.nan)
        return losses, loss.right(outputs, targets)

    return of_outputs


def sample_logits(objective: Objective, theta: Tensor) -> Tensor:
    """The network's outputs (classes, N) at theta (P,), or (..., N)."""
    parameters = unflatten(theta.to(objective.device, objective.dtype), objective.layout)
    inputs, _ = zip(*objective.blocks, strict=True)
    with torch.no_grad(), slow_path():
        logits = functional_call(
            _Blockwise(objective.model),
            {f"model.{name}": part for name, part in parameters.items()},
            (inputs,),
        )
        return logits.movedim(0, -1).contiguous()


def sample_losses(objective: Objective, theta: Tensor) -> tuple[Tensor, Tensor]:
    """The loss (N,) of each sample at theta (P,), and whether it is classified right.

    Of samples with several classes, the share that is right; NaN where there are no classes.
    """
    targets = objective.targets
    return scorer(objective.loss, targets)(sample_logits(objective, theta), targets)


class _Blockwise(nn.Module):
    """A network that takes its blocks in one call: theta is put in its place once for all."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, blocks: tuple[Tensor, ...]) -> Tensor:
        with calibrated_once(self.model):
            return torch.cat([self.model(x) for x in blocks])


def summarise(losses: Tensor, correct: Tensor) -> dict[str, np.ndarray]:
    """Arrays (M,) under the names of `Evaluation`, of losses (M, N) and whether right (M, N).

    Infinite and NaN losses are returned as they are; with a NaN loss the accuracy is NaN too.
    """
    loss, loss_se = mean_and_error(losses)
    accuracy = correct.double().mean(-1).cpu().numpy()
    return {
        "loss": loss,
        "loss_se": loss_se,
        "accuracy": np.where(np.isnan(loss), np.nan, accuracy),
    }


def mean_and_error(values: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Means of values (..., N) and their standard errors s / sqrt(N), summed in float64.

    s^2 is the unbiased variance; the error of one value is NaN.
    """
    count = values.shape[-1]
    mean = values.sum(-1, keepdim=True, dtype=torch.float64) / count
    deviation = torch.linalg.vector_norm(values - mean, dim=-1)
    error = deviation / math.sqrt(count * (count - 1)) if count > 1 else deviation * torch.nan
    return mean.squeeze(-1).cpu().numpy(), error.cpu().numpy()


def evaluate(objective: Objective, theta: Tensor) -> Evaluation:
    """Loss, standard error and accuracy at theta (P,); all NaN where theta is not finite."""
    if not torch.isfinite(theta).all():
        return Evaluation(math.nan, math.nan, math.nan)
    losses, correct = sample_losses(objective, theta)
    return Evaluation(*(float(v) for v in summarise(losses, correct).values()))


def evaluate_many(objective: Objective, thetas: Iterable[Tensor]) -> dict[str, np.ndarray]:
    """`evaluate` at each of M thetas: arrays (M,) under `loss`, `loss_se` and `accuracy`."""
    rows = np.array([evaluate(objective, theta) for theta in thetas]).reshape(-1, 3)
    return dict(zip(Evaluation._fields, rows.T, strict=True))


def leaves_of(objective: Objective, theta: Tensor) -> dict[str, Tensor]:
    """theta (P,) as named tensors to differentiate by."""
    named = unflatten(theta.to(objective.device, objective.dtype), objective.layout)
    return {name: part.clone().requires_grad_() for name, part in named.items()}


def loss_of_block(
    objective: Objective,
    parameters: dict[str, Tensor],
    inputs: Tensor,
    targets: Tensor,
    weights: Tensor | None = None,
) -> Tensor:
    """This block's share of L, differentiable: the sum of its samples' losses divided by N.

    `weights` (n,) take the place of 1 / N.
    """
    outputs = functional_call(objective.model, parameters, (inputs,))
    if weights is None:
        return total(objective.loss, outputs, targets) / objective.samples
    return objective.loss.of_samples(outputs, targets) @ weights
