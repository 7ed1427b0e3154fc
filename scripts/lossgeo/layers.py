"""The curvature of single layers: trace and largest eigenvalue of their blocks of the Hessian."""

from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from lossgeo import trace
from lossgeo.curvature import Measured
from lossgeo.hessian import hessian_operator, sample_forms
from lossgeo.objective import Objective, mean_and_error
from lossgeo.part import layers, part_of
from lossgeo.spectrum import leading
from lossgeo.trace import Estimate


@dataclass(frozen=True)
class LayerCurvature:
    """The Hessian of the loss as a function of one layer's parameters alone, the others held."""

    layer: str  # name of the module that owns the parameters
    parameters: int
    trace: Estimate
    exact: bool  # the trace needed no probe
    top: Measured  # its largest eigenvalue
    products: int  # Hessian-vector products of the block


def curvature_of_layers(
    objective: Objective,
    theta: Tensor,
    *,
    max_steps: int,
    tolerance: float,
    rest_probes: int,
    generator: Generator,
) -> list[LayerCurvature]:
    """Trace and largest eigenvalue of each layer's diagonal block of grad^2 L(theta), theta (P,).

    A layer is a module that owns parameters (`part.layers`). The eigenvalue is by Lanczos on the
    block (`spectrum.leading`), with its residual; the trace is as in `trace.traces`. Standard
    errors are over the samples. All NaN where theta is not finite.
    """
    theta = theta.to(objective.device, objective.dtype)
    if not torch.isfinite(theta).all():  # everything is NaN then, on one sample too
        inputs, targets = objective.blocks[0]
        objective = replace(objective, blocks=((inputs[:1], targets[:1]),))
    found = []
    for layer, names in layers(objective.model).items():
        block, part = part_of(objective, theta, [_literal(name) for name in names])
        start = torch.randn(len(part), generator=generator, dtype=torch.float64).to(part)
        pairs, products = leading(
            hessian_operator(block, part), start, top=1, max_steps=max_steps, tolerance=tolerance
        )
        errors = mean_and_error(sample_forms(block, part, pairs.vectors))[1]
        traces = trace.traces(
            block, part, rest_probes=rest_probes, generator=generator, filters=False
        )
        top = Measured(pairs, errors)
        found.append(LayerCurvature(layer, len(part), traces.hessian, traces.exact, top, products))
    return found


def _literal(name: str) -> str:
    """A pattern of this name alone."""
    return name.replace("[", "[[]").replace("*", "[*]").replace("?", "[?]")
