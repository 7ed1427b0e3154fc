"""Random lines, random planes and the eigenvector plane through the points of one run."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from collections.abc import Sequence

import numpy as np
import torch

from lossgeo import directions, multilevel, probe, store, surface, tiles, views
from lossgeo.hessian import sample_forms
from lossgeo.multilevel import Levels
from lossgeo.numerics import make_deterministic, numpy_generator
from lossgeo.objective import Objective, mean_and_error
from lossgeo.store import Group, Variable
from lossgeo.tiles import MEASURED
from lossgeo.views import random_directions

DIFFERENCE_STEP = 0.1  # in units of the eigenplane's axes: the quadratic rises by rise / 100

LEVELS = {  # of Levels
    "held_out": ("1", "random points that were predicted first (lines: over all directions)"),
    "interpolation_error": (
        "1",
        "of the loss, at 95 % of the interpolated points at most: as a share of its rise above the "
        "centre, or of the rise's standard error where that is larger",
    ),
}

Known = dict[str, np.ndarray] | None  # MEASURED (K, points) of K surfaces, where tiles have them


def lines(
    objective: Objective,
    point: probe.Point,
    settings: dict,
    estimator: str,
    seed: int,
    known: Known = None,
) -> Group:
    """`directions` random lines through a point."""
    _, (alphas,) = views.layout("lines", settings)
    axes = random_directions(
        objective, point, settings["lines"]["directions"], settings, "line", seed
    )
    if known:
        values, levels = tiles.whole(known, [alphas])
    else:
        values, levels = multilevel.lines(
            objective,
            point.theta,
            axes,
            alphas,
            estimator=estimator,
            stencils=settings["stencils"],
            generator=numpy_generator("line levels", seed),
        )
    dims = ("direction", "alpha")
    group = surface_group(point, values, [levels] * len(axes), dims, {"alpha": alphas}, {})
    forms = sample_curvatures(objective, point, axes)
    return Group(
        {**group.variables, **curvature("curvature", ("direction",), forms)}, group.attributes
    )


def planes(
    objective: Objective,
    point: probe.Point,
    settings: dict,
    estimator: str,
    seed: int,
    known: Known = None,
) -> Group:
    """`count` planes through a point, each spanned by two random directions of its own."""
    _, grid = views.layout("planes", settings)
    spans = random_directions(
        objective, point, 2 * settings["planes"]["count"], settings, "plane", seed
    )
    pairs = list(zip(spans[::2], spans[1::2], strict=True))
    measured = [
        known_plane(known, index, grid)
        if known
        else multilevel.plane(
            objective,
            point.theta,
            *pair,
            *grid,
            estimator=estimator,
            stencils=settings["stencils"],
            generator=numpy_generator("plane levels", seed, index),
        )
        for index, pair in enumerate(pairs)
    ]
    values = {name: np.stack([one[name] for one, _ in measured]) for name in MEASURED}
    group = surface_group(
        point,
        values,
        [levels for _, levels in measured],
        ("plane", "alpha", "beta"),
        dict(zip(("alpha", "beta"), grid, strict=True)),
        {},
    )
    cosines = np.array([directions.cosine(*pair) for pair in pairs])
    cosine = Variable(("plane",), cosines, "1", "cosine of the angle between the two axes")
    forms = sample_curvatures(objective, point, spans).unflatten(0, (len(pairs), 2))
    variables = {**group.variables, "cosine": cosine, **curvature_of_planes(forms)}
    return Group(variables, group.attributes)


def eigenplane(
    objective: Objective,
    point: probe.Point,
    settings: dict,
    estimator: str,
    seed: int,
    hessian: Group,
    known: Known = None,
) -> Group:
    """The plane of the two top Hessian eigenvectors: alpha goes along the first.

    Its unit along an eigenvector is where the quadratic has risen by `rise` (`views.eigen_axes`):
    the axes then show every model at the scale of its own curvature.
    """
    _, grid = views.layout("eigenplane", settings)
    top = hessian.variables["top_eigenvalues"].values[:2]
    axes, scales = views.eigen_axes(hessian, settings["rise"])
    if known:
        values, levels = known_plane(known, 0, grid)
    else:
        values, levels = multilevel.plane(
            objective,
            point.theta,
            *axes,
            *grid,
            estimator=estimator,
            stencils=settings["stencils"],
            generator=numpy_generator("eigenplane levels", seed),
        )
    attributes = {"cosine": directions.cosine(*axes)}
    for name, axis, value, scale in zip(("alpha", "beta"), axes, top, scales, strict=True):
        second = surface.second_difference(objective, point.theta, axis, DIFFERENCE_STEP)
        attributes |= {
            f"eigenvalue_{name}": value,
            f"scale_{name}": scale,
            f"second_difference_{name}": second / scale**2,
        }
    group = surface_group(
        point,
        {name: values[name][np.newaxis] for name in MEASURED},
        [levels],
        ("plane", "alpha", "beta"),
        dict(zip(("alpha", "beta"), grid, strict=True)),
        attributes,
    )
    forms = sample_curvatures(objective, point, axes).unsqueeze(0)
    return Group({**group.variables, **curvature_of_planes(forms)}, group.attributes)


def known_plane(
    known: dict[str, np.ndarray], index: int, grid: Sequence[np.ndarray]
) -> tuple[dict[str, np.ndarray], Levels]:
    """What `multilevel.plane` returns, of one of K planes that tiles have."""
    one = {name: values[index : index + 1] for name, values in known.items()}
    values, levels = tiles.whole(one, grid)
    return {name: row.reshape([len(axis) for axis in grid]) for name, row in values.items()}, levels


def sample_curvatures(
    objective: Objective, point: probe.Point, axes: list[torch.Tensor]
) -> torch.Tensor:
    """d'H_i d of every sample i along k directions: (k, N); NaN where there is no theta."""
    if point.status != "ok":
        return torch.full((len(axes), objective.samples), torch.nan, dtype=torch.float64)
    directions = torch.stack(axes).to(objective.device, objective.dtype)
    return sample_forms(objective, point.theta, directions)


