"""The loss as a function of a part of theta, the rest staying where it is."""

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from lossgeo.models import ModelError
from lossgeo.objective import Objective
from lossgeo.parameters import Layout, copy_of, put, trained


def match(layout: Layout, patterns: Sequence[str]) -> list[str]:
    """The names of the parameters that one of the patterns matches, in theta's order.

    Patterns are those of a shell: `blocks.*`, `*.weight`. Raises ModelError for one that matches
    none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in layout.names):
            raise ModelError(
                f"no parameter matches {pattern!r}; expected a pattern (blocks.*) of some of: "
                f"{', '.join(layout.names)}"
            )
    return [n for n in layout.names if any(fnmatchcase(n, pattern) for pattern in patterns)]


def places(layout: Layout, names: Sequence[str]) -> Tensor:
    """Where in theta (P,) the parameters of these names are: (Q,) int64, ascending."""
    sizes = zip(layout.names, layout.sizes, strict=True)
    chosen = [torch.full((size,), name in names) for name, size in sizes]
    return torch.cat(chosen).nonzero().squeeze(1)


def part_of(
    objective: Objective, theta: Tensor, patterns: Sequence[str]
) -> tuple[Objective, Tensor]:
    """The objective as a function of some parameters alone, and what theta (P,) has of them: (Q,).

    The other parameters are constants of it, at their values in theta. Its Hessian is the diagonal
    block of those chosen, its random directions are normalised to them alone. Raises ModelError
    where a pattern matches no parameter.
    """
    names = match(objective.layout, patterns)
    model = copy_of(objective.model)
    put(model, theta)
    for name, parameter in trained(model).items():
        parameter.requires_grad_(name in names)
    shapes = dict(zip(objective.layout.names, objective.layout.shapes, strict=True))
    layout = Layout(tuple(names), tuple(shapes[name] for name in names))
    part = theta[places(objective.layout, names).to(theta.device)]
    return replace(objective, model=model, layout=layout), part


def layers(model: nn.Module) -> dict[str, list[str]]:
    """Layer -> the names of its trained parameters: a layer is the module that owns them.

    In the order of theta. A model's own parameters are a layer of the empty name; tied parameters
    belong to the first module that has them.
    """
    owned: dict[str, list[str]] = {}
    for name in trained(model):
        owned.setdefault(name.rpartition(".")[0], []).append(name)
    return owned
