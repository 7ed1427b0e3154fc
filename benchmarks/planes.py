"""A plane: every point, and multilevel, against `random_plane` of loss-landscapes.

The peer is timed on a few points only where its plane would take hours: its cost per point does
not depend on how many there are. Our losses at the peer's own parameter vectors are compared with
the peer's in the same run.
"""

import copy
import io
from contextlib import redirect_stderr, redirect_stdout

import loss_landscapes
import loss_landscapes.metrics
import numpy as np
import torch
from landscaper.compute import compute_loss_landscape
from torch import nn

from harness import CLASSES, SHAPE, SPECS, compare, mnist, trained, usual_model, write
from lossgeo import multilevel, surface
from lossgeo.directions import random_direction
from lossgeo.models import build
from lossgeo.numerics import make_deterministic
from lossgeo.objective import Objective, make_objective
from lossgeo.parameters import flatten, unflatten
from lossgeo.span import spanned

SAMPLES = 2000


class Recorded(loss_landscapes.metrics.Loss):
    """The peer's metric, which also keeps where it was asked and what it said."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.thetas, self.losses = [], []

    def __call__(self, model_wrapper) -> float:
        self.losses.append(super().__call__(model_wrapper))
        self.thetas.append(nn.utils.parameters_to_vector(model_wrapper.modules[0].parameters()))
        return self.losses[-1]


def their_plane(model: nn.Module, metric, points: int) -> np.ndarray:
    """On a copy: the peer leaves its model without gradients, and moved."""
    return loss_landscapes.random_plane(
        copy.deepcopy(model), metric, distance=1, steps=points, normalization="filter"
    )


def landscaper_plane(model: nn.Module, data: tuple, axes: list, points: int) -> np.ndarray:
    """The plane of landscaper along two given directions."""

    def scalar(network: nn.Module, data: tuple) -> float:
        return nn.functional.cross_entropy(network(data[0]), data[1]).item()

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        return compute_loss_landscape(
            copy.deepcopy(model), data, axes, scalar, steps=points, dim=2, device="cpu"
        )[0]


def disagreement(model: nn.Module, objective: Objective, metric: Recorded) -> float:
    """Largest relative difference between the peer's losses and ours at the peer's own points."""
    their_plane(model, metric, 4)  # runs forth along the first row, back along the second
    theta = metric.thetas
    step, row = theta[1] - theta[0], theta[4] - theta[2]
    steps = [[1, j, 0] for j in range(4)] + [[1, j, 1] for j in (2, 1, 0, -1)]
    losses, _ = spanned(objective, (theta[0], step, row))(np.array(steps))
    return float(np.abs(losses.double().mean(1).numpy() / metric.losses[:8] - 1).max())


def operations(spec: dict) -> float:
    """Floating-point operations of one forward pass of a study's CNN, per sample."""
    w = spec["width"]
    return 2.0 * (784 * 9 * w + 196 * 9 * w * 2 * w + 98 * w * 128 + 128 * CLASSES)


def main() -> None:
    train = mnist()
    data = tuple(part[:SAMPLES] for part in train)
    metric = loss_landscapes.metrics.Loss(nn.functional.cross_entropy, *data)
    rows = []
    for name, points in (("MLP-32", 25), ("MLP-128", 25), ("CNN-16", 3), ("CNN-64", 2)):
        spec = SPECS[name]
        model = trained(spec, *(part[: 12800 if "CNN" in name else 60000] for part in train))
        usual = usual_model(spec, model.state_dict())
        objective, theta = make_objective(build(spec, SHAPE, CLASSES), *data), flatten(model)
        axes = [
            random_direction(
                theta, objective.layout, "filter", generator=torch.Generator().manual_seed(seed)
            )
            for seed in (0, 1)
        ]
        agreement = disagreement(usual, objective, Recorded(nn.functional.cross_entropy, *data))

        def full(n: int, objective=objective, theta=theta, axes=axes):
            grid = np.linspace(-1, 1, n)
            return surface.plane(objective, theta, *axes, grid, grid)

        def few(n: int, objective=objective, theta=theta, axes=axes):
            grid, generator = surface.centred_grid(1.0, n), np.random.default_rng(0)
            return multilevel.plane(
                objective, theta, *axes, grid, grid, estimator="multilevel", generator=generator
            )

        peer = "loss-landscapes random_plane, whole batch"
        rows.append(
            compare(
                f"plane, every point, {name}",
                peer,
                lambda n=points, full=full: full(n),
                lambda n=points, model=usual: their_plane(model, metric, n),
                samples=SAMPLES,
                agreement=agreement,
            )
        )
        parts = [list(unflatten(axis, objective.layout).values()) for axis in axes]
        rows.append(
            compare(
                f"plane, every point, {name}",
                "landscaper compute_loss_landscape, whole batch",
                lambda n=points, full=full: full(n),
                lambda n=points, model=usual, parts=parts: landscaper_plane(model, data, parts, n),
                samples=SAMPLES,
            )
        )
        if spec["family"] == "cnn":
            size = round((operations(spec) * SAMPLES * points**2 / 2) ** (1 / 3))
            left, right = torch.randn(2, size, size)
            rows.append(
                compare(
                    f"plane, every point, {name}",
                    "one matrix product of as many operations",
                    lambda n=points, full=full: full(n),
                    lambda a=left, b=right: a @ b,
                    samples=SAMPLES,
                )
            )
        for n in (25, 51):
            rows.append(
                compare(
                    f"plane {n} x {n}, multilevel, {name}",
                    peer,
                    lambda n=n, few=few: few(n),
                    lambda n=points, model=usual: their_plane(model, metric, n),
                    share=points**2 / n**2,
                    samples=SAMPLES,
                    repeats=3 if name == "CNN-64" else 5,
                )
            )
    write("planes", rows)


if __name__ == "__main__":
    make_deterministic(1)
    main()
