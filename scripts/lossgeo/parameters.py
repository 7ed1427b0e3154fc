"""The flat parameter vector theta and the named tensors of a model, two views of one thing.

theta holds what is trained: parameters with `requires_grad=False` are constants of the model.
"""

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Layout:
    """Names and shapes of the tensors of a model's P trained parameters, in theta's order."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def size(self) -> int:
        """P, the length of theta."""
        return sum(self.sizes)


NONE = Layout((), ())


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters that are not frozen (requires_grad), by name; tied ones once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def copy_of(model: nn.Module, shared: Mapping[int, Tensor] | None = None) -> nn.Module:
    """A deep copy, also of tensors that were computed from parameters (hooks keep some).

    It shares the tensors in `shared`, by their `id`.
    """
    computed = {
        id(value): value.detach().clone()
        for module in model.modules()
        for value in vars(module).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    return copy.deepcopy(model, computed | dict(shared or {}))


def layout_of(model: nn.Module) -> Layout:
    """The layout of the model's trained parameters, in the order of `named_parameters()`."""
    named = trained(model)
    return Layout(tuple(named), tuple(tuple(p.shape) for p in named.values()))


def join(parts: Iterable[Tensor]) -> Tensor:
    """One vector (P,) of tensors in the layout's order."""
    return torch.cat([part.reshape(-1) for part in parts])


def flatten(model: nn.Module) -> Tensor:
    """theta (P,), a detached copy of the model's trained parameters."""
    return join(p.detach() for p in trained(model).values())


def unflatten(theta: Tensor, layout: Layout) -> dict[str, Tensor]:
    """Named views into theta (P,), ready for `torch.func.functional_call`.

    Raises ValueError where theta does not have P elements.
    """
    if theta.shape != (layout.size,):
        raise ValueError(f"theta has shape {tuple(theta.shape)}, the layout needs ({layout.size},)")
    parts = torch.split(theta, layout.sizes)
    return {
        name: part.view(shape)
        for name, part, shape in zip(layout.names, parts, layout.shapes, strict=True)
    }


def put(model: nn.Module, theta: Tensor) -> None:
    """Copy theta (P,) into the model's trained parameters, which stay where they are."""
    with torch.no_grad():
        parts = unflatten(theta, layout_of(model)).values()
        for parameter, part in zip(trained(model).values(), parts, strict=True):
            parameter.copy_(part)


def string_together(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Make what is trained views of one vector, and the gradients views of another: both (P,).

    The gradients are zero. What is written into the first is the network's from then on, and
    backward passes add to the second, in one piece however many layers there are. Each parameter
    keeps its strides, so the kernels are the same. Where these are not those of a contiguous tensor
    (`models.memory_format`), the order within its part of the vectors is not that of theta.
    """
    layout = layout_of(model)
    theta = flatten(model)
    vectors = theta, torch.zeros_like(theta)
    parts = zip(*(vector.split(layout.sizes) for vector in vectors), strict=True)
    for parameter, (values, gradients) in zip(trained(model).values(), parts, strict=True):
        strides = parameter.shape, parameter.stride()
        values = values.as_strided(*strides, values.storage_offset()).copy_(parameter.detach())
        parameter.data = values
        parameter.grad = gradients.as_strided(*strides, gradients.storage_offset())
    return vectors
