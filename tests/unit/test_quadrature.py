"""Quadratures of a spectrum: densities integrate to one, bounds hold for dense spectra."""

import math

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import trapezoid

from lossgeo.quadrature import cumulative_bounds, density


def gauss_rule(eigenvalues: np.ndarray, masses: np.ndarray, m: int) -> tuple:
    """Nodes and weights of the m-point Gauss rule of a discrete measure, by dense Lanczos."""
    basis = [np.sqrt(masses / masses.sum())]
    for _ in range(m - 1):
        new = eigenvalues * basis[-1]
        for _ in range(2):  # orthogonal to rounding
            new -= np.array(basis).T @ (np.array(basis) @ new)
        basis.append(new / np.linalg.norm(new))
    q = np.array(basis).T
    nodes, vectors = np.linalg.eigh(q.T @ (eigenvalues[:, None] * q))
    return nodes, vectors[0] ** 2


def measure(eigenvalues: np.ndarray, masses: np.ndarray, x: np.ndarray) -> tuple:
    """F(x-) and F(x) of the measure itself."""
    shares = masses / masses.sum()
    before, up_to = (
        (compare(eigenvalues, x[:, None]) * shares).sum(1) for compare in (np.less, np.less_equal)
    )
    return before, up_to


def spectra() -> dict[str, np.ndarray]:
    """Eigenvalues of the kinds that Hessians have, and of kinds that are hard."""
    rng = np.random.default_rng(1)
    wigner = rng.normal(size=(120, 120))
    clusters = np.concatenate(
        [[20.0, 12.0, 11.99, 5.0], 1e-3 * rng.normal(size=150), 1 + 1e-5 * rng.normal(size=20)]
    )
    return {
        "random matrix": np.linalg.eigvalsh((wigner + wigner.T) / 2),
        "clusters": np.sort(np.concatenate([clusters, -0.3 + 1e-2 * rng.normal(size=10)])),
        "uniform": np.linspace(-1, 1, 101),  # symmetric: some rules have a node at infinity
        "few": np.repeat([0.0, 1.0, 3.0], [50, 30, 3]),
        "positive": np.sort(rng.pareto(1.2, size=200)),
    }


CASES = [(name, m) for name in spectra() for m in (1, 2, 3, 8, 25) if name != "few" or m <= 3]


@pytest.mark.parametrize(("name", "m"), CASES)
def test_the_measure_of_a_probe_lies_within_its_bounds_everywhere(name, m):
    """F(x-) and F(x), at the eigenvalues, at the nodes, between them and far outside."""
    eigenvalues = spectra()[name]
    masses = np.random.default_rng(2).normal(size=len(eigenvalues)) ** 2
    nodes, weights = gauss_rule(eigenvalues, masses, m)
    reach = 1.2 * np.abs(eigenvalues).max()
    x = np.unique(np.concatenate([eigenvalues, nodes, np.linspace(-reach, reach, 301), [0.0]]))
    low, high = cumulative_bounds(nodes[None], weights[None], x)
    before, up_to = measure(eigenvalues, masses, x)
    # A node is an eigenvalue to rounding only: on the other side of it, its mass counts or not.
    near = 1e-9 * reach
    assert (low <= np.maximum(before, measure(eigenvalues, masses, x + near)[0]) + 1e-9).all()
    assert (high >= np.minimum(up_to, measure(eigenvalues, masses, x - near)[1]) - 1e-9).all()
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) >= 0).all()
    assert (low >= 0).all()
    assert (high <= 1 + 1e-12).all()


@pytest.mark.parametrize(("name", "m"), CASES)
def test_at_a_node_the_bounds_are_the_sums_of_weights_to_either_side(name, m):
    """sum_{j<k} w_j <= F(t_k -) and F(t_k) <= sum_{j<=k} w_j."""
    eigenvalues = spectra()[name]
    nodes, weights = gauss_rule(eigenvalues, np.ones(len(eigenvalues)), m)
    low, high = cumulative_bounds(nodes[None], weights[None], nodes)
    np.testing.assert_allclose(low, np.cumsum(weights) - weights, atol=1e-9)
    np.testing.assert_allclose(high, np.cumsum(weights), atol=1e-9)


@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_with_as_many_nodes_as_eigenvalues_they_are_the_measure_at_each(size, rng):
    eigenvalues = np.sort(rng.normal(size=size))
    masses = rng.uniform(0.1, 1, size)
    nodes, weights = gauss_rule(eigenvalues, masses, size)
    before, up_to = measure(eigenvalues, masses, eigenvalues)
    low, high = cumulative_bounds(nodes[None], weights[None], nodes)
    np.testing.assert_allclose(low, before, atol=1e-9)
    np.testing.assert_allclose(high, up_to, atol=1e-9)


def christoffel(eigenvalues: np.ndarray, masses: np.ndarray, m: int, x: np.ndarray) -> np.ndarray:
    """1 / sum_{j<m} p_j(x)^2, p_j orthonormal under the measure, by its three-term recurrence."""
    shares = masses / masses.sum()
    values, at = np.ones((1, len(eigenvalues))), np.ones((1, len(x)))
    for _ in range(m - 1):
        new, new_at = eigenvalues * values[-1], x * at[-1]
        for _ in range(2):
            projections = values @ (shares * new)
            new, new_at = new - projections @ values, new_at - projections @ at
        norm = np.sqrt((shares * new**2).sum())
        values = np.concatenate([values, new[None] / norm])
        at = np.concatenate([at, new_at[None] / norm])
    return 1 / (at**2).sum(0)


