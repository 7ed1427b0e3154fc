"""The loss as a function of some parameters is the whole one with the others held."""

import numpy as np
import pytest
import torch

from lossgeo import sharpness, surface
from lossgeo.curvature import curvature
from lossgeo.hessian import hessian_operator
from lossgeo.models import ModelError
from lossgeo.objective import evaluate
from lossgeo.part import layers, match, part_of, places

PATTERNS = {"mlp": [["output.*"], ["*.weight"]], "cnn": [["conv1.*", "output.*"], ["*.bias"]]}


@pytest.fixture(params=range(2))
def chosen(case, request):
    patterns = PATTERNS[case.family][request.param]
    where = places(case.objective.layout, match(case.objective.layout, patterns))
    return (*part_of(case.objective, case.theta, patterns), where)


def test_the_loss_is_the_same(case, chosen):
    objective, theta, where = chosen
    assert torch.equal(theta, case.theta[where])
    assert evaluate(objective, theta) == pytest.approx(evaluate(case.objective, case.theta))
    moved = case.theta.clone()
    moved[where] += 0.1
    expected = evaluate(case.objective, moved)
    assert evaluate(objective, theta + 0.1) == pytest.approx(expected, rel=1e-12)


def test_the_hessian_is_the_block(case, chosen, generator):
    objective, theta, where = chosen
    v = torch.randn(len(where), generator=generator, dtype=torch.float64)
    found = hessian_operator(objective, theta) @ v
    expected = case.hessian[where][:, where] @ v
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_the_spectrum_and_the_trace_are_those_of_the_block(mlp, generator):
    objective, theta = part_of(mlp.objective, mlp.theta, ["output.*"])
    where = places(mlp.objective.layout, ["output.weight", "output.bias"])
    block = mlp.hessian[where][:, where]
    found = curvature(
        objective,
        theta,
        rest_probes=4,
        generator=generator,
        top=3,
        bottom=1,
        probes=2,
        steps=10,
        max_steps=15,
        tolerance=1e-8,
    )
    expected = torch.linalg.eigvalsh(block).flip(0)[:3]
    np.testing.assert_allclose(found.spectrum.top.values, expected, rtol=1e-8)
    assert found.trace.value == pytest.approx(float(torch.trace(block)), rel=1e-10)


def test_vectors_have_no_filters(mlp, generator):
    objective, theta = part_of(mlp.objective, mlp.theta, ["*.bias"])
    where = places(mlp.objective.layout, objective.layout.names)
    settings = {"top": 2, "bottom": 1, "probes": 1, "steps": 8, "max_steps": 12}
    found = curvature(
        objective, theta, rest_probes=2, generator=generator, tolerance=1e-6, **settings
    )
    block = mlp.hessian[where][:, where]
    assert found.trace.value == pytest.approx(float(torch.trace(block)), rel=1e-10)
    assert np.isnan(found.filter_curvature.value)
    assert np.isnan(found.largest["filter"].pairs.values).all()


def test_lines_and_worst_rises_leave_the_rest_where_it_is(case, chosen, generator):
    objective, theta, where = chosen
    d = torch.zeros_like(case.theta)
    d[where] = torch.randn(len(where), generator=generator, dtype=torch.float64)
    alphas = np.array([-0.5, 0.0, 0.5])
    found = surface.line(objective, theta, d[where], alphas)["loss"]
    expected = surface.line(case.objective, case.theta, d, alphas)["loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-11)
    scale = torch.zeros_like(case.theta)
    scale[where] = 1.0
    found = sharpness.worst_case(objective, theta, [0.3], 2).best
    expected = sharpness.worst_case(case.objective, case.theta, [0.3], 2, scale=scale).best
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_the_objective_that_it_is_taken_from_stays_as_it_is(mlp):
    before = evaluate(mlp.objective, mlp.theta)
    part_of(mlp.objective, mlp.theta * 2, ["output.*"])
    assert all(p.requires_grad for p in mlp.objective.model.parameters())
    assert evaluate(mlp.objective, mlp.theta) == before


def test_a_pattern_that_matches_nothing_is_refused(mlp):
    with pytest.raises(ModelError, match=r"no parameter matches 'blocks\.\*'.*hidden\.weight"):
        part_of(mlp.objective, mlp.theta, ["output.*", "blocks.*"])


def test_a_layer_is_the_module_that_owns_parameters(case):
    found = layers(case.model)
    assert list(found)[-1] == "output"
    assert found["output"] == ["output.weight", "output.bias"]
    assert [name for names in found.values() for name in names] == list(case.objective.layout.names)
