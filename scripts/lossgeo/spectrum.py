"""Extreme eigenvalues, spectral density and trace of a symmetric operator from Krylov runs."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from hessian_eigenthings import LambdaOperator, lanczos_tridiagonal
from hessian_eigenthings.operators import CurvatureOperator
from torch import Tensor


@dataclass(frozen=True)
class Eigenpairs:
    """Extreme eigenvalues of an operator, from the outside inwards, with their evidence."""

    values: np.ndarray  # (k,) float64
    vectors: Tensor  # (k, P), orthonormal rows
    residuals: np.ndarray  # (k,) ||H v - lambda v||, H v being a sum of products that were taken
    converged: np.ndarray  # (k,) residual < tolerance * |lambda|


@dataclass(frozen=True)
class Spectrum:
    """What R Krylov runs of m steps tell about an operator of size P."""

    top: Eigenpairs  # largest algebraic, descending
    bottom: Eigenpairs  # smallest algebraic, ascending
    nodes: np.ndarray  # (R, m) Ritz values: where the quadrature puts the spectral density
    weights: np.ndarray  # (R, m) their weights, each row sums to 1
    trace: float
    trace_se: float  # its standard error, sqrt(2 / R) ||H||_F
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
    """Density, trace and extreme eigenvalues of a symmetric operator from one set of Krylov runs.

    Each run starts from a Rademacher probe z and takes m = `steps` steps of Lanczos with full
    reorthogonalisation. Its tridiagonal matrix gives a Gauss quadrature of the spectral density
    (nodes: eigenvalues; weights: squared first components; Golub & Welsch 1969, Ghorbani et al.
    2019), its first entry is z'Hz / P, Hutchinson's sample of trace / P, and its outermost
    eigenpairs approach those of H. The variance of z'Hz is 2 sum_{i != j} H_ij^2, at most
    2 ||H||_F^2, which the quadrature gives as well: that is what the trace's standard error is
    taken from, since the scatter of a handful of probes says little. The eigenpairs are the first
    run's; while a wanted pair has a residual of `tolerance * |lambda|` or more, Lanczos runs again
    from the sum of the wanted Ritz vectors, with twice the steps, up to `max_steps`. What has not
    converged by then says so.

    A Krylov space holds one eigenvector of a multiple eigenvalue: copies are not counted, and where
    an operator has fewer distinct eigenvalues than wanted, the rest is NaN. So is everything of an
    operator that is not finite.

    Raises ValueError where more eigenpairs are wanted than a run has steps.
    """
    size = operator.size
    steps, max_steps = min(steps, size), min(max_steps, size)
    if top + bottom > steps:
        raise ValueError(f"{top} + {bottom} eigenpairs wanted from {steps} Lanczos steps")
    ones = torch.ones(size, device=operator.device, dtype=operator.dtype)
    if not torch.isfinite(operator.matvec(ones)).all():
        return _undefined(size, top, bottom, probes, steps)
    nodes = np.full((probes, steps), math.nan)
    weights = np.zeros((probes, steps))
    samples = np.zeros(probes)
    products = 1
    first = None
    for probe in range(probes):
        signs = torch.randint(0, 2, (size,), generator=generator) * 2 - 1
        run = _krylov_run(operator, signs.to(operator.device, operator.dtype), steps)
        taken = len(run.values)
        products += taken
        nodes[probe, :taken] = run.values
        weights[probe, :taken] = run.coefficients[0] ** 2
        samples[probe] = size * run.first_entry
        first = first or run

    pairs = _extremes(first, top, bottom, tolerance)
    closed = len(first.values) < steps  # the Krylov space has no more eigenpairs to give
    while not (closed or all(p.converged.all() for p in pairs)) and steps < max_steps:
        steps = min(2 * steps, max_steps)
        run = _krylov_run(operator, torch.cat([p.vectors for p in pairs]).sum(0), steps)
        pairs = _extremes(run, top, bottom, tolerance)
        closed = len(run.values) < steps
        products += len(run.values)

    squared_norm = size * float(np.nansum(weights * nodes**2)) / probes  # ||H||_F^2
    error = math.sqrt(2 * squared_norm / probes)
    return Spectrum(*pairs, nodes, weights, float(samples.mean()), error, products)


def padded(
    values: np.ndarray, vectors: Tensor, residuals: np.ndarray, tolerance: float, wanted: int
) -> Eigenpairs:
    """Eigenpairs, with NaN for those of the `wanted` that were not found."""
    missing = wanted - len(values)
    values = np.pad(values, (0, missing), constant_values=math.nan)
    residuals = np.pad(residuals, (0, missing), constant_values=math.nan)
    vectors = torch.nn.functional.pad(vectors, (0, 0, 0, missing), value=math.nan)
    return Eigenpairs(values, vectors, residuals, residuals < tolerance * np.abs(values))


def _undefined(size: int, top: int, bottom: int, probes: int, steps: int) -> Spectrum:
    """The spectrum of an operator that is not finite."""
    nodes = np.full((probes, steps), math.nan)
    pairs = (padded(np.empty(0), torch.empty(0, size), np.empty(0), 0.0, n) for n in (top, bottom))
    return Spectrum(*pairs, nodes, np.zeros_like(nodes), math.nan, math.nan, 1)


@dataclass(frozen=True)
class _KrylovRun:
    """m steps of Lanczos with full reorthogonalisation: H Q = Q T + what is left over."""

    basis: Tensor  # (m, P), the rows are the columns of Q
    images: Tensor  # (m, P), H times each row of the basis
    first_entry: float  # of T
    values: np.ndarray  # (m,) eigenvalues of T, ascending
    coefficients: np.ndarray  # (m, m) its eigenvectors, in columns


def _krylov_run(operator: CurvatureOperator, start: Tensor, steps: int) -> _KrylovRun:
    """Lanczos from `start`, its products kept: they give the residuals without any further one."""
    images = []

    def matvec(v: Tensor) -> Tensor:
        images.append(operator.matvec(v))
        return images[-1]

    recording = LambdaOperator(matvec, operator.size, device=operator.device, dtype=operator.dtype)
    krylov = lanczos_tridiagonal(recording, start, steps)
    diagonal = krylov.alphas.double().cpu().numpy()
    off = krylov.betas.double().cpu().numpy()[: len(diagonal) - 1]
    values, coefficients = np.linalg.eigh(np.diag(diagonal) + np.diag(off, 1) + np.diag(off, -1))
    basis = torch.stack(krylov.basis[: len(diagonal)])
    return _KrylovRun(basis, torch.stack(images), float(diagonal[0]), values, coefficients)


def _extremes(
    run: _KrylovRun, top: int, bottom: int, tolerance: float
) -> tuple[Eigenpairs, Eigenpairs]:
    """Top and bottom eigenpairs of a Lanczos run."""
    ascending = np.arange(len(run.values))
    pairs = []
    for chosen, wanted in ((ascending[::-1][:top], top), (ascending[:bottom], bottom)):
        values = run.values[chosen]
        columns = torch.from_numpy(run.coefficients[:, chosen].T.copy()).to(run.basis)
        vectors = columns @ run.basis  # (k, P)
        shifted = torch.from_numpy(values).to(vectors).unsqueeze(1) * vectors
        residuals = (columns @ run.images - shifted).norm(dim=1) / vectors.norm(dim=1)
        pairs.append(padded(values, vectors, residuals.double().cpu().numpy(), tolerance, wanted))
    return tuple(pairs)
