"""PCA of trajectories, and the random walks that it must be compared with."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import toeplitz

from lossgeo.trajectory import (
    effective_dimensions,
    explained_variance,
    mean_cosines,
    mean_drift,
    nearest_autocorrelation,
    null_explained,
    pca,
    plane_grid,
    random_walk_gram,
    stationary_gram,
    step_gram,
)


@pytest.fixture
def snapshots(rng) -> np.ndarray:
    """Twelve snapshots in 500 dimensions, float32 as the study keeps them, far from 0."""
    return (10 + rng.normal(size=(12, 500)).cumsum(0)).astype(np.float32)


def svd(snapshots: np.ndarray):
    centred = snapshots.astype(np.float64) - snapshots.astype(np.float64).mean(0)
    _, s, axes = np.linalg.svd(centred, full_matrices=False)
    return s**2 / (s**2).sum(), axes


def test_pca_is_that_of_a_full_singular_value_decomposition(snapshots):
    found = pca(snapshots, 4)
    explained, axes = svd(snapshots)
    np.testing.assert_allclose(found.explained, explained[:4], rtol=1e-10)
    exact = (snapshots - snapshots[-1].astype(np.float64)) @ axes[:4].T
    np.testing.assert_allclose(np.abs(found.axes @ axes[:4].T), np.eye(4), atol=1e-9)
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(exact), atol=1e-9)


def test_the_axes_are_orthonormal_and_the_shares_descend(snapshots):
    found = pca(snapshots, 6)
    np.testing.assert_allclose(found.axes @ found.axes.T, np.eye(6), atol=1e-12)
    assert (np.diff(found.explained) < 0).all()
    assert pca(snapshots, 11).explained.sum() == pytest.approx(1.0, rel=1e-12)


def test_coordinates_count_from_the_origin_and_signs_from_the_first_snapshot(snapshots):
    found = pca(snapshots, 3)
    np.testing.assert_array_equal(found.coordinates[-1], 0.0)
    assert (found.coordinates[0] >= 0).all()


def test_the_residual_is_the_distance_from_the_projection(snapshots):
    found = pca(snapshots, 5)
    shown = snapshots[-1].astype(np.float64) + found.coordinates[:, :2] @ found.axes[:2]
    exact = np.linalg.norm(snapshots - shown, axis=1)
    np.testing.assert_allclose(found.residuals, exact, rtol=1e-9, atol=1e-9)
    assert found.residuals[-1] == pytest.approx(0.0, abs=1e-12)
    assert found.residuals[0] > 1


def test_a_trajectory_in_a_plane_has_no_residual(rng):
    plane = rng.normal(size=(2, 50))
    snapshots = rng.normal(size=(7, 2)) @ plane
    found = pca(snapshots, 2)
    np.testing.assert_allclose(found.residuals, 0.0, atol=1e-12)
    assert found.explained.sum() == pytest.approx(1.0, rel=1e-12)


def test_too_few_snapshots_are_refused(snapshots):
    with pytest.raises(ValueError, match="at least 3 snapshots, found 2"):
        pca(snapshots[:2], 1)


@pytest.mark.parametrize("components", [5, 6, 9])
def test_more_components_than_the_snapshots_span_are_refused(snapshots, components):
    """Five snapshots, centred, span four dimensions."""
    with pytest.raises(ValueError, match=rf"fewer than {components} dimensions"):
        pca(snapshots[:5], components)


def test_snapshots_that_do_not_move_are_refused():
    with pytest.raises(ValueError, match="fewer than 1 dimensions"):
        pca(np.ones((4, 10)), 1)


# Gram matrices of steps


@pytest.mark.kernels
def test_the_steps_gram_matrix_gives_pcas_shares(snapshots):
    gram = step_gram(snapshots)
    assert gram.shape == (11, 11)
    steps = np.diff(snapshots.astype(np.float64), axis=0)
    np.testing.assert_allclose(np.sqrt(np.diag(gram)), np.linalg.norm(steps, axis=1), rtol=1e-12)
    np.testing.assert_allclose(explained_variance(gram, 5), pca(snapshots, 5).explained, rtol=1e-9)


def test_a_random_walk_keeps_the_norms_of_its_steps(rng):
    norms = np.array([1.0, 2.0, 0.5, 3.0])
    for drift in (0.0, 0.6):
        gram = random_walk_gram(norms, 100, drift, generator=rng)
        np.testing.assert_allclose(np.diag(gram), norms**2, rtol=1e-12)
        assert np.linalg.eigvalsh(gram).min() > 0
        np.testing.assert_array_equal(gram, gram.T)


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_a_random_walks_gram_matrix_is_distributed_as_that_of_drawn_vectors(drift, rng):
    """Mean and variance of every cosine, and of the largest share, over 3,000 walks.

    Few dimensions, so that the shape of the distribution shows.
    """
    count, dimensions, draws = 3, 8, 3000
    pairs = np.triu_indices(count, 1)
    drawn, made = [], []
    for _ in range(draws):
        gram = random_walk_gram(np.ones(count), dimensions, drift, generator=rng)
        steps = math.sqrt((1 - drift**2) / dimensions) * rng.normal(size=(count, dimensions))
        steps[:, 0] += drift
        steps /= np.linalg.norm(steps, axis=1, keepdims=True)
        made.append([*gram[pairs], *explained_variance(gram, 1)])
        drawn.append([*(steps @ steps.T)[pairs], *explained_variance(steps @ steps.T, 1)])
    for power in (1, 2):
        a, b = np.array(made) ** power, np.array(drawn) ** power
        error = np.hypot(a.std(0), b.std(0)) / math.sqrt(draws)
        assert (np.abs(a.mean(0) - b.mean(0)) < 4 * error).all()
        assert (error < 0.02).all()


def test_the_shares_of_a_long_random_walk_go_to_six_over_pi_k_squared(rng):
    """.608, .152, .068 (Antognini & Sohl-Dickstein 2018)."""
    exact = 6 / (np.pi * np.arange(1, 4)) ** 2
    gram = random_walk_gram(np.ones(300), 10**7, 0.0, generator=rng)
    np.testing.assert_allclose(explained_variance(gram, 3), exact, rtol=0.01)
    np.testing.assert_allclose(exact, [0.608, 0.152, 0.068], atol=5e-4)


def test_a_random_walk_shows_a_parabola(rng):
    """PC2 = 2 PC1^2 - 1 after scaling to unit amplitude: structure that means nothing."""
    walk = rng.normal(size=(150, 20_000)).cumsum(0)
    found = pca(walk, 3)
    np.testing.assert_allclose(found.explained, 6 / (np.pi * np.arange(1, 4)) ** 2, rtol=0.03)
    first, second = (
        c * math.sqrt(len(c) / 2) / np.linalg.norm(c)
        for c in (found.coordinates - found.coordinates.mean(0))[:, :2].T
    )  # cosines of mean square 1/2
    parabola = 2 * first**2 - 1
    np.testing.assert_allclose(np.sign(second @ parabola) * second, parabola, atol=0.15)


def test_drift_makes_the_first_component_larger(rng):
    still, drifting = (
        explained_variance(random_walk_gram(np.ones(50), 10_000, d, generator=rng), 1)[0]
        for d in (0.0, 0.9)
    )
    assert drifting > 0.95 > 0.7 > still


def test_the_drift_of_a_walk_is_found_again(rng):
    gram = random_walk_gram(np.ones(60), 100_000, 0.4, generator=rng)
    assert mean_drift(gram) == pytest.approx(0.4, abs=0.01)


def test_steps_that_turn_back_have_no_drift():
    gram = np.array([[1.0, -0.5], [-0.5, 1.0]])
    assert mean_drift(gram) == 0.0


def test_parallel_steps_have_drift_one():
    norms = np.array([1.0, 3.0, 2.0])
    assert mean_drift(np.outer(norms, norms)) == pytest.approx(1.0, rel=1e-12)


def nulls(snapshots, seed=0, draws=40):
    return null_explained(
        step_gram(snapshots), snapshots.shape[1], 3, draws, generator=np.random.default_rng(seed)
    )


def test_null_trajectories_come_in_four_kinds_and_repeat_themselves(snapshots):
    found, again = nulls(snapshots), nulls(snapshots)
    assert set(found) == {"random_walk", "drift", "shuffled", "stationary"}
    for name, shares in found.items():
        assert shares.shape == (40, 3)
        assert ((shares > 0) & (shares < 1)).all()
        np.testing.assert_array_equal(shares, again[name])


def test_a_random_walk_is_not_told_from_its_nulls(snapshots):
    """The run is one itself: its share lies within the range of the random walks."""
    share = pca(snapshots, 1).explained[0]
    for shares in nulls(snapshots, draws=200).values():
        assert shares[:, 0].min() <= share <= shares[:, 0].max()


def test_shuffled_steps_are_the_runs_own_in_another_order(rng):
    """Three steps have six orders; their shares, and no others, are drawn."""
    snapshots = rng.normal(size=(4, 20)).cumsum(0)
    steps = np.diff(snapshots, axis=0)
    possible = set()
    for order in [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]:
        walk = np.concatenate([np.zeros((1, 20)), steps[list(order)].cumsum(0)])
        np.testing.assert_allclose(walk[-1], steps.sum(0), rtol=1e-12, atol=1e-12)
        possible.add(round(float(svd(walk)[0][0]), 9))
    drawn = {round(float(share), 9) for share in nulls(snapshots)["shuffled"][:, 0]}
    assert drawn == possible


# Stationary processes


def stationary_steps(autocorrelation, dimensions, norms, rng):
    """Steps (T, dimensions) drawn as vectors: every dimension is an independent process."""
    root = np.linalg.cholesky(toeplitz(autocorrelation))
    steps = root @ rng.normal(size=(len(norms), dimensions))
    return steps * (norms / np.linalg.norm(steps, axis=1))[:, None]


AR = 0.6 ** np.arange(30)  # autoregressive of first order
NORMS = np.linspace(2, 1, 30)


@pytest.mark.parametrize("dimensions", [3, 8], ids="{} dimensions".format)
def test_a_stationary_gram_matrix_is_distributed_as_that_of_drawn_vectors(dimensions, rng):
    """Mean and variance of every cosine over 3,000 draws, in fewer dimensions than steps too."""
    count, draws = 5, 3000
    pairs = np.triu_indices(count, 1)
    drawn, made = [], []
    for _ in range(draws):
        gram = stationary_gram(np.ones(count), dimensions, AR[:count], generator=rng)
        steps = stationary_steps(AR[:count], dimensions, np.ones(count), rng)
        made.append(gram[pairs])
        drawn.append((steps @ steps.T)[pairs])
    for power in (1, 2):
        a, b = np.array(made) ** power, np.array(drawn) ** power
        error = np.hypot(a.std(0), b.std(0)) / math.sqrt(draws)
        assert (np.abs(a.mean(0) - b.mean(0)) < 4 * error).all()
        assert (error < 0.02).all()


def test_a_stationary_null_keeps_norms_and_autocorrelation(rng):
    """Cosines of every lag, less the known bias of a scaled vector's, are the process's."""
    grams = [stationary_gram(NORMS, 200, AR, generator=rng) for _ in range(1000)]
    for gram in grams[:5]:
        np.testing.assert_allclose(np.diag(gram), NORMS**2, rtol=1e-12)
    found = np.array([mean_cosines(gram) for gram in grams])
    error = found.std(0) / math.sqrt(len(found))
    bias = AR * (1 - AR**2) / (2 * 200)
    assert (np.abs(found.mean(0) + bias - AR) <= 4.5 * error).all()


@pytest.mark.parametrize("dimensions", [25, 200])
def test_the_effective_dimensions_of_a_process_are_found_again(dimensions, rng):
    found = []
    for _ in range(40):
        steps = stationary_steps(AR, dimensions, NORMS, rng)
        gram = steps @ steps.T
        found.append(effective_dimensions(gram, nearest_autocorrelation(mean_cosines(gram))))
    assert np.median(found) == pytest.approx(dimensions, rel=0.08)


def test_a_stationary_process_is_in_its_own_band_and_in_no_random_walks(rng):
    """The band is centred by the run's own cosines, hence contains more than 95 % of the runs."""
    inside = {"stationary": 0, "random_walk": 0, "drift": 0}
    runs = 40
    for _ in range(runs):
        steps = stationary_steps(AR, 25, NORMS, rng)
        gram = steps @ steps.T
        share = explained_variance(gram, 2)[0]
        drawn = null_explained(gram, 10**5, 2, 100, generator=rng)
        for name in inside:
            low, high = np.percentile(drawn[name][:, 0], [2.5, 97.5])
            inside[name] += low <= share <= high
    assert inside["stationary"] >= 0.9 * runs
    assert inside["random_walk"] == 0
    assert inside["drift"] < 0.2 * runs


