"""The straight line between two networks with the statistics of their activations restored."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lossgeo.chain import find_chain
from lossgeo.objective import Objective
from lossgeo.parameters import unflatten

Statistics = tuple[Tensor, Tensor]  # means and standard deviations (units,), float64


def can_renormalise(model: nn.Module) -> bool:
    """Whether the model is a chain with hidden layers, each of which has a bias."""
    links = find_chain(model)
    if not links:
        return False
    return all(getattr(model, link.first).bias is not None for link in links)


def renormalised(
    objective: Objective, theta_a: Tensor, theta_b: Tensor, t: np.ndarray
) -> list[Tensor]:
    """REPAIR (Jordan et al. 2023): T thetas (P,) on the line at t (T,), activations restored.

    Between two networks, even aligned ones, the activations of the averaged weights vary less over
    the samples than at the ends, the more so the deeper the layer, and the loss rises for that
    alone. So at each t the pre-activation z of every hidden unit gets the mean and the standard
    deviation over the objective's samples (and the pixels, of a convolution) that lie between those
    of the ends, mu* = (1 - t) mu_a + t mu_b and sigma* = (1 - t) sigma_a + t sigma_b, layer by
    layer from the first: a layer's own mu and sigma are those with the layers before it restored.
    This is folded into weight and bias,

        w' = w sigma* / sigma,  b' = (b - mu) sigma* / sigma + mu*.

    At t = 0 and 1 the thetas are the ends themselves. A unit that is constant on the samples has no
    sigma to restore, and gets the mean alone. What is left of a barrier is no loss of variance.

    Raises ValueError for a network that `can_renormalise` refuses.
    """
    if not can_renormalise(objective.model):
        raise ValueError("renormalisation needs a chain of layers, the hidden ones with biases")
    ends = [theta.to(objective.device, objective.dtype) for theta in (theta_a, theta_b)]
    if not all(torch.isfinite(end).all() for end in ends):
        return [end * torch.nan for end in ends[:1] * len(t)]
    of_a, of_b = (_restored(objective, end, None)[1] for end in ends)
    points = []
    for value in map(float, t):
        if value in (0.0, 1.0):
            points.append(ends[int(value)].clone())
            continue
        wanted = [
            tuple((1 - value) * p + value * q for p, q in zip(a, b, strict=True))
            for a, b in zip(of_a, of_b, strict=True)
        ]
        theta = (1 - value) * ends[0] + value * ends[1]
        points.append(_restored(objective, theta, wanted)[0])
    return points


@torch.no_grad()
def _restored(
    objective: Objective, theta: Tensor, wanted: list[Statistics] | None
) -> tuple[Tensor, list[Statistics]]:
    """theta with the wanted statistics of each hidden layer, and the statistics it had before.

    Goes through the layers once, all samples side by side: what a layer reads is kept, what it
    gives is computed twice, for its statistics and, restored, for the next one.
    """
    theta = theta.clone()
    parts = unflatten(theta, objective.layout)
    hidden = [link.first for link in find_chain(objective.model)]
    found = []
    blocks = [inputs for inputs, _ in objective.blocks]
    for name, layer in objective.model._modules.items():
        own = {key: parts[f"{name}.{key}"] for key, _ in layer.named_parameters()}
        if name in hidden:
            mean, deviation = _statistics(functional_call(layer, own, (x,)) for x in blocks)
            found.append((mean, deviation))
            if wanted is not None:
                _fold(own["weight"], own["bias"], (mean, deviation), wanted[len(found) - 1])
            if len(found) == len(hidden):
                return theta, found
        blocks = [functional_call(layer, own, (x,)) for x in blocks]
    raise AssertionError("a chain ends after its hidden layers")


def _statistics(blocks: Iterable[Tensor]) -> Statistics:
    """Means and standard deviations over samples and pixels of blocks (n, units, ...).

    Deviations are squared from each block's own mean, and put together in float64.
    """
    sizes, means, variances = [], [], []
    for z in blocks:
        z = z.movedim(1, -1).flatten(0, -2)  # (n pixels, units), as it lies in memory
        mean = z.mean(0)
        sizes.append(len(z))
        means.append(mean.double())
        variances.append((z - mean).square_().mean(0).double())  # `var` takes ten times as long
    shares = torch.tensor(sizes, dtype=torch.float64, device=means[0].device) / sum(sizes)
    each = torch.stack(means)
    mean = shares @ each
    variance = shares @ (torch.stack(variances) + (each - mean).square())
    return mean, variance.sqrt()


def _fold(weight: Tensor, bias: Tensor, found: Statistics, wanted: Statistics) -> None:
    """Give the units of a layer the wanted statistics in place of those that were found."""
    (mean, deviation), (mean_wanted, deviation_wanted) = found, wanted
    varies = deviation > 10 * torch.finfo(weight.dtype).eps * mean.abs()  # more than by rounding
    scale = torch.where(varies, deviation_wanted / deviation, 1.0)
    bias.copy_((bias - mean) * scale + mean_wanted)
    weight.mul_(scale.to(weight).view(-1, *[1] * (weight.ndim - 1)))
