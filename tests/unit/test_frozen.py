"""Parameters with requires_grad=False are constants of the loss: theta does not hold them."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lossgeo import gauss_newton, surface
from lossgeo.hessian import hessian_operator
from lossgeo.objective import evaluate, make_objective
from lossgeo.parameters import flatten, layout_of, put, string_together
from lossgeo.permutations import find_groups

KEPT = {
    "mlp": [["hidden.weight", "hidden.bias"], ["hidden.bias"], ["hidden.weight", "output.bias"]],
    "cnn": [["conv1.weight", "conv1.bias", "hidden.bias"], ["conv2.bias", "output.weight"]],
}


@pytest.fixture(params=range(2))
def frozen(case, request):
    """The case's objective with some parameters frozen at theta; where those trained are in it."""
    model = copy.deepcopy(case.model)
    put(model, case.theta)
    places, at = [], 0
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in KEPT[case.family][request.param])
        if parameter.requires_grad:
            places.append(torch.arange(at, at + parameter.numel()))
        at += parameter.numel()
    objective = make_objective(model, case.inputs, case.targets, dtype=torch.float64, block=7)
    return objective, torch.cat(places)


def test_theta_holds_what_is_trained(case, frozen):
    objective, places = frozen
    assert objective.layout.size == len(places) < len(case.theta)
    assert torch.equal(flatten(objective.model), case.theta[places])


def test_the_hessian_is_the_block_of_what_is_trained(case, frozen, generator):
    objective, places = frozen
    v = torch.randn(len(places), generator=generator, dtype=torch.float64)
    found = hessian_operator(objective, case.theta[places]) @ v
    expected = case.hessian[places][:, places] @ v
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_exact_traces_are_those_of_the_whole_network(case, frozen):
    objective, places = frozen
    found = gauss_newton.sample_traces(objective, case.theta[places])
    whole = gauss_newton.sample_traces(case.objective, case.theta)
    assert tuple(found) == objective.layout.names
    for name, rows in found.items():
        torch.testing.assert_close(rows, whole[name])


def test_lines_move_what_is_trained_alone(case, frozen, generator):
    objective, places = frozen
    d = torch.zeros_like(case.theta)
    d[places] = torch.randn(len(places), generator=generator, dtype=torch.float64)
    alphas = np.array([-0.7, 0.0, 0.3])
    found = surface.line(objective, case.theta[places], d[places], alphas)
    expected = surface.line(case.objective, case.theta, d, alphas)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-11)


def test_hidden_units_of_a_network_that_is_partly_frozen_are_not_permuted(frozen):
    assert find_groups(frozen[0].model) is None


def test_what_is_strung_together_is_what_is_trained(mlp):
    model = copy.deepcopy(mlp.model)
    model.hidden.weight.requires_grad_(False)
    before = model.hidden.weight.clone()
    theta, gradient = string_together(model)
    assert theta.shape == gradient.shape == (layout_of(model).size,)
    theta.zero_()
    assert not model.output.weight.any()
    assert torch.equal(model.hidden.weight, before)


def test_a_model_that_is_all_frozen_is_refused(mlp):
    model = copy.deepcopy(mlp.model).requires_grad_(False)
    with pytest.raises(ValueError, match="requires_grad"):
        make_objective(model, mlp.inputs, mlp.targets)


def test_the_callers_model_stays_as_it_is():
    """Its mode, precision, layout in memory and values: the objective has a copy of its own."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Flatten(), nn.Linear(16, 3)
    ).train()
    before = {name: (p.detach().clone(), p.stride()) for name, p in model.named_parameters()}
    x, y = torch.randn(6, 3, 4, 4), torch.arange(6) % 3
    theta = flatten(model)
    objective = make_objective(model, x, y, dtype=torch.float64)
    found = evaluate(objective, theta)
    assert all(module.training for module in model.modules())
    for name, parameter in model.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, before[name][0])
        assert parameter.stride() == before[name][1]
    put(model, 2 * theta)
    assert evaluate(objective, theta) == found
