"""The surfaces on which a run is seen at a point: their axes and their grids."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lossgeo.directions import random_direction
from lossgeo.numerics import torch_generator
from lossgeo.objective import Objective
from lossgeo.probe import Point
from lossgeo.store import Group
from lossgeo.surface import centred_grid

KINDS = ("lines", "planes", "eigenplane")


class Surface(NamedTuple):
    """theta + sum_k c_k d_k for the coordinates c of a grid."""

    axes: Sequence[Tensor]  # d_k (P,)
    grid: Sequence[np.ndarray]  # the coordinates along each axis


def layout(kind: str, settings: Mapping) -> tuple[int, list[np.ndarray]]:
    """How many surfaces of a kind there are at a point, and the coordinates along their axes.

    `settings` is the section `landscape` of a config.
    """
    alphas = centred_grid(settings[kind]["distance"], settings[kind]["points"])
    if kind == "lines":
        return settings["lines"]["directions"], [alphas]
    return settings["planes"]["count"] if kind == "planes" else 1, [alphas, alphas]


def surfaces(
    kind: str, objective: Objective, point: Point, settings: Mapping, seed: int, hessian: Group
) -> list[Surface]:
    """All surfaces of a kind through a point."""
    count, grid = layout(kind, settings)
    if kind == "eigenplane":
        return [Surface(eigen_axes(hessian, settings["rise"])[0], grid)]
    each = len(grid)
    purpose = {"lines": "line", "planes": "plane"}[kind]
    drawn = random_directions(objective, point, each * count, settings, purpose, seed)
    return [Surface(drawn[k : k + each], grid) for k in range(0, len(drawn), each)]


def random_directions(
    objective: Objective, point: Point, count: int, settings: Mapping, purpose: str, seed: int
) -> list[Tensor]:
    """The run's own directions: the same draws at each of its points, normalised to each."""
    return [
        random_direction(
            point.theta,
            objective.layout,
            settings["normalization"],
            generator=torch_generator(purpose, seed, index),
        )
        for index in range(count)
    ]


def eigen_axes(hessian: Group, rise: float) -> tuple[list[Tensor], list[float]]:
    """The two top eigenvectors (P,) of a Hessian, each times its scale; and the scales.

    The scale along the eigenvector of lambda is sqrt(2 rise / lambda), where the quadratic has
    risen by `rise`, in nats; 1 if lambda <= 0.
    """
    vectors = torch.from_numpy(hessian.variables["eigenvectors"].values)[:2]
    top = hessian.variables["top_eigenvalues"].values[:2]
    scales = [np.sqrt(2 * rise / value) if value > 0 else 1.0 for value in top]
    return [float(s) * vector for s, vector in zip(scales, vectors, strict=True)], scales
