"""What the Hessian of an objective is like at a point: every number that the stage `hessian` keeps.

One kept graph of the Hessian serves the density, the extreme eigenvalues and those in other units
of the parameters; it is let go before that of the Gauss-Newton matrix is built.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from lossgeo import gauss_newton, trace
from lossgeo.directions import filter_scale
from lossgeo.hessian import hessian_operator, sample_forms, scaled
from lossgeo.objective import Objective, mean_and_error
from lossgeo.spectrum import Eigenpairs, Spectrum, leading, outliers, spectrum
from lossgeo.trace import Estimate

RANDOM_SHARE = 0.3  # of a probe in the start from known vectors, for what these may lack


@dataclass(frozen=True)
class Measured:
    """Eigenpairs, and the standard errors over the samples (k,) of their eigenvalues."""

    pairs: Eigenpairs
    standard_errors: np.ndarray


@dataclass(frozen=True)
class Curvature:
    """The curvature of an objective at theta: its Hessian H and its Gauss-Newton matrix G."""

    spectrum: Spectrum  # of H
    largest: dict[str, Measured]  # by matrix: hessian (H), gauss_newton (G), filter, preconditioned
    smallest: Measured  # of H
    cosines: np.ndarray  # (k,) |cos| between G's and H's eigenvectors of the same rank
    outliers: float  # how many of H's eigenvalues stand out,
    outlier_gap: float  # and by which factor
    trace: Estimate  # of H
    exact: bool  # tr H = tr G, so that no probe was needed
    gauss_newton_trace: Estimate
    tensor_traces: list[Estimate]  # of G's diagonal blocks, in the layout's order
    filter_curvature: Estimate  # E[d'Hd] over filter-normalised directions d
    effective_rank: Estimate  # of H
    products: int  # Hessian-vector products, without those that the samples' forms take
    gauss_newton_products: int


def curvature(
    objective: Objective,
    theta: Tensor,
    *,
    preconditioner: Tensor | None = None,
    rest_probes: int,
    generator: torch.Generator,
    **settings,
) -> Curvature:
    """Eigenvalues, traces and norms of H and G at theta (P,); `settings` are `spectrum.spectrum`'s.

    Beside the largest eigenvalues of H and G, that of D H D with D the filter norms (`filter`:
    curvature per relative change of filters), and with the diagonal P that an adaptive optimizer
    divides the gradient by (`preconditioner`, (P,)), that of P^-1/2 H P^-1/2. Each has the standard
    error of its vector's form v'H_i v over the samples, which is right as long as no other
    eigenvalue is within a few of them.

    Traces are those of `trace.traces`.
    """
    theta = theta.to(objective.device, objective.dtype)
    if not torch.isfinite(theta).all():  # everything is NaN then, on one sample too
        inputs, targets = objective.blocks[0]
        objective = replace(objective, blocks=((inputs[:1], targets[:1]),))
    top, tolerance = settings["top"], settings["tolerance"]
    limits = {"max_steps": settings["max_steps"], "tolerance": tolerance}
    hessian = hessian_operator(objective, theta)
    found = spectrum(hessian, generator=generator, **settings)
    start = found.top.vectors.nan_to_num().sum(0)
    start = start / start.norm() + RANDOM_SHARE * found.probes[0]
    largest = {}
    products = found.products
    scales = {"filter": filter_scale(theta, objective.layout)}
    if preconditioner is not None:
        scales["preconditioned"] = preconditioner.to(theta).rsqrt()
    for matrix, scale in scales.items():
        pairs, spent = leading(scaled(hessian, scale), scale * start, top=1, **limits)
        each = sample_forms(objective, theta, scale * pairs.vectors)
        largest[matrix] = Measured(pairs, mean_and_error(each)[1])
        products += spent
    del hessian  # its graph is as large as the next one

    split, split_products = leading(
        gauss_newton.gauss_newton_operator(objective, theta), start, top=top, **limits
    )
    each = gauss_newton.sample_forms(objective, theta, split.vectors)
    largest["gauss_newton"] = Measured(split, mean_and_error(each)[1])

    probes = len(theta) * found.probes
    forms = sample_forms(
        objective,
        theta,
        torch.cat([found.top.vectors, found.bottom.vectors, trace.deflated_images(found)]),
        torch.cat([found.top.vectors, found.bottom.vectors, probes]),
    )
    of_pairs, of_probes = forms[: -len(probes)], forms[-len(probes) :]
    largest["hessian"] = Measured(found.top, mean_and_error(of_pairs[:top])[1])
    values, _ = trace.known_pairs(found)
    of_products = values @ of_pairs[trace.known(found)] + of_probes.mean(0)  # <H, H_i>

    traces = trace.traces(objective, theta, rest_probes=rest_probes, generator=generator)
    good = np.cumprod(found.top.converged).astype(bool)  # what has not converged errs inwards
    count, gap = outliers(found.top.values[good])
    return Curvature(
        spectrum=found,
        largest=largest,
        smallest=Measured(found.bottom, mean_and_error(of_pairs[top:])[1]),
        cosines=(split.vectors * found.top.vectors).sum(1).abs().double().cpu().numpy(),
        outliers=count,
        outlier_gap=gap,
        trace=traces.hessian,
        exact=traces.exact,
        gauss_newton_trace=traces.gauss_newton,
        tensor_traces=traces.by_tensor,
        filter_curvature=traces.filter_curvature,
        effective_rank=trace.effective_rank(
            traces.hessian, traces.of_samples, trace.squared_norm(found), of_products
        ),
        products=products,
        gauss_newton_products=split_products,
    )
