"""Geometry as numbers, on surfaces whose numbers are known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lossgeo.geometry import (
    count_minima,
    fitted_anisotropy,
    line_geometry,
    plane_geometry,
    quadratic_r2,
)
from lossgeo.surface import centred_grid

GRID = centred_grid(2.0, 41)
LIMITS = {"rise": 0.1, "persistence": 0.01}


def along(f, grid=GRID, **limits):
    return line_geometry(grid, f(grid), **LIMITS | limits)


def across(f, alphas=GRID, betas=GRID, **limits):
    return plane_geometry(
        alphas, betas, f(*np.meshgrid(alphas, betas, indexing="ij")), **LIMITS | limits
    )


# A quadratic bowl


@given(st.floats(0.1, 50), st.floats(0, 10), st.floats(-0.3, 0.3))
def test_a_parabola_is_measured_exactly(curvature, floor, slope):
    """L = floor + slope a + c a^2 / 2; a slope shifts the rays but not the curvature."""
    found = along(lambda a: floor + slope * a + curvature * a**2 / 2)
    assert found.second_difference == pytest.approx(curvature, rel=1e-8, abs=1e-10)
    assert found.convex_fraction == 1.0
    assert found.roughness == pytest.approx(0.0, abs=1e-12)
    assert found.minima == 1
    assert math.isnan(found.anisotropy)


@given(st.floats(0.1, 50), st.floats(0.001, 1.5), st.integers(1, 20))
def test_the_radius_of_a_parabola_is_exact_on_any_grid(curvature, rise, half):
    """sqrt(2 rise / c), also where the crossing is inside the first cell."""
    exact = math.sqrt(2 * rise / curvature)
    found = along(lambda a: curvature * a**2 / 2, centred_grid(2.0, 2 * half + 1), rise=rise)
    assert found.radius_censored == (exact > 2.0)
    assert found.radius == pytest.approx(min(exact, 2.0), rel=1e-12)


@pytest.mark.parametrize("points", [3, 5, 9])
@pytest.mark.parametrize("floor", [0.0, 3.0])
def test_the_radius_within_the_first_cell_is_exact(points, floor):
    """A radius of 0.2 on grids with steps of 2, 1 and 1/2."""
    grid = centred_grid(2.0, points)
    found = along(lambda a: floor + 2.5 * a**2, grid)
    assert found.radius == pytest.approx(0.2, rel=1e-12)
    bowl = across(lambda x, y: floor + 2.5 * (x**2 + y**2), grid, grid)
    assert bowl.radius == pytest.approx(0.2, rel=1e-12)
    assert not bowl.radius_censored


def test_between_grid_points_the_root_of_the_rise_is_linear():
    """A ray from 0.01 to 0.25 above its centre crosses 0.09 half way: 0.1, 0.3, 0.5."""
    loss = 7 + np.array([0.25, 0.01, 0.0, 0.01, 0.25])
    found = line_geometry(np.array([-2.0, -1, 0, 1, 2]), loss, rise=0.09, persistence=0.01)
    assert found.radius == pytest.approx(1.5, rel=1e-12)


def test_a_ray_that_first_falls_has_risen_by_nothing_there():
    """Below the centre the rise counts as 0: from there to 0.16, 0.04 is half way in its root."""
    loss = 7 + np.array([0.16, -0.3, 0.0, -0.3, 0.16])
    found = line_geometry(np.array([-2.0, -1, 0, 1, 2]), loss, rise=0.04, persistence=0.01)
    assert found.radius == pytest.approx(1.5, rel=1e-12)


def test_the_radius_is_exact_where_a_grid_point_has_risen_just_so():
    assert along(lambda a: a**2, rise=0.25).radius == pytest.approx(0.5, rel=1e-12)


def test_the_radius_is_the_mean_of_the_two_rays():
    found = along(lambda a: np.where(a > 0, a**2, a**2 / 9), rise=0.23)
    assert found.radius == pytest.approx(math.sqrt(0.23) * (1 + 3) / 2, rel=1e-12)


@pytest.mark.parametrize(("a", "b"), [(4.0, 1.0), (1.0, 4.0), (2.0, 2.0)])
def test_a_bowl_is_measured_exactly(a, b):
    found = across(lambda x, y: 1 + (a * x**2 + b * y**2) / 2)
    assert found.second_difference == pytest.approx((a + b) / 2, rel=1e-10)
    assert found.anisotropy == pytest.approx(max(a, b) / min(a, b), rel=1e-10)
    assert found.convex_fraction == 1.0
    assert found.roughness == pytest.approx(0.0, abs=1e-12)
    assert found.minima == 1


def test_a_turned_bowl_has_the_curvatures_of_its_own_axes():
    """The mixed difference counts: eigenvalues 4 and 1 at 30 degrees to the grid."""
    c, s = math.cos(math.pi / 6), math.sin(math.pi / 6)
    found = across(lambda x, y: (4 * (c * x + s * y) ** 2 + (c * y - s * x) ** 2) / 2)
    assert found.anisotropy == pytest.approx(4.0, rel=1e-10)
    assert found.second_difference == pytest.approx(2.5, rel=1e-10)


def test_steps_of_different_length_on_the_two_axes():
    found = across(lambda x, y: (3 * x**2 + 5 * y**2) / 2 + x * y, betas=centred_grid(0.3, 11))
    assert found.second_difference == pytest.approx(4.0, rel=1e-10)
    high, low = 4 + math.sqrt(2), 4 - math.sqrt(2)
    assert found.anisotropy == pytest.approx(high / low, rel=1e-10)


def test_the_radius_of_a_round_bowl_is_the_same_along_every_ray():
    """Diagonals reach as far as rows and columns; lengths along them are sqrt(2) steps."""
    radius = math.sqrt(2 * 0.1 / 0.9)
    found = across(lambda x, y: 0.9 * (x**2 + y**2) / 2)
    assert found.radius == pytest.approx(radius, rel=1e-12)
    assert not found.radius_censored


def test_the_radius_of_a_long_bowl_is_the_mean_over_eight_rays():
    found = across(lambda x, y: (4 * x**2 + y**2) / 2)
    rays = [math.sqrt(0.2 / c) for c in (4.0, 1.0, 2.5, 2.5)]
    assert found.radius == pytest.approx(np.mean(rays), rel=1e-12)


# Other shapes


def test_a_basin_that_reaches_beyond_the_grid_is_censored():
    """Its radius is the grid's: a lower bound."""
    found = along(lambda a: 0.01 * a**2)
    assert found.radius_censored
    assert found.radius == 2.0
    half = along(lambda a: np.where(a > 0, a, 0.0), rise=0.5)
    assert half.radius_censored, "one ray is enough"
    assert half.radius == pytest.approx((0.5 + 2.0) / 2)


