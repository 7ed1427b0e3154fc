"""The GPU runs the same code as the CPU: the same numbers, to the rounding of float32."""

import copy

import numpy as np
import pytest
import torch

from lossgeo import multilevel
from lossgeo.curvature import curvature
from lossgeo.directions import random_direction
from lossgeo.invariance import measures
from lossgeo.ladder import leading_eigenpairs
from lossgeo.objective import evaluate, make_objective
from lossgeo.surface import centred_grid, plane

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture
def objectives(case):
    """The case in float32 on the CPU and on the GPU."""
    return [
        make_objective(copy.deepcopy(case.model), case.inputs, case.targets, device=device)
        for device in ("cpu", "cuda")
    ]


def test_the_loss_is_the_same(case, objectives):
    there, here = (evaluate(objective, case.theta) for objective in objectives)
    assert here == pytest.approx(there, rel=1e-5)


def test_surfaces_are_the_same(case, objectives):
    axes = [
        random_direction(
            case.theta,
            case.objective.layout,
            "filter",
            generator=torch.Generator().manual_seed(seed),
        )
        for seed in (0, 1)
    ]
    grid = centred_grid(1.0, 25)
    there, here = (plane(objective, case.theta, *axes, grid, grid) for objective in objectives)
    few, _ = multilevel.plane(
        objectives[1],
        case.theta,
        *axes,
        grid,
        grid,
        estimator="multilevel",
        generator=np.random.default_rng(0),
    )
    np.testing.assert_allclose(here["loss"], there["loss"], rtol=1e-4)
    assert (np.abs(few["loss"] - there["loss"]) <= 2 * there["loss_se"]).mean() >= 0.99


def test_spectra_are_the_same(case, objectives):
    there, here = (
        curvature(
            objective,
            case.theta,
            preconditioner=1 + case.theta.abs(),
            top=3,
            bottom=1,
            probes=2,
            steps=30,
            max_steps=60,
            tolerance=1e-3,
            rest_probes=4,
            generator=torch.Generator().manual_seed(0),
        )
        for objective in objectives
    )
    for matrix, measured in here.largest.items():
        exact = there.largest[matrix]
        np.testing.assert_allclose(measured.pairs.values, exact.pairs.values, rtol=1e-3)
        np.testing.assert_allclose(measured.standard_errors, exact.standard_errors, rtol=0.01)
    assert here.trace.value == pytest.approx(there.trace.value, rel=1e-3)


def test_measures_of_sharpness_are_the_same(case, objectives):
    settings = {"draws": 3, "radii": [0.1], "worst": {"euclidean": [0.1], "elementwise": [0.5]}}
    settings["worst"]["steps"] = 3
    there, here = (
        measures(objective, case.theta.float(), settings, 0)[0] for objective in objectives
    )
    for name, values in here.items():
        assert float(values.mean()) == pytest.approx(float(there[name].mean()), rel=1e-3), name


def test_leading_eigenvalues_are_the_same(case, objectives):
    there, here = (
        leading_eigenpairs(
            objective,
            case.theta,
            top=2,
            tolerance=1e-3,
            generator=torch.Generator().manual_seed(0),
        ).pairs
        for objective in objectives
    )
    assert there.converged.all()
    assert here.converged.all()
    np.testing.assert_allclose(here.values, there.values, rtol=1e-3)
