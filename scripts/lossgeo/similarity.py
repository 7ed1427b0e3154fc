"""Are two networks the same function? Their predictions and hidden activations on the same samples.

Activations x are (N, d): a row for each sample, a column for each hidden unit. Everything is in
float64, and NaN where an input is not finite.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import functional_call

from lossgeo.chain import find_chain
from lossgeo.numerics import root
from lossgeo.objective import Objective, mean_and_error
from lossgeo.parameters import unflatten


class Similarity(NamedTuple):
    """A number, and its standard error over the N samples."""

    value: float
    se: float


class UnitCorrelation(NamedTuple):
    """A mean correlation over units, its standard error over the N samples, and their number."""

    value: float
    se: float
    units: int  # that vary in both networks


def disagreement(logits_a: Tensor, logits_b: Tensor) -> Similarity:
    """The share of N samples whose predicted class, from logits (classes, N), is not the same.

    Of equal logits the first counts as predicted. The error is that of a share p,
    sqrt(p (1 - p) / (N - 1)), and so 0 where all samples agree.
    """
    _check_samples(logits_a, logits_b, -1)
    differ = (logits_a.argmax(0) != logits_b.argmax(0)).double()
    differ[(logits_a.isnan() | logits_b.isnan()).any(0)] = torch.nan
    return Similarity(*map(float, mean_and_error(differ)))


def hidden_activations(objective: Objective, theta: Tensor) -> Tensor | None:
    """What the last layer with parameters of a chain reads at theta (P,): (N, d).

    NaN where theta is not finite; None where the model is no chain (`chain.find_chain`), or one
    without a hidden layer.
    """
    links = find_chain(objective.model)
    if not links:
        return None
    names = list(objective.model._modules)
    before = objective.model[: names.index(links[-1].second)]
    parts = unflatten(theta.to(objective.device, objective.dtype), objective.layout)
    own = {name: parts[name] for name, _ in before.named_parameters()}
    with torch.no_grad():
        read = [functional_call(before, own, (x,)).flatten(1) for x, _ in objective.blocks]
    activations = torch.cat(read)
    return activations if torch.isfinite(theta).all() else activations.fill_(torch.nan)


def linear_cka(x: Tensor, y: Tensor) -> Similarity:
    """Linear centred kernel alignment of activations x (N, d1) and y (N, d2), in [0, 1].

    ||Yc'Xc||_F^2 / (||Xc'Xc||_F ||Yc'Yc||_F), columns centred: Kornblith et al. 2019. Orthogonal
    maps, shifts and one scale for all units change nothing. Of few samples of many units it is far
    above 0 even where the two have nothing in common: see `debiased_cka`.

    The error is that of first order. With C the covariances, a sample moves ||C_xy||^2 by
    2 (x'C_xy y - ||C_xy||^2), so that the logarithm of the alignment moves by
    2 x'C_xy y / ||C_xy||^2 - x'C_xx x / ||C_xx||^2 - y'C_yy y / ||C_yy||^2. NaN where no unit of
    one network varies.
    """
    _check_samples(x, y, 0)
    x, y = _centred(x), _centred(y)
    samples = len(x)

    def forms(a: Tensor, b: Tensor) -> Tensor:  # a'C_ab b of every sample; their mean: ||C_ab||^2
        return ((a @ (a.T @ b)) * b).sum(1) / samples

    xy, xx, yy = forms(x, y), forms(x, x), forms(y, y)
    norm = root(xx.mean() * yy.mean())
    value = xy.mean() / norm
    moved = 2 * xy / norm - value * (xx / xx.mean() + yy / yy.mean())
    return Similarity(float(value), float(mean_and_error(moved)[1]))


def debiased_cka(x: Tensor, y: Tensor) -> Similarity:
    """Linear centred kernel alignment from unbiased parts, of x (N, d1) and y (N, d2).

    HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)) with the unbiased estimator of Song et al. 2012, as in
    Nguyen et al. 2021. Of unrelated activations it is 0 on average, and so may be below 0. With
    centred columns, p_i = ||x_i||^2 and q_i = ||y_i||^2 the estimator needs no (N, N) matrix:
    N (N - 3) HSIC = ||Yc'Xc||_F^2 - N / (N - 2) sum p_i q_i + sum p_i sum q_i / ((N - 1) (N - 2)).

    The error is the jackknife's, with each sample left out in turn. Where the two have nothing in
    common it is too large by a factor of about sqrt(2), as is that of `linear_cka`. NaN of fewer
    than 4 samples (of 5, the error), and where HSIC(x, x) or HSIC(y, y) is not positive.
    """
    _check_samples(x, y, 0)
    x, y = _centred(x), _centred(y)
    samples = len(x)
    if samples < 4:
        return Similarity(math.nan, math.nan)
    xy, xx, yy = (_unbiased_hsic(a, b) for a, b in ((x, y), (x, x), (y, y)))
    values = torch.where((xx > 0) & (yy > 0), xy / root(xx * yy), torch.nan)
    whole, without = values[0], values[1:]
    spread = (without - without.mean()).square().sum()
    return Similarity(float(whole), float(root(spread * (samples - 1) / samples)))


def unit_correlation(x: Tensor, y: Tensor) -> UnitCorrelation:
    """The mean over units of the correlation of column i of x (N, d) with column i of y (N, d).

    Pearson's, over the samples. It asks whether unit i does the same in both networks, as an
    alignment of units should achieve and `linear_cka` does not see. Units that are constant in
    either are left out (how many depends on which are paired); NaN where none is left. The error is
    that of first order: a sample with the standardised activations u and v moves a correlation r by
    u v - r (u^2 + v^2) / 2.

    Raises ValueError where x and y differ in shape.
    """
    if x.shape != y.shape:
        raise ValueError(f"activations {tuple(x.shape)} and {tuple(y.shape)}: need the same shape")
    if not (torch.isfinite(x).all() and torch.isfinite(y).all()):
        return UnitCorrelation(math.nan, math.nan, 0)
    varies = (x != x[0]).any(0) & (y != y[0]).any(0)
    u, v = (_standardised(a[:, varies]) for a in (x, y))
    r = (u * v).mean(0)
    moved = (u * v - r * (u.square() + v.square()) / 2).mean(1)
    return UnitCorrelation(float(r.mean()), float(mean_and_error(moved)[1]), int(varies.sum()))


def _check_samples(a: Tensor, b: Tensor, dim: int) -> None:
    if a.shape[dim] != b.shape[dim]:
        raise ValueError(f"{a.shape[dim]} and {b.shape[dim]} samples: need the same ones in both")


def _centred(x: Tensor) -> Tensor:
    x = x.double()
    x = x - x[0]  # first, so that a constant is exactly 0
    return x - x.mean(0)


def _standardised(x: Tensor) -> Tensor:
    x = _centred(x)
    return x / root(x.square().mean(0))


def _unbiased_hsic(x: Tensor, y: Tensor) -> Tensor:
    """HSIC of all N samples, and of all but each: (1 + N,), from centred x (N, d1) and y (N, d2).

    With the kernels K = xx' and L = yy', diagonals set to 0, it is (sum of K * L
    - 2 / (n - 2) sum of KL + sum of K sum of L / ((n - 1) (n - 2))) / (n (n - 3)). Its rows sum to
    -p and -q, because the columns of x and y are centred. To leave a sample out is to take its row
    and column off these sums.
    """
    samples = len(x)
    p, q = x.square().sum(1), y.square().sum(1)
    shared = ((x @ (x.T @ y)) * y).sum(1) - p * q  # of each sample: its row of K * L
    rows_by_y = y @ (y.T @ p) - q * p  # L p, of which L's diagonal is 0
    rows_by_x = x @ (x.T @ q) - p * q  # K q
    products, both = shared.sum(), (p * q).sum()

    def hsic(n: int, products: Tensor, both: Tensor, of_k: Tensor, of_l: Tensor) -> Tensor:
        sums = products - 2 / (n - 2) * both + of_k * of_l / ((n - 1) * (n - 2))
        return sums / (n * (n - 3)) if n > 3 else sums * torch.nan

    whole = hsic(samples, products, both, p.sum(), q.sum())
    without = hsic(
        samples - 1,
        products - 2 * shared,
        both - p * q + rows_by_y + rows_by_x + shared,
        p.sum() - 2 * p,
        q.sum() - 2 * q,
    )
    return torch.cat([whole.view(1), without])
