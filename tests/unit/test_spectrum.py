"""Extreme eigenvalues, density and trace against dense matrices."""

import copy
import math

import numpy as np
import pytest
import torch
from hessian_eigenthings import LambdaOperator, hutchinson

from lossgeo.hessian import hessian_operator
from lossgeo.objective import make_objective
from lossgeo.spectrum import spectrum

from .conftest import dense_hessian


def operator_of(matrix: torch.Tensor) -> LambdaOperator:
    return LambdaOperator(lambda v: matrix @ v, len(matrix), dtype=matrix.dtype)


def run(operator, **changes):
    settings = {"top": 2, "bottom": 2, "probes": 2, "steps": 20, "max_steps": 40}
    settings |= {"tolerance": 1e-3, "generator": torch.Generator().manual_seed(1)} | changes
    return spectrum(operator, **settings)


@pytest.fixture(scope="module")
def matrix() -> torch.Tensor:
    """Symmetric, indefinite, with 30 well separated eigenvalues."""
    generator = torch.Generator().manual_seed(7)
    q, _ = torch.linalg.qr(torch.randn(30, 30, generator=generator, dtype=torch.float64))
    return q @ torch.diag(torch.linspace(-3, 9, 30, dtype=torch.float64)) @ q.T


# Extreme eigenvalues


def test_extreme_eigenvalues_are_the_dense_ones(case):
    """To a relative error below 1e-8, top and bottom, every one of them."""
    exact = torch.linalg.eigvalsh(case.hessian).numpy()
    found = run(
        hessian_operator(case.objective, case.theta),
        top=5,
        bottom=3,
        probes=1,
        steps=50,
        max_steps=400,
        tolerance=1e-6,
    )
    assert found.top.converged.all()
    assert found.bottom.converged.all()
    np.testing.assert_allclose(found.top.values, exact[:-6:-1], rtol=1e-8)
    np.testing.assert_allclose(found.bottom.values, exact[:3], rtol=1e-8)


def test_eigenvectors_are_orthonormal_and_their_residuals_are_true(case):
    found = run(
        hessian_operator(case.objective, case.theta), top=4, probes=1, steps=60, max_steps=240
    )
    for pairs in (found.top, found.bottom):
        v = pairs.vectors
        torch.testing.assert_close(v @ v.T, torch.eye(len(v)).double(), rtol=0, atol=1e-10)
        values = torch.from_numpy(pairs.values)
        exact = (case.hessian @ v.T - v.T * values).norm(dim=0).numpy()
        np.testing.assert_allclose(pairs.residuals, exact, rtol=1e-6, atol=1e-12)
        np.testing.assert_array_equal(pairs.converged, exact < 1e-3 * np.abs(pairs.values))


@pytest.mark.parametrize("max_steps", [12, 24, 96])
def test_residuals_are_those_of_fresh_products(case, max_steps):
    """||H v - lambda v||, to rounding, whether the pairs have converged or not."""
    operator = hessian_operator(case.objective, case.theta)
    found = run(operator, top=4, bottom=2, steps=12, max_steps=max_steps)
    scale = np.abs(found.nodes).max()
    for pairs in (found.top, found.bottom):
        fresh = [
            float((operator @ v - value * v).norm())
            for v, value in zip(pairs.vectors, pairs.values, strict=True)
        ]
        np.testing.assert_allclose(pairs.residuals, fresh, rtol=1e-12, atol=1e-13 * scale)
    reported = np.concatenate([found.top.residuals, found.bottom.residuals])
    assert max_steps == 96 or reported.max() > 1e-9 * scale, "else nothing but rounding is compared"


def test_what_has_not_converged_says_so_and_more_steps_converge_it(cnn):
    operator = hessian_operator(cnn.objective, cnn.theta)
    few = run(operator, top=6, bottom=2, probes=1, steps=8, max_steps=8)
    more = run(operator, top=6, bottom=2, probes=1, steps=8, max_steps=256)
    exact = torch.linalg.eigvalsh(cnn.hessian).numpy()[:-7:-1]
    assert not few.top.converged.all()
    wrong = np.abs(few.top.values - exact) > 1e-3 * exact
    assert wrong.any()
    assert not few.top.converged[wrong].any()
    assert more.top.converged.all()
    np.testing.assert_allclose(more.top.values, exact, rtol=1e-5)


def test_a_ritz_value_never_exceeds_the_largest_eigenvalue(cnn):
    """Cauchy interlacing: what has not converged errs inwards."""
    exact = torch.linalg.eigvalsh(cnn.hessian)
    found = run(hessian_operator(cnn.objective, cnn.theta), probes=3, steps=6, max_steps=6)
    assert found.nodes.max() <= exact[-1] + 1e-12
    assert found.nodes.min() >= exact[0] - 1e-12


