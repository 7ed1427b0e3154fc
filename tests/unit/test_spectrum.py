"""Extreme eigenvalues and density against dense matrices."""

import copy
import math

import numpy as np
import pytest
import torch
from hessian_eigenthings import LambdaOperator

from lossgeo.hessian import hessian_operator
from lossgeo.objective import make_objective
from lossgeo.spectrum import leading, outliers, spectrum

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
    scale = np.nanmax(np.abs(found.nodes))
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


# Products spent


def counting(operator) -> tuple[LambdaOperator, list[int]]:
    """The same operator, and a list that grows by one entry with each of its products."""
    spent = []

    def product(v):
        spent.append(1)
        return operator @ v

    return LambdaOperator(product, operator.size, dtype=operator.dtype), spent


@pytest.mark.parametrize("probes", [1, 3])
@pytest.mark.parametrize(("max_steps", "converged"), [(10, False), (30, False), (80, True)])
def test_products_spent_are_counted(cnn, probes, max_steps, converged):
    """A first one and the steps of every probe; the first run goes on, it does not begin again."""
    counted, spent = counting(hessian_operator(cnn.objective, cnn.theta))
    found = run(counted, top=6, bottom=2, probes=probes, steps=10, max_steps=max_steps)
    assert found.products == len(spent)
    longest = np.isfinite(found.nodes).sum(1)
    assert found.products == 1 + longest.sum()
    assert list(longest[1:]) == [10] * (probes - 1)
    assert 10 <= longest[0] <= max_steps
    assert (found.top.converged.all() and found.bottom.converged.all()) == converged


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
    assert torch.isnan(found.images).all()


@pytest.mark.kernels
def test_float32_eigenvalues_agree_with_the_dense_float64_ones(mlp):
    """The precision in which the study runs."""
    narrow = make_objective(copy.deepcopy(mlp.model), mlp.inputs, mlp.targets)
    exact = torch.linalg.eigvalsh(dense_hessian(mlp.model, mlp.inputs, mlp.targets, mlp.theta))
    found = run(hessian_operator(narrow, mlp.theta), probes=1, steps=60, max_steps=120)
    assert found.top.converged.all()
    np.testing.assert_allclose(found.top.values, exact.numpy()[:-3:-1], rtol=1e-5)


# Runs that go on, and those from a good start


def test_a_run_that_goes_on_is_the_longer_run(case):
    """Its products are those of the shorter run, and no number tells that it was interrupted."""
    operator = hessian_operator(case.objective, case.theta)
    found = run(operator, top=6, bottom=2, probes=1, steps=10, max_steps=200)
    steps = int(np.isfinite(found.nodes).sum())
    assert steps > 10
    whole = run(operator, top=6, bottom=2, probes=1, steps=steps, max_steps=steps)
    np.testing.assert_allclose(found.top.values, whole.top.values, rtol=1e-13)
    np.testing.assert_allclose(found.nodes, whole.nodes, rtol=1e-9, atol=1e-12)


def test_the_largest_from_a_good_start_take_few_products(case, generator):
    operator, spent = counting(hessian_operator(case.objective, case.theta))
    exact, vectors = torch.linalg.eigh(case.hessian)
    start = vectors[:, -3:].sum(1)
    start = start + 1e-3 * start.norm() * torch.randn(len(start), generator=generator).double() / 50
    pairs, products = leading(operator, start, top=3, max_steps=60, tolerance=1e-4)
    assert products == len(spent) < 25
    assert pairs.converged.all()
    np.testing.assert_allclose(pairs.values, exact.flip(0)[:3].numpy(), rtol=1e-7)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_start_that_is_not_finite_gives_nothing(matrix, bad):
    pairs, _ = leading(
        operator_of(matrix), torch.full((30,), bad).double(), top=2, max_steps=9, tolerance=0.1
    )
    assert np.isnan(pairs.values).all()
    assert pairs.vectors.shape == (2, 30)
    assert not pairs.converged.any()


def test_outliers_end_at_the_widest_gap():
    assert outliers(np.array([100.0, 50, 40, 4, 3, 2])) == (3, 10.0)
    assert outliers(np.array([8.0, 1.0, 0.9, -3.0])) == (1, 8.0)
    for few in ([], [3.0], [math.nan, math.nan], [1.0, -1.0]):
        assert all(math.isnan(number) for number in outliers(np.array(few)))


def test_a_random_share_in_the_start_finds_what_the_guesses_lack(generator):
    """Vectors of another matrix, whose tenth and eleventh have changed places."""
    values = torch.cat(
        [torch.linspace(30, 11, 9), torch.tensor([9.5, 10.0]), torch.linspace(0, 1, 189)]
    )
    matrix = torch.diag(values).double()
    guesses = torch.eye(200, dtype=torch.float64)[:10].sum(0) / math.sqrt(10)
    probe = torch.randint(0, 2, (200,), generator=generator).double() * 2 - 1
    start = guesses + 0.3 * probe / math.sqrt(200)
    pairs, products = leading(operator_of(matrix), start, top=10, max_steps=60, tolerance=1e-3)
    assert pairs.converged.all()
    assert pairs.values[-1] == pytest.approx(10.0, rel=1e-5)
    assert products < 40


def test_a_run_whose_squares_overflow_is_not_finite():
    matrix = torch.diag(torch.linspace(1, 3, 12)).float() * 1e30
    found = run(operator_of(matrix), steps=6, max_steps=6)
    assert np.isnan(found.top.values).all()
    pairs, _ = leading(operator_of(matrix), torch.ones(12), top=2, max_steps=6, tolerance=0.1)
    assert np.isnan(pairs.values).all()
