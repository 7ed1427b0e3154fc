"""Whether two networks are the same function: their predictions and hidden representations."""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from lossgeo.chain import find_chain
from lossgeo.objective import Objective
from lossgeo.parameters import unflatten


class Similarity(NamedTuple):
    """A number, and its standard error over the samples."""

    value: float
    se: float


def disagreement(logits_a: Tensor, logits_b: Tensor) -> Similarity:
    """Share of the samples that two networks classify differently: logits (classes, N) of each.

    Its error is that of a mean of N draws of 0 or 1. NaN where an output is not finite.
    """
    differ = (logits_a.argmax(0) != logits_b.argmax(0)).double()
    if not (torch.isfinite(logits_a).all() and torch.isfinite(logits_b).all()):
        differ = differ * torch.nan
    return Similarity(float(differ.mean()), _error(differ))


@torch.no_grad()
def hidden_activations(objective: Objective, theta: Tensor) -> Tensor | None:
    """What the output layer of a chain reads at theta (P,), (N, features) in float64.

    None for any other network, and for one without a hidden layer.
    """
    links = find_chain(objective.model)
    if not links:
        return None
    parts = unflatten(theta.to(objective.device, objective.dtype), objective.layout)
    blocks = [inputs for inputs, _ in objective.blocks]
    for name, layer in objective.model._modules.items():
        if name == links[-1].second:
            break
        own = {key: parts[f"{name}.{key}"] for key, _ in layer.named_parameters()}
        blocks = [functional_call(layer, own, (x,)) for x in blocks]
    return torch.cat([x.flatten(1) for x in blocks]).double()


def linear_cka(x: Tensor, y: Tensor) -> Similarity:
    """Linear centred kernel alignment of features x (N, d1) and y (N, d2), Kornblith et al. 2019.

    CKA = ||C_xy||_F^2 / (||C_xx||_F ||C_yy||_F), where C are the covariances over the samples: 1
    for features that are the same up to rotation, scale and shift. Few samples of many features
    bias it upwards, also for unrelated ones: see `debiased_cka`.

    The error is to first order: each sample moves C_xy by (x_i - mean)(y_i - mean)' - C_xy.
    """
    x, y = _centred(x), _centred(y)
    norms, moves = [], []
    for p, q in ((x, y), (x, x), (y, y)):
        covariance = p.T @ q / len(p)
        norm = float(covariance.square().sum())
        norms.append(norm)
        moves.append(2 * (((p @ covariance) * q).sum(1) - norm) / norm)
    cross, own = norms[0], math.sqrt(norms[1] * norms[2])
    cka = cross / own if own else math.nan
    return Similarity(cka, _error(cka * (moves[0] - (moves[1] + moves[2]) / 2)))


def debiased_cka(x: Tensor, y: Tensor) -> Similarity:
    """`linear_cka` with each of its three terms estimated without bias from the N samples.

    By the unbiased HSIC of Song et al. 2012, of the kernels K = xx' and L = yy' without their
    diagonals,

        HSIC = [tr KL + 1'K1 1'L1 / ((N-1)(N-2)) - 2 1'KL1 / (N-2)] / (N(N-3)),

    as in Nguyen et al. 2021: about 0 for unrelated features (also below). Its error is taken to be
    that of `linear_cka`, from which it differs by terms of order 1 / N. NaN for N < 4.
    """
    x, y = _centred(x), _centred(y)
    cross, own = _hsic(x, y), _hsic(x, x) * _hsic(y, y)
    value = cross / math.sqrt(own) if own > 0 else math.nan
    return Similarity(value, linear_cka(x, y).se)


def unit_correlation(x: Tensor, y: Tensor) -> Similarity:
    """Mean over the units of the correlation of unit i of x (N, d) with unit i of y (N, d).

    It is what an alignment raises, and CKA cannot see. Units that are constant in either are left
    out; NaN where none is left. The error is to first order: with z standardised, a sample moves a
    correlation r by z_x z_y - r (z_x^2 + z_y^2) / 2.
    """
    x, y = _centred(x), _centred(y)
    norms = x.square().mean(0).sqrt(), y.square().mean(0).sqrt()
    alive = ~((norms[0] == 0) | (norms[1] == 0))  # NaN is alive
    x, y = x[:, alive] / norms[0][alive], y[:, alive] / norms[1][alive]
    r = (x * y).mean(0)
    moves = x * y - r * (x.square() + y.square()) / 2
    return Similarity(float(r.mean()), _error(moves.mean(1)))


def _centred(x: Tensor) -> Tensor:
    x = x.double()
    return x - x.mean(0)


def _hsic(x: Tensor, y: Tensor) -> float:
    """The unbiased HSIC of centred features, of which no kernel (N, N) is needed.

    As the features of all samples add up to 0, a row of K without its diagonal adds up to -|x_i|^2.
    """
    n = len(x)
    if n < 4:
        return math.nan
    squares_x, squares_y = x.square().sum(1), y.square().sum(1)
    both = float(squares_x @ squares_y)
    trace = float((x.T @ y).square().sum()) - both
    sums = float(squares_x.sum() * squares_y.sum())
    return (trace + sums / ((n - 1) * (n - 2)) - 2 * both / (n - 2)) / (n * (n - 3))


def _error(moves: Tensor) -> float:
    """The standard error of a mean from what each of N samples adds to it."""
    return float(moves.std()) / math.sqrt(len(moves))
