"""The largest Hessian eigenvalues of many samples, found on the few that matter.

A sample bends the loss only as far as the probability of its own class falls short of 1. With
logits z(theta), probabilities p and class y, its Hessian is
J' (diag p - pp') J + sum_k (p_k - [k = y]) grad^2 z_k, J = dz/dtheta, where
|diag p - pp'| <= 2 (1 - p_y) and |p - e_y| <= sqrt(2) (1 - p_y). Of a well trained network few
samples carry most of the curvature. Of other losses the norms of the first and second derivative by
the outputs say the same (`importance`). A sample drawn by that importance gives nearly the right
eigenvectors; few products with the Hessian of all samples then correct them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from hessian_eigenthings import lanczos
from hessian_eigenthings.operators import CurvatureOperator
from torch import Tensor

from lossgeo.hessian import hessian_operator, hessian_products
from lossgeo.losses import output_hessian
from lossgeo.objective import Objective, sample_logits, sample_losses, with_samples
from lossgeo.spectrum import Eigenpairs, padded

FEWER = 8  # an importance sample is this part of the samples,
FEWEST = 500  # but not smaller than this
GUARDS = 2  # at most so many pairs are sought beside the wanted in case some have changed places:
CLOSE = 0.2  # those whose eigenvalues are not lower than the last wanted by more than this part
PASSES = 12  # over all samples; what has not converged by then says so
CORRECTION_STEPS = 12  # of conjugate gradients on the importance sample, for one correction,
CORRECTION_TOLERANCE = 0.1  # or until its residual has fallen by this factor


@dataclass(frozen=True)
class Leading:
    """The largest eigenvalues of a Hessian and what they cost."""

    pairs: Eigenpairs
    products: int  # Hessian-vector products on all samples
    coarse_samples: int  # size of the importance sample
    coarse_products: int  # Hessian-vector products on it


def leading_eigenpairs(
    objective: Objective,
    theta: Tensor,
    *,
    top: int,
    tolerance: float,
    generator: torch.Generator,
) -> Leading:
    """The `top` largest eigenvalues of grad^2 L(theta), to a residual of `tolerance * |lambda|`.

    Lanczos on the Hessian of an importance sample gives the first vectors; the Rayleigh-Ritz
    procedure on all samples and Davidson's method (`davidson`) do the rest. The residuals are of
    the Hessian of all samples, so that an eigenvalue of it lies within the residual of lambda; that
    it is one of the `top` largest rests on the importance sample and on the guards. Memory grows
    with the graph of the importance sample only. All NaN where theta, a loss or the Hessian is not
    finite; NaN too where the operator has fewer distinct eigenvalues than wanted.
    """
    size = objective.layout.size
    theta = theta.to(objective.device, objective.dtype)
    nothing = padded(np.empty(0), theta.new_empty(0, size), np.empty(0), tolerance, top)
    if not torch.isfinite(theta).all():
        return Leading(nothing, 0, 0, 0)
    losses = sample_losses(objective, theta)[0]
    if not torch.isfinite(losses).all():
        return Leading(nothing, 0, 0, 0)
    chosen, weights = importance_sample(
        importance(objective, theta, losses, generator=generator),
        min(objective.samples, max(FEWEST, objective.samples // FEWER)),
        generator=generator,
    )
    few = _restricted(objective, torch.from_numpy(chosen))
    coarse = hessian_operator(few, theta, torch.from_numpy(weights))
    ones = torch.ones(coarse.size, device=coarse.device, dtype=coarse.dtype)
    if not torch.isfinite(coarse.matvec(ones)).all():
        return Leading(nothing, 0, len(chosen), 1)
    start = lanczos(
        coarse,
        k=min(top + GUARDS, size),
        max_iter=min(2 * (top + GUARDS) + 8, size),
        which="LA",
        reorthogonalize=True,
        seed=int(torch.randint(2**31, (), generator=generator)),
    )
    values = start.eigenvalues
    last = values[:top][-1]
    sought = values >= last - CLOSE * last.abs()
    pairs, products, solving = davidson(
        lambda vectors: hessian_products(objective, theta, vectors),
        coarse,
        start.eigenvectors[sought],
        top=top,
        tolerance=tolerance,
    )
    return Leading(pairs, products, len(chosen), 1 + start.iterations + solving)


def importance(
    objective: Objective, theta: Tensor, losses: Tensor, *, generator: torch.Generator
) -> np.ndarray:
    """How far each sample can bend the loss, (N,), from its loss (N,).

    1 - p_y for the cross-entropy. For others |g| + |A w|, the gradient by the outputs and the
    second derivative A along random signs w, whose mean square is A's squared Frobenius norm.
    """
    if objective.loss.is_plain(objective.targets):
        return -np.expm1(-losses.double().cpu().numpy())
    outputs, targets = sample_logits(objective, theta).movedim(-1, 0), objective.targets
    z = outputs.requires_grad_()
    values = objective.loss.of_samples(z, targets)
    (slope,) = torch.autograd.grad(values.sum(), z)
    signs = torch.randint(0, 2, outputs.shape, generator=generator) * 2 - 1
    bent = output_hessian(objective.loss, outputs, targets)(signs.to(outputs))
    norms = [part.detach().reshape(len(part), -1).double().norm(dim=1) for part in (slope, bent)]
    return sum(norms).cpu().numpy()


def disjoint_subsets(
    order: np.ndarray, sizes: Sequence[int], subsets: int | Sequence[int]
) -> dict[int, list[np.ndarray]]:
    """For each size, at most so many disjoint subsets of that many of the N items in `order`.

    `subsets` is one number, or one for each size. They are cut from the front of `order`, so that
    the first subsets are nested. Sizes beyond N are N; each size comes once.
    """
    counts = [subsets] * len(sizes) if isinstance(subsets, int) else subsets
    wanted: dict[int, int] = {}
    for size, count in zip(sizes, counts, strict=True):
        limited = min(size, len(order))
        wanted[limited] = max(count, wanted.get(limited, 0))
    return {
        size: [order[k * size : (k + 1) * size] for k in range(min(count, len(order) // size))]
        for size, count in sorted(wanted.items())
    }


def importance_sample(
    importance: np.ndarray, size: int, *, generator: torch.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sorted indices (n,) of about `size` of N items, and weights (n,) that make sums unbiased.

    Item i is drawn with probability pi_i = min(1, c q_i), c such that they sum to `size`, and
    weighs 1 / (N pi_i) (Horvitz & Thompson 1952): the expectation of sum w_i f_i is the mean of f.
    Items with c q_i >= 1 are always in. Drawn systematically, with one random number (Madow 1949),
    so that n is `size` up to rounding. Importances below a float32's resolution of 1 count as that.
    """
    total = len(importance)
    if size >= total:
        return np.arange(total), np.full(total, 1 / total)
    importance = np.maximum(importance, np.finfo(np.float32).eps)
    descending = np.sort(importance)[::-1]
    tails = np.cumsum(descending[::-1])[::-1]  # sums of all but the k largest
    certain = np.argmax((size - np.arange(total)) * descending < tails)  # how many have pi = 1
    probability = np.minimum(1.0, (size - certain) / tails[certain] * importance)
    position = float(torch.rand((), generator=generator, dtype=torch.float64))
    reached = np.floor(np.cumsum(probability) + position)
    chosen = np.flatnonzero((np.diff(reached, prepend=0.0) > 0) | (probability >= 1))
    return chosen, 1 / (total * probability[chosen])


