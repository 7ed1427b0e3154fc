"""The stage `landscape`: d'Hd at the centre of its lines and planes."""

import numpy as np
import pytest
import torch
from torch import nn

import landscape
from lossgeo.geometry import line_geometry
from lossgeo.objective import make_objective
from lossgeo.probe import Point
from lossgeo.surface import centred_grid, line

from .conftest import dense_hessian

SETTINGS = {
    "normalization": "filter",
    "lines": {"directions": 3, "distance": 1.0, "points": 5},
    "planes": {"count": 2, "distance": 1.0, "points": 5},
    "stencils": 1,
}


def forms(case, axes) -> np.ndarray:
    """d'Hd of each axis by the dense Hessian."""
    return np.array([float(d @ case.hessian @ d) for d in axes])


def sample_forms(case, axes) -> np.ndarray:
    """d'H_i d (k, N) by the dense Hessian of every sample."""
    each = [
        dense_hessian(case.model, x[None], y[None], case.theta)
        for x, y in zip(case.inputs, case.targets, strict=True)
    ]
    return np.array([[float(d @ hessian @ d) for hessian in each] for d in axes])


def axes_of(case, purpose: str, count: int) -> list[torch.Tensor]:
    point = Point(case.theta, "ok", 1)
    return landscape.random_directions(case.objective, point, count, SETTINGS, purpose, 0)


def test_the_curvature_of_lines_is_that_of_the_dense_hessian_with_its_error_over_samples(mlp):
    found = landscape.lines(mlp.objective, Point(mlp.theta, "ok", 1), SETTINGS, "full", 0)
    axes = axes_of(mlp, "line", 3)
    each = sample_forms(mlp, axes)
    error = each.std(1, ddof=1) / np.sqrt(each.shape[1])
    np.testing.assert_allclose(found.variables["curvature"].values, forms(mlp, axes), rtol=1e-9)
    np.testing.assert_allclose(found.variables["curvature_se"].values, error, rtol=1e-8)


def test_the_curvature_of_a_plane_is_the_mean_of_its_two_axes_on_the_same_samples(mlp):
    found = landscape.planes(mlp.objective, Point(mlp.theta, "ok", 1), SETTINGS, "full", 0)
    found = {name: variable.values for name, variable in found.variables.items()}
    each = sample_forms(mlp, axes_of(mlp, "plane", 4)).reshape(2, 2, -1)
    root = np.sqrt(each.shape[-1])
    np.testing.assert_allclose(found["axis_curvature"], each.mean(2), rtol=1e-8)
    np.testing.assert_allclose(found["axis_curvature_se"], each.std(2, ddof=1) / root, rtol=1e-8)
    np.testing.assert_allclose(found["curvature"], each.mean((1, 2)), rtol=1e-8)
    paired = each.mean(1).std(1, ddof=1) / root
    np.testing.assert_allclose(found["curvature_se"], paired, rtol=1e-8)


def test_convolutions_have_the_dense_curvature_too(cnn):
    found = landscape.lines(cnn.objective, Point(cnn.theta, "ok", 1), SETTINGS, "full", 0)
    exact = forms(cnn, axes_of(cnn, "line", 3))
    np.testing.assert_allclose(found.variables["curvature"].values, exact, rtol=1e-8)


@pytest.mark.parametrize("status", ["diverged", "not reached"])
def test_without_a_theta_there_is_no_curvature(mlp, status):
    point = Point(torch.full_like(mlp.theta, torch.nan), status, -1)
    for stage in (landscape.lines, landscape.planes):
        found = stage(mlp.objective, point, SETTINGS, "multilevel", 0)
        assert np.isnan(found.variables["curvature"].values).all()
        assert np.isnan(found.variables["curvature_se"].values).all()
        assert found.attributes["status"] == status


def test_a_kink_within_a_step_is_no_curvature():
    """One ReLU that opens at a quarter of the step: the difference on the grid sees it, H does not.

    theta = (w, b) of the hidden unit and the weights of two outputs; the direction moves b.
    """
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2, bias=False)
    ).double()
    inputs, targets = torch.ones(1, 1, 1, 1, dtype=torch.float64), torch.tensor([0])
    step = 0.1
    theta = torch.tensor([1.0, -1.0 - step / 4, -1.0, 1.0], dtype=torch.float64)
    direction = torch.tensor([0.0, 1.0, 0.0, 0.0], dtype=torch.float64)
    objective = make_objective(model, inputs, targets, dtype=torch.float64)
    found = landscape.sample_curvatures(objective, Point(theta, "ok", 1), [direction])
    hessian = dense_hessian(model, inputs, targets, theta)
    assert float(found.mean()) == float(direction @ hessian @ direction) == 0
    grid = centred_grid(2 * step, 5)
    loss = line(objective, theta, direction, grid)["loss"]
    second = line_geometry(grid, loss, rise=0.1, persistence=0.01).second_difference
    opened = 2 * 0.75 * step  # how far the logits part where the unit has opened
    assert second == pytest.approx((np.log1p(np.exp(opened)) - np.log(2)) / step**2, rel=1e-6)
    assert second > 5