def curvature(name: str, dims: tuple, forms: torch.Tensor) -> dict[str, Variable]:
    """d'Hd at the centre and its standard error, from that of every sample, forms (..., N)."""
    mean, error = mean_and_error(forms)
    return {
        name: Variable(dims, mean, "nats", "d'Hd at the centre, of the Hessian itself"),
        f"{name}_se": Variable(dims, error, "nats", "its standard error over the samples"),
    }


def curvature_of_planes(forms: torch.Tensor) -> dict[str, Variable]:
    """The mean over the two axes of each plane, and that of each axis: forms (planes, 2, N)."""
    return {
        **curvature("curvature", ("plane",), forms.mean(1)),
        **curvature("axis_curvature", ("plane", "axis"), forms),
    }


def surface_group(
    point: probe.Point,
    values: dict[str, np.ndarray],
    levels: list[Levels],
    dims: tuple,
    coordinates: dict,
    attributes: dict,
) -> Group:
    """Lines or planes stacked along the first of `dims`, and the levels of each."""
    variables = {
        name: Variable((name,), grid, "1", f"offset along {name} in units of its direction")
        for name, grid in coordinates.items()
    }
    for name, description in MEASURED.items():
        variables[name] = Variable(dims, values[name], *description)
    shape = values["loss"].shape[1:]
    for name, description in (
        ("evaluated", "1: evaluated; 0: interpolated"),
        ("stencils", "1: centre of a stencil of the random sample that convexity is judged by"),
    ):
        masks = [getattr(one, name).reshape(shape).astype("int8") for one in levels]
        variables[name] = Variable(dims, np.stack(masks), "1", description)
    for name, description in LEVELS.items():
        column = np.array([getattr(one, name) for one in levels])
        variables[name] = Variable(dims[:1], column, *description)
    return Group(variables, {"status": point.status, "step": point.step, **attributes})


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, snapshots = probe.config_of(snakemake), snakemake.input.snapshots
    identity = probe.run_identity(snapshots)
    settings, estimator, seed = config["landscape"], config["estimator"], identity["seed"]
    objective = probe.load_objective(snakemake.input.data, config, **config["objective"], seed=seed)
    files = snakemake.input.tiles
    joined = tiles.join(files, config["points"], settings) if files else {}
    groups = {}
    for name in config["points"]:
        point = probe.load_point(snapshots, name)
        hessian = store.read(snakemake.input.hessian, name)
        here, point = probe.at_point(objective, point, config)
        known, args = joined.get(name, {}), (here, point, settings, estimator, seed)
        groups |= {
            f"{name}/lines": lines(*args, known.get("lines")),
            f"{name}/planes": planes(*args, known.get("planes")),
            f"{name}/eigenplane": eigenplane(*args, hessian, known.get("eigenplane")),
        }
        job.tell(f"{name} ({point.status}): lines, planes and eigenplane measured")
    probe.write(
        snakemake,
        groups,
        parts=files,
        **identity,
        **probe.describe(objective, config["objective"]["split"]),
    )


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