def test_as_many_steps_as_dimensions_reproduce_the_spectrum_once_each(matrix):
    """No ghosts: every eigenvalue appears exactly once."""
    exact = torch.linalg.eigvalsh(matrix).numpy()
    found = run(operator_of(matrix), top=15, bottom=15, steps=30, max_steps=30)
    for nodes in found.nodes:
        np.testing.assert_allclose(np.sort(nodes), exact, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.top.values, exact[:14:-1], rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.bottom.values, exact[:15], rtol=0, atol=1e-10)


def test_long_runs_have_no_ghosts(case):
    """Full reorthogonalisation: values found in 120 steps are distinct where H's are."""
    exact = torch.linalg.eigvalsh(case.hessian).numpy()
    found = run(hessian_operator(case.objective, case.theta), top=6, bottom=2, probes=1, steps=120)
    np.testing.assert_allclose(found.top.values, exact[:-7:-1], rtol=1e-8)


@pytest.mark.parametrize("diagonal", [[3.0, 2.0, 0.0], [1.0], [5.0, -1.0]])
def test_an_operator_with_few_distinct_eigenvalues_gives_no_copies(diagonal):
    """Its Krylov spaces are smaller than the eigenpairs wanted; what is missing is not made up.

    Whatever is called converged is an eigenpair, and these are orthonormal.
    """
    values = torch.tensor(diagonal).double().repeat_interleave(12 // len(diagonal))
    operator = operator_of(torch.diag(values))
    found = run(operator, top=4, bottom=2, probes=1, steps=8, max_steps=12)
    for pairs in (found.top, found.bottom):
        v = pairs.vectors[torch.from_numpy(pairs.converged)]
        torch.testing.assert_close(v @ v.T, torch.eye(len(v)).double(), rtol=0, atol=1e-8)
    assert len(found.top.values) == 4
    assert len(found.bottom.values) == 2
    ranks = np.argsort(-found.top.values[np.isfinite(found.top.values)], kind="stable")
    np.testing.assert_array_equal(ranks, np.arange(len(ranks)))


def test_more_eigenpairs_than_steps_are_refused(matrix):
    with pytest.raises(ValueError, match=r"3 \+ 2 eigenpairs wanted from 4 Lanczos steps"):
        run(operator_of(matrix), top=3, bottom=2, steps=4)


# Density


def test_each_probes_quadrature_has_the_moments_of_its_probe(matrix):
    """sum w node^k = z'H^k z / P for the probe z: exactly for k < 2m, here m = 3 and k up to 5."""
    seen = []

    def product(v):
        seen.append(v.clone())
        return matrix @ v

    size = len(matrix)
    found = run(
        LambdaOperator(product, size, dtype=torch.float64),
        top=1,
        bottom=1,
        probes=4,
        steps=3,
        max_steps=3,
    )
    flat = torch.full((size,), size**-0.5, dtype=torch.float64)
    probes = [v for v in seen if torch.allclose(v.abs(), flat) and not (v > 0).all()]
    assert len(probes) == 4, "Rademacher probes, normalised"
    for z, nodes, weights in zip(probes, found.nodes, found.weights, strict=True):
        power = z
        for k in range(6):
            assert (weights * nodes**k).sum() == pytest.approx(float(z @ power), rel=1e-10)
            power = matrix @ power


def test_a_full_length_run_has_the_second_moment_of_its_probe_and_weights_that_sum_to_one(mlp):
    """And the mean over many probes goes to tr(H)/P and ||H||_F^2/P."""
    operator, size = operator_of(mlp.hessian), len(mlp.theta)
    found = run(operator, top=1, bottom=1, probes=200, steps=12, max_steps=12)
    np.testing.assert_allclose(found.weights.sum(1), 1.0, rtol=1e-12)
    first = (found.weights * found.nodes).sum(1)
    second = (found.weights * found.nodes**2).sum(1)
    for moments, exact in (
        (first, float(mlp.hessian.trace()) / size),
        (second, float((mlp.hessian**2).sum()) / size),
    ):
        error = moments.std(ddof=1) / math.sqrt(len(moments))
        assert error < 0.1 * abs(exact)
        assert abs(moments.mean() - exact) < 4 * error
    assert first.mean() * size == pytest.approx(found.trace, rel=1e-10)


def test_nodes_that_a_run_does_not_reach_are_nan_with_weight_zero():
    """A Krylov space that closes early leaves the rest of its row empty."""
    found = run(
        operator_of(torch.diag(torch.arange(4.0).double().repeat(5))),
        top=1,
        bottom=1,
        steps=10,
        max_steps=10,
    )
    present = np.isfinite(found.nodes)
    assert (present.sum(1) == 4).all()
    assert not found.weights[~present].any()
    np.testing.assert_allclose(found.weights.sum(1), 1.0, rtol=1e-12)


# Trace


def test_the_trace_is_the_dense_one_within_its_standard_error(mlp):
    exact = float(mlp.hessian.trace())
    found = run(operator_of(mlp.hessian), top=1, bottom=1, probes=600, steps=2, max_steps=2)
    assert found.trace_se < 0.1 * exact
    assert abs(found.trace - exact) < 4 * found.trace_se


def scatter(matrix: torch.Tensor) -> float:
    """Var(z'Hz) = 2 sum_{i != j} H_ij^2 of a Rademacher probe z."""
    return 2 * float((matrix**2).sum() - (matrix.diagonal() ** 2).sum())


def test_the_variance_of_a_rademacher_probe(mlp):
    """Var z'Hz, seen through the probes' own first moments; below the 2 ||H||_F^2 of trace_se."""
    exact, probes, size = scatter(mlp.hessian), 3000, len(mlp.theta)
    found = run(operator_of(mlp.hessian), top=1, bottom=1, probes=probes, steps=2, max_steps=2)
    samples = size * (found.weights * found.nodes).sum(1)
    assert samples.var(ddof=1) == pytest.approx(exact, rel=0.15)
    bound = 2 * float((mlp.hessian**2).sum())
    assert exact <= bound
    assert bound - exact == pytest.approx(2 * float((mlp.hessian.diagonal() ** 2).sum()))


def test_the_standard_error_of_the_trace_is_the_frobenius_norms(mlp, matrix):
    """sqrt(2 / R) ||H||_F, with the norm of the dense matrix; many probes give it sharply."""
    for dense in (mlp.hessian, matrix):
        for probes, rel in ((500, 0.05), (2000, 0.025)):
            found = run(operator_of(dense), top=1, bottom=1, probes=probes, steps=2, max_steps=2)
            exact = math.sqrt(2 / probes) * float(torch.linalg.matrix_norm(dense))
            assert found.trace_se == pytest.approx(exact, rel=rel)


def test_the_standard_error_comes_from_the_quadratures_second_moment(matrix):
    """z'H^2 z averaged over the probes is what the nodes and weights give: to rounding."""
    size = len(matrix)
    found = run(operator_of(matrix), top=1, bottom=1, probes=3, steps=4, max_steps=4)
    squared = size * (found.weights * found.nodes**2).sum(1).mean()
    assert found.trace_se == pytest.approx(math.sqrt(2 * squared / 3), rel=1e-12)


@pytest.mark.parametrize("steps", [2, 10])
def test_an_involution_has_its_frobenius_norm_from_any_probe(steps, generator):
    """H^2 = c^2 I: z'H^2 z / P = c^2 for every z, so the standard error is exact, with one too.

    Its Krylov spaces have two dimensions; what a run does not reach is NaN and counts for nothing.
    """
    q, _ = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))
    signs = torch.tensor([1.0, -1.0, 1.0] * 4, dtype=torch.float64)
    dense = 3.0 * q @ torch.diag(signs) @ q.T
    for probes in (1, 4):
        found = run(
            operator_of(dense), top=1, bottom=1, probes=probes, steps=steps, max_steps=steps
        )
        exact = math.sqrt(2 / probes) * 3.0 * math.sqrt(12)
        assert found.trace_se == pytest.approx(exact, rel=1e-10)


