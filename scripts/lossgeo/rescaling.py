"""Rescalings of hidden units that leave a network's function as it is."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lossgeo.chain import POOLING, Link, find_chain
from lossgeo.parameters import Layout, unflatten

# f(c x) = c f(x) for every c > 0; dropout is the identity in evaluation mode
HOMOGENEOUS = (nn.ReLU, nn.LeakyReLU, nn.Identity, nn.Dropout, nn.Flatten, *POOLING)


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
