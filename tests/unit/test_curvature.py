"""Everything that is measured of a point's curvature, against dense matrices."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from lossgeo.curvature import curvature
from lossgeo.directions import filter_scale
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten
from lossgeo.trace import filter_spread

from .conftest import dense_hessian

SETTINGS = {"top": 4, "bottom": 2, "probes": 2, "steps": 20, "max_steps": 120, "tolerance": 1e-5}


def measure(objective, theta, **changes):
    generator = torch.Generator().manual_seed(3)
    return curvature(
        objective, theta, **SETTINGS | {"rest_probes": 40, "generator": generator} | changes
    )


@pytest.fixture(scope="module")
def found(mlp):
    return measure(mlp.objective, mlp.theta, preconditioner=preconditioner_of(mlp))


def preconditioner_of(case) -> torch.Tensor:
    generator = torch.Generator().manual_seed(8)
    return 0.1 + torch.rand(len(case.theta), generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("matrix", ["hessian", "filter", "preconditioned"])
def test_the_largest_eigenvalues_are_the_dense_ones_in_every_metric(mlp, found, matrix):
    scale = {
        "hessian": torch.ones_like(mlp.theta),
        "filter": filter_scale(mlp.theta, mlp.objective.layout),
        "preconditioned": preconditioner_of(mlp).rsqrt(),
    }[matrix]
    exact = torch.linalg.eigvalsh(scale[:, None] * mlp.hessian * scale).flip(0).numpy()
    pairs = found.largest[matrix].pairs
    assert pairs.converged.all()
    np.testing.assert_allclose(pairs.values, exact[: len(pairs.values)], rtol=1e-8)


def test_eigenvalues_have_the_error_of_a_study_with_other_samples(mlp):
    """The bootstrap over samples, for the largest eigenvalue, which stands apart."""
    each = torch.stack(
        [
            dense_hessian(mlp.model, x[None], y[None], mlp.theta)
            for x, y in zip(mlp.inputs, mlp.targets, strict=True)
        ]
    )
    generator = torch.Generator().manual_seed(1)
    n = len(each)
    draws = [torch.randint(0, n, (n,), generator=generator) for _ in range(300)]
    bootstrap = torch.stack([torch.linalg.eigvalsh(each[d].mean(0))[-1] for d in draws]).std()
    found = measure(mlp.objective, mlp.theta).largest["hessian"].standard_errors[0]
    assert found == pytest.approx(float(bootstrap), rel=0.25)


def test_the_gauss_newton_matrix_has_eigenvalues_and_cosines_of_its_own(mlp, found):
    from torch.func import functional_call, jacrev

    from lossgeo.parameters import unflatten

    def logits(theta):
        return functional_call(mlp.model, unflatten(theta, mlp.objective.layout), (mlp.inputs,))

    jacobian = jacrev(logits)(mlp.theta).detach()  # (N, K, P)
    p = logits(mlp.theta).softmax(1).detach()
    bent = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    dense = torch.einsum("nkp,nkl,nlq->pq", jacobian, bent, jacobian) / len(p)
    values, vectors = torch.linalg.eigh(dense)
    pairs = found.largest["gauss_newton"].pairs
    np.testing.assert_allclose(pairs.values, values.flip(0)[:4].numpy(), rtol=1e-8)
    _, of_hessian = torch.linalg.eigh(mlp.hessian)
    exact = (vectors * of_hessian).sum(0).abs().flip(0)[:4]
    np.testing.assert_allclose(found.cosines, exact.numpy(), atol=1e-4)
    forms = torch.einsum("nkp,p->nk", jacobian, vectors[:, -1])
    samples = (p * forms**2).sum(1) - (p * forms).sum(1) ** 2
    error = float(samples.std() / math.sqrt(len(p)))
    assert found.largest["gauss_newton"].standard_errors[0] == pytest.approx(error, rel=1e-6)


def test_traces_of_a_piecewise_affine_network_are_exact(case):
    found = measure(case.objective, case.theta)
    assert found.exact
    assert found.trace == found.gauss_newton_trace
    assert found.trace.value == pytest.approx(float(case.hessian.trace()), rel=1e-10)
    spread = filter_spread(case.theta, case.objective.layout)
    exact = float((spread.square() * case.hessian.diagonal()).sum())
    assert found.filter_curvature.value == pytest.approx(exact, rel=1e-10)
    rank = float(case.hessian.trace() ** 2 / case.hessian.square().sum())
    assert found.effective_rank.value == pytest.approx(rank, rel=0.15)
    assert abs(found.effective_rank.value - rank) < 2 * found.effective_rank.probe_se


def test_traces_of_a_smooth_network_have_the_errors_of_its_samples_and_probes(mlp):
    """tr G is not tr H there, nor is its scatter over the samples."""
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.GELU(), nn.Linear(5, 3)).double()
    objective = make_objective(copy.deepcopy(model), mlp.inputs, mlp.targets, dtype=torch.float64)
    theta = 2 * flatten(model)
    each = torch.stack(
        [
            dense_hessian(model, x[None], y[None], theta)
            for x, y in zip(mlp.inputs, mlp.targets, strict=True)
        ]
    ).diagonal(dim1=1, dim2=2)  # (N, P)
    spread = filter_spread(theta, objective.layout).square()
    found = measure(objective, theta, rest_probes=200)
    assert not found.exact
    assert abs(float(each.sum(1).mean()) - found.gauss_newton_trace.value) > 1e-4
    for estimate, exact in (
        (found.trace, each.sum(1)),
        (found.filter_curvature, each @ spread),
    ):
        assert estimate.probe_se > 0
        assert abs(estimate.value - float(exact.mean())) < 4 * estimate.probe_se
        assert estimate.sample_se == pytest.approx(
            float(exact.std() / math.sqrt(len(exact))), rel=0.15
        )


@pytest.mark.parametrize("factor", [1e2, 1e8, 1e16])
def test_a_theta_that_is_far_out_breaks_nothing(mlp, factor):
    """In single precision its softmax saturates, or its products overflow."""
    objective = make_objective(copy.deepcopy(mlp.model), mlp.inputs, mlp.targets)
    found = measure(objective, factor * mlp.theta.float(), top=2, bottom=1)
    assert found.exact
    assert not (found.largest["gauss_newton"].pairs.values < -1e-3).any()


def test_of_a_theta_that_is_not_finite_everything_is_nan(mlp):
    theta = torch.full_like(mlp.theta, math.nan)
    found = measure(mlp.objective, theta, preconditioner=theta)
    for estimate in (found.trace, found.gauss_newton_trace, found.filter_curvature):
        assert math.isnan(estimate.value)
    assert math.isnan(found.effective_rank.value)
    assert math.isnan(found.outliers)
    for measured in (*found.largest.values(), found.smallest):
        assert np.isnan(measured.pairs.values).all()
        assert np.isnan(measured.standard_errors).all()
        assert not measured.pairs.converged.any()
