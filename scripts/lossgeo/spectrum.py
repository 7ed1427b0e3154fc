"""Extreme eigenvalues and spectral density of a symmetric operator from Krylov runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from hessian_eigenthings import LambdaOperator, lanczos_tridiagonal
from hessian_eigenthings.operators import CurvatureOperator
from torch import Tensor

CHUNK = 16  # Krylov vectors that are put together at once


@dataclass(frozen=True)
class Eigenpairs:
    """Extreme eigenvalues of an operator, from the outside inwards, with their evidence."""

    values: np.ndarray  # (k,) float64
    vectors: Tensor  # (k, P), orthonormal rows
    residuals: np.ndarray  # (k,) ||H v - lambda v||, H v being a sum of products that were taken
    converged: np.ndarray  # (k,) residual < tolerance * |lambda|


@dataclass(frozen=True)
class Spectrum:
    """What R Krylov runs of at most m steps tell about an operator of size P."""

    top: Eigenpairs  # largest algebraic, descending
    bottom: Eigenpairs  # smallest algebraic, ascending
    nodes: np.ndarray  # (R, m) Ritz values: where the quadrature puts the spectral density
    weights: np.ndarray  # (R, m) their weights, each row sums to 1; beyond a run's end 0, nodes NaN
    probes: Tensor  # (R, P) unit vectors that the runs start from
    images: Tensor  # (R, P) their products with the operator
    products: int  # Hessian-vector products spent


def spectrum(
    operator: CurvatureOperator,
    *,
    top: int,
    bottom: int,
    probes: int,
    steps: int,
    max_steps: int,
    tolerance: float,
    generator: torch.Generator,
) -> Spectrum:
    """Density and extreme eigenvalues of a symmetric operator from one set of Krylov runs.

    Each run starts from a Rademacher probe and takes `steps` steps of Lanczos with full
    reorthogonalisation; the first goes on, up to `max_steps`, until its outermost pairs, the `top`
    largest and the `bottom` smallest, have residuals below `tolerance * |lambda|`. What has not
    converged by then says so. The tridiagonal matrix of a run gives a Gauss quadrature of the
    spectral density that its probe sees (nodes: eigenvalues; weights: squared first components;
    Golub & Welsch 1969, Ghorbani et al. 2019).

    A Krylov space holds one eigenvector of a multiple eigenvalue: copies are not counted, and where
    an operator has fewer distinct eigenvalues than wanted, the rest is NaN. So is everything of an
    operator that is not finite.

    Raises ValueError where more eigenpairs are wanted than a run has steps.
    """
    size = operator.size
    steps, max_steps = min(steps, size), min(max_steps, size)
    if top + bottom > steps:
        raise ValueError(f"{top} + {bottom} eigenpairs wanted from {steps} Lanczos steps")
    if not _is_finite(operator):
        return _undefined(operator, top, bottom, probes, steps)
    pairs, quadratures = None, []
    for _ in range(probes):
        signs = torch.randint(0, 2, (size,), generator=generator) * 2 - 1
        start = signs.to(operator.device, operator.dtype)
        if pairs is None:
            run, pairs = _converged_run(operator, start, steps, max_steps, top, bottom, tolerance)
        else:
            run = _krylov_run(operator, start, steps)
        if not len(run.values):
            return _undefined(operator, top, bottom, probes, steps)
        first = run.basis[0].clone(), run.images[0].clone()  # the rest need not be kept
        quadratures.append((run.values, run.coefficients[0] ** 2, *first))
        del run
    longest = max(len(values) for values, *_ in quadratures)
    nodes, weights = np.full((probes, longest), math.nan), np.zeros((probes, longest))
    for number, (values, shares, *_) in enumerate(quadratures):
        nodes[number, : len(values)] = values
        weights[number, : len(values)] = shares
    return Spectrum(
        *pairs,
        nodes,
        weights,
        torch.stack([start for *_, start, _ in quadratures]),
        torch.stack([image for *_, image in quadratures]),
        1 + sum(len(values) for values, *_ in quadratures),
    )


def leading(
    operator: CurvatureOperator,
    start: Tensor,
    *,
    top: int,
    max_steps: int,
    tolerance: float,
) -> tuple[Eigenpairs, int]:
    """The `top` largest eigenpairs from one Lanczos run, and the products that it took.

    `start` (P,) should be rich in them, but not only: the sum of good guesses and a share of a
    random vector, without which what the guesses lack is never found. As in `spectrum`, the run
    goes on until they have converged, at most `max_steps`. All NaN where the operator or `start` is
    not finite, or `start` is 0.
    """
    max_steps = min(max_steps, operator.size)
    if not (torch.isfinite(start).all() and start.any() and _is_finite(operator)):
        return padded(np.empty(0), start.unsqueeze(0)[:0], np.empty(0), tolerance, top), 1
    steps = min(top + 5, max_steps)
    run, (pairs, _) = _converged_run(operator, start, steps, max_steps, top, 0, tolerance)
    return pairs, 1 + len(run.values)


def outliers(values: np.ndarray) -> tuple[float, float]:
    """How many of the largest eigenvalues (k,), descending, stand out, and by which factor.

    They end at the widest gap: where lambda_i / lambda_(i+1) is largest among the positive ones. A
    trained classifier is expected to have about as many as classes, less one (Sagun et al. 2017,
    Papyan 2020). NaN where there are fewer than two.
    """
    positive = values[values > 0]
    if len(positive) < 2:
        return math.nan, math.nan
    ratios = positive[:-1] / positive[1:]
    widest = int(ratios.argmax())
    return widest + 1, float(ratios[widest])


def padded(
    values: np.ndarray, vectors: Tensor, residuals: np.ndarray, tolerance: float, wanted: int
) -> Eigenpairs:
    """Eigenpairs, with NaN for those of the `wanted` that were not found."""
    missing = wanted - len(values)
    values = np.pad(values, (0, missing), constant_values=math.nan)
    residuals = np.pad(residuals, (0, missing), constant_values=math.nan)
    vectors = torch.nn.functional.pad(vectors, (0, 0, 0, missing), value=math.nan)
    return Eigenpairs(values, vectors, residuals, residuals < tolerance * np.abs(values))


def _is_finite(operator: CurvatureOperator) -> bool:
    ones = torch.ones(operator.size, device=operator.device, dtype=operator.dtype)
    return bool(torch.isfinite(operator.matvec(ones)).all())


def _undefined(
    operator: CurvatureOperator, top: int, bottom: int, probes: int, steps: int
) -> Spectrum:
    """The spectrum of an operator that is not finite."""
    nodes = np.full((probes, steps), math.nan)
    none = torch.full((probes, operator.size), math.nan, dtype=operator.dtype)
    pairs = (padded(np.empty(0), none[:0], np.empty(0), 0.0, n) for n in (top, bottom))
    return Spectrum(*pairs, nodes, np.zeros_like(nodes), none, none, 1)


@dataclass(frozen=True)
class _KrylovRun:
    """m steps of Lanczos with full reorthogonalisation: H Q = Q T + what is left over."""

    basis: list[Tensor]  # m of (P,), the columns of Q; a list, so that they need not be copied
    images: list[Tensor]  # m of (P,), H times each of them
    values: np.ndarray  # (m,) eigenvalues of T, ascending
    coefficients: np.ndarray  # (m, m) its eigenvectors, in columns


def _converged_run(
    operator: CurvatureOperator,
    start: Tensor,
    steps: int,
    max_steps: int,
    top: int,
    bottom: int,
    tolerance: float,
) -> tuple[_KrylovRun, tuple[Eigenpairs, Eigenpairs]]:
    """A run that goes on until its outermost pairs have converged, or has `max_steps`."""
    run = _krylov_run(operator, start, steps)
    pairs = _extremes(run, start, top, bottom, tolerance)
    while len(run.values) == steps < max_steps and not all(p.converged.all() for p in pairs):
        steps, images = min(steps + max(5, steps // 4), max_steps), run.images
        del run  # its basis is as large as its images
        run = _krylov_run(operator, start, steps, images)
        pairs = _extremes(run, start, top, bottom, tolerance)
    return run, pairs


def _krylov_run(
    operator: CurvatureOperator, start: Tensor, steps: int, known: Sequence[Tensor] = ()
) -> _KrylovRun:
    """Lanczos from `start`, its products kept: they give the residuals without any further one.

    `known` are the products of a shorter run from the same start: this one continues it, because
    it asks for the same ones again before it asks for more. A run whose numbers are not finite is
    empty.
    """
    images = []

    def matvec(v: Tensor) -> Tensor:
        images.append(known[len(images)] if len(images) < len(known) else operator.matvec(v))
        return images[-1]

    recording = LambdaOperator(matvec, operator.size, device=operator.device, dtype=operator.dtype)
    krylov = lanczos_tridiagonal(recording, start, steps)
    diagonal = krylov.alphas.double().cpu().numpy()
    off = krylov.betas.double().cpu().numpy()[: len(diagonal) - 1]
    if not (np.isfinite(diagonal).all() and np.isfinite(off).all()):  # squares have overflowed
        return _KrylovRun([], [], np.empty(0), np.empty((0, 0)))
    values, coefficients = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    return _KrylovRun(krylov.basis[: len(diagonal)], images, values, coefficients)


def _extremes(
    run: _KrylovRun, start: Tensor, top: int, bottom: int, tolerance: float
) -> tuple[Eigenpairs, Eigenpairs]:
    """Top and bottom eigenpairs of a Lanczos run from `start`."""
    ascending = np.arange(len(run.values))
    pairs = []
    for chosen, wanted in ((ascending[::-1][:top], top), (ascending[:bottom], bottom)):
        values = run.values[chosen]
        columns = torch.from_numpy(run.coefficients[:, chosen].T.copy()).to(start)  # (k, m)
        vectors = _combined(columns, run.basis, start)
        shifted = torch.from_numpy(values).to(vectors).unsqueeze(1) * vectors
        rest = _combined(columns, run.images, start) - shifted
        residuals = rest.norm(dim=1) / vectors.norm(dim=1)
        pairs.append(padded(values, vectors, residuals.double().cpu().numpy(), tolerance, wanted))
    return tuple(pairs)


def _combined(columns: Tensor, vectors: list[Tensor], like: Tensor) -> Tensor:
    """columns (k, m) times m vectors (P,), (k, P), a few at a time: the m are never copied."""
    total = like.new_zeros(len(columns), len(like))
    for k in range(0, len(vectors), CHUNK):
        total += columns[:, k : k + CHUNK] @ torch.stack(vectors[k : k + CHUNK])
    return total
