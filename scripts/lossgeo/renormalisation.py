"""Straight lines whose hidden units keep the spread that they have at the ends (REPAIR).

Halfway between two networks the pre-activations of a unit are means of two that are hardly
correlated, and so vary less over the samples than at either end; layer by layer the signal dies
away. Jordan et al. 2023 ("REPAIR: REnormalizing Permuted Activations for Interpolation Repair")
give every hidden unit the mean and standard deviation back that lie between those of the ends.
"""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lossgeo.chain import find_chain
from lossgeo.numerics import root
from lossgeo.objective import Objective
from lossgeo.parameters import unflatten

CHUNK = 2**16  # numbers whose float64 copies, for sums, fit the CPU's cache


class Moments(NamedTuple):
    """Of each unit's pre-activation over all samples (and places, after a convolution), float64."""

    mean: Tensor  # (units,)
    variance: Tensor  # (units,) mean squared deviation; 0 for a unit that is constant


def can_renormalise(model: nn.Module) -> bool:
    """Whether the model is a chain (`chain.find_chain`) whose hidden layers all have a bias."""
    return _obstacle(model) is None


def hidden_moments(objective: Objective, theta: Tensor) -> list[Moments]:
    """The moments of every hidden layer's units at theta (P,), first layer to last.

    Raises ValueError, with the reason, for a model that cannot be renormalised.
    """
    hidden, inputs = _hidden_layers(objective)
    return _walk(hidden, inputs, _parts_of(objective, theta))


def renormalised(
    objective: Objective, theta_a: Tensor, theta_b: Tensor, t: np.ndarray
) -> list[Tensor]:
    """The points of the straight line at t (T,), renormalised: T vectors theta (P,).

    Between the ends every hidden unit's pre-activation has, over the objective's samples, the mean
    mu* = (1 - t) mu_a + t mu_b and the standard deviation s* = (1 - t) s_a + t s_b. The correction
    is folded into the layer's parameters, w <- w s*/s and b <- (b - mu) s*/s + mu*, with the mu and
    s that are measured when all layers before are corrected. A unit that is constant to rounding
    (s^2 below 16 eps s*^2) keeps its weights. At t = 0 and 1 the points are the ends bit for bit;
    between them all are NaN where an end is not finite.

    The pre-activations of the first layer are linear in theta. Their moments on the whole line
    follow from those at the ends and of the difference: the variance at t is
    (1 - t) s_a^2 + t s_b^2 - t (1 - t) Var(z_a - z_b). What a hidden layer reads of all samples is
    kept in memory.

    Raises ValueError, with the reason, for a model that cannot be renormalised.
    """
    hidden, inputs = _hidden_layers(objective)
    known = {0.0: theta_a, 1.0: theta_b}
    if not (torch.isfinite(theta_a).all() and torch.isfinite(theta_b).all()):
        return [known.get(float(s), theta_a * torch.nan).clone() for s in t]
    ends = [_walk(hidden, inputs, _parts_of(objective, theta)) for theta in (theta_a, theta_b)]
    (difference,) = _walk(hidden[:1], inputs, _parts_of(objective, theta_b - theta_a))

    def point(s: float) -> Tensor:
        if s in known:
            return known[s].clone()
        theta = (1 - s) * theta_a + s * theta_b
        wanted = [_between(a, b, s) for a, b in zip(*ends, strict=True)]
        first = _on_line(*(end[0] for end in ends), difference, s)
        corrected = theta.to(objective.device, objective.dtype)
        _walk(hidden, inputs, unflatten(corrected, objective.layout), wanted, first)
        return corrected.to(theta)

    return [point(float(s)) for s in t]


class _Hidden(NamedTuple):
    """A layer of hidden units, and the layers without parameters that follow it."""

    name: str
    layer: nn.Module
    rest: nn.Sequential

    def __call__(self, parts: dict[str, Tensor], x: Tensor) -> Tensor:
        """The pre-activations (n, units, ...)."""
        own = {name: parts[f"{self.name}.{name}"] for name in ("weight", "bias")}
        return functional_call(self.layer, own, (x,))