def davidson(
    products: Callable[[Tensor], Tensor],
    coarse: CurvatureOperator,
    vectors: Tensor,
    *,
    top: int,
    tolerance: float,
) -> tuple[Eigenpairs, int, int]:
    """The `top` largest eigenpairs of a symmetric operator, with a cheap operator close to it.

    `products` maps vectors (k, P) to their images (k, P) under the expensive operator H; `coarse`
    is the cheap one, and `vectors` (k, P) are where to begin. Each pass takes the Ritz pairs of the
    subspace so far and adds to it, for each pair x, lambda whose residual r is not below
    `tolerance * |lambda|`, the correction t that the coarse operator C asks for:
    (I - XX') (lambda - C) (I - XX') t = r, X being all Ritz vectors that are sought (Davidson 1975;
    Sleijpen & van der Vorst 1996). A few steps of conjugate gradients solve it well enough.

    A small residual does not say that no larger eigenvalue was missed. So the vectors to begin with
    should be more than `top`: those beyond are guards, corrected as well while their value plus
    their residual reaches the last wanted value.

    Returns the pairs, and how many products with H and with the coarse operator they took; NaN
    where H is not finite.
    """
    basis = images = vectors[:0]
    new = _orthonormal(vectors, basis)
    sought, solving = len(new), 0
    for taken in range(1, PASSES + 1):
        basis, images = torch.cat([basis, new]), torch.cat([images, products(new)])
        if not torch.isfinite(images).all():
            nothing = padded(np.empty(0), vectors[:0], np.empty(0), tolerance, top)
            return nothing, len(basis), solving
        projected = (basis.double() @ images.double().T).cpu()
        values, coefficients = torch.linalg.eigh((projected + projected.T) / 2)
        values, columns = values.flip(0)[:sought], coefficients.flip(1)[:, :sought].T.to(basis)
        ritz = columns @ basis
        residuals = columns @ images - values.to(basis).unsqueeze(1) * ritz
        norms = residuals.norm(dim=1).double().cpu()
        settled = norms < tolerance * values.abs()
        settled[top:] |= values[top:] + norms[top:] < values[:top][-1]
        if taken == PASSES or settled.all():
            break
        corrections = []
        for i in torch.flatten((~settled).nonzero()).tolist():
            correction, steps = _correction(coarse, float(values[i]), ritz, residuals[i])
            corrections.append(correction)
            solving += steps
        new = _orthonormal(torch.stack(corrections), basis)
        if not len(new):
            break
    pairs = padded(values[:top].numpy(), ritz[:top], norms[:top].numpy(), tolerance, top)
    return pairs, len(basis), solving