def test_the_samples_of_a_diagonal_operator_are_exact():
    """Its probes do not scatter at all: the standard error is a bound, sqrt(2 / R) ||H||_F."""
    values = torch.arange(1.0, 9.0).double()
    found = run(operator_of(torch.diag(values)), steps=4, probes=5)
    samples = len(values) * (found.weights * found.nodes).sum(1)
    np.testing.assert_allclose(samples, 36.0, rtol=1e-13)
    assert found.trace == pytest.approx(36.0, rel=1e-13)
    assert scatter(torch.diag(values)) == 0.0
    assert found.trace_se == pytest.approx(math.sqrt(2 / 5 * float((values**2).sum())), rel=1e-13)


def test_one_probe_has_a_standard_error_too(mlp):
    """As large as the norm that this probe sees, which is of the order of the true one."""
    exact = math.sqrt(2) * float(torch.linalg.matrix_norm(mlp.hessian))
    found = run(operator_of(mlp.hessian), top=1, bottom=1, probes=1)
    assert 0.3 * exact < found.trace_se < 3 * exact


def test_the_trace_is_covered_by_its_standard_error(mlp):
    """Over many estimates of four probes each, two standard errors cover at least 95 %."""
    exact = float(mlp.hessian.trace())
    operator = operator_of(mlp.hessian)
    covered = []
    for seed in range(200):
        found = run(
            operator,
            top=1,
            bottom=1,
            probes=4,
            steps=2,
            max_steps=2,
            generator=torch.Generator().manual_seed(seed),
        )
        covered.append(abs(found.trace - exact) < 2 * found.trace_se)
    assert np.mean(covered) > 0.93


