"""Measures of sharpness before and after rescalings that leave the network's function as it is."""

from collections.abc import Mapping
from functools import partial

import torch
from hessian_eigenthings.operators import CurvatureOperator
from torch import Tensor

from lossgeo.directions import filter_scale
from lossgeo.gauss_newton import sample_traces
from lossgeo.hessian import hessian_operator, sample_forms, scaled
from lossgeo.numerics import torch_generator
from lossgeo.objective import Objective, sample_losses
from lossgeo.rescaling import Link, layer_factors, node_factors, rescale
from lossgeo.sharpness import average_rises, random_directions, worst_case
from lossgeo.spectrum import leading
from lossgeo.trace import filter_curvature_of_samples, of_samples

MEASURES = (
    "loss",
    "eigenvalue",
    "trace",
    "filter_eigenvalue",
    "filter_curvature",
    "filter_rise",
    "element_rise",
    "worst_sam",
    "worst_asam",
)

TOLERANCE = 0.01  # of a Ritz pair's residual / eigenvalue; the eigenvalue's own error is its square
STEPS = 100  # of Lanczos, until the pair has converged, at most


def rescaled_thetas(
    theta: Tensor, objective: Objective, links: list[Link], factor: float, seed: int
) -> dict[str, Tensor]:
    """Networks of one function: theta itself, layer-wise and node-wise rescaled (P,).

    layer: every hidden unit's c is `factor`. node: each unit's own, log-uniform between 1 / factor
    and factor, drawn for this `seed`.
    """
    rescaled = partial(rescale, theta.double(), objective.layout, links)
    generator = torch_generator("rescaling", seed)
    return {
        "original": theta,
        "layer": rescaled(layer_factors(links, factor)).to(theta),
        "node": rescaled(node_factors(links, factor, generator=generator)).to(theta),
    }


def measures(
    objective: Objective, theta: Tensor, settings: Mapping, seed: int
) -> tuple[dict[str, Tensor], dict[str, bool]]:
    """Contributions (N,) float64 of the samples to every one of MEASURES at theta (P,), in nats.

    Each measure is the mean of its contributions. Beside them: whether each has converged.

    loss: L, which must not change.
    eigenvalue: the largest of the Hessian H, from v'H_i v.
    trace: of H, which is that of the Gauss-Newton matrix: what `rescaling` rescales is piecewise
        affine in each parameter tensor (see `piecewise_affine`).
    filter_eigenvalue: the largest of D H D with D the filter norms (`directions.filter_scale`).
    filter_curvature: E[d'Hd] over all filter-normalised d, sum_f ||w_f||^2 / n_f tr H_ff.
    filter_rise, element_rise: average rise under filter-normalised and under element-wise noise,
        at the smallest of the config's `radii`.
    worst_sam, worst_asam: worst case in the smallest `euclidean` and in the smallest `elementwise`
        ball.

    `settings` is the config's section `flatness`; the same `seed` draws the same noise at every
    theta.
    """
    theta = theta.to(objective.device, objective.dtype)
    operator = hessian_operator(objective, theta)
    scale = filter_scale(theta, objective.layout)
    found, converged = {"loss": sample_losses(objective, theta)[0].double().cpu()}, {}
    vector, converged["eigenvalue"] = _top_vector(operator, seed)
    scaled_vector, converged["filter_eigenvalue"] = _top_vector(scaled(operator, scale), seed)
    found["eigenvalue"], found["filter_eigenvalue"] = sample_forms(
        objective, theta, torch.stack([vector, scale * scaled_vector])
    )
    traces = sample_traces(objective, theta)
    found["trace"] = of_samples(traces).cpu()
    found["filter_curvature"] = filter_curvature_of_samples(traces, theta, objective.layout).cpu()
    for name, normalization in (("filter_rise", "filter"), ("element_rise", "element")):
        directions = random_directions(
            objective,
            theta,
            normalization,
            settings["draws"],
            generator=torch_generator("noise", seed),
        )
        found[name] = average_rises(objective, theta, directions, settings["radii"][:1])[0].mean(0)
    worst = settings["worst"]
    for name, radii, ball in (
        ("worst_sam", worst["euclidean"], None),
        ("worst_asam", worst["elementwise"], theta.abs()),
    ):
        found[name] = worst_case(objective, theta, radii[:1], worst["steps"], scale=ball).rises[0]
    return found, {name: converged.get(name, True) for name in MEASURES}


def _top_vector(operator: CurvatureOperator, seed: int) -> tuple[Tensor, bool]:
    """The unit eigenvector (P,) of the largest eigenvalue, and whether it has converged."""
    generator = torch_generator("invariance", seed)
    start = torch.randn(operator.size, generator=generator).to(operator.device, operator.dtype)
    pairs, _ = leading(operator, start, top=1, max_steps=STEPS, tolerance=TOLERANCE)
    return pairs.vectors[0], bool(pairs.converged[0])
