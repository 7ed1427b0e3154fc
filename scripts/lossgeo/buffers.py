"""The state of a model outside theta: its buffers, and the running statistics among them.

What a forward pass in training mode leaves as it is (positions, masks) is a constant of the model.
What it changes are running statistics, such as those of batch normalisation: the loss is a function
of theta alone only once it is said which ones are meant. They are

- `frozen`: those that training left at the point, constants of the loss; between two points they
  are interpolated as theta is;
- `recalibrated`: computed anew at each theta on one fixed batch, see `recalibration`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lossgeo.models import ModelError
from lossgeo.parameters import Layout, copy_of, join, unflatten

MODES = ("frozen", "recalibrated")


def changed_by_training(model: nn.Module, inputs: Tensor) -> list[str]:
    """The names of the buffers that a forward pass in training mode on inputs (n, ...) changes.

    It is tried on a copy. The caller's random state is left as it was.
    """
    before = dict(model.named_buffers())
    if not before:
        return []
    tried = copy_of(model).train()
    parameter = next(tried.parameters())
    inputs = inputs.to(parameter.device, parameter.dtype if inputs.is_floating_point() else None)
    cuda = [parameter.device] if parameter.is_cuda else []
    with torch.random.fork_rng(devices=cuda), torch.no_grad():
        tried(torch.cat([inputs, inputs])[: max(2, len(inputs))])
    return [name for name, b in tried.named_buffers() if not torch.equal(b, before[name])]


def running_statistics(model: nn.Module, inputs: Tensor, mode: str | None) -> Layout:
    """Names and shapes of the model's running statistics, the B numbers that `mode` is about.

    Counters of batch normalisation (`num_batches_tracked`) are left out: no evaluation reads them.
    Raises ModelError where there are running statistics and no `mode`; or some that the mode cannot
    keep; or a layer that has none, so that a sample's outputs depend on those beside it.
    """
    changed = changed_by_training(model, inputs)
    modules = dict(model.named_modules())
    layers = {name: layer for name, layer in modules.items() if isinstance(layer, _BatchNorm)}
    untracked = [name for name, layer in layers.items() if layer.running_mean is None]
    if mode is not None and mode not in MODES:
        raise ModelError(f"statistics is {mode!r}, expected one of {', '.join(MODES)}")
    if untracked and mode != "recalibrated":
        raise ModelError(
            f"{untracked[0]} normalises by the batch in evaluation too (track_running_stats is "
            "False), so that a sample's outputs depend on the others; expected statistics: "
            "recalibrated (computed at each theta on one fixed batch)"
        )
    if changed and mode is None:
        raise ModelError(
            f"the model has running statistics ({', '.join(changed[:3])}), which are state that "
            "theta does not hold; say which are meant, by statistics: frozen (those that training "
            "left at a point, interpolated between two) or statistics: recalibrated (computed at "
            "each theta on one fixed batch)"
        )
    named = {name: buffer for name, buffer in model.named_buffers() if name in changed}
    floating = {name: buffer for name, buffer in named.items() if buffer.is_floating_point()}
    counters = {f"{name}.num_batches_tracked" for name in layers}
    kept = set(floating) | {name.removeprefix(".") for name in counters}
    if others := [name for name in named if name not in kept]:
        raise ModelError(
            f"training changes the buffer {others[0]} ({named[others[0]].dtype}), expected running "
            "statistics to be floating point"
        )
    if mode == "recalibrated":
        known = {name for name in floating if name.rpartition(".")[0] in layers}
        if others := [name for name in floating if name not in known]:
            raise ModelError(
                f"training changes the buffer {others[0]}, which is not of batch normalisation and "
                "cannot be recalibrated; expected statistics: frozen"
            )
    return Layout(tuple(floating), tuple(tuple(buffer.shape) for buffer in floating.values()))


def has_batch_normalisation(model: nn.Module) -> bool:
    """Whether a layer of the model normalises by mean and variance of a batch."""
    return any(isinstance(layer, _BatchNorm) for layer in model.modules())


def read(model: nn.Module, layout: Layout) -> Tensor | None:
    """The model's running statistics (B,), a copy; None where it has none."""
    named = dict(model.named_buffers())
    return join(named[name].detach() for name in layout.names) if layout.names else None


def write(model: nn.Module, layout: Layout, statistics: Tensor) -> None:
    """Copy running statistics (B,) into the model."""
    named = dict(model.named_buffers())
    for name, part in unflatten(statistics, layout).items():
        named[name].copy_(part)


def count_batches(model: nn.Module, batches: int) -> None:
    """Let batch normalisation go on as if it had seen so many batches.

    It matters where `momentum` is None: each batch then weighs one over their number.
    """
    for layer in model.modules():
        if isinstance(layer, _BatchNorm) and layer.num_batches_tracked is not None:
            layer.num_batches_tracked.fill_(batches)


def copy_with(model: nn.Module, layout: Layout, statistics: Tensor) -> nn.Module:
    """A copy of the model with other running statistics (B,); it shares the parameters."""
    shared = {id(parameter): parameter for parameter in model.parameters()}
    changed = copy_of(model, shared)
    write(changed, layout, statistics)
    return changed


def along(layout: Layout, vectors: Sequence[Tensor], statistics: Sequence[Tensor | None]) -> list:
    """Vectors (P,) with the running statistics (B,) of each strung behind them: (P + B,)."""
    if not layout.names:
        return list(vectors)
    return [torch.cat([v, b.to(v)]) for v, b in zip(vectors, statistics, strict=True)]