def _restricted(objective: Objective, chosen: Tensor) -> Objective:
    """The objective on the chosen ones of its samples alone."""
    inputs, targets = (torch.cat(parts) for parts in zip(*objective.blocks, strict=True))
    chosen = chosen.to(objective.device)
    return with_samples(objective, inputs[chosen], targets[chosen])


def _correction(
    coarse: CurvatureOperator, value: float, ritz: Tensor, residual: Tensor
) -> tuple[Tensor, int]:
    """The solution (P,) of `davidson`'s equation for one pair, and the products it took.

    Where the coarse operator has an eigenvalue above `value` that the Ritz vectors miss, the
    equation is indefinite: then it is what has been solved so far, or the residual itself.
    """

    def project(v: Tensor) -> Tensor:
        return v - ritz.T @ (ritz @ v)

    solution = torch.zeros_like(residual)
    rest = project(residual)
    direction, squared = rest, rest @ rest
    enough = CORRECTION_TOLERANCE**2 * squared
    for step in range(1, CORRECTION_STEPS + 1):
        image = project(value * direction - coarse.matvec(direction))
        bend = direction @ image
        if bend <= 0:
            return direction if step == 1 else solution, step
        length = squared / bend
        solution = solution + length * direction
        rest = rest - length * image
        squared, before = rest @ rest, squared
        if squared < enough:
            break
        direction = rest + squared / before * direction
    return solution, step


def _orthonormal(vectors: Tensor, basis: Tensor) -> Tensor:
    """An orthonormal basis (rows) of what k vectors (k, P) add to an orthonormal basis (m, P)."""
    kept = basis
    for v in vectors:
        v = v / v.norm()
        for _ in range(2):  # once is not enough in floating point
            v = v - kept.T @ (kept @ v)
        if (norm := v.norm()) > 100 * torch.finfo(v.dtype).eps:
            kept = torch.cat([kept, (v / norm).unsqueeze(0)])
    return kept[len(basis) :]
