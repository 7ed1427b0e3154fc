"""Traces, norms and effective ranks of the Hessian, with what is known of them exactly."""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lossgeo import gauss_newton, hessian
from lossgeo.directions import filter_scale
from lossgeo.losses import linear_in_outputs
from lossgeo.numerics import root
from lossgeo.objective import Objective, mean_and_error
from lossgeo.parameters import Layout, unflatten
from lossgeo.piecewise_affine import is_piecewise_affine
from lossgeo.spectrum import Eigenpairs, Spectrum


class Estimate(NamedTuple):
    """A number, and its standard errors over the samples and over random probes."""

    value: float
    sample_se: float
    probe_se: float = 0.0  # 0: no probe was needed

    @property
    def se(self) -> float:
        """Both together."""
        return math.hypot(self.sample_se, self.probe_se)


@dataclass(frozen=True)
class Traces:
    """Traces of an objective's Hessian H and of its Gauss-Newton matrix G."""

    hessian: Estimate
    exact: bool  # tr H = tr G, and no probe was needed for either
    gauss_newton: Estimate
    by_tensor: list[Estimate]  # of G's diagonal blocks, in the layout's order
    filter_curvature: Estimate  # E[d'Hd] over filter-normalised directions d
    of_samples: Tensor  # (N,) tr H_i of every sample, as far as it is known


def traces(
    objective: Objective,
    theta: Tensor,
    *,
    rest_probes: int,
    generator: torch.Generator,
    filters: bool = True,
) -> Traces:
    """tr H and tr G at theta (P,), and the mean curvature of filter-normalised directions.

    tr G is exact where `gauss_newton.is_exact`, and so is tr H where the network is piecewise
    affine in each parameter (`piecewise_affine`). Elsewhere there is Hutchinson's estimate of what
    H - G adds, from `rest_probes` probes, of every sample, so that errors over the samples have it.
    That of the filters takes as long again; without `filters` it is NaN.
    """
    theta = theta.to(objective.device, objective.dtype)
    rows = gauss_newton.sample_traces(objective, theta)
    whole = of_samples(rows).cpu()
    of_filters = filter_curvature_of_samples(rows, theta, objective.layout).cpu()
    is_affine = is_piecewise_affine(objective, theta)
    of_gauss_newton = of_hessian = estimate(whole)
    filter_curvature = estimate(of_filters) if filters else Estimate(math.nan, math.nan)
    if not is_affine:
        signs = torch.randint(0, 2, (rest_probes, len(theta)), generator=generator) * 2 - 1
        signs = signs.to(theta)
        rest = rest_of_samples(objective, theta, signs)
        of_hessian = with_rest(whole, rest)
        whole = whole + rest.mean(0)
        if filters:
            spread = filter_spread(theta, objective.layout)
            of_filters_rest = rest_of_samples(objective, theta, spread * signs)
            filter_curvature = with_rest(of_filters, of_filters_rest)
    exact = is_affine and gauss_newton.is_exact(objective, theta)
    return Traces(of_hessian, exact, of_gauss_newton, by_tensor(rows), filter_curvature, whole)


def of_samples(traces: dict[str, Tensor]) -> Tensor:
    """tr G_i of every sample, (N,), from `gauss_newton.sample_traces`."""
    return sum(rows.sum(1) for rows in traces.values())


def filter_curvature_of_samples(traces: dict[str, Tensor], theta: Tensor, layout: Layout) -> Tensor:
    """E[d'G_i d] of every sample over filter-normalised random directions d, (N,).

    sum_f ||w_f||^2 / n_f tr (G_i)_ff, from `gauss_newton.sample_traces`: the curvature that random
    lines and planes show on average, without a direction drawn. NaN where no parameter has filters.
    """
    spread = unflatten(filter_spread(theta, layout).double(), layout)
    parts = [
        traces[name] @ part.flatten(1)[:, 0].square().to(traces[name])
        for name, part in spread.items()
        if part.ndim > 1
    ]
    return sum(parts) if parts else of_samples(traces) * torch.nan


def estimate(values: Tensor) -> Estimate:
    """The mean of values (N,) of samples and its standard error over them."""
    mean, error = mean_and_error(values)
    return Estimate(float(mean), float(error))


def by_tensor(traces: dict[str, Tensor]) -> list[Estimate]:
    """The trace of each parameter tensor's diagonal block."""
    return [estimate(rows.sum(1)) for rows in traces.values()]


def filter_spread(theta: Tensor, layout: Layout) -> Tensor:
    """||w_f|| / sqrt(n_f) of the filter f that each parameter belongs to, (P,); 1-D tensors: 0.

    A filter-normalised direction's filter d_f is uniform on the sphere of radius ||w_f|| in n_f
    dimensions (`directions.normalize`), so that E[dd'] = S^2 with this as the diagonal of S.
    """
    counts = [math.prod(shape[1:]) if len(shape) > 1 else 1 for shape in layout.shapes]
    sizes = torch.repeat_interleave(
        torch.tensor(counts, dtype=theta.dtype), torch.tensor(layout.sizes)
    )
    return filter_scale(theta, layout) / root(sizes.to(theta))


