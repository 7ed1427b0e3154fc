"""A plane of 25 x 25 points: ours against `random_plane` of loss-landscapes."""

import copy

import loss_landscapes
import loss_landscapes.metrics
import numpy as np
import torch
from torch import nn

from harness import CLASSES, SHAPE, SPECS, compare, mnist, usual_model, write
from lossgeo.directions import random_direction
from lossgeo.models import build
from lossgeo.numerics import make_deterministic
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten
from lossgeo.span import spanned
from lossgeo.surface import plane

SAMPLES = 2000


class Recorded(loss_landscapes.metrics.Loss):
    """The peer's metric, which also keeps where it was asked and what it said."""

    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.thetas, self.losses = [], []

    def __call__(self, model_wrapper) -> float:
        self.losses.append(super().__call__(model_wrapper))
        self.thetas.append(flatten(model_wrapper.modules[0]))
        return self.losses[-1]


def their_plane(model: nn.Module, metric, points: int) -> np.ndarray:
    """On a copy: the peer leaves its model without gradients, and moves it."""
    return loss_landscapes.random_plane(
        copy.deepcopy(model), metric, distance=1, steps=points, normalization="filter"
    )


def disagreement(spec: dict, inputs: torch.Tensor, targets: torch.Tensor) -> float:
    """Largest relative difference between the peer's losses and ours at the peer's own points."""
    metric = Recorded(nn.functional.cross_entropy, inputs, targets)
    their_plane(usual_model(spec), metric, 5)
    corner, second, sixth = (metric.thetas[i] for i in (0, 1, 9))  # rows alternate in direction
    losses = spanned(
        make_objective(build(spec, SHAPE, CLASSES), inputs, targets),
        (corner, second - corner, sixth - corner),
    )
    order = [(i, j if i % 2 == 0 else 4 - j) for i in range(5) for j in range(5)]
    ours = losses(np.array([[1, j, i] for i, j in order]))[0].double().mean(1).numpy()
    return float(np.max(np.abs(ours / metric.losses - 1)))


def multiplications(spec: dict) -> float:
    """Floating-point operations of one forward pass of a study's CNN, per sample."""
    w = spec["width"]
    products = 784 * 9 * w + 196 * 9 * w * 2 * w + 98 * w * 128 + 128 * CLASSES
    return 2.0 * products


def main() -> None:
    inputs, targets = (x[:SAMPLES] for x in mnist())
    metric = loss_landscapes.metrics.Loss(nn.functional.cross_entropy, inputs, targets)
    rows = []
    for name, spec, points in (
        ("MLP-32", SPECS["MLP-32"], 25),
        ("MLP-128", SPECS["MLP-128"], 25),
        ("CNN-16", SPECS["CNN-16"], 9),
        ("CNN-64", SPECS["CNN-64"], 5),
    ):
        model = build(spec, SHAPE, CLASSES)
        objective, theta = make_objective(model, inputs, targets), flatten(model)
        axes = [
            random_direction(
                theta, objective.layout, "filter", generator=torch.Generator().manual_seed(seed)
            )
            for seed in (0, 1)
        ]
        grid = np.linspace(-1, 1, points)
        row = compare(
            f"plane {points} x {points}, {name}",
            "loss-landscapes random_plane, whole batch",
            lambda o=objective, t=theta, a=axes, g=grid: plane(o, t, *a, g, g),
            lambda s=spec, n=points: their_plane(usual_model(s), metric, n),
            samples=SAMPLES,
            agreement=disagreement(spec, inputs, targets),
        )
        rows.append(row)
        if spec["family"] == "cnn":
            size = round((multiplications(spec) * SAMPLES * points**2 / 2) ** (1 / 3))
            left, right = torch.randn(2, size, size)
            rows.append(
                compare(
                    f"plane {points} x {points}, {name}",
                    "one matrix product of as many operations",
                    lambda o=objective, t=theta, a=axes, g=grid: plane(o, t, *a, g, g),
                    lambda a=left, b=right: a @ b,
                    samples=SAMPLES,
                )
            )
    write("planes", rows)


if __name__ == "__main__":
    make_deterministic(1)
    main()
