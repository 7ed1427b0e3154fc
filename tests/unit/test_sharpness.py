"""The rise of the loss under noise and at worst, and what they are to first and second order."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn

from lossgeo.directions import normalize
from lossgeo.hessian import gradient, sample_forms
from lossgeo.objective import make_objective, sample_losses
from lossgeo.parameters import layout_of
from lossgeo.rescaling import find_rescalable, node_factors, rescale
from lossgeo.sharpness import ascend, average_rises, random_directions, worst_case

SMALL = 1e-6  # so small that no ReLU switches: the rise at a kink is of second order as well


def rises(case, kind, draws, radii, seed=0):
    generator = torch.Generator().manual_seed(seed)
    d = random_directions(case.objective, case.theta, kind, draws, generator=generator)
    return average_rises(case.objective, case.theta, d, radii)


def drawn(case, kind, draws, seed=0) -> list[torch.Tensor]:
    """The directions of the same generator."""
    generator = torch.Generator().manual_seed(seed)
    noises = [torch.randn(len(case.theta), generator=generator).double() for _ in range(draws)]
    return [normalize(noise, case.theta, case.objective.layout, kind) for noise in noises]


def smooth(activation: nn.Module, generator: torch.Generator):
    """A two-layer network and its objective on random data, and theta."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 6), activation, nn.Linear(6, 3)).double()
    x = torch.randn(40, 1, 3, 3, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (40,), generator=generator)
    theta = torch.randn(layout_of(model).size, generator=generator, dtype=torch.float64)
    return make_objective(model, x, y, dtype=torch.float64), theta


def softmax_regression(generator: torch.Generator, steps: int):
    """A convex objective and theta after a few steps of gradient descent, so near its minimum."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    x = torch.randn(60, 1, 2, 2, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (60,), generator=generator)
    objective = make_objective(model, x, y, dtype=torch.float64)
    theta = torch.randn(15, generator=generator, dtype=torch.float64)
    for _ in range(steps):
        theta = theta - gradient(objective, theta)
    return objective, theta


@pytest.mark.kernels
def test_each_rise_is_the_mean_of_the_loss_on_both_sides_minus_the_loss(case):
    found = rises(case, "filter", 3, (0.1, 0.5))
    assert found.shape == (2, 3, len(case.targets))
    base = float(case.loss(case.theta))
    for draw, d in enumerate(drawn(case, "filter", 3)):
        for i, radius in enumerate((0.1, 0.5)):
            sides = [float(case.loss(case.theta + step * d)) for step in (radius, -radius)]
            mean = float(found[i, draw].mean())
            assert mean == pytest.approx(np.mean(sides) - base, abs=1e-13)


def test_the_rises_of_single_samples_are_those_of_their_own_losses(mlp):
    found = rises(mlp, "filter", 1, (0.3,))[0, 0]
    (d,) = drawn(mlp, "filter", 1)
    at, above, below = (
        sample_losses(mlp.objective, mlp.theta + step * d)[0] for step in (0, 0.3, -0.3)
    )
    torch.testing.assert_close(found, (above + below) / 2 - at, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["filter", "element", "none"])
def test_a_small_rise_is_half_the_curvature_along_its_draw(case, kind):
    """r^2/2 d'Hd, draw by draw: the slope cancels between d and -d."""
    found = rises(case, kind, 4, (SMALL,))[0].mean(1)
    for rise, d in zip(found, drawn(case, kind, 4), strict=True):
        exact = float(d @ case.hessian @ d)
        assert 2 * float(rise) / SMALL**2 == pytest.approx(exact, rel=1e-3, abs=2e-3)


@pytest.mark.parametrize("activation", [nn.GELU(), nn.Tanh()], ids=repr)
def test_without_kinks_the_rise_tends_to_its_quadratic_sample_by_sample(activation, generator):
    """The ratio is 1 + O(r^2): a tenth of the radius, a hundredth of the deviation."""
    objective, theta = smooth(activation, generator)
    d = random_directions(objective, theta, "filter", 3, generator=generator)
    radii = np.array([1e-3, 1e-2])
    forms = sample_forms(objective, theta, d)
    quadratic = torch.from_numpy(radii**2 / 2)[:, None, None] * forms
    found = average_rises(objective, theta, d, radii)
    torch.testing.assert_close(found[0], quadratic[0], rtol=1e-4, atol=1e-10)
    near, far = (found.mean((1, 2)) / quadratic.mean((1, 2)) - 1).abs()
    assert near < 1e-5
    assert near / far == pytest.approx(0.01, rel=0.1)