def test_a_run_that_is_not_stationary_is_outside_its_band(rng):
    """Steps that turn round half-way: correlated within the halves, opposed across them."""
    steps = rng.normal(size=(30, 2000)) / math.sqrt(2000)
    steps[:, 0] += np.where(np.arange(30) < 20, 3.0, 0.0)
    gram = steps @ steps.T
    share = explained_variance(gram, 3)
    drawn = null_explained(gram, 2000, 3, 200, generator=rng)["stationary"]
    low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
    assert ((share < low) | (share > high)).any()


@pytest.mark.parametrize("sequence", [[1.0, 0.9, 0.1], [1.0, -0.9, 0.5, 0.9], [1.0, 0.5, 0.25]])
def test_the_nearest_autocorrelation_is_one(sequence):
    sequence = np.array(sequence)
    found = nearest_autocorrelation(sequence)
    assert found[0] == 1.0
    assert np.linalg.eigvalsh(toeplitz(found)).min() > -1e-6
    if np.linalg.eigvalsh(toeplitz(sequence)).min() >= 0:
        np.testing.assert_array_equal(found, sequence)


# The grid of a plane


@given(
    st.lists(st.floats(-10, 10), min_size=2, max_size=8),
    st.integers(5, 40),
    st.sampled_from([0.0, 0.05, 0.2, 1.0]),
)
def test_a_planes_grid_is_even_covers_the_path_and_contains_the_last_snapshot(
    values, points, margin
):
    coordinates = np.array([*values, 0.0])
    if np.ptp(coordinates) < 1e-3:
        return
    grid = plane_grid(coordinates, points, margin)
    assert len(grid) == points
    np.testing.assert_allclose(np.diff(grid), grid[1] - grid[0], rtol=1e-9)
    assert 0.0 in grid
    slack = 1e-9 * np.ptp(coordinates)
    assert grid[0] <= coordinates.min() + slack
    assert grid[-1] >= coordinates.max() - slack


def test_the_margin_is_a_share_of_the_paths_extent():
    grid = plane_grid(np.array([0.0, 10.0]), 15, 0.2)
    np.testing.assert_allclose(grid[[0, -1]], [-2.0, 12.0], atol=0.5)
