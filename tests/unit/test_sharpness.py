"""The average rise of the loss under noise, and what it is to second order."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from lossgeo.directions import normalize
from lossgeo.objective import make_objective
from lossgeo.sharpness import average_rise

SMALL = 1e-6  # so small that no ReLU switches: the rise at a kink is of second order as well


def rises(case, kind, draws, radii, seed=0):
    return average_rise(
        case.objective,
        case.theta,
        np.array(radii),
        kind,
        draws,
        generator=torch.Generator().manual_seed(seed),
    )


def drawn(case, kind, draws, seed=0) -> list[torch.Tensor]:
    """The directions of the same generator."""
    generator = torch.Generator().manual_seed(seed)
    noises = [torch.randn(len(case.theta), generator=generator).double() for _ in range(draws)]
    return [normalize(noise, case.theta, case.objective.layout, kind) for noise in noises]


def test_each_rise_is_the_mean_of_the_loss_on_both_sides_minus_the_loss(case):
    found = rises(case, "filter", 3, (0.1, 0.5))
    assert found.shape == (2, 3)
    base = float(case.loss(case.theta))
    for draw, d in enumerate(drawn(case, "filter", 3)):
        for i, radius in enumerate((0.1, 0.5)):
            sides = [float(case.loss(case.theta + step * d)) for step in (radius, -radius)]
            assert found[i, draw] == pytest.approx(np.mean(sides) - base, abs=1e-13)


@pytest.mark.parametrize("kind", ["filter", "none"])
def test_a_small_rise_is_half_the_curvature_along_its_draw(case, kind):
    """r^2/2 d'Hd, draw by draw: the slope cancels between d and -d."""
    found = rises(case, kind, 4, (SMALL,))[0]
    for rise, d in zip(found, drawn(case, kind, 4), strict=True):
        exact = float(d @ case.hessian @ d)
        assert 2 * rise / SMALL**2 == pytest.approx(exact, rel=1e-3, abs=2e-3)


def test_the_mean_rise_under_isotropic_noise_is_half_the_trace(mlp):
    """r^2/2 tr H, within 4 standard errors."""
    radius, draws = 1e-5, 1000
    found = rises(mlp, "none", draws, (radius,), seed=2)[0]
    error = found.std(ddof=1) / math.sqrt(draws)
    exact = radius**2 / 2 * float(mlp.hessian.trace())
    assert error < 0.05 * exact
    assert abs(found.mean() - exact) < 4 * error


def test_one_draw_serves_all_radii(mlp):
    """Rises at two radii are along the same directions."""
    both = rises(mlp, "filter", 3, (0.1, 0.3))
    np.testing.assert_array_equal(both[0], rises(mlp, "filter", 3, (0.1,))[0])
    np.testing.assert_array_equal(both[1], rises(mlp, "filter", 3, (0.3,))[0])


def test_a_convex_loss_rises_along_every_draw(generator):
    """Softmax regression, at any radius: Jensen's inequality."""
    x = torch.randn(20, 1, 2, 2, generator=generator)
    y = torch.randint(0, 3, (20,), generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    objective = make_objective(model, x, y, dtype=torch.float64)
    theta = torch.randn(15, generator=generator, dtype=torch.float64)
    found = average_rise(
        objective, theta, np.array([0.01, 0.1, 1.0]), "none", 10, generator=generator
    )
    assert (found > 0).all()
    assert (np.diff(found, axis=0) > 0).all()


def test_a_theta_that_is_not_finite_rises_by_nan(mlp):
    theta = torch.full_like(mlp.theta, math.nan)
    found = average_rise(
        mlp.objective, theta, np.array([0.1]), "filter", 2, generator=torch.Generator()
    )
    assert np.isnan(found).all()