def test_the_trace_agrees_with_hessian_eigenthings_hutchinson(mlp):
    ours = run(operator_of(mlp.hessian), top=1, bottom=1, probes=300, steps=2, max_steps=2)
    theirs = hutchinson(operator_of(mlp.hessian), num_samples=300, seed=5)
    error = math.hypot(ours.trace_se, theirs.stderr)
    assert abs(ours.trace - theirs.estimate) < 4 * error
    share = math.sqrt(scatter(mlp.hessian) / 2) / float(torch.linalg.matrix_norm(mlp.hessian))
    assert share * ours.trace_se == pytest.approx(theirs.stderr, rel=0.2)


# Bookkeeping


def counting(operator) -> tuple[LambdaOperator, list[int]]:
    """The same operator, and a list that grows by one entry with each of its products."""
    spent = []

    def product(v):
        spent.append(1)
        return operator @ v

    return LambdaOperator(product, operator.size, dtype=operator.dtype), spent


@pytest.mark.parametrize("probes", [1, 3])
@pytest.mark.parametrize(("max_steps", "again"), [(10, 0), (30, 20 + 30), (80, 20 + 40)])
def test_products_spent_are_counted(cnn, probes, max_steps, again):
    """A first one, the steps of every probe, and those of each run that the eigenpairs need."""
    counted, spent = counting(hessian_operator(cnn.objective, cnn.theta))
    found = run(counted, top=6, bottom=2, probes=probes, steps=10, max_steps=max_steps)
    assert found.products == len(spent)
    assert found.products == 1 + 10 * probes + again
    assert (found.top.converged.all() and found.bottom.converged.all()) == (max_steps > 10)


def test_products_of_runs_that_end_early_are_counted():
    """A Krylov space of 4 dimensions takes 4 products, though 10 steps were asked for."""
    counted, spent = counting(operator_of(torch.diag(torch.arange(4.0).double().repeat(5))))
    found = run(counted, top=1, bottom=1, probes=3, steps=10)
    assert found.products == len(spent) == 1 + 4 * 3


def test_an_operator_that_is_not_finite_takes_one_product():
    counted, spent = counting(operator_of(torch.full((6, 6), torch.nan).double()))
    assert run(counted, steps=5).products == len(spent) == 1


@pytest.mark.kernels
def test_one_generator_state_gives_one_spectrum(matrix):
    a, b = run(operator_of(matrix)), run(operator_of(matrix))
    np.testing.assert_array_equal(a.nodes, b.nodes)
    assert torch.equal(a.top.vectors, b.top.vectors)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_an_operator_that_is_not_finite_has_nan_for_everything(mlp, bad):
    theta = mlp.theta.clone()
    theta[0] = bad
    found = run(hessian_operator(mlp.objective, theta), top=3, bottom=2, probes=4, steps=9)
    for pairs, count in ((found.top, 3), (found.bottom, 2)):
        assert np.isnan(pairs.values).all()
        assert np.isnan(pairs.residuals).all()
        assert torch.isnan(pairs.vectors).all()
        assert pairs.vectors.shape == (count, len(theta))
        assert not pairs.converged.any()
    assert found.nodes.shape == (4, 9)
    assert np.isnan(found.nodes).all()
    assert math.isnan(found.trace)
    assert math.isnan(found.trace_se)


@pytest.mark.kernels
def test_float32_eigenvalues_agree_with_the_dense_float64_ones(mlp):
    """The precision in which the study runs."""
    narrow = make_objective(copy.deepcopy(mlp.model), mlp.inputs, mlp.targets)
    exact = torch.linalg.eigvalsh(dense_hessian(mlp.model, mlp.inputs, mlp.targets, mlp.theta))
    found = run(hessian_operator(narrow, mlp.theta), probes=1, steps=60, max_steps=120)
    assert found.top.converged.all()
    np.testing.assert_allclose(found.top.values, exact.numpy()[:-3:-1], rtol=1e-5)
