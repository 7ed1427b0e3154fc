"""Lines and planes: what they contain, what leaves them unmoved, what their curvature is."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lossgeo.directions import normalize, random_direction
from lossgeo.objective import evaluate
from lossgeo.parameters import unflatten
from lossgeo.surface import centred_grid, line, plane, plane_through, second_difference

from .conftest import dense_hessian

STEP = 1e-5  # small enough that no ReLU switches within it, large enough for float64


@given(st.floats(1e-3, 1e3), st.integers(1, 60))
def test_a_centred_grid_is_symmetric_even_and_has_exactly_zero_in_its_middle(distance, half):
    grid = centred_grid(distance, 2 * half + 1)
    assert len(grid) == 2 * half + 1
    assert grid[half] == 0.0
    assert grid[-1] == distance
    np.testing.assert_array_equal(grid, -grid[::-1])
    np.testing.assert_allclose(np.diff(grid), distance / half, rtol=1e-12)


@pytest.mark.parametrize("points", [2, 24, 1, 0])
def test_a_grid_without_a_centre_is_refused(points):
    with pytest.raises(ValueError, match=rf"{points} points.*odd"):
        centred_grid(1.0, points)


def direction_of(case, seed: int, kind: str = "filter") -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return random_direction(case.theta, case.objective.layout, kind, generator=generator)


@pytest.mark.kernels
def test_the_centre_of_a_line_and_of_a_plane_is_theta(case):
    """The loss there is the objective's own, to the rounding of float64: other kernels sum it."""
    d1, d2 = direction_of(case, 1), direction_of(case, 2)
    grid = centred_grid(1.0, 3)
    own = evaluate(case.objective, case.theta)
    along = line(case.objective, case.theta, d1, grid)
    across = plane(case.objective, case.theta, d1, d2, grid, grid)
    for name in ("loss", "loss_se", "accuracy"):
        assert along[name][1] == pytest.approx(getattr(own, name), rel=1e-13)
        assert across[name][1, 1] == pytest.approx(getattr(own, name), rel=1e-13)


@pytest.mark.kernels
def test_every_point_is_the_models_loss_there(case):
    d1, d2 = direction_of(case, 1), direction_of(case, 2)
    alphas, betas = np.array([-0.7, 0.2]), np.array([0.0, 0.4, 1.1])
    found = plane(case.objective, case.theta, d1, d2, alphas, betas)["loss"]
    exact = [[float(case.loss(case.theta + a * d1 + b * d2)) for b in betas] for a in alphas]
    np.testing.assert_allclose(found, exact, rtol=1e-12)


@pytest.mark.kernels
def test_a_plane_in_tiles_is_the_plane_bit_for_bit(case):
    d1, d2 = direction_of(case, 1), direction_of(case, 2)
    alphas, betas = centred_grid(0.5, 5), centred_grid(1.0, 3)
    args = (case.objective, case.theta, d1, d2, alphas, betas)
    whole = plane(*args)
    tiles = [plane(*args, rows=slice(start, start + 2)) for start in (0, 2, 4)]
    for name, values in whole.items():
        assert values.shape == (5, 3)
        np.testing.assert_array_equal(np.concatenate([tile[name] for tile in tiles]), values)


def test_the_second_difference_of_a_line_is_the_hessians_quadratic_form(case):
    for seed in range(3):
        d = direction_of(case, seed)
        loss = line(case.objective, case.theta, d, centred_grid(STEP, 3))["loss"]
        exact = float(d @ case.hessian @ d)
        assert np.diff(loss, 2)[0] / STEP**2 == pytest.approx(exact, rel=1e-4)


def test_the_second_difference_tends_to_the_hessians_quadratic_form(case):
    """d'Hd of the dense Hessian, in float64; and for an eigenvector its eigenvalue."""
    for seed in range(3):
        d = direction_of(case, seed)
        found = second_difference(case.objective, case.theta, d, STEP)
        assert isinstance(found, float)
        assert found == pytest.approx(float(d @ case.hessian @ d), rel=1e-4)
    values, vectors = torch.linalg.eigh(case.hessian)
    for index in (-1, -2):
        found = second_difference(case.objective, case.theta, vectors[:, index], 1e-4)
        assert found == pytest.approx(float(values[index]), rel=1e-5)