def test_a_concave_line_is_nowhere_convex_and_bends_down():
    found = along(lambda a: 5 - a**2)
    assert found.second_difference == pytest.approx(-2.0, rel=1e-10)
    assert found.convex_fraction == 0.0
    assert found.minima == 2, "the two ends"


@pytest.mark.parametrize("step", [0.1, 0.01])
def test_the_second_difference_counts_a_kink_within_its_step_and_a_curvature_does_not(step):
    """L = a^2 + 3 max(a - step / 4, 0) has L'' = 2 at 0; its difference has 3 (3/4) / step more."""
    found = along(lambda a: a**2 + 3 * np.maximum(a - step / 4, 0), centred_grid(10 * step, 21))
    assert found.second_difference == pytest.approx(2 + 2.25 / step, rel=1e-9)


def test_half_of_a_cubic_is_convex():
    found = along(lambda a: 10 + a**3)
    assert found.convex_fraction == pytest.approx(0.5, abs=1 / 39)
    assert found.roughness == pytest.approx(0.0, abs=1e-12), "the smoothing leaves cubics alone"


def test_a_saddle_has_a_negative_anisotropy_and_no_convex_point():
    found = across(lambda x, y: 20 + (4 * x**2 - y**2) / 2)
    assert found.anisotropy == pytest.approx(-4.0, rel=1e-10)
    assert found.second_difference == pytest.approx(1.5, rel=1e-10)
    assert found.convex_fraction == 0.0
    assert found.minima == 2


def test_the_two_wells_of_a_double_well_are_as_deep_as_the_ridge_between_them():
    def well(a):
        return (a**2 - 1) ** 2  # minima at +-1, a ridge of height 1 between

    assert along(well, persistence=0.9).minima == 2
    assert along(well, persistence=1.1).minima == 1
    assert across(lambda x, y: well(x) + y**2, persistence=0.9).minima == 2
    assert across(lambda x, y: well(x) + y**2, persistence=1.1).minima == 1
    assert across(lambda x, y: well(x) + well(y), persistence=0.5).minima == 4
    ridge = along(well)
    assert ridge.second_difference == pytest.approx(-4.0, rel=0.01)


def test_the_roughness_of_white_noise_is_what_the_smoothing_takes_away():
    """Savitzky-Golay (5 points, order 3) leaves a residual variance of 18/35 of the noise's."""
    grid = centred_grid(1.0, 4001)
    noise = np.random.default_rng(3).standard_normal(len(grid))
    found = line_geometry(grid, noise, **LIMITS)
    assert found.roughness * np.ptp(noise) == pytest.approx(math.sqrt(18 / 35), rel=0.05)
    assert found.convex_fraction == pytest.approx(0.5, abs=0.05)


