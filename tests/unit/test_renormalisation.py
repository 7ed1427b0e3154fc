"""REPAIR: the folded network has the statistics asked for, and the ends are what they were."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from lossgeo.models import build
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten, unflatten
from lossgeo.renormalisation import can_renormalise, renormalised

T = np.array([0.0, 0.3, 0.5, 0.9, 1.0])
SHAPE = (1, 8, 8)


def deep() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(27, 6),
        nn.ReLU(),
        nn.Linear(6, 5),
        nn.GELU(),
        nn.Linear(5, 3),
    )


MODELS = {
    "mlp": lambda: build({"family": "mlp", "width": 5}, SHAPE, 3),
    "cnn": lambda: build({"family": "cnn", "width": 2}, SHAPE, 3),
    "deep": deep,
}


@pytest.fixture(params=MODELS)
def problem(request, generator):
    """An objective in float64, blocks of 7, and two networks that have little in common."""
    model = MODELS[request.param]()
    inputs = torch.randn(24, *SHAPE, generator=generator)
    targets = torch.randint(0, 3, (24,), generator=generator)
    objective = make_objective(model, inputs, targets, dtype=torch.float64, block=7)
    a, b = flatten(model) + 0.3 * torch.randn(
        2, len(flatten(model)), generator=generator, dtype=torch.float64
    )
    return objective, a, b


def statistics(objective, theta) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Mean and deviation of every hidden unit's pre-activation, by hooks on a forward pass."""
    found, handles = [], []
    layers = [m for m in objective.model if isinstance(m, (nn.Linear, nn.Conv2d))][:-1]

    def keep(module, inputs, output):
        z = output.detach().clone().transpose(0, 1).flatten(1)
        found.append((z.mean(1), z.std(1, correction=0)))

    for layer in layers:
        handles.append(layer.register_forward_hook(keep))
    inputs = torch.cat([x.clone() for x, _ in objective.blocks])
    with torch.no_grad():
        functional_call(objective.model, unflatten(theta, objective.layout), (inputs,))
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.kernels
def test_the_folded_network_has_the_statistics_asked_for(problem):
    objective, a, b = problem
    of_a, of_b = statistics(objective, a), statistics(objective, b)
    plain = statistics(objective, (a + b) / 2)
    for t, theta in zip(T, renormalised(objective, a, b, T), strict=True):
        for found, one, other in zip(statistics(objective, theta), of_a, of_b, strict=True):
            for value, p, q in zip(found, one, other, strict=True):
                torch.testing.assert_close(value, (1 - t) * p + t * q, rtol=0, atol=1e-10)
    assert not torch.allclose(plain[-1][1], (of_a[-1][1] + of_b[-1][1]) / 2, rtol=0.01)


def test_the_ends_are_the_ends(problem):
    objective, a, b = problem
    first, *_, last = renormalised(objective, a, b, T)
    assert torch.equal(first, a)
    assert torch.equal(last, b)


@pytest.mark.kernels
def test_close_to_an_end_hardly_anything_is_corrected(problem):
    """The correction itself, not only its being left out at t = 0, is the identity there."""
    objective, a, b = problem
    (theta,) = renormalised(objective, a, b, np.array([1e-14]))
    torch.testing.assert_close(theta, a, rtol=0, atol=1e-12)


@pytest.mark.kernels
def test_between_a_network_and_itself_nothing_changes(problem):
    objective, a, _ = problem
    for theta in renormalised(objective, a, a, T):
        torch.testing.assert_close(theta, a, rtol=0, atol=1e-12)


@pytest.mark.kernels
def test_the_way_back_is_the_same_way(problem):
    objective, a, b = problem
    there, back = renormalised(objective, a, b, T), renormalised(objective, b, a, 1 - T)
    for one, other in zip(there, back, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_the_last_layer_is_that_of_the_straight_line(problem):
    objective, a, b = problem
    theta = renormalised(objective, a, b, T)[2]
    outputs = 3 * (next(m for m in reversed(objective.model)).in_features + 1)
    torch.testing.assert_close(theta[-outputs:], (0.5 * a + 0.5 * b)[-outputs:], rtol=0, atol=1e-15)


def test_a_unit_that_never_moves_gets_its_mean_alone(problem):
    """Its weights are 0 in both networks, so there is no deviation to restore."""
    objective, a, b = problem
    for theta in (a, b):
        first = next(iter(unflatten(theta, objective.layout).values()))
        first[0] = 0.0
    for theta in renormalised(objective, a, b, T):
        assert torch.isfinite(theta).all()
        mean, deviation = statistics(objective, theta)[0]
        assert deviation[0] < 1e-12
    of_a, of_b = statistics(objective, a)[0][0], statistics(objective, b)[0][0]
    torch.testing.assert_close(mean[0], of_b[0])
    middle = statistics(objective, renormalised(objective, a, b, T)[2])[0][0]
    torch.testing.assert_close(middle[0], (of_a[0] + of_b[0]) / 2)


def test_nothing_that_it_is_given_changes(problem):
    objective, a, b = problem
    before = [t.clone() for t in (a, b, flatten(objective.model), objective.blocks[0][0])]
    renormalised(objective, a, b, T)
    after = (a, b, flatten(objective.model), objective.blocks[0][0])
    assert all(map(torch.equal, before, after))


def test_an_end_that_diverged_leaves_no_line(problem):
    objective, a, b = problem
    b[3] = torch.nan
    points = renormalised(objective, a, b, T)
    assert len(points) == len(T)
    assert all(theta.isnan().all() for theta in points)


REFUSED = {
    "no bias": nn.Sequential(
        nn.Flatten(), nn.Linear(64, 4, bias=False), nn.ReLU(), nn.Linear(4, 3)
    ),
    "no hidden layer": nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
    "no chain": nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), nn.Linear(4, 3)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_networks_are_refused(name, generator):
    model = REFUSED[name]
    objective = make_objective(
        model, torch.randn(4, *SHAPE, generator=generator), torch.zeros(4, dtype=torch.long)
    )
    assert not can_renormalise(model)
    with pytest.raises(ValueError, match="chain of layers, the hidden ones with biases"):
        renormalised(objective, flatten(model), flatten(model), T)


def test_the_output_layer_needs_no_bias():
    layers = (nn.Flatten(), nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 3, bias=False))
    assert can_renormalise(nn.Sequential(*layers))