def test_the_second_difference_is_of_the_models_loss_at_that_very_step(case):
    d, h = direction_of(case, 1), 0.3
    low, centre, high = (float(case.loss(case.theta + a * d)) for a in (-h, 0.0, h))
    found = second_difference(case.objective, case.theta, d, h)
    assert found == pytest.approx((low - 2 * centre + high) / h**2, rel=1e-9)


@pytest.mark.kernels
def test_the_second_difference_grows_with_the_square_of_the_direction(case):
    """(s d)'H(s d) = s^2 d'Hd: at the step h / s the very same points are measured."""
    d = direction_of(case, 2)
    wide = second_difference(case.objective, case.theta, 4.0 * d, 0.25 * STEP)
    assert wide == 16 * second_difference(case.objective, case.theta, d, STEP)


def test_an_eigenvector_plane_has_the_eigenvalues_as_curvatures_and_no_mixed_one(case):
    values, vectors = torch.linalg.eigh(case.hessian)
    v1, v2 = vectors[:, -1], vectors[:, -2]
    h = 1e-4
    grid = centred_grid(h, 3)
    loss = plane(case.objective, case.theta, v1, v2, grid, grid)["loss"]
    mixed = (loss[2, 2] - loss[2, 0] - loss[0, 2] + loss[0, 0]) / (4 * h**2)
    assert np.diff(loss[:, 1], 2)[0] / h**2 == pytest.approx(float(values[-1]), rel=1e-5)
    assert np.diff(loss[1, :], 2)[0] / h**2 == pytest.approx(float(values[-2]), rel=1e-5)
    assert mixed == pytest.approx(0.0, abs=1e-5 * float(values[-1]))


def test_the_slope_of_a_line_is_the_gradient(case):
    d = direction_of(case, 1)
    loss = line(case.objective, case.theta, d, centred_grid(STEP, 3))["loss"]
    exact = float(torch.func.grad(case.loss)(case.theta) @ d)
    assert (loss[2] - loss[0]) / (2 * STEP) == pytest.approx(exact, rel=1e-6)


def test_a_theta_that_is_not_finite_has_a_surface_of_nan(mlp):
    theta = torch.full_like(mlp.theta, math.nan)
    grid = centred_grid(1.0, 3)
    assert np.isnan(line(mlp.objective, theta, theta, grid)["loss"]).all()
    assert np.isnan(plane(mlp.objective, theta, theta, theta, grid, grid)["loss"]).all()
    assert math.isnan(second_difference(mlp.objective, theta, theta, 0.1))


# Rescaling symmetries of ReLU networks (Dinh et al. 2017)

LAYERS = {"mlp": ("hidden", "output"), "cnn": ("conv1", "conv2")}


def rescale(case, factors: torch.Tensor) -> torch.Tensor:
    """theta with the first layer's units scaled, bias along, and the next layer's divided."""
    first, second = LAYERS[case.family]
    theta = case.theta.clone()
    parts = unflatten(theta, case.objective.layout)
    for name in (f"{first}.weight", f"{first}.bias"):
        parts[name].mul_(factors.view(-1, *[1] * (parts[name].ndim - 1)))
    weight = parts[f"{second}.weight"]
    weight.div_(factors.view(1, -1, *[1] * (weight.ndim - 2)))
    return theta


def layerwise(case) -> torch.Tensor:
    units = {"mlp": 4, "cnn": 2}[case.family]
    return torch.full((units,), 3.0, dtype=torch.float64)


def nodewise(case) -> torch.Tensor:
    units = {"mlp": 4, "cnn": 2}[case.family]
    return torch.linspace(0.25, 4.0, units, dtype=torch.float64)


def curves(case, factors, direction) -> tuple[np.ndarray, np.ndarray]:
    """The loss along `direction(theta, draw)` before and after rescaling, along the same draw."""
    draw = torch.randn(len(case.theta), generator=torch.Generator().manual_seed(9)).double()
    alphas = centred_grid(1.0, 11)
    return tuple(
        line(case.objective, theta, direction(theta, draw), alphas)["loss"]
        for theta in (case.theta, rescale(case, factors))
    )