@pytest.mark.parametrize("m", [2, 5, 9])
def test_the_bounds_are_as_narrow_as_the_moments_allow(m, rng):
    """Their distance at x is the largest mass at x of any measure with these moments."""
    eigenvalues = np.sort(rng.normal(size=80))
    masses = rng.uniform(0.1, 1, 80)
    nodes, weights = gauss_rule(eigenvalues, masses, m)
    x = np.linspace(-2.0, 2.0, 37)
    low, high = cumulative_bounds(nodes[None], weights[None], x)
    np.testing.assert_allclose(high - low, christoffel(eigenvalues, masses, m, x), rtol=1e-6)


def test_an_outlier_that_lanczos_has_found_is_a_step(rng):
    """Between it and the bulk the bounds meet: the mass beyond is known, to 1e-6."""
    eigenvalues = np.concatenate([rng.uniform(-1, 1, 500), [10.0]])
    masses = rng.normal(size=501) ** 2
    nodes, weights = gauss_rule(eigenvalues, masses, 15)
    low, high = cumulative_bounds(-nodes[None, ::-1], weights[None, ::-1], np.array([-6.0, -2.5]))
    np.testing.assert_allclose(low, masses[-1] / masses.sum(), rtol=1e-6)
    np.testing.assert_allclose(high, masses[-1] / masses.sum(), rtol=1e-6)


def test_the_bounds_of_probes_are_the_means_of_each_probes(rng):
    """Padding does not count, whatever the numbers of nodes."""
    eigenvalues, x = np.sort(rng.normal(size=60)), np.linspace(-3, 3, 50)
    rules = [gauss_rule(eigenvalues, rng.normal(size=60) ** 2, m) for m in (4, 6)]
    nodes, weights = np.full((2, 6), np.nan), np.zeros((2, 6))
    for row, (node, weight) in enumerate(rules):
        nodes[row, : len(node)], weights[row, : len(node)] = node, weight
    both = cumulative_bounds(nodes, weights, x)
    one, other = (cumulative_bounds(n[None], w[None], x) for n, w in rules)
    np.testing.assert_allclose(both, (np.array(one) + other) / 2, atol=1e-12)


def test_over_probes_the_counts_are_those_of_the_spectrum_with_the_noise_that_is_said(rng):
    """Ten of 300 eigenvalues lie beyond 5: counted as 10 +- sqrt(2 x 10) by a normal probe."""
    eigenvalues = np.concatenate([rng.uniform(-1, 1, 290), np.linspace(6, 9, 10)])
    counts = []
    for _ in range(200):
        nodes, weights = gauss_rule(eigenvalues, rng.normal(size=300) ** 2, 25)
        low, high = cumulative_bounds(-nodes[None, ::-1], weights[None, ::-1], np.array([-5.0]))
        counts.append(300 * (low[0] + high[0]) / 2)
    assert np.mean(counts) == pytest.approx(10, abs=4 * math.sqrt(20 / 200))
    assert np.std(counts) == pytest.approx(math.sqrt(20), rel=0.2)


def test_a_density_integrates_to_one(rng):
    nodes = rng.normal(size=(4, 10))
    weights = rng.dirichlet(np.ones(10), size=4)
    grid = np.linspace(-8, 8, 4001)
    assert trapezoid(density(nodes, weights, grid, 0.2), grid) == pytest.approx(1.0, abs=1e-6)


def test_a_density_has_the_moments_of_its_quadrature(rng):
    """Smoothing keeps the mean and adds the square of the width to the variance."""
    nodes = rng.normal(size=(3, 6))
    weights = rng.dirichlet(np.ones(6), size=3)
    grid = np.linspace(-9, 9, 6001)
    curve = density(nodes, weights, grid, 0.3)
    mean = (weights * nodes).sum() / 3
    second = (weights * nodes**2).sum() / 3 + 0.3**2
    assert trapezoid(curve * grid, grid) == pytest.approx(mean, abs=1e-6)
    assert trapezoid(curve * grid**2, grid) == pytest.approx(second, abs=1e-6)


def test_a_single_node_is_a_gaussian():
    grid = np.linspace(-1, 3, 9)
    found = density(np.array([[1.0]]), np.array([[1.0]]), grid, 0.5)
    np.testing.assert_allclose(found, stats.norm.pdf(grid, 1.0, 0.5), rtol=1e-12)


def test_nodes_that_were_not_reached_do_not_count():
    grid = np.linspace(-5, 5, 1001)
    nodes, weights = np.array([[0.0, math.nan]]), np.array([[1.0, 0.0]])
    alone = density(np.zeros((1, 1)), np.ones((1, 1)), grid, 0.4)
    np.testing.assert_allclose(density(nodes, weights, grid, 0.4), alone, rtol=1e-13)
