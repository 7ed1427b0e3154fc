"""The Hessian of an objective and its gradient, as products: nothing of size P x P is ever made."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from hessian_eigenthings import LambdaOperator
from hessian_eigenthings.operators import CurvatureOperator
from torch import Tensor

from lossgeo.attention import step_by_step
from lossgeo.convolution import FastDoubleBackward
from lossgeo.kept import keep
from lossgeo.models import in_memory_format
from lossgeo.objective import Objective, leaves_of, loss_of_block
from lossgeo.parameters import Layout, join, unflatten


def hessian_operator(
    objective: Objective, theta: Tensor, weights: Tensor | None = None
) -> LambdaOperator:
    """H = grad^2 L(theta), (P, P), as a matrix-free operator: `operator @ v` is H v.

    The forward pass and the first backward pass do not depend on v, so their graph is built once
    per block and kept; a product then costs one backward pass through it:
    H v = grad (g' v), g = grad L (Pearlmutter 1994). Memory grows with the number of samples up to
    `objective.memory`; beyond, graphs are built again for each product (see `kept`).
    Convolutions are those of `convolution`, in torch's contiguous layout: unlike the forward pass
    alone, backward passes through backward passes are slower in channels_last.

    `weights` (N,) of the samples in L take the place of 1 / N.
    """
    leaves = leaves_of(objective, theta)
    graphs = keep(_makers(objective, leaves, weights), objective.memory, leaves.values())

    def matvec(v: Tensor) -> Tensor:
        total = torch.zeros_like(v)
        for gradient_parts in graphs():
            total += _product(gradient_parts, leaves, v, objective.layout)
            del gradient_parts  # before the next is built, where it is not kept
        return total

    return LambdaOperator(
        matvec, objective.layout.size, device=objective.device, dtype=objective.dtype
    )


def hessian_products(objective: Objective, theta: Tensor, vectors: Tensor) -> Tensor:
    """H v for each of k vectors (k, P), in one pass over the samples: (k, P).

    Each block's graph serves all k and is then let go: memory does not grow with the samples.
    """
    leaves = leaves_of(objective, theta)
    images = torch.zeros_like(vectors)
    for make in _makers(objective, leaves):
        gradient_parts = make()
        for v, image in zip(vectors, images, strict=True):
            image += _product(gradient_parts, leaves, v, objective.layout)
    return images


def sample_forms(
    objective: Objective, theta: Tensor, vectors: Tensor, others: Tensor | None = None
) -> Tensor:
    """v'H_i v of every sample i, for each of k vectors (k, P): (k, N) float64.

    H_i is the Hessian of sample i's own loss and H their mean, so that the mean over samples is
    v'H v and s / sqrt(N) is its standard error over samples. For an eigenvector that is to first
    order the standard error of its eigenvalue, if no other eigenvalue is near. With `others`
    (k, P), w_i'H_i v_i in place of v_i'H_i v_i.

    With weights s_i in the loss, sum_i s_i w'H_i v is a derivative like any other, and its own
    derivative by s is what is asked for: about the cost of two products with H for each vector.
    """
    leaves = leaves_of(objective, theta)
    vectors = vectors.to(objective.device, objective.dtype)
    others = vectors if others is None else others.to(vectors)
    forms = torch.zeros(len(vectors), objective.samples, dtype=torch.float64)
    at = 0
    for inputs, targets in objective.blocks:
        weights = torch.ones(len(targets), dtype=objective.dtype, device=objective.device)
        gradient_parts = _gradient_parts(
            objective, leaves, inputs, targets, weights.requires_grad_()
        )
        for form, v, w in zip(forms, vectors, others, strict=True):
            product = _product(gradient_parts, leaves, v, objective.layout, create_graph=True)
            if product.requires_grad:
                (each,) = torch.autograd.grad(
                    product @ w, weights, retain_graph=True, materialize_grads=True
                )
                form[at : at + len(targets)] = each
        at += len(targets)
    return forms


def scaled(operator: CurvatureOperator, scale: Tensor) -> LambdaOperator:
    """D H D for an operator H and D = diag(scale), scale (P,): H in other units of the parameters.

    Its eigenvalues are those of D^2 H, the curvature under the metric D^-2.
    """
    scale = scale.to(operator.device, operator.dtype)
    return LambdaOperator(
        lambda v: scale * operator.matvec(scale * v),
        operator.size,
        device=operator.device,
        dtype=operator.dtype,
    )


@contextmanager
def twice_differentiable() -> Iterator[None]:
    """A context for forward passes whose gradients are to be differentiated again.

    Convolutions are those of `convolution`, attention is that of `attention`: torch has no second
    derivative of its fused kernels.
    """
    with FastDoubleBackward(), step_by_step():
        yield


def gradient(objective: Objective, theta: Tensor) -> Tensor:
    """grad L(theta), (P,)."""
    leaves = leaves_of(objective, theta)
    total = torch.zeros(objective.layout.size, dtype=objective.dtype, device=objective.device)
    for inputs, targets in objective.blocks:
        loss = loss_of_block(objective, leaves, inputs, targets)
        if loss.requires_grad:
            total += join(torch.autograd.grad(loss, tuple(leaves.values()), materialize_grads=True))
    return total


def _makers(
    objective: Objective, leaves: dict[str, Tensor], weights: Tensor | None = None
) -> list[Callable[[], dict[str, Tensor]]]:
    """Per block, what builds its share of grad L (see `_gradient_parts`)."""
    shares = [None] * len(objective.blocks)
    if weights is not None:
        shares = weights.to(objective.device, objective.dtype).split(
            [len(targets) for _, targets in objective.blocks]
        )
    return [
        partial(_gradient_parts, objective, leaves, inputs, targets, share)
        for (inputs, targets), share in zip(objective.blocks, shares, strict=True)
    ]


def _gradient_parts(
    objective: Objective,
    leaves: dict[str, Tensor],
    inputs: Tensor,
    targets: Tensor,
    weights: Tensor | None,
) -> dict[str, Tensor]:
    """A block's share of grad L, with its graph; only the parts that depend on theta."""
    inputs = in_memory_format(inputs, torch.contiguous_format)
    with twice_differentiable():
        loss = loss_of_block(objective, leaves, inputs, targets, weights)
    if not loss.requires_grad:  # no parameter has a part in it
        return {}
    parts = torch.autograd.grad(
        loss, tuple(leaves.values()), create_graph=True, materialize_grads=True
    )
    return {name: part for name, part in zip(leaves, parts, strict=True) if part.requires_grad}


def _product(
    gradient_parts: dict[str, Tensor],
    leaves: dict[str, Tensor],
    v: Tensor,
    layout: Layout,
    *,
    create_graph: bool = False,
) -> Tensor:
    """grad (g' v), (P,), for a gradient g with its graph, which is kept."""
    if not gradient_parts:  # constant
        return torch.zeros_like(v)
    parts = unflatten(v, layout)
    product = torch.autograd.grad(
        tuple(gradient_parts.values()),
        tuple(leaves.values()),
        [parts[name] for name in gradient_parts],
        retain_graph=True,
        create_graph=create_graph,
        materialize_grads=True,
    )
    return join(product)
