"""Planes through two minima and a third, or the midpoint of a curve between them."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from collections.abc import Sequence

import numpy as np
import torch

from lossgeo import multilevel, probe, store, surface
from lossgeo.buffers import along
from lossgeo.numerics import make_deterministic, numpy_generator
from lossgeo.objective import Objective, with_running
from lossgeo.store import Group, Variable
from lossgeo.trajectory import plane_grid

MEASURED = {
    "loss": ("nats", "mean cross-entropy"),
    "loss_se": ("nats", "standard error of the loss over the samples"),
    "rise_se": ("nats", "standard error of loss minus loss of the first point, paired"),
    "accuracy": ("1", "fraction classified correctly"),
}


def plane(
    objective: Objective,
    points: Sequence[torch.Tensor | None],
    statistics: Sequence[torch.Tensor | None],
    config: dict,
    *,
    generator: np.random.Generator,
) -> Group:
    """The loss on the plane through three points (P,), in units of distance in parameter space.

    Their running `statistics` are interpolated as they are. Where the points span no plane, or are
    not finite, there is only a status.
    """
    if any(theta is None for theta in points):
        return Group({}, {"status": "not available"})
    if not all(torch.isfinite(theta).all() for theta in points):
        return Group({}, {"status": "not finite"})
    try:
        axes, corners = surface.plane_through(*points)
    except ValueError:  # as an untrained midpoint
        return Group({}, {"status": "on a line"})
    count, margin = config["plane"]["points"], config["plane"]["margin"]
    spans = np.ptp(corners, axis=0)  # of the two axes; the margin is as wide on both
    alphas, betas = (
        plane_grid(corners[:, axis], count, margin * spans.max() / spans[axis]) for axis in (0, 1)
    )
    origin = points[0]
    if objective.running.names:
        middle, *carried = surface.carried_along(corners, statistics)
        origin, *axes = along(objective.running, [origin, *axes], [middle, *carried])
    measured, levels = multilevel.plane(
        with_running(objective),
        origin,
        *axes,
        alphas,
        betas,
        estimator=config["estimator"],
        generator=generator,
    )
    dims = ("alpha", "beta")
    variables = {
        "alpha": Variable(("alpha",), alphas, "1", "distance from the first point to the second"),
        "beta": Variable(("beta",), betas, "1", "distance from the line through these two"),
        "corners": Variable(("corner", "axis"), corners, "1", "the three points on the axes"),
        **{name: Variable(dims, measured[name], *MEASURED[name]) for name in MEASURED},
        "evaluated": Variable(
            dims,
            levels.evaluated.reshape(measured["loss"].shape).astype("int8"),
            "1",
            "1: evaluated; 0: interpolated",
        ),
    }
    return Group(
        variables,
        {
            "status": "ok",
            "held_out": levels.held_out,
            "interpolation_error": levels.interpolation_error,
        },
    )


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, files = probe.config_of(snakemake), snakemake.input
    identity = probe.pair_identity(snakemake)
    seed = identity["seed_a"]
    objective = probe.load_objective(files.data, config, **config["objective"], seed=seed)
    groups = {}
    for point in config["points"]:
        runs = {
            name: probe.load_point(files[f"snapshots_{name}"], point)
            for name in "abc"
            if files.get(f"snapshots_{name}")
        }
        orders = {
            name: probe.load_order(files[role], point)
            for name, role in (("b", "alignment"), ("c", "alignment_c"))
            if files.get(role)
        }

        def aligned(name: str, runs=runs, orders=orders) -> torch.Tensor | None:
            order = orders.get(name)
            return None if order is None else runs[name].theta[order]

        def midpoint(rung: str, name: str, point=point) -> torch.Tensor | None:
            file = files.get("curve")
            if file is None or rung not in store.subgroups(file, point):
                return None
            found = store.read(file, f"{point}/{rung}").variables
            return torch.from_numpy(found[name].values) if name in found else None

        a, b = runs["a"].theta, runs["b"].theta
        corners = {
            "curve": (a, b, midpoint("curve", "midpoint")),
            "aligned_curve": (a, aligned("b"), midpoint("aligned_curve", "midpoint")),
        }
        if "c" in runs:
            corners["minima"] = (a, b, runs["c"].theta)
            corners["aligned_minima"] = (a, aligned("b"), aligned("c"))
        groups[point] = Group({}, {"status": probe.status_of((runs["a"], runs["b"]))})
        own = [runs[name].buffers for name in runs]
        for kind, points in corners.items():
            third = [midpoint(kind, "buffers")] if kind.endswith("curve") else own[2:]
            generator = numpy_generator("pair plane levels", seed, kind)
            groups[f"{point}/{kind}"] = plane(
                objective, points, [*own[:2], *third], config, generator=generator
            )
            job.tell(f"{point}, {kind}: {groups[f'{point}/{kind}'].attributes}")
    probe.write(
        snakemake,
        groups,
        **identity,
        **probe.describe(objective, config["objective"]["split"]),
    )


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
