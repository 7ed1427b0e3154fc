"""Rescalings of hidden units that leave a network's function as it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lossgeo.models import MaxPool
from lossgeo.parameters import Layout, unflatten
from lossgeo.span import ELEMENTWISE

POOLING = (MaxPool, nn.MaxPool2d, nn.AvgPool2d)

# f(c x) = c f(x) for every c > 0; dropout is the identity in evaluation mode
HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.Flatten, *POOLING)


@dataclass(frozen=True)
class Link:
    """Two consecutive layers with parameters of an `nn.Sequential`, and the hidden units between.

    A unit is a row (output channel) of the first layer's weight and an entry of its bias; the
    second layer reads it from `block` consecutive columns (from an input channel): more than one
    where a flatten strings up the pixels of each channel.
    """

    first: str  # name of the layer whose outputs the units are
    second: str  # name of the layer that reads them
    units: int
    block: int
    between: tuple[type[nn.Module], ...]  # types of the layers without parameters between the two


def find_chain(model: nn.Module) -> list[Link] | None:
    """The links of a network that is a chain, first to last, or None for any other.

    A chain is an `nn.Sequential` of `nn.Linear`, `nn.Conv2d` without groups, max- and
    average-pooling, `nn.Flatten` of all but the samples, and elementwise layers, in an order in
    which every layer reads what the one before it gives; no parameters are shared and no layer
    has hooks. Permuting or rescaling the units of a link concerns its two layers alone.
    """
    if type(model) is not nn.Sequential or any(
        m._forward_hooks or m._forward_pre_hooks for m in model.modules()
    ):
        return None
    if len(list(model.named_parameters(remove_duplicate=False))) != len(list(model.parameters())):
        return None
    links, between = [], []
    last: tuple[str, nn.Module] | None = None
    flat = False  # whether activations are (n, features), not (n, channels, height, width)
    for name, layer in model._modules.items():  # named_children() leaves out what comes twice
        if type(layer) in (nn.Linear, nn.Conv2d):
            if isinstance(layer, nn.Linear) != flat or getattr(layer, "groups", 1) != 1:
                return None
            if last is not None:
                units, columns = last[1].weight.shape[0], layer.weight.shape[1]
                if columns % units:
                    return None
                links.append(Link(last[0], name, units, columns // units, tuple(between)))
            last, between = (name, layer), []
            continue
        if type(layer) is nn.Flatten and (layer.start_dim, layer.end_dim) == (1, -1):
            flat = True
        elif not (type(layer) in ELEMENTWISE or (type(layer) in POOLING and not flat)):
            return None
        between.append(type(layer))
    return links


def find_rescalable(model: nn.Module) -> list[Link] | None:
    """The model's chain where every layer between is positively homogeneous, or None.

    Then a unit's weights times c > 0, and what reads it divided by c, leave the function as it is.
    None also where there is no hidden layer to rescale.
    """
    links = find_chain(model)
    if not links or any(set(link.between) - set(HOMOGENEOUS) for link in links):
        return None
    return links


def rescale(
    theta: Tensor, layout: Layout, links: Sequence[Link], factors: Sequence[Tensor]
) -> Tensor:
    """theta (P,) with every hidden unit scaled by a factor of its own, the function unchanged.

    `factors` holds c (units,), all positive, for each link. The unit's incoming weights and bias
    are multiplied by c, the columns that read it divided by c. One c for all units of a link is the
    layer-wise rescaling of Dinh et al. 2017; c per unit is node-wise (Neyshabur et al. 2015).
    """
    theta = theta.clone()
    parts = unflatten(theta, layout)
    for link, c in zip(links, factors, strict=True):
        c = c.to(theta)
        rows = parts[f"{link.first}.weight"]
        rows.mul_(c.view(-1, *[1] * (rows.ndim - 1)))
        if f"{link.first}.bias" in parts:
            parts[f"{link.first}.bias"].mul_(c)
        columns = parts[f"{link.second}.weight"]
        columns.div_(c.repeat_interleave(link.block).view(-1, *[1] * (columns.ndim - 2)))
    return theta


def layer_factors(links: Sequence[Link], factor: float) -> list[Tensor]:
    """The same c = factor for all hidden units."""
    return [torch.full((link.units,), factor, dtype=torch.float64) for link in links]


def node_factors(
    links: Sequence[Link], factor: float, *, generator: torch.Generator
) -> list[Tensor]:
    """A random c for each hidden unit, log-uniform between 1 / factor and factor."""
    uniform = [torch.rand(link.units, generator=generator, dtype=torch.float64) for link in links]
    return [factor ** (2 * u - 1) for u in uniform]