@pytest.mark.parametrize(("radius", "crosses"), [(0.05, False), (0.2, True), (0.8, True)])
def test_the_rise_across_a_known_kink(radius, crosses):
    """One ReLU unit at w = 0.1 on x = 1; logits (v relu(w), 0), class 1: f(w) = log(1 + e^(v w)).

    Beyond w = 0 the loss is log 2, so that the rise is known in closed form on both sides.
    """
    w, v = 0.1, 2.0
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2, bias=False)
    )
    objective = make_objective(
        model, torch.ones(1, 1, 1, 1), torch.tensor([1]), dtype=torch.float64
    )
    theta = torch.tensor([w, v, 0.0], dtype=torch.float64)
    d = torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64)
    found = float(average_rises(objective, theta, d, [radius]))

    def loss(u):
        return math.log1p(math.exp(v * max(u, 0.0)))

    exact = (loss(w + radius) + loss(w - radius)) / 2 - loss(w)
    assert found == pytest.approx(exact, rel=1e-12)
    p = 1 / (1 + math.exp(-v * w))
    form = float(sample_forms(objective, theta, d))
    assert form == pytest.approx(v**2 * p * (1 - p), rel=1e-12)
    ratio = found / (radius**2 / 2 * form)
    assert (ratio > 1.2) == crosses
    if not crosses:
        assert ratio == pytest.approx(1.0, abs=0.01)


def test_the_mean_rise_under_isotropic_noise_is_half_the_trace(mlp):
    """r^2/2 tr H, within 4 standard errors."""
    radius, draws = 1e-5, 1000
    found = rises(mlp, "none", draws, (radius,), seed=2)[0].mean(1).numpy()
    error = found.std(ddof=1) / math.sqrt(draws)
    exact = radius**2 / 2 * float(mlp.hessian.trace())
    assert error < 0.05 * exact
    assert abs(found.mean() - exact) < 4 * error


@pytest.mark.kernels
def test_one_draw_serves_all_radii(mlp):
    """Rises at two radii are along the same directions."""
    both = rises(mlp, "filter", 3, (0.1, 0.3))
    for index, radius in enumerate((0.1, 0.3)):
        torch.testing.assert_close(
            both[index], rises(mlp, "filter", 3, (radius,))[0], rtol=0, atol=1e-13
        )


def test_a_convex_loss_rises_along_every_draw(generator):
    """Softmax regression, at any radius: Jensen's inequality."""
    objective, theta = softmax_regression(generator, 0)
    d = random_directions(objective, theta, "none", 10, generator=generator)
    found = average_rises(objective, theta, d, (0.01, 0.1, 1.0)).mean(2)
    assert (found > 0).all()
    assert (found.diff(dim=0) > 0).all()


def test_a_theta_that_is_not_finite_rises_by_nan(mlp):
    theta = torch.full_like(mlp.theta, math.nan)
    d = random_directions(mlp.objective, theta, "filter", 2, generator=torch.Generator())
    assert average_rises(mlp.objective, theta, d, [0.1]).isnan().all()
    worst = worst_case(mlp.objective, theta, [0.1, 0.2], 3)
    assert worst.rises.isnan().all()
    assert np.isnan(worst.best).all()
    assert worst.best.shape == (2, 4)
    assert np.isnan(worst.first_order).all()


def largest_in_ball(g: np.ndarray, h: np.ndarray, radius: float) -> float:
    """max g'u + u'Hu/2 over ||u|| <= radius for a maximum on the sphere, by the secular equation.

    (mu - H) u = g with mu above the largest eigenvalue and ||u|| = radius (More & Sorensen 1983).
    """
    values, vectors = np.linalg.eigh(h)
    c = vectors.T @ g

    def length(mu):
        return np.linalg.norm(c / (mu - values)) - radius

    top = values[-1]
    low, high = top + 1e-14 * abs(top), top + 2 * np.linalg.norm(g) / radius + abs(top)
    u = c / (brentq(length, low, high, xtol=1e-15, rtol=1e-15) - values)
    return float(c @ u + (values * u**2).sum() / 2)