def test_noise_makes_a_bowl_rougher():
    bumps = np.random.default_rng(0).standard_normal((41, 41))
    calm, rough = (across(lambda x, y, e=e: x**2 + y**2 + e * bumps).roughness for e in (0.01, 0.1))
    assert 5 * calm < rough


def test_the_rounding_of_float32_does_not_make_a_line_concave():
    """A straight line of losses in single precision counts as convex."""
    line = (2.3 + 0.1 * GRID).astype(np.float32).astype(np.float64)
    assert (np.diff(line, 2) < 0).any(), "rounding bends it"
    assert line_geometry(GRID, line, **LIMITS).convex_fraction == 1.0


# Samples of stencils


def test_the_interval_of_a_convex_fraction_is_the_exact_binomial_one():
    """Of n convex stencils out of n, the lower end p has p^n = 0.025; of none the upper one has
    (1 - p)^n = 0.025 (Clopper & Pearson 1934).
    """
    for count in (1, 2, 7):
        sample = np.zeros(len(GRID), dtype=bool)
        sample[3 : 3 + count] = True
        convex, concave = (along(lambda a, c=c: 50 + c * a**2, stencils=sample) for c in (1, -1))
        assert convex.stencils == concave.stencils == count
        assert (convex.convex_fraction, convex.convex_high) == (1.0, 1.0)
        assert convex.convex_low == pytest.approx(0.025 ** (1 / count), rel=1e-9)
        assert (concave.convex_fraction, concave.convex_low) == (0.0, 0.0)
        assert concave.convex_high == pytest.approx(1 - 0.025 ** (1 / count), rel=1e-9)


@given(st.sets(st.integers(1, 39), min_size=1), st.integers(0, 99))
def test_a_sample_of_stencils_is_the_fraction_among_them(centres, seed):
    """And no other point counts; nothing is said of the roughness."""
    loss = np.random.default_rng(seed).standard_normal(41)
    sample = np.zeros(41, dtype=bool)
    sample[list(centres)] = True
    found = line_geometry(GRID, loss, **LIMITS, stencils=sample)
    bends = [loss[i - 1] - 2 * loss[i] + loss[i + 1] >= 0 for i in centres]
    assert found.convex_fraction == pytest.approx(np.mean(bends))
    assert found.convex_low <= found.convex_fraction <= found.convex_high
    assert math.isnan(found.roughness)


def test_a_stencil_of_a_plane_is_where_its_nine_points_are():
    """Half of the plane is a bowl and half a dome; the mask picks by row and column."""
    x, y = np.meshgrid(GRID, centred_grid(1.0, 21), indexing="ij")
    loss = 50 + np.where(x > 0, 1, -1) * (x**2 + y**2)
    sample = np.zeros(loss.shape, dtype=bool)
    sample[[30, 35, 5], [3, 17, 9]] = True
    found = plane_geometry(GRID, y[0], loss, **LIMITS, stencils=sample)
    assert found.convex_fraction == pytest.approx(2 / 3)
    assert found.stencils == 3


def test_no_stencils_say_nothing_and_all_points_have_no_error():
    nothing = along(lambda a: a**2, stencils=np.zeros(41, dtype=bool))
    for number in ("convex_fraction", "convex_low", "convex_high", "roughness"):
        assert math.isnan(getattr(nothing, number))
    assert nothing.stencils == 0
    everything = along(lambda a: 10 + a**3)
    assert everything.convex_low == everything.convex_fraction == everything.convex_high
    assert everything.stencils == 39


# What is not finite


def test_a_line_or_plane_of_nan_has_nan_for_every_number():
    for found in (along(lambda a: a * math.nan), across(lambda x, y: x * math.nan)):
        for number in ("second_difference", "radius", "anisotropy", "convex_fraction", "roughness"):
            assert math.isnan(getattr(found, number)), number
        assert found.minima == 0
        assert not found.radius_censored


def test_a_gap_far_from_the_centre_leaves_the_centre_measured():
    def holed(a):
        return np.where(np.abs(a) > 1.5, math.nan, a**2)

    found = along(holed)
    assert found.second_difference == pytest.approx(2.0, rel=1e-10)
    assert found.radius == pytest.approx(math.sqrt(0.1), rel=1e-12)
    assert found.convex_fraction == 1.0
    assert math.isnan(found.roughness)
    assert found.minima == 1


def test_a_ray_that_meets_nan_before_it_has_risen_gives_no_radius():
    """Nobody knows where it would have risen: neither a number nor a lower bound of the grid."""
    found = along(lambda a: np.where(np.abs(a) > 0.5, math.nan, 0.01 * a**2))
    assert math.isnan(found.radius) or found.radius_censored


