"""Directions in parameter space, and the normalisations that make them comparable across models."""

import torch
from torch import Generator, Tensor

from lossgeo.parameters import Layout, unflatten

NORMALIZATIONS = ("filter", "layer", "model", "element", "none")


def random_direction(
    theta: Tensor, layout: Layout, normalization: str, *, generator: Generator
) -> Tensor:
    """A random direction d (P,), d ~ N(0, I) and then normalised to theta.

    The draw is made in float32 on the CPU, so that one seed gives one direction on every device
    and in every precision.
    """
    draw = torch.randn(layout.size, generator=generator, dtype=torch.float32).to(theta)
    return normalize(draw, theta, layout, normalization)


def normalize(direction: Tensor, theta: Tensor, layout: Layout, normalization: str) -> Tensor:
    """A copy of `direction` (P,) scaled to the norms of theta (P,).

    filter: every filter d_f gets the norm ||w_f|| of the filter of theta that it moves, where a
        filter is a row of a linear layer or an output channel of a convolution; biases and other
        1-D parameters get 0 (Li et al. 2018).
    layer: every weight tensor gets the norm of that tensor of theta; 1-D parameters get 0.
    model: the whole vector gets the norm of theta.
    element: every entry is multiplied by |theta_j|, biases too, so that noise is relative to each
        parameter (Kwon et al. 2021).
    none: as it is.

    Where theta's filter (or layer, or model) is all zero, so is the direction. Raises ValueError
    for any other normalisation.
    """
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization is {normalization!r}, expected one of {NORMALIZATIONS}")
    direction = direction.clone()
    if normalization == "none":
        return direction
    if normalization == "element":
        return direction.mul_(theta.abs())
    if normalization == "model":
        return _match_norms(direction.view(1, -1), theta.view(1, -1)).view(-1)
    for d, w in zip(
        unflatten(direction, layout).values(), unflatten(theta, layout).values(), strict=True
    ):
        if w.ndim < 2:
            d.zero_()
        else:
            rows = w.shape[0] if normalization == "filter" else 1
            d.copy_(_match_norms(d.view(rows, -1), w.view(rows, -1)).view(d.shape))
    return direction


def filter_scale(theta: Tensor, layout: Layout) -> Tensor:
    """The norm ||w_f|| of the filter of theta (P,) that each parameter belongs to, (P,).

    Filters are those of `normalize`; biases and other 1-D parameters get 0. As the diagonal of D
    it turns the Hessian into D H D: curvature where every filter is measured by its own norm.
    """
    return torch.cat(
        [
            w.flatten(1).norm(dim=1).repeat_interleave(w[0].numel())
            if w.ndim > 1
            else torch.zeros_like(w).view(-1)
            for w in unflatten(theta, layout).values()
        ]
    )


def cosine(a: Tensor, b: Tensor) -> float:
    """The cosine of the angle between two directions (P,)."""
    return float(torch.dot(a.double(), b.double()) / (a.double().norm() * b.double().norm()))


def _match_norms(rows: Tensor, reference: Tensor) -> Tensor:
    """`rows` (n, k) scaled row by row to the norms of `reference` (n, k)."""
    return rows * (reference.norm(dim=1) / rows.norm(dim=1)).unsqueeze(1)
