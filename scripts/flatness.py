"""Rise of the loss around the points of one run: under noise, at worst, and rescaled."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from collections.abc import Mapping

import numpy as np
import torch

from lossgeo import invariance, probe
from lossgeo.hessian import sample_forms
from lossgeo.numerics import make_deterministic, torch_generator
from lossgeo.objective import Objective, mean_and_error
from lossgeo.probe import Point
from lossgeo.rescaling import find_rescalable
from lossgeo.sharpness import average_rises, random_directions, worst_case
from lossgeo.statistics import ratio_of_means
from lossgeo.store import Group, Variable


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, snapshots = probe.config_of(snakemake), snakemake.input.snapshots
    settings = config["flatness"]
    identity = probe.run_identity(snapshots)
    seed = identity["seed"]
    objective = probe.load_objective(snakemake.input.data, config, **config["objective"], seed=seed)
    noises = {
        "normalized": (settings["normalization"], np.array(settings["radii"])),
        "elementwise": ("element", np.array(settings["radii"])),
        "isotropic": ("none", np.array([settings["noise"]])),
    }
    groups = {}
    for name in config["points"]:
        point = probe.load_point(snapshots, name)
        here, point = probe.at_point(objective, point, config)
        for noise, kind in noises.items():
            groups[f"{name}/{noise}"] = under_noise(here, point, *kind, settings["draws"], seed)
        for ball in ("euclidean", "elementwise"):
            groups[f"{name}/worst/{ball}"] = at_worst(here, point, settings["worst"], ball)
        if name == config["rescaled"]:
            groups[f"{name}/invariance"] = before_and_after(here, point, settings, seed)
        job.tell(f"{name} ({point.status}): {settings['draws']} draws")
    probe.write(
        snakemake,
        groups,
        packages=("hessian-eigenthings",),
        **identity,
        **probe.describe(objective, config["objective"]["split"]),
    )


def under_noise(
    objective: Objective, point: Point, normalization: str, radii: np.ndarray, draws: int, seed: int
) -> Group:
    """Average rises at several radii, and the curvature along the same directions."""
    directions = random_directions(
        objective, point.theta, normalization, draws, generator=torch_generator("noise", seed)
    )
    rises = average_rises(objective, point.theta, directions, radii)  # (R, D, N)
    forms = torch.full(rises.shape[1:], torch.nan, dtype=torch.float64)  # (D, N)
    if point.status == "ok":
        forms = sample_forms(objective, point.theta, directions)
    by_sample, curvature = rises.mean(1), forms.mean(0)  # (R, N), (N,)
    quadratic = torch.from_numpy(radii**2 / 2)[:, None] * curvature
    _, ratio_se = ratio_of_means(by_sample.numpy(), quadratic.numpy())
    variables = {
        "radius": Variable(("radius",), radii, "1", "scale of the noise in units of its direction"),
        "rise": Variable(
            ("radius", "draw"),
            rises.mean(2).numpy(),
            "nats",
            "mean of L(theta + r d) and L(theta - r d), minus L(theta)",
        ),
        "rise_sample_se": Variable(
            ("radius",),
            mean_and_error(by_sample)[1],
            "nats",
            "standard error over samples of the mean rise over the draws",
        ),
        "curvature": Variable(("draw",), forms.mean(1).numpy(), "nats", "d'Hd of each draw"),
        "curvature_sample_se": Variable(
            (), mean_and_error(curvature)[1], "nats", "standard error over samples of its mean"
        ),
        "kink_ratio_sample_se": Variable(
            ("radius",), ratio_se, "1", "standard error over samples of rise / (r^2 / 2 d'Hd)"
        ),
    }
    return Group(variables, describe(point) | {"normalization": normalization})


def at_worst(objective: Objective, point: Point, settings: Mapping, ball: str) -> Group:
    """The largest rises that were found in balls around theta."""
    scale = point.theta.abs() if ball == "elementwise" else None
    radii = np.array(settings[ball])
    found = worst_case(objective, point.theta, radii, settings["steps"], scale=scale)
    rise, error = mean_and_error(found.rises)
    variables = {
        "radius": Variable(("radius",), radii, "1", "of the ball"),
        "rise": Variable(("radius",), rise, "nats", "the largest rise that was found"),
        "rise_sample_se": Variable(("radius",), error, "nats", "its standard error over samples"),
        "first_order": Variable(
            ("radius",), found.first_order, "nats", "the largest rise of the linearised loss"
        ),
        "best": Variable(
            ("radius", "gradient"), found.best, "nats", "the largest rise after so many gradients"
        ),
    }
    return Group(variables, describe(point) | {"steps": settings["steps"]})


def before_and_after(objective: Objective, point: Point, settings: Mapping, seed: int) -> Group:
    """Every measure of sharpness, before and after rescalings of the hidden units."""
    names = {"measures": ",".join(invariance.MEASURES), "factor": settings["rescaling"]}
    links = find_rescalable(objective.model)
    if links is None or point.status != "ok":
        status = "not available" if links is None else point.status
        return Group({}, describe(point) | names | {"status": status})
    thetas = invariance.rescaled_thetas(point.theta, objective, links, settings["rescaling"], seed)
    found = {
        kind: invariance.measures(objective, theta, settings, seed)
        for kind, theta in thetas.items()
    }
    variables = {}
    for name in invariance.MEASURES:
        samples = torch.stack([contributions[name] for contributions, _ in found.values()])
        value, error = mean_and_error(samples)
        ratio, ratio_error = ratio_of_means(samples.numpy(), samples[:1].numpy())
        converged = np.array([good[name] for _, good in found.values()], dtype="int8")
        for suffix, values, units, what in (
            ("", value, "nats", name),
            ("_se", error, "nats", "its standard error over samples"),
            ("_ratio", ratio, "1", "to that of the original network"),
            ("_ratio_se", ratio_error, "1", "its standard error over samples, paired"),
            ("_converged", converged, "1", "1: converged"),
        ):
            variables[name + suffix] = Variable(("network",), values, units, what)
    return Group(variables, describe(point) | names | {"networks": ",".join(thetas)})


def describe(point: Point) -> dict:
    return {"status": point.status, "step": point.step}


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
