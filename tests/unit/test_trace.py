"""Traces, norms and effective ranks against dense matrices."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hessian_eigenthings import LambdaOperator

from lossgeo import trace
from lossgeo.directions import random_direction
from lossgeo.gauss_newton import sample_traces
from lossgeo.spectrum import Eigenpairs, spectrum
from lossgeo.trace import Estimate

from .conftest import dense_hessian


def operator_of(matrix: torch.Tensor) -> LambdaOperator:
    return LambdaOperator(lambda v: matrix @ v, len(matrix), dtype=matrix.dtype)


def krylov(matrix: torch.Tensor, seed: int = 0, **changes):
    settings = {"top": 4, "bottom": 2, "probes": 2, "steps": 30, "max_steps": 90}
    settings |= {"tolerance": 1e-3, "generator": torch.Generator().manual_seed(seed)} | changes
    return spectrum(operator_of(matrix), **settings)


@pytest.fixture(scope="module")
def each(mlp) -> torch.Tensor:
    """The Hessian of every sample of the MLP, (N, P, P)."""
    return torch.stack(
        [
            dense_hessian(mlp.model, x[None], y[None], mlp.theta)
            for x, y in zip(mlp.inputs, mlp.targets, strict=True)
        ]
    )


def test_the_trace_of_a_piecewise_affine_network_is_the_hessians_and_has_its_error(mlp, each):
    """Exact, from as many backward passes as there are classes."""
    found = trace.estimate(trace.of_samples(sample_traces(mlp.objective, mlp.theta)))
    traces = each.diagonal(dim1=1, dim2=2).sum(1)
    assert found.value == pytest.approx(float(mlp.hessian.trace()), rel=1e-12)
    assert found.sample_se == pytest.approx(float(traces.std() / math.sqrt(len(traces))), rel=1e-10)
    assert found.probe_se == 0


@pytest.mark.kernels
def test_tensors_share_the_trace(case):
    traces = sample_traces(case.objective, case.theta)
    parts = trace.by_tensor(traces)
    blocks = case.hessian.diagonal().split(case.objective.layout.sizes)
    np.testing.assert_allclose([p.value for p in parts], [float(b.sum()) for b in blocks], 1e-10)


def test_the_filter_curvature_is_the_mean_over_directions(case):
    """sum_f ||w_f||^2 / n_f tr H_ff, by a loop over filters, and by many random directions."""
    layout = case.objective.layout
    traces = sample_traces(case.objective, case.theta)
    found = float(trace.filter_curvature_of_samples(traces, case.theta, layout).mean())
    exact, at = 0.0, 0
    for shape, size in zip(layout.shapes, layout.sizes, strict=True):
        if len(shape) > 1:
            filters = case.theta[at : at + size].view(shape[0], -1)
            diagonal = case.hessian.diagonal()[at : at + size].view(shape[0], -1)
            exact += float((filters.square().mean(1) * diagonal.sum(1)).sum())
        at += size
    assert found == pytest.approx(exact, rel=1e-10)
    generator = torch.Generator().manual_seed(2)
    drawn = torch.stack(
        [random_direction(case.theta, layout, "filter", generator=generator) for _ in range(400)]
    )
    forms = ((drawn @ case.hessian) * drawn).sum(1)
    assert abs(float(forms.mean()) - exact) < 4 * float(forms.std()) / 20


def test_the_spread_is_that_of_filter_normalised_directions(mlp):
    """tr(S H S) = E[d'Hd]."""
    spread = trace.filter_spread(mlp.theta, mlp.objective.layout)
    traces = sample_traces(mlp.objective, mlp.theta)
    found = trace.filter_curvature_of_samples(traces, mlp.theta, mlp.objective.layout).mean()
    exact = float((spread.square() * mlp.hessian.diagonal()).sum())
    assert float(found) == pytest.approx(exact, rel=1e-10)


def test_probes_of_every_sample_give_the_trace_and_its_errors(rng):
    """Samples a_i + noise of R probes: the spread of a_i alone is the error over the samples."""
    samples, probes = 400, 10
    exact = torch.from_numpy(rng.normal(3.0, 1.0, samples))
    rest = torch.from_numpy(rng.normal(2.0, 2.0, (probes, samples)))
    found = trace.with_rest(exact, rest)
    assert found.value == pytest.approx(float(exact.mean() + rest.mean()), rel=1e-12)
    assert found.sample_se == pytest.approx(1.0 / 20, rel=0.1)  # with the noise: 1.18 / 20
    assert found.probe_se == pytest.approx(2 / math.sqrt(samples * probes), rel=0.6)


@pytest.mark.parametrize(("steps", "max_steps"), [(10, 10), (30, 120)])
def test_the_squared_norm_is_the_dense_one_within_its_error(mlp, steps, max_steps):
    """Whether pairs have converged, and are left out of the noise, or not."""
    exact = float(mlp.hessian.square().sum())
    inside, spread = [], []
    for seed in range(100):
        found = krylov(mlp.hessian, seed, steps=steps, max_steps=max_steps)
        value, error = trace.squared_norm(found)
        inside.append(abs(value - exact) < 2 * error)
        spread.append(value / exact - 1)
    assert np.mean(inside) >= 0.95
    assert abs(np.mean(spread)) < 4 * np.std(spread) / 10


def test_what_has_not_converged_bounds_what_is_left():
    """A gap in the middle of the top pairs: 8 is left, though the fourth is known."""
    found = krylov(torch.diag(torch.tensor([10.0, 9, 8, 1, 0, -1, -2, -3]).double()), steps=8)
    vectors, residuals = found.top.vectors, np.array([0.0, 0.0, 0.1, 0.0])
    top = Eigenpairs(found.top.values, vectors, residuals, np.array([True, True, False, True]))
    value, error = trace.squared_norm(replace(found, top=top))
    left = value - (100 + 81 + 1 + 4 + 9)
    assert error == pytest.approx(math.sqrt(2 * 8.1**2 * left / 2), rel=1e-6)


def test_known_eigenpairs_take_the_noise_out_of_the_norm(mlp):
    """Without them the same probes scatter several times as much."""
    exact = float(mlp.hessian.square().sum())
    deflated, plain = [], []
    for seed in range(50):
        found = krylov(mlp.hessian, seed, steps=60, max_steps=60, probes=1, top=10)
        deflated.append(trace.squared_norm(found)[0] / exact)
        plain.append(len(mlp.theta) * float(found.images.square().sum()) / exact)
    assert 3 * np.std(deflated) < np.std(plain)


def test_the_effective_rank_is_the_participation_ratio():
    """Of eigenvalues 3, 2, 2 + 1e-3 and 1 of 16; samples with one Hessian leave no error."""
    values = torch.tensor([3.0, 2.0, 2.001, 1.0], dtype=torch.float64)
    found = krylov(torch.diag(torch.cat([values, torch.zeros(12).double()])), steps=16)
    norm = trace.squared_norm(found)
    exact = float(values.square().sum())
    assert norm[0] == pytest.approx(exact, rel=1e-10)
    total = float(values.sum())
    rank = trace.effective_rank(
        Estimate(total, 0.0), torch.full((5,), total), norm, torch.full((5,), exact)
    )
    assert rank.value == pytest.approx(total**2 / exact, rel=1e-10)
    assert rank.sample_se == pytest.approx(0.0, abs=1e-6)


def test_a_matrix_of_zeros_has_no_effective_rank():
    rank = trace.effective_rank(Estimate(0.0, 0.0), torch.zeros(4), (0.0, 0.0), torch.zeros(4))
    assert all(math.isnan(number) for number in rank)


def test_the_sampling_error_of_the_effective_rank_is_the_infinitesimal_jackknifes(mlp, each):
    """Every sample's weight moved by a little, from the dense matrices."""
    traces = each.diagonal(dim1=1, dim2=2).sum(1)
    products = torch.einsum("npq,pq->n", each, mlp.hessian)
    norm = float(mlp.hessian.square().sum())
    found = trace.effective_rank(Estimate(float(traces.mean()), 0.0), traces, (norm, 0.0), products)

    def rank(matrix):
        return matrix.trace() ** 2 / matrix.square().sum()

    step = 1e-6
    moved = torch.stack(
        [rank((1 - step) * mlp.hessian + step * one) - rank(mlp.hessian) for one in each]
    )
    exact = float((moved / step).std() / math.sqrt(len(each)))
    assert found.value == pytest.approx(float(rank(mlp.hessian)), rel=1e-12)
    assert found.sample_se == pytest.approx(exact, rel=1e-4)
