"""Curves against autograd, quadrature and a loss whose valley is known."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import minimize
from torch import nn

from lossgeo.curves import bend, coefficients, length, train_midpoint
from lossgeo.models import block_size, build
from lossgeo.paths import line

from .conftest import plain_loss


def three(generator, size=50, dtype=torch.float64):
    return torch.randn(3, size, generator=generator, dtype=dtype)


# The curve


def bezier(a, m, b):
    """t -> phi(t), by the coefficients."""
    return lambda t: torch.from_numpy(coefficients(t)).to(a) @ torch.stack([a, m, b])


def test_the_ends_are_the_ends(generator):
    a, m, b = three(generator)
    assert torch.equal(bezier(a, m, b)(0.0), a)
    assert torch.equal(bezier(a, m, b)(1.0), b)


def test_the_curve_is_de_casteljaus(generator):
    a, m, b = three(generator)
    for t in (0.1, 0.5, 0.77):
        left, right = (1 - t) * a + t * m, (1 - t) * m + t * b
        expected = (1 - t) * left + t * right
        torch.testing.assert_close(bezier(a, m, b)(t), expected, rtol=1e-14, atol=1e-14)


def test_with_the_middle_as_midpoint_it_is_the_straight_line(generator):
    a, _, b = three(generator)
    t = np.linspace(0, 1, 9)
    curve = torch.from_numpy(coefficients(t)) @ torch.stack([a, (a + b) / 2, b])
    straight = torch.from_numpy(line(t)) @ torch.stack([a, b])
    torch.testing.assert_close(curve, straight, rtol=1e-14, atol=1e-14)


# Its length


def test_the_length_is_that_of_a_fine_polygon(generator):
    a, m, b = three(generator)
    path = bezier(a, m, b)
    corners = torch.stack([path(t) for t in np.linspace(0, 1, 4001)])
    polygon = float(torch.diff(corners, dim=0).norm(dim=1).sum())
    assert length(a, m, b) == pytest.approx(polygon, rel=1e-7)
    assert length(a, m, b) > float((b - a).norm())
    assert length(b, m, a) == pytest.approx(length(a, m, b), rel=1e-12)


@pytest.mark.parametrize("bent", [1e-9, 1e-3, 0.09, 0.11, 0.5, 30.0])
def test_the_length_of_nearly_straight_and_of_much_bent_curves(generator, bent):
    """By adaptive quadrature of |phi'(t)|, on both sides of where the formula changes."""
    a, direction, b = three(generator)
    m = (a + b) / 2 + bent * direction * (b - a).norm() / direction.norm() / 4
    expected, _ = quad(
        lambda t: 2 * float(((1 - t) * (m - a) + t * (b - m)).norm()), 0, 1, epsrel=1e-12
    )
    assert length(a, m, b) == pytest.approx(expected, rel=1e-13)


def test_the_length_of_a_parabola():
    """phi(t) = (t, t^2): sqrt(5) / 2 + asinh(2) / 4."""
    a, m, b = torch.tensor([[0.0, 0.0], [0.5, 0.0], [1.0, 1.0]], dtype=torch.float64)
    assert length(a, m, b) == pytest.approx(math.sqrt(5) / 2 + math.asinh(2) / 4, rel=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_straight_line_is_as_long_as_the_ends_are_far(generator, dtype):
    a, _, b = three(generator, dtype=dtype)
    distance = float((b.double() - a.double()).norm())
    assert length(a, torch.lerp(a, b, 0.5), b) == pytest.approx(distance, rel=1e-12)


@pytest.mark.parametrize("beyond", [0.0, 1e-12, 1e-9, 1e-3])
def test_a_curve_that_turns_back_is_as_long_as_both_ways(beyond):
    """2 t - 1.7 t^2, from 0 to 1 / 1.7 and back to 0.3, along a line and just beside it."""
    a = torch.zeros(2, dtype=torch.float64)
    m, b = torch.tensor([[1.0, 0.0], [0.3, beyond]], dtype=torch.float64)
    assert length(a, m, b) == pytest.approx(2 / 1.7 - 0.3, rel=2 * beyond + 1e-12)


def test_a_curve_that_stays_where_it_is_has_no_length():
    theta = torch.ones(3)
    assert length(theta, theta, theta) == 0.0


def test_without_a_theta_there_is_no_length():
    a, b = torch.zeros(3), torch.ones(3)
    assert math.isnan(length(a, torch.full_like(a, torch.nan), b))
    assert math.isnan(length(a, b, torch.full_like(a, torch.inf)))


# Its training

ALONG = np.polynomial.legendre.leggauss(40)  # of t from -1 to 1


def valley(theta):
    """Zero on the unit circle."""
    return (theta @ theta - 1) ** 2


def on_circle(degrees):
    angle = math.radians(degrees)
    return torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)


def bend_in_the_valley(a, b, *, seed=0, **settings):
    theta = torch.empty(2, dtype=torch.float64)
    return bend(
        theta,
        lambda batch: (valley(theta), 4 * (theta @ theta - 1) * theta),
        a,
        b,
        200,
        **{"epochs": 20, "batch_size": 1, "lr": 0.01, "momentum": 0.9} | settings,
        generator=torch.Generator().manual_seed(seed),
    )


