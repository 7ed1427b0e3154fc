"""Extreme eigenvalues, spectral density and trace of the Hessian at the points of one run."""

from lossgeo import job, probe
from lossgeo.hessian import hessian_operator
from lossgeo.numerics import make_deterministic, torch_generator
from lossgeo.objective import Evaluation, evaluate
from lossgeo.spectrum import Spectrum
from lossgeo.spectrum import spectrum as measure
from lossgeo.store import Group, Variable


def as_group(spectrum: Spectrum, eigenvectors: int, point: probe.Point, loss: Evaluation) -> Group:
    """A point's spectrum as it is stored, with the loss of the objective there."""
    variables = {}
    for end, pairs in {"top": spectrum.top, "bottom": spectrum.bottom}.items():
        variables |= {
            f"{end}_eigenvalues": Variable((end,), pairs.values, "nats", f"{end} eigenvalues of H"),
            f"{end}_residuals": Variable((end,), pairs.residuals, "nats", "||H v - lambda v||"),
            f"{end}_converged": Variable(
                (end,), pairs.converged.astype("int8"), "1", "1: residual below tolerance"
            ),
        }
    variables["eigenvectors"] = Variable(
        ("vector", "parameter"),
        spectrum.top.vectors[:eigenvectors].cpu().numpy(),
        "1",
        "unit eigenvectors of the top eigenvalues",
    )
    variables["nodes"] = Variable(
        ("probe", "node"), spectrum.nodes, "nats", "quadrature nodes of the spectral density"
    )
    variables["weights"] = Variable(
        ("probe", "node"), spectrum.weights, "1", "their weights; each probe's sum to 1"
    )
    return Group(
        variables,
        {
            "status": point.status,
            "step": point.step,
            "loss": loss.loss,
            "loss_se": loss.loss_se,
            "trace": spectrum.trace,
            "trace_se": spectrum.trace_se,
            "products": spectrum.products,
        },
    )


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, snapshots = snakemake.params.config, snakemake.input.snapshots
    identity = probe.run_identity(snapshots)
    objective = probe.load_objective(
        snakemake.input.data, config, **config["objective"], seed=identity["seed"]
    )
    settings = {key: config["hessian"][key] for key in config["hessian"] if key != "eigenvectors"}
    groups = {}
    for name in config["points"]:
        point = probe.load_point(snapshots, name)
        spectrum = measure(
            hessian_operator(objective, point.theta),
            **settings,
            generator=torch_generator("spectrum", identity["seed"]),
        )
        print(
            f"{name} ({point.status}): largest eigenvalue {spectrum.top.values[0]:.4g}, trace "
            f"{spectrum.trace:.4g}, {spectrum.products} Hessian-vector products"
        )
        groups[name] = as_group(
            spectrum, config["hessian"]["eigenvectors"], point, evaluate(objective, point.theta)
        )
    probe.write(
        snakemake,
        groups,
        packages=("hessian-eigenthings",),
        **identity,
        **probe.describe(objective, config["objective"]["split"]),
    )


if __name__ == "__main__":
    job.log_to(snakemake.log[0])
    main(snakemake)
