"""PCA of one run's snapshots, the surface on its plane, and what structureless paths would show."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from collections.abc import Mapping

import numpy as np
import torch

from lossgeo import directions, multilevel, probe, store, surface, trajectory
from lossgeo.buffers import along
from lossgeo.geometry import quadratic_r2
from lossgeo.numerics import make_deterministic, numpy_generator, torch_generator
from lossgeo.objective import Objective, at, evaluate_many, with_running
from lossgeo.store import Group, Variable


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config = probe.config_of(snakemake)
    settings, components = config["trajectory"], config["trajectory"]["components"]
    identity = probe.run_identity(snakemake.input.snapshots)
    kept = ("buffers",) if "buffer_names" in store.attributes(snakemake.input.snapshots) else ()
    names = ("theta", "step", "epoch", *kept)
    run = store.read(snakemake.input.snapshots, names=names).variables
    finite = np.isfinite(run["theta"].values).all(axis=1)
    snapshots = run["theta"].values[finite]
    status = "ok" if finite.all() else "diverged"
    objective = probe.load_objective(
        snakemake.input.data, config, **config["objective"], seed=identity["seed"]
    )
    groups = {}
    try:
        pca = trajectory.pca(snapshots, components)
    except ValueError as error:  # too few snapshots were finite, or one dwarfs all others
        job.tell(f"no PCA: {error}")
        status = "no PCA" if status == "ok" else status
    else:
        nulls = trajectory.null_explained(
            trajectory.step_gram(snapshots),
            snapshots.shape[1],
            components,
            settings["null_draws"],
            generator=numpy_generator("null", identity["seed"]),
        )
        thetas = list(map(torch.from_numpy, snapshots))
        own = [torch.from_numpy(run[name].values[finite]) for name in kept]
        statistics = list(own[0]) if own else [None] * len(thetas)
        true = evaluate_many(with_running(objective), along(objective.running, thetas, statistics))
        last = at(objective, statistics[-1])
        groups["pca"] = Group(
            {
                "component": Variable(
                    ("component",), np.arange(1, components + 1), "1", "principal component"
                ),
                "step": Variable(("snapshot",), run["step"].values[finite], "1", "optimizer steps"),
                "epoch": Variable(("snapshot",), run["epoch"].values[finite], "1", "epochs"),
                "explained": Variable(
                    ("component",), pca.explained, "1", "fraction of the trajectory's variance"
                ),
                "coordinates": Variable(
                    ("snapshot", "component"), pca.coordinates, "1", "relative to the last snapshot"
                ),
                "residual": Variable(
                    ("snapshot",), pca.residuals, "1", "distance from the plane of components 1, 2"
                ),
                "loss": Variable(("snapshot",), true["loss"], "nats", "true loss of the snapshot"),
                "loss_se": Variable(
                    ("snapshot",), true["loss_se"], "nats", "its standard error over the samples"
                ),
                **{
                    f"explained_{null}": Variable(
                        ("draw", "component"),
                        values,
                        "1",
                        f"the same, of null trajectories: {null}",
                    )
                    for null, values in nulls.items()
                },
            }
        )
        axes = torch.from_numpy(pca.axes[:2]).to(torch.float32)
        alphas, betas = (
            trajectory.plane_grid(pca.coordinates[:, axis], **settings["plane"]) for axis in (0, 1)
        )
        measured, levels = multilevel.plane(
            last,
            thetas[-1],
            *axes,
            alphas,
            betas,
            estimator=config["estimator"],
            generator=numpy_generator("trajectory levels", identity["seed"]),
        )
        offset = "offset from the last snapshot along component"
        groups["plane"] = Group(
            {
                "alpha": Variable(("alpha",), alphas, "1", f"{offset} 1"),
                "beta": Variable(("beta",), betas, "1", f"{offset} 2"),
                "loss": Variable(("alpha", "beta"), measured["loss"], "nats", "mean cross-entropy"),
                "loss_se": Variable(
                    ("alpha", "beta"), measured["loss_se"], "nats", "its standard error"
                ),
                "rise_se": Variable(
                    ("alpha", "beta"),
                    measured["rise_se"],
                    "nats",
                    "standard error of loss minus loss of the last snapshot, on the same samples",
                ),
                "accuracy": Variable(
                    ("alpha", "beta"), measured["accuracy"], "1", "fraction classified correctly"
                ),
                "evaluated": Variable(
                    ("alpha", "beta"),
                    levels.evaluated.reshape(measured["loss"].shape).astype("int8"),
                    "1",
                    "1: evaluated; 0: interpolated",
                ),
            },
            {
                "held_out": levels.held_out,
                "interpolation_error": levels.interpolation_error,
            },
        )
        groups["parabola"] = parabola(
            last,
            thetas[-1],
            axes[0],
            settings["parabola"],
            identity["seed"],
        )
        job.tell(f"{len(snapshots)} snapshots; component 1 explains {pca.explained[0]:.3f}")
    probe.write(
        snakemake,
        groups,
        **identity,
        **probe.describe(objective, config["objective"]["split"]),
        status=status,
        components=components,
    )


def parabola(
    objective: Objective,
    theta: torch.Tensor,
    pc1: torch.Tensor,
    settings: Mapping,
    seed: int,
) -> Group:
    """Lines through the last snapshot along PC1 and along random directions, all of unit norm.

    And how much of each a parabola explains: by Taylor's theorem much of any line, if it is short.
    """
    alphas = surface.centred_grid(settings["distance"], settings["points"])
    random = [
        directions.random_direction(
            theta, objective.layout, "none", generator=torch_generator("parabola", seed, index)
        )
        for index in range(settings["directions"])
    ]
    axes = [pc1, *(direction / direction.norm() for direction in random)]
    losses = np.stack([surface.line(objective, theta, axis, alphas)["loss"] for axis in axes])
    r2 = np.array([quadratic_r2(alphas, loss) for loss in losses])
    explained = "R^2 of the parabola fitted to"
    return Group(
        {
            "alpha": Variable(("alpha",), alphas, "1", "offset from the last snapshot"),
            "loss_pc1": Variable(("alpha",), losses[0], "nats", "loss along component 1"),
            "loss_random": Variable(
                ("direction", "alpha"), losses[1:], "nats", "loss along random unit directions"
            ),
            "r2_pc1": Variable((), r2[0], "1", f"{explained} loss_pc1; NaN where it is flat"),
            "r2_random": Variable(("direction",), r2[1:], "1", f"{explained} each loss_random"),
        }
    )


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
