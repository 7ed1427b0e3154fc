"""Trace and largest eigenvalue of each layer against its block of the dense Hessian."""

import numpy as np
import pytest
import torch

from lossgeo.layers import curvature_of_layers
from lossgeo.part import layers, places

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