@pytest.mark.parametrize("degrees", [(10, 150), (170, 5), (-60, 60)])
def test_a_curve_between_points_of_a_circular_valley_is_bent_around_it(degrees):
    a, b = map(on_circle, degrees)
    ts, weights = (ALONG[0] + 1) / 2, ALONG[1] / 2

    def mean_loss(m):
        path = bezier(a, torch.as_tensor(m), b)
        return sum(w * float(valley(path(t))) for t, w in zip(ts, weights, strict=True))

    found = bend_in_the_valley(a, b)
    start = (a + b) / 2
    best = minimize(mean_loss, start.numpy())
    np.testing.assert_allclose(found.theta, best.x, atol=0.05)
    assert mean_loss(found.theta) < 0.05 * mean_loss(start)
    highest = [
        max(float(valley(path(t))) for t in np.linspace(0, 1, 101))
        for path in (bezier(a, found.theta, b), bezier(a, (a + b) / 2, b))
    ]
    assert highest[0] < 0.1 * highest[1]
    assert found.loss[0] > found.loss[-1]
    assert found.loss[-1] == pytest.approx(best.fun, rel=0.2)


def train_between(case, a, b, *, seed=0, **settings):
    return train_midpoint(
        copy.deepcopy(case.model),
        case.inputs,
        case.targets,
        a,
        b,
        **{"epochs": 1, "batch_size": 7, "lr": 0.3, "momentum": 0.0, "device": "cpu"} | settings,
        generator=torch.Generator().manual_seed(seed),
    )


def other_end(case):
    return case.theta + 0.3 * torch.randn(
        len(case.theta), generator=torch.Generator().manual_seed(5), dtype=torch.float64
    )


def by_autograd(model, inputs, targets, a, b, *, epochs, batch_size, lr, momentum, seed=0):
    """Midpoint and mean losses, by gradients of the plain loss of the midpoint."""
    generator = torch.Generator().manual_seed(seed)
    m, velocity, losses = (a + b) / 2, torch.zeros_like(a), []
    for _ in range(epochs):
        batches = torch.randperm(len(inputs), generator=generator).split(batch_size)
        ts = torch.rand(len(batches), generator=generator, dtype=torch.float64)
        total = 0.0
        for t, batch in zip(ts, batches, strict=True):
            loss = plain_loss(model, inputs[batch], targets[batch])
            gradient, value = torch.func.grad_and_value(
                lambda m, t=t, loss=loss: loss((1 - t) ** 2 * a + 2 * t * (1 - t) * m + t**2 * b)
            )(m)
            velocity = momentum * velocity + gradient
            m = m - lr * velocity
            total += float(value) * len(batch)
        losses.append(total / len(inputs))
    return m, losses


@pytest.mark.kernels
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("batch_size", [7, 100], ids="batches of {}".format)
def test_steps_are_those_of_autograd_through_the_curve(case, batch_size, momentum):
    settings = {"epochs": 3, "batch_size": batch_size, "lr": 0.3, "momentum": momentum}
    ends = case.theta, other_end(case)
    found = train_between(case, *ends, **settings)
    expected, losses = by_autograd(case.model, case.inputs, case.targets, *ends, **settings)
    torch.testing.assert_close(found.theta, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.loss, losses, rtol=1e-12)
    moved = (expected - (ends[0] + ends[1]) / 2).abs().max()
    assert moved > 0.01, "a midpoint that can be told from the line's"


@pytest.mark.kernels
def test_a_batch_in_shares_that_fit_the_cache_is_one_batch(generator):
    inputs = torch.randn(150, 1, 8, 8, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, 3, (150,), generator=generator)
    model = build({"family": "cnn", "width": 2}, (1, 8, 8), 3, seed=0).double()
    assert block_size(model, inputs) < 100
    a, b = (
        nn.utils.parameters_to_vector(
            build({"family": "cnn", "width": 2}, (1, 8, 8), 3, seed=seed).double().parameters()
        ).detach()
        for seed in (1, 2)
    )
    settings = {"epochs": 2, "batch_size": 100, "lr": 0.5, "momentum": 0.9}
    expected, losses = by_autograd(copy.deepcopy(model), inputs, targets, a, b, **settings)
    order = torch.Generator().manual_seed(0)
    found = train_midpoint(model, inputs, targets, a, b, **settings, device="cpu", generator=order)
    torch.testing.assert_close(found.theta, expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.loss, losses, rtol=1e-12)


def test_an_untrained_midpoint_is_the_middle_of_the_line(case):
    a, b = case.theta, other_end(case)
    found = train_between(case, a, b, epochs=0)
    torch.testing.assert_close(found.theta, (a + b) / 2, rtol=1e-15, atol=1e-16)
    assert found.loss.shape == (0,)


def test_a_model_can_be_used_for_one_curve_after_another(case):
    """What the first one leaves in its parameters and gradients is nothing to the second."""
    a, b = case.theta, other_end(case)
    model, found = copy.deepcopy(case.model), []
    for _ in range(2):
        order = torch.Generator().manual_seed(0)
        settings = {"epochs": 2, "batch_size": 7, "lr": 0.3, "momentum": 0.9, "device": "cpu"}
        found.append(
            train_midpoint(model, case.inputs, case.targets, a, b, **settings, generator=order)
        )
    torch.testing.assert_close(found[0].theta, found[1].theta, rtol=1e-12, atol=1e-14)


def test_order_and_t_are_the_generators_and_nothing_else_is_drawn(mlp):
    a, b = mlp.theta, other_end(mlp)
    state = torch.get_rng_state()
    first, again, other = (train_between(mlp, a, b, seed=seed).theta for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(first, again, rtol=1e-13, atol=1e-14)
    assert (first - other).abs().max() > 1e-4


def test_a_diverging_curve_is_nan_and_says_from_which_epoch_on(mlp):
    found = train_between(mlp, mlp.theta, other_end(mlp), lr=1e200, epochs=4)
    assert found.theta.isnan().all()
    assert found.theta.shape == mlp.theta.shape
    assert np.isnan(found.loss).all()
    assert found.loss.shape == (4,)
    # a valley that is left only after some epochs
    slow = bend_in_the_valley(on_circle(10), on_circle(150), lr=0.5, epochs=9, momentum=0.99)
    assert slow.theta.isnan().all()