def _obstacle(model: nn.Module) -> str | None:
    """Why a model cannot be renormalised."""
    links = find_chain(model)
    if links is None:
        return "it is no chain of layers (chain.find_chain)"
    if not links:
        return "it has no hidden layer"
    without = [link.first for link in links if model.get_submodule(link.first).bias is None]
    return f"no bias in {', '.join(without)}" if without else None


def _hidden_layers(objective: Objective) -> tuple[list[_Hidden], list[Tensor]]:
    """The model's hidden layers, and what the first of them reads of each block."""
    obstacle = _obstacle(objective.model)
    if obstacle is not None:
        raise ValueError(f"the network cannot be renormalised: {obstacle}")
    links, names = find_chain(objective.model), list(objective.model._modules)
    at = [names.index(name) for name in (*(link.first for link in links), links[-1].second)]
    hidden = [
        _Hidden(names[i], objective.model[i], objective.model[i + 1 : j]) for i, j in pairwise(at)
    ]
    with torch.no_grad():  # of copies, because layers may write into what they read
        return hidden, [objective.model[: at[0]](x.clone()) for x, _ in objective.blocks]


def _parts_of(objective: Objective, theta: Tensor) -> dict[str, Tensor]:
    return unflatten(theta.to(objective.device, objective.dtype), objective.layout)


def _walk(
    hidden: Sequence[_Hidden],
    inputs: Sequence[Tensor],
    parts: dict[str, Tensor],
    wanted: Sequence[Moments] | None = None,
    first: Moments | None = None,
) -> list[Moments]:
    """The moments of each hidden layer; with `wanted`, `parts` are rewritten to have those.

    A layer's outputs are computed twice, for their moments and then for the next layer, because
    they take more memory than what either layer reads. Of the first they may be known.
    """
    inputs, found = list(inputs), []
    with torch.no_grad():
        for k, of in enumerate(hidden):
            if k == 0 and first is not None:
                found.append(first)
            else:
                found.append(_moments(of(parts, x) for x in inputs))
            if wanted is not None:
                _fold(parts[f"{of.name}.weight"], parts[f"{of.name}.bias"], found[k], wanted[k])
            if k + 1 < len(hidden):
                for i, x in enumerate(inputs):  # one by one, so that these are freed
                    inputs[i] = of.rest(of(parts, x))
    return found


def _moments(outputs: Iterable[Tensor]) -> Moments:
    """Moments of a layer's outputs (n, units, ...), block after block.

    Sums are of differences to the very first output, so that those of a constant are exactly 0.
    """
    count, pivot, total, squares = 0, 0.0, 0.0, 0.0
    for z in outputs:
        rows = z.movedim(1, -1).reshape(-1, z.shape[1])  # no copy of channels_last
        if not count:
            pivot = rows[0].double()
        count += len(rows)
        for part in rows.split(max(1, CHUNK // rows.shape[1])):
            differences = part.to(torch.float64, copy=True).sub_(pivot)
            total = total + differences.sum(0)
            squares = squares + differences.square_().sum(0)
    shift = total / count
    return Moments(pivot + shift, (squares / count - shift.square()).clamp_(min=0))


def _between(a: Moments, b: Moments, t: float) -> Moments:
    deviation = (1 - t) * root(a.variance) + t * root(b.variance)
    return Moments((1 - t) * a.mean + t * b.mean, deviation.square())


def _on_line(a: Moments, b: Moments, difference: Moments, t: float) -> Moments:
    """The moments of (1 - t) z_a + t z_b, from those of z_a, z_b and of their difference."""
    variance = (1 - t) * a.variance + t * b.variance - t * (1 - t) * difference.variance
    return Moments((1 - t) * a.mean + t * b.mean, variance.clamp_(min=0))


def _fold(weight: Tensor, bias: Tensor, found: Moments, wanted: Moments) -> None:
    """Give a layer's outputs the wanted moments, by its weight and bias, in place."""
    rounding = 16 * torch.finfo(weight.dtype).eps * wanted.variance
    varies = found.variance > rounding
    scale = torch.where(varies, root(wanted.variance / found.variance), 1.0)
    shifted = (bias.double() - found.mean) * scale + wanted.mean
    weight.copy_(weight.double() * scale.view(-1, *[1] * (weight.ndim - 1)))
    bias.copy_(shifted)