@pytest.mark.kernels
@pytest.mark.parametrize("factors", [layerwise, nodewise])
def test_rescaling_leaves_the_function_as_it_was(case, factors):
    scaled = rescale(case, factors(case))
    assert float((scaled - case.theta).norm()) > 0.5
    assert float(case.loss(scaled)) == pytest.approx(float(case.loss(case.theta)), rel=1e-13)


def filter_direction(case):
    return lambda theta, draw: normalize(draw, theta, case.objective.layout, "filter")


def test_layerwise_rescaling_does_not_move_a_filter_normalised_curve(case):
    before, after = curves(case, layerwise(case), filter_direction(case))
    assert np.ptp(before) > 0.05, "a curve that is flat would prove nothing"
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-10)


def test_layerwise_rescaling_moves_a_curve_without_normalisation(case):
    before, after = curves(case, layerwise(case), lambda theta, draw: 0.1 * draw)
    assert np.abs(after - before).max() > 1e-2


def test_layerwise_rescaling_changes_the_top_eigenvalue(mlp):
    """Sharpness as the top eigenvalue is not invariant, although the function is the same."""
    scaled = rescale(mlp, layerwise(mlp))
    top = torch.linalg.eigvalsh(mlp.hessian)[-1]
    moved = torch.linalg.eigvalsh(dense_hessian(mlp.model, mlp.inputs, mlp.targets, scaled))[-1]
    assert abs(float(moved / top) - 1) > 0.1


def test_nodewise_rescaling_is_not_covered_by_filter_normalisation(case):
    """A limit of the method, stated: the next layer's filters mix units of different scale."""
    before, after = curves(case, nodewise(case), filter_direction(case))
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.parametrize("factors", [layerwise, nodewise])
def test_elementwise_directions_are_invariant_to_both(case, factors):
    """d = |w| * draw scales with every single weight."""
    before, after = curves(case, factors(case), lambda theta, draw: theta.abs() * draw)
    assert np.ptp(before) > 0.05
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-10)


@pytest.mark.kernels
def test_a_line_does_not_depend_on_the_models_own_parameters(mlp):
    """The model is a template: what it was initialised to plays no part."""
    other = copy.copy(mlp)
    other.__dict__.pop("objective", None)
    other.model = copy.deepcopy(mlp.model)
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.fill_(math.nan)
    grid, d = centred_grid(1.0, 3), direction_of(mlp, 1)
    np.testing.assert_array_equal(
        line(other.objective, mlp.theta, d, grid)["loss"],
        line(mlp.objective, mlp.theta, d, grid)["loss"],
    )


# Planes through three points


def test_on_the_plane_through_three_points_lengths_are_distances(generator):
    points = torch.randn(3, 500, generator=generator, dtype=torch.float64)
    (first, second), corners = plane_through(*points)
    axes = torch.stack([first, second])
    torch.testing.assert_close(axes @ axes.T, torch.eye(2, dtype=torch.float64), rtol=0, atol=1e-12)
    back = points[0] + torch.from_numpy(corners) @ axes
    torch.testing.assert_close(back, points, rtol=0, atol=1e-12)
    distances = torch.cdist(points, points)
    torch.testing.assert_close(torch.cdist(*[torch.from_numpy(corners)] * 2), distances)
    assert corners[2, 1] > 0


def test_axes_are_orthogonal_even_where_the_triangle_is_thin(generator):
    a, b = torch.randn(2, 500, generator=generator, dtype=torch.float64)
    noise = torch.randn(500, generator=generator, dtype=torch.float64)
    (first, second), _ = plane_through(a, b, (a + b) / 2 + 2e-3 * noise)
    assert abs(float(first @ second)) < 1e-12


@pytest.mark.parametrize("third", [0.5, 0.0, 1.0, 3.0])
def test_three_points_on_a_line_span_no_plane(generator, third):
    a, b = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    with pytest.raises(ValueError, match="one line"):
        plane_through(a, b, (1 - third) * a + third * b)


def test_two_equal_points_span_no_plane(generator):
    a, b = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    with pytest.raises(ValueError, match="one line"):
        plane_through(a, a, b)