@pytest.mark.parametrize("ends", [1, 5])
def test_losses_that_overflow_do_not_make_a_concave_line_convex(ends):
    """Infinite losses at the ends: what is left is concave, and says so without a warning."""
    loss = 5 - GRID**2
    loss[:ends] = loss[-ends:] = math.inf
    found = line_geometry(GRID, loss, **LIMITS)
    assert found.second_difference == pytest.approx(-2.0, rel=1e-10)
    assert found.convex_fraction == 0.0


def test_losses_that_overflow_leave_a_plane_measured():
    x, y = np.meshgrid(GRID, GRID, indexing="ij")
    loss = np.where(np.hypot(x, y) > 1.6, math.inf, (4 * x**2 - y**2) / 2)
    found = plane_geometry(GRID, GRID, loss, **LIMITS)
    assert found.anisotropy == pytest.approx(-4.0, rel=1e-10)
    assert found.convex_fraction == 0.0


# Minima


def depths(values: list[int]) -> list[float]:
    """Persistence of each local minimum of distinct values, from its definition.

    A minimum is as deep as the lowest pass over which a lower point can be reached.
    """
    found = []
    for i, value in enumerate(values):
        if value > min(values[max(i - 1, 0) : i + 2]):
            continue  # a neighbour is lower
        passes = [
            max(values[min(i, j) : max(i, j) + 1]) for j in range(len(values)) if values[j] < value
        ]
        found.append(min(passes) - value if passes else math.inf)
    return found


@given(st.lists(st.integers(0, 60), min_size=1, max_size=25, unique=True), st.integers(0, 20))
def test_minima_of_a_line_are_counted_as_by_brute_force(values, persistence):
    expected = sum(depth > persistence for depth in depths(values))
    assert count_minima(np.array(values, dtype=float), persistence) == expected


@given(st.lists(st.integers(0, 60), min_size=2, max_size=25, unique=True), st.integers(0, 20))
def test_a_line_in_a_plane_has_as_many_minima(values, persistence):
    """Extending a line without change along a second axis adds no minimum."""
    loss = np.array(values, dtype=float)
    assert count_minima(np.tile(loss, (3, 1)), persistence) == count_minima(loss, persistence)


def test_plateaus_and_ties():
    assert count_minima(np.ones(7), 0.0) == 1
    assert count_minima(np.array([0.0, 0.0, 1.0, 0.0, 0.0]), 0.5) == 2
    assert count_minima(np.array([0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.0]), 0.0) == 3


def test_a_gap_separates_minima():
    """Points that are not finite are passed by no path."""
    assert count_minima(np.array([0.0, 0.1, math.inf, 0.1, 0.0]), 1e9) == 2
    assert count_minima(np.array([0.0, 0.1, math.nan, 0.1, 0.0]), 1e9) == 2
    assert count_minima(np.full(5, math.nan), 0.0) == 0


def test_diagonal_neighbours_do_not_touch():
    loss = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert count_minima(loss, 0.5) == 2


# Fits


@given(st.floats(-50, 50), st.floats(-10, 10), st.floats(0.1, 5))
def test_a_parabola_explains_a_parabola(curvature, floor, slope):
    """Wherever its vertex is."""
    assert quadratic_r2(GRID, floor + slope * GRID + curvature * GRID**2) == pytest.approx(1)


def test_a_parabola_explains_nothing_of_what_is_orthogonal_to_it_and_a_flat_line_has_no_share():
    wave = np.polynomial.Polynomial.fit(GRID, GRID**3, 2)
    assert quadratic_r2(GRID, GRID**3 - wave(GRID)) == pytest.approx(0, abs=1e-12)
    assert math.isnan(quadratic_r2(GRID, 1 + 1e-8 * GRID**2))
    assert math.isnan(quadratic_r2(GRID, np.where(GRID > 1, np.inf, GRID**2)))


@given(st.floats(1.5, 20), st.floats(0, math.pi), st.floats(-3, 3))
def test_the_fitted_anisotropy_is_that_of_the_quadratic_wherever_its_minimum_is(ratio, angle, off):
    betas = np.linspace(-1, 2, 13)
    alpha, beta = np.meshgrid(GRID - off, betas, indexing="ij")
    along, aside = (
        np.cos(angle) * alpha + np.sin(angle) * beta,
        np.cos(angle) * beta - np.sin(angle) * alpha,
    )
    found = fitted_anisotropy(GRID, betas, 2 + ratio * along**2 + aside**2)
    assert found == pytest.approx(ratio)
    saddle = fitted_anisotropy(GRID, betas, 2 + ratio * along**2 - aside**2)
    assert saddle == pytest.approx(-ratio)


def test_a_plane_that_is_not_finite_has_no_fit():
    loss = np.add.outer(GRID**2, GRID**2)
    loss[0, 0] = np.nan
    assert math.isnan(fitted_anisotropy(GRID, GRID, loss))
