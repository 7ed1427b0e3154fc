"""Eigenvalues, spectral density and traces of the Hessian at the points of one run."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

import json

import numpy as np

from lossgeo import probe
from lossgeo.curvature import Curvature, Measured, curvature
from lossgeo.layers import LayerCurvature, curvature_of_layers
from lossgeo.numerics import make_deterministic, torch_generator
from lossgeo.objective import Evaluation, evaluate
from lossgeo.parameters import Layout
from lossgeo.store import Group, Variable
from lossgeo.trace import Estimate


def eigenvalues(end: str, measured: Measured, units: str = "nats") -> dict[str, Variable]:
    """Eigenvalues of one end of a spectrum as they are stored."""
    pairs = measured.pairs
    return {
        f"{end}_eigenvalues": Variable((end,), pairs.values, units, f"{end} eigenvalues"),
        f"{end}_standard_errors": Variable(
            (end,), measured.standard_errors, units, "their standard errors over the samples"
        ),
        f"{end}_residuals": Variable((end,), pairs.residuals, units, "||A v - lambda v||"),
        f"{end}_converged": Variable(
            (end,), pairs.converged.astype("int8"), "1", "1: residual below tolerance"
        ),
    }


def errors(name: str, estimate: Estimate) -> dict[str, float]:
    """A number and its standard errors as they are stored."""
    return {
        name: estimate.value,
        f"{name}_se": estimate.se,
        f"{name}_probe_se": estimate.probe_se,
    }


def as_groups(
    found: Curvature, eigenvectors: int, layout: Layout, point: probe.Point, loss: Evaluation
) -> dict[str, Group]:
    """A point's curvature as it is stored, with the loss of the objective there."""
    spectrum = found.spectrum
    traces = np.array(found.tensor_traces)  # (tensors, 3)
    variables = {
        **eigenvalues("top", found.largest["hessian"]),
        **eigenvalues("bottom", found.smallest),
        "eigenvectors": Variable(
            ("vector", "parameter"),
            spectrum.top.vectors[:eigenvectors].cpu().numpy(),
            "1",
            "unit eigenvectors of the top eigenvalues",
        ),
        "nodes": Variable(
            ("probe", "node"), spectrum.nodes, "nats", "quadrature nodes of the spectral density"
        ),
        "weights": Variable(
            ("probe", "node"), spectrum.weights, "1", "their weights; each probe's sum to 1"
        ),
        "tensor_traces": Variable(
            ("tensor",), traces[:, 0], "nats", "traces of the Gauss-Newton matrix's blocks"
        ),
        "tensor_traces_se": Variable(
            ("tensor",), traces[:, 1], "nats", "their standard errors over the samples"
        ),
    }
    attributes = {
        "status": point.status,
        "step": point.step,
        "loss": loss.loss,
        "loss_se": loss.loss_se,
        "trace_method": "exact" if found.exact else "hutchinson",
        **errors("trace", found.trace),
        **errors("gauss_newton_trace", found.gauss_newton_trace),
        **errors("filter_curvature", found.filter_curvature),
        **errors("effective_rank", found.effective_rank),
        "outliers": found.outliers,
        "outlier_gap": found.outlier_gap,
        "products": found.products,
        "gauss_newton_products": found.gauss_newton_products,
        "tensors": json.dumps(layout.names),
        "tensor_sizes": json.dumps(layout.sizes),
    }
    groups = {"": Group(variables, attributes)}
    for matrix, measured in found.largest.items():
        if matrix != "hessian":
            # the preconditioner is in nats as well
            units = "1" if matrix == "preconditioned" else "nats"
            stored = eigenvalues("top", measured, units)
            groups[f"/{matrix}"] = Group(stored, {"status": point.status})
    cosines = Variable(("top",), found.cosines, "1", "|cos| to H's eigenvector of the same rank")
    split = groups["/gauss_newton"]
    groups["/gauss_newton"] = Group({**split.variables, "cosines": cosines}, split.attributes)
    return groups


def group_of_layers(found: list[LayerCurvature], point: probe.Point) -> Group:
    """The curvature of every layer as it is stored."""
    tops = [layer.top.pairs for layer in found]
    nats = {
        "traces": ([layer.trace.value for layer in found], "traces of the layers' blocks of H"),
        "traces_se": ([layer.trace.se for layer in found], "their standard errors"),
        "eigenvalues": ([top.values[0] for top in tops], "the blocks' largest eigenvalues"),
        "standard_errors": (
            [layer.top.standard_errors[0] for layer in found],
            "their standard errors over the samples",
        ),
        "residuals": ([top.residuals[0] for top in tops], "||H v - lambda v|| in the block"),
    }
    numbers = {
        "converged": ([top.converged[0] for top in tops], "1: residual below tolerance"),
        "exact": ([layer.exact for layer in found], "1: the trace needed no probe"),
        "parameters": ([layer.parameters for layer in found], "parameters of the layer"),
        "products": ([layer.products for layer in found], "products with the block of H"),
    }
    variables = {
        name: Variable(("layer",), np.array(values), "nats", what)
        for name, (values, what) in nats.items()
    } | {
        name: Variable(("layer",), np.array(values, dtype="int64"), "1", what)
        for name, (values, what) in numbers.items()
    }
    layers = json.dumps([layer.layer for layer in found])
    return Group(variables, {"status": point.status, "layers": layers})


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, snapshots = probe.config_of(snakemake), snakemake.input.snapshots
    identity = probe.run_identity(snapshots)
    objective = probe.load_objective(
        snakemake.input.data, config, **config["objective"], seed=identity["seed"]
    )
    others = ("eigenvectors", "layers")
    settings = {key: value for key, value in config["hessian"].items() if key not in others}
    groups = {}
    for name in config["points"]:
        point = probe.load_point(snapshots, name)
        here, point = probe.at_point(objective, point, config)
        found = curvature(
            here,
            point.theta,
            preconditioner=point.preconditioner,
            **settings,
            generator=torch_generator("spectrum", *identity.values(), name),
        )
        job.tell(
            f"{name} ({point.status}): largest eigenvalue {found.spectrum.top.values[0]:.4g}, "
            f"trace {found.trace.value:.4g}, {found.products} Hessian-vector products and "
            f"{found.gauss_newton_products} with the Gauss-Newton matrix"
        )
        parts = as_groups(
            found,
            config["hessian"]["eigenvectors"],
            here.layout,
            point,
            evaluate(here, point.theta),
        )
        groups |= {f"{name}{suffix}": group for suffix, group in parts.items()}
        if config["hessian"].get("layers"):
            layers = curvature_of_layers(
                here,
                point.theta,
                **{key: settings[key] for key in ("max_steps", "tolerance", "rest_probes")},
                generator=torch_generator("layers", *identity.values(), name),
            )
            groups[f"{name}/layers"] = group_of_layers(layers, point)
    probe.write(
        snakemake,
        groups,
        packages=("hessian-eigenthings",),
        **identity,
        **probe.describe(objective, config["objective"]["split"]),
    )


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
