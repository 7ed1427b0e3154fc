"""Trace and largest eigenvalue of each layer against its block of the dense Hessian."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from lossgeo.gauss_newton import gauss_newton_operator
from lossgeo.hessian import gradient
from lossgeo.layers import curvature_of_layers
from lossgeo.objective import make_objective
from lossgeo.parameters import unflatten
from lossgeo.part import layers, part_of, places

SETTINGS = {"max_steps": 60, "tolerance": 1e-8, "rest_probes": 4}


def test_each_layers_block_is_the_dense_one(case, generator):
    found = curvature_of_layers(case.objective, case.theta, **SETTINGS, generator=generator)
    owned = layers(case.model)
    assert [layer.layer for layer in found] == list(owned)
    for layer in found:
        where = places(case.objective.layout, owned[layer.layer])
        block = case.hessian[where][:, where]
        expected = torch.linalg.eigvalsh(block)[-1]
        assert layer.parameters == len(where)
        assert layer.exact
        assert layer.trace.value == pytest.approx(float(torch.trace(block)), rel=1e-9)
        assert layer.top.pairs.converged.all()
        np.testing.assert_allclose(layer.top.pairs.values, expected, rtol=1e-7)
        v = layer.top.pairs.vectors[0]
        residual = float((block @ v - expected * v).norm())
        assert residual == pytest.approx(float(layer.top.pairs.residuals[0]), abs=1e-6)
        assert np.isfinite(layer.top.standard_errors).all()
        assert layer.trace.sample_se > 0


class Odd(nn.Module):
    """Vectors, a single number, and a layer that the outputs do not depend on."""

    def __init__(self):
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2)
        self.scale, self.unused = nn.Parameter(torch.tensor(1.3)), nn.Linear(2, 2)

    def forward(self, x):
        return self.last(torch.tanh(self.norm(self.first(x))) * self.scale)


def test_layers_may_have_vectors_or_one_number_or_no_part_in_the_loss(generator):
    model = Odd().double()
    x = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    y = torch.arange(9) % 2
    objective = make_objective(model, x, y, dtype=torch.float64)
    theta = torch.randn(objective.layout.size, generator=generator, dtype=torch.float64)

    def loss(v):
        parameters = unflatten(v, objective.layout)
        return nn.functional.cross_entropy(functional_call(model, parameters, (x,)), y)

    dense = torch.autograd.functional.hessian(loss, theta)
    owned = layers(model)
    settings = SETTINGS | {"rest_probes": 200}
    found = curvature_of_layers(objective, theta, **settings, generator=generator)
    for layer in found:
        where = places(objective.layout, owned[layer.layer])
        block = dense[where][:, where]
        expected = torch.linalg.eigvalsh(block)[-1]
        np.testing.assert_allclose(layer.top.pairs.values, expected, rtol=1e-7, atol=1e-12)
        error = abs(layer.trace.value - float(torch.trace(block)))
        assert error <= 4 * layer.trace.probe_se + 1e-12
    assert found[-1].trace.value == 0
    part, ours = part_of(objective, theta, ["unused.*"])
    assert (gradient(part, ours) == 0).all()
    assert (gauss_newton_operator(part, ours) @ ours == 0).all()


def test_traces_of_all_layers_add_up(mlp, generator):
    found = curvature_of_layers(mlp.objective, mlp.theta, **SETTINGS, generator=generator)
    total = sum(layer.trace.value for layer in found)
    assert total == pytest.approx(float(torch.trace(mlp.hessian)), rel=1e-9)


def test_nothing_is_known_where_theta_is_not_finite(mlp, generator):
    theta = torch.full_like(mlp.theta, torch.nan)
    for layer in curvature_of_layers(mlp.objective, theta, **SETTINGS, generator=generator):
        assert np.isnan(layer.trace.value)
        assert np.isnan(layer.top.pairs.values).all()
        assert not layer.top.pairs.converged.any()