def rest_of_samples(objective: Objective, theta: Tensor, directions: Tensor) -> Tensor:
    """d'(H_i - G_i)d of every sample i along directions d (R, P): (R, N).

    With E[dd'] = I each is a sample of tr(H_i - G_i) (Hutchinson 1989).
    """
    rest = replace(objective, loss=linear_in_outputs(objective.loss))
    return hessian.sample_forms(rest, theta, directions)


def with_rest(exact: Tensor, rest: Tensor) -> Estimate:
    """A trace from its exact part, `exact` (N,) of the samples, and `rest` (R, N) of R probes.

    The scatter of the samples' sums contains that of the probes, which is taken off it.
    """
    each = exact + rest.mean(0)
    probes, samples = rest.shape
    variance = float(each.var() - rest.var(0).mean() / probes)
    return Estimate(
        float(each.mean()),
        math.sqrt(max(variance, 0.0) / samples) if math.isfinite(variance) else math.nan,
        float(rest.mean(1).std()) / math.sqrt(probes),
    )


def known(spectrum: Spectrum) -> Tensor:
    """Which of the top and bottom pairs, in this order, serve for deflation: (k,) bool.

    Those that have converged: Ritz vectors that still depend on the probe that they come from take
    more out of it than out of another. Of an operator with few distinct eigenvalues the two ends
    may share some, which count once.
    """
    top, bottom = spectrum.top, spectrum.bottom
    shared = (bottom.vectors @ top.vectors.T).nan_to_num().abs().gt(0.5).any(1).cpu().numpy()
    return torch.from_numpy(np.concatenate([top.converged, bottom.converged & ~shared]))


def known_pairs(spectrum: Spectrum) -> tuple[Tensor, Tensor]:
    """Their eigenvalues (k,) float64 and vectors (k, P)."""
    top, bottom, found = spectrum.top, spectrum.bottom, known(spectrum)
    values = torch.from_numpy(np.concatenate([top.values, bottom.values]))
    vectors = torch.cat([top.vectors, bottom.vectors])
    return values[found], vectors[found.to(vectors.device)]


def deflated_images(spectrum: Spectrum) -> Tensor:
    """(H - Q Lambda Q')z of each unit probe z, (R, P), with the known pairs Q, Lambda."""
    values, vectors = known_pairs(spectrum)
    shares = (spectrum.probes @ vectors.T) * values.to(spectrum.probes)
    return spectrum.images - shares @ vectors


def squared_norm(spectrum: Spectrum) -> tuple[float, float]:
    """||H||_F^2 and its standard error over the probes, which is too large rather than too small.

    With the known pairs, ||H||_F^2 = sum_q lambda_q^2 + ||H - Q Lambda Q'||_F^2, and of what is
    left each Rademacher probe gives the sample ||(H - Q Lambda Q')z||^2, from a product that is
    there already. The variance of that is at most 2 lambda^2 times its mean, lambda being the
    largest eigenvalue that is left in absolute value: each end's first that has not converged, or
    at most its last that has.
    """
    values, _ = known_pairs(spectrum)
    probes, size = spectrum.probes.shape
    left = size * float(deflated_images(spectrum).double().square().sum(1).mean())
    edge = max(_edge(spectrum.top), _edge(spectrum.bottom))
    return float(values.square().sum()) + left, math.sqrt(2 * edge**2 * left / probes)


def _edge(end: Eigenpairs) -> float:
    """A bound, in absolute value, of the eigenvalues beyond the known ones of one end."""
    found = np.isfinite(end.values)
    values, residuals = np.abs(end.values[found]), end.residuals[found]
    missing = ~end.converged[found]
    if missing.any():
        return float((values + residuals)[missing].max())
    return float(values.min(initial=np.inf)) if len(values) else 0.0


def effective_rank(
    trace: Estimate, sample_traces: Tensor, norm: tuple[float, float], sample_products: Tensor
) -> Estimate:
    """tr(H)^2 / ||H||_F^2, the participation ratio of the spectrum, with its standard errors.

    From the `trace`, the traces t_i (N,) of the samples, `squared_norm` and the inner products
    <H, H_i> (N,). A sample moves the logarithm of the ratio by 2 t_i / tr H - 2 <H, H_i> / ||H||^2
    (the delta method; on few samples ||H|| is biased upwards, which this does not show). As the
    inner products contain some noise of the probes, the error is rather too large than too small.
    """
    square, square_se = norm
    if not (square and trace.value):
        return Estimate(math.nan, math.nan, math.nan)
    value = trace.value**2 / square
    moved = 2 * sample_traces / trace.value - 2 * sample_products.to(sample_traces) / square
    probe_se = math.hypot(2 * trace.probe_se / trace.value, square_se / square)
    return Estimate(value, value * float(mean_and_error(moved)[1]), value * probe_se)