@pytest.mark.parametrize("radius", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("lowest", [0.0, -1.0])
def test_the_ascent_finds_the_maximum_of_a_quadratic_in_a_ball(radius, lowest, rng):
    """Against the exact solution, indefinite Hessians too."""
    q, _ = np.linalg.qr(rng.normal(size=(30, 30)))
    h = q @ np.diag(np.linspace(lowest, 4, 30) ** 3) @ q.T
    g = rng.normal(size=30)
    slope, hessian = torch.from_numpy(g), torch.from_numpy(h)
    _, values, best = ascend(
        lambda u: (slope @ u + u @ hessian @ u / 2).reshape(1),
        lambda u: slope + hessian @ u,
        slope,
        torch.zeros(1),
        radius,
        500,
    )
    exact = largest_in_ball(g, h, radius)
    assert float(values) == pytest.approx(exact, rel=1e-6)
    # in the widest ball mu is so near to an eigenvalue that 1e-12 of ||u|| is lost
    assert float(values) <= exact * (1 + 1e-10), "a lower bound of the maximum"
    assert best[-1] == float(values)
    assert (np.diff(best) >= 0).all()


def test_the_worst_case_of_a_convex_loss_is_that_of_its_quadratic_in_a_small_ball(generator):
    """Near the minimum, where gradient and curvature both count; third order: about the radius."""
    objective, theta = softmax_regression(generator, 40)
    x = torch.cat([x for x, _ in objective.blocks]).flatten(1)
    x = torch.cat([x, torch.ones(len(x), 1).double()], 1)  # the bias
    logits = x[:, :4] @ theta[:12].view(3, 4).T + theta[12:]
    p = logits.softmax(1)
    bend = torch.diag_embed(p) - p[:, :, None] * p[:, None]
    h = torch.einsum("nkl,ni,nj->kilj", bend, x, x) / len(x)  # (3, 5, 3, 5)
    order = torch.tensor([5 * k + i for k in range(3) for i in range(4)] + [4, 9, 14])
    h = h.reshape(15, 15)[order][:, order].numpy()
    g = gradient(objective, theta).numpy()
    radius = 1e-3
    assert 0.02 < np.linalg.norm(g) / (radius * np.linalg.eigvalsh(h)[-1]) < 50
    found = worst_case(objective, theta, [radius], 60)
    assert float(found.rises.mean()) == pytest.approx(largest_in_ball(g, h, radius), rel=2e-3)
    assert found.best[0, -1] == pytest.approx(float(found.rises.mean()), rel=1e-12)


@pytest.mark.parametrize("ball", ["euclidean", "elementwise"])
def test_in_a_tiny_ball_the_worst_case_is_radius_times_the_slope(case, ball):
    """rho ||T g||, and to first order the worst delta is T^2 g."""
    scale = case.theta.abs() if ball == "elementwise" else torch.ones_like(case.theta)
    found = worst_case(case.objective, case.theta, [1e-7], 3, scale=scale)
    exact = 1e-7 * float((scale * torch.func.grad(case.loss)(case.theta)).norm())
    assert found.first_order[0] == pytest.approx(exact, rel=1e-10)
    assert float(found.rises.mean()) == pytest.approx(exact, rel=1e-5)


def test_no_random_point_of_the_ball_is_worse_and_larger_balls_are_no_better(case, generator):
    radii = [0.1, 0.3, 1.0]
    found = worst_case(case.objective, case.theta, radii, 10).rises.mean(1)
    assert (found.diff() > 0).all()
    base = float(case.loss(case.theta))
    for radius, worst in zip(radii, found, strict=True):
        for _ in range(20):
            u = torch.randn(len(case.theta), generator=generator).double()
            assert float(case.loss(case.theta + radius * u / u.norm())) - base < worst


def test_parameters_of_scale_zero_do_not_move(mlp):
    """In an element-wise ball a parameter that is 0 stays 0."""
    scale = torch.zeros_like(mlp.theta)
    scale[7] = 2.0
    found = worst_case(mlp.objective, mlp.theta, [0.3], 5, scale=scale).rises.mean()
    ends = []
    for sign in (1, -1):
        moved = mlp.theta.clone()
        moved[7] += sign * 0.6
        ends.append(float(mlp.loss(moved) - mlp.loss(mlp.theta)))
    assert float(found) == pytest.approx(max(ends), rel=1e-12)


def test_a_stationary_point_without_curvature_has_no_worst_case(mlp):
    found = worst_case(mlp.objective, mlp.theta, [0.1, 0.2], 4, scale=torch.zeros_like(mlp.theta))
    assert not found.rises.any()
    assert not found.best.any()
    assert found.best.shape == (2, 5)


def test_element_wise_sharpness_does_not_see_a_rescaling_and_euclidean_does(case, generator):
    """Node-wise, the function unchanged: ASAM and element-wise noise, sample by sample."""
    links = find_rescalable(case.model)
    factors = node_factors(links, 3.0, generator=generator)
    moved = rescale(case.theta, case.objective.layout, links, factors)

    def measured(theta):
        noise = random_directions(
            case.objective, theta, "element", 2, generator=torch.Generator().manual_seed(1)
        )
        return (
            average_rises(case.objective, theta, noise, [0.2]),
            worst_case(case.objective, theta, [0.5], 5, scale=theta.abs()).rises,
            worst_case(case.objective, theta, [0.1], 5).rises,
        )

    (noise, asam, sam), (noise_2, asam_2, sam_2) = measured(case.theta), measured(moved)
    torch.testing.assert_close(noise_2, noise, rtol=0, atol=1e-11)
    torch.testing.assert_close(asam_2, asam, rtol=0, atol=1e-10)
    assert abs(float(sam_2.mean() / sam.mean()) - 1) > 0.05
