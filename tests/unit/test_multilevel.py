"""Few points of a surface are evaluated, all others are right to within a stated error."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RBFInterpolator

from lossgeo import surface
from lossgeo.directions import random_direction
from lossgeo.geometry import line_geometry
from lossgeo.multilevel import ACCEPTED, LARGEST, SAFETY, estimate, lines, plane
from lossgeo.surface import centred_grid

NAMES = ("loss", "loss_se", "rise_se", "accuracy")


class Surfaces:
    """K surfaces that are known everywhere, as something to measure; it remembers what was asked.

    `loss` (K, A, B ...), `loss_se`, `rise_se` and `accuracy` alike. Rises count from `centre` (K,),
    the lowest losses unless given.
    """

    def __init__(self, loss, loss_se, rise_se=None, accuracy=None, *, centre=None) -> None:
        accuracy = np.exp(-np.abs(loss)) if accuracy is None else accuracy
        arrays = np.broadcast_arrays(
            loss, loss_se, loss_se if rise_se is None else rise_se, accuracy
        )
        self.true = {
            name: np.array(a, dtype=float).reshape(len(loss), -1)
            for name, a in zip(NAMES, arrays, strict=True)
        }
        self.centre = self.true["loss"].min(axis=1) if centre is None else np.asarray(centre)
        self.levels: list[np.ndarray] = []

    def __call__(self, points: np.ndarray) -> dict[str, np.ndarray]:
        self.levels.append(np.array(points))
        return {name: values[:, points] for name, values in self.true.items()}

    @property
    def asked(self) -> np.ndarray:
        return np.concatenate(self.levels)


def run(measure, *axes, estimator="multilevel", stencils=0, seed=0):
    return estimate(
        measure,
        axes,
        measure.centre,
        estimator=estimator,
        stencils=stencils,
        generator=np.random.default_rng(seed),
    )


def square(points: int) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Coordinates (n, n) on a centred grid, and its axes."""
    axis = centred_grid(1.0, points)
    return *np.meshgrid(axis, axis, indexing="ij"), (axis, axis)


def quadratic(a, b):
    return 0.1 + 3 * (a**2 + 2 * b**2 + 0.3 * a * b)


def widening(a, b):
    """Steep at the centre, flattening outwards."""
    return 0.1 + np.log1p(4 * a**2 + 3 * b**2 + a * b)


def lopsided(a, b):
    return 0.2 + np.exp(1.5 * a) - 1.5 * a - 1 + 2 * b**2


BOWLS = [quadratic, widening, lopsided]


def bowl(points: int, shape=quadratic) -> tuple[Surfaces, tuple[np.ndarray, np.ndarray]]:
    """With standard errors of 4 % of the loss."""
    a, b, axes = square(points)
    loss = shape(a, b)[np.newaxis]
    return Surfaces(loss, 0.04 * loss), axes


def ripples(points: int = 29) -> tuple[Surfaces, tuple[np.ndarray, np.ndarray]]:
    """A bowl with waves half as long as the grid is wide: too short for the first level."""
    a, b, axes = square(points)
    loss = 0.5 + a**2 + b**2 + 0.2 * np.sin(2 * np.pi * a) * np.cos(2 * np.pi * b)
    return Surfaces(loss[np.newaxis], 0.02), axes


def sunken(points: int) -> tuple[Surfaces, tuple[np.ndarray, np.ndarray]]:
    """A minimum that is low, sharp and away from the centre, with standard errors of 3 %."""
    a, b, axes = square(points)
    loss = (0.02 + 8 * (a - 0.1) ** 2 + 4 * (b + 0.2) ** 2)[np.newaxis]
    return Surfaces(loss, 0.03 * loss), axes


def oblong() -> tuple[Surfaces, tuple[np.ndarray, np.ndarray]]:
    """A bowl on a grid with more points along one axis than along the other."""
    axes = centred_grid(1.0, 25), centred_grid(1.0, 61)
    loss = quadratic(*np.meshgrid(*axes, indexing="ij"))[np.newaxis]
    return Surfaces(loss, 0.05 * loss), axes


def wrong_by(values, measure) -> np.ndarray:
    """Errors of the losses (K, points) in standard errors."""
    return np.abs(values["loss"] - measure.true["loss"]) / measure.true["loss_se"]


def share_beyond(values, levels, measure) -> float:
    """Of the interpolated losses, how many are off by more than what is stated."""
    errors = np.abs(values["loss"] - measure.true["loss"])
    rises = np.abs(measure.true["loss"] - measure.centre[:, np.newaxis])
    relative = errors / np.maximum(rises, measure.true["rise_se"])
    return (relative[:, ~levels.evaluated] > levels.interpolation_error).mean()


def interpolated(true: np.ndarray, shape, known, points) -> np.ndarray:
    """Values (K, m) by a cubic radial basis function on the unit square, by scipy."""
    at = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), axis=1)
    at = at / (np.array(shape) - 1)
    return RBFInterpolator(at[known], true[:, known].T, kernel="cubic")(at[points]).T


def prediction_errors(measure, shape, known, points) -> tuple[np.ndarray, np.ndarray]:
    """Of losses (K, m) at `points`, predicted from the known ones: in units of their rises, or of
    the rises' standard errors where these are larger; and in standard errors of the losses.
    """
    root = interpolated(np.sqrt(measure.true["loss"]), shape, known, points)
    loss, loss_se, rise_se, _ = (measure.true[name][:, points] for name in NAMES)
    errors = np.abs(root.clip(0) ** 2 - loss)
    rises = np.abs(loss - measure.centre[:, np.newaxis])
    return errors / np.maximum(rises, rise_se), errors / loss_se


def stated_error(measure, shape, known, random) -> float:
    """1.5 times the largest error of the random points of a level, in units of rises."""
    return SAFETY * prediction_errors(measure, shape, known, random)[0].max()


def predicted(measure, shape, known) -> np.ndarray:
    """Means (points,) of the K surfaces, as known points predict them."""
    root = interpolated(np.sqrt(measure.true["loss"]), shape, known, np.arange(np.prod(shape)))
    return (root.clip(0) ** 2).mean(axis=0)


def lowest_predicted(measure, shape, known, count: int) -> np.ndarray:
    """Flat indices of `count` unknown points of the lowest predicted mean, lowest first.

    Of equal ones, the first.
    """
    mean = predicted(measure, shape, known)
    left = np.setdiff1d(np.arange(len(mean)), known)
    return left[np.lexsort((left, mean[left]))[:count]]


def assert_levels_follow(measure, axes, drawn: int, seed: int) -> None:
    """Each level from those before it: what is drawn (`drawn`, then a quarter of what is known),
    and a third as many points, the lowest predicted ones; or all, and nothing after.
    """
    shape = tuple(len(axis) for axis in axes)
    generator = np.random.default_rng(seed)
    for index in range(1, len(measure.levels)):
        known = np.sort(np.concatenate(measure.levels[:index]))
        left = np.setdiff1d(np.arange(np.prod(shape)), known)
        size = drawn if index == 1 else len(known) // 4
        if 2 * (len(known) + size + size // 3) > np.prod(shape):
            np.testing.assert_array_equal(measure.levels[index], left)
            assert index == len(measure.levels) - 1
            return
        level = generator.choice(left, size, replace=False)
        level = np.union1d(level, lowest_predicted(measure, shape, known, size // 3))
        np.testing.assert_array_equal(measure.levels[index], level)


def assert_measured(values, measure, points) -> None:
    """Bit for bit."""
    for name in NAMES:
        np.testing.assert_array_equal(values[name][:, points], measure.true[name][:, points])


def assert_all_evaluated(values, levels, measure) -> None:
    assert sorted(measure.asked) == list(range(measure.true["loss"].shape[1]))
    assert_measured(values, measure, slice(None))
    assert levels.evaluated.all()
    assert levels.held_out == 0
    assert levels.interpolation_error == 0


# All points, and few


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 4), st.integers(0, 9))
def test_full_evaluates_every_point_once_and_returns_what_was_measured(shape, surfaces, seed):
    """Whatever the values, the number of axes, their lengths and the number of surfaces."""
    rng = np.random.default_rng(seed)
    loss = rng.standard_normal((surfaces, *shape))
    loss.reshape(-1)[:: 1 + seed] = np.nan
    measure = Surfaces(loss, *rng.random((3, *loss.shape)))
    values, levels = run(measure, *(np.arange(n) for n in shape), estimator="full")
    assert set(values) == set(NAMES)
    assert_all_evaluated(values, levels, measure)


@pytest.mark.parametrize("shape", BOWLS)
@pytest.mark.parametrize("seed", range(4))
def test_a_seventh_of_a_bowls_points_give_all_others_within_two_standard_errors(shape, seed):
    measure, axes = bowl(25, shape)
    values, levels = run(measure, *axes, seed=seed)
    assert [len(level) for level in measure.levels] in ([57, 24 + low] for low in range(4, 9))
    assert levels.evaluated.sum() == len(measure.asked) <= 89  # of 625, 14 %
    assert_levels_follow(measure, axes, drawn=24, seed=seed)
    assert wrong_by(values, measure).max() <= 2
    assert levels.held_out == 24, "those drawn at random, not the lowest"
    assert 0 < levels.interpolation_error <= ACCEPTED


@pytest.mark.parametrize("shape", BOWLS)
@pytest.mark.parametrize("seed", range(4))
def test_a_finer_grid_of_a_bowl_takes_as_many_points_and_no_more(shape, seed):
    measure, axes = bowl(51, shape)
    values, levels = run(measure, *axes, seed=seed)
    assert [len(level) for level in measure.levels] in ([57, 24 + low] for low in range(4, 9))
    assert levels.evaluated.sum() == len(measure.asked) <= 89
    assert_levels_follow(measure, axes, drawn=24, seed=seed)
    assert wrong_by(values, measure).max() <= 2


@given(st.sampled_from([21, 25, 31]), st.sampled_from([*BOWLS, None]), st.integers(0, 99))
def test_no_point_is_asked_for_twice_and_evaluated_points_keep_their_values(points, shape, seed):
    """Whether a surface takes one level more or many; and it is known which were evaluated."""
    measure, axes = ripples(points) if shape is None else bowl(points, shape)
    values, levels = run(measure, *axes, seed=seed)
    assert len(set(measure.asked)) == len(measure.asked)
    np.testing.assert_array_equal(np.flatnonzero(levels.evaluated), np.sort(measure.asked))
    assert_measured(values, measure, levels.evaluated)
    for name in NAMES:
        assert np.isfinite(values[name]).all()


@pytest.mark.parametrize("points", [25, 51])
@pytest.mark.parametrize("seed", range(8))
def test_a_low_minimum_away_from_the_centre_is_evaluated_and_the_surface_is_right(points, seed):
    """The minimum is at no grid point: all that are less than a step from it are evaluated.

    All points are right to within two standard errors, which are least where the loss is.
    """
    measure, axes = sunken(points)
    values, levels = run(measure, *axes, seed=seed)
    assert_levels_follow(measure, axes, drawn=24, seed=seed)
    assert levels.evaluated.sum() <= points**2 / 4
    assert wrong_by(values, measure).max() <= 2
    step = 1.001 * (axes[0][1] - axes[0][0])
    nearest = np.ix_(np.abs(axes[0] - 0.1) < step, np.abs(axes[1] + 0.2) < step)
    evaluated = levels.evaluated.reshape(points, points)
    assert evaluated[nearest].size == (4 if points == 25 else 6)
    assert evaluated[nearest].all()
    assert values["loss"].argmin() == measure.true["loss"].argmin()
    assert values["loss"].min() == measure.true["loss"].min()


# Which points


@pytest.mark.parametrize("points", [25, 51])
def test_the_corners_the_centre_and_its_neighbours_are_always_evaluated(points):
    """So that the curvature at the centre is the measured one; on a plane 3x3 points."""
    measure, axes = bowl(points)
    _, levels = run(measure, *axes)
    evaluated = levels.evaluated.reshape(points, points)
    half = points // 2
    assert evaluated[half - 1 : half + 2, half - 1 : half + 2].all()
    assert evaluated[:: points - 1, :: points - 1].all()


@pytest.mark.parametrize(("points", "drawn"), [(51, 6), (101, 12), (191, 23), (201, 24), (801, 24)])
def test_the_centre_of_a_line_and_its_neighbours_are_always_evaluated(points, drawn):
    """Of a single line, an eighth of the points is drawn, and no more than 24."""
    axis = centred_grid(1.0, points)
    loss = quadratic(axis, 0.0)[np.newaxis]
    measure = Surfaces(loss, 0.04 * loss)
    _, levels = run(measure, axis)
    half = points // 2
    assert levels.evaluated[half - 1 : half + 2].all()
    assert levels.evaluated[[0, -1]].all()
    assert 9 + drawn < levels.evaluated.sum() <= 9 + drawn + drawn // 3
    assert_levels_follow(measure, (axis,), drawn=drawn, seed=0)


@pytest.mark.parametrize(("row", "column"), [(9, 14), (1, 23), (0, 0), (24, 24), (0, 13)])
def test_the_neighbours_of_an_origin_off_the_middle_are_evaluated_too(row, column):
    """On the plane of a trajectory the origin may be anywhere, at a corner as well."""
    a, b = np.arange(25.0) - row, np.arange(25.0) - column
    loss = 1 + (a[:, np.newaxis] ** 2 + b**2)[np.newaxis] / 100
    measure = Surfaces(loss, 0.2)
    _, levels = run(measure, a, b)
    first = np.zeros((25, 25), dtype=bool)
    first[::4, ::4] = True
    first[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = True
    np.testing.assert_array_equal(measure.levels[0], np.flatnonzero(first))
    assert first.sum() + 24 <= levels.evaluated.sum() <= first.sum() + 24 + 8
    assert_levels_follow(measure, (a, b), drawn=24, seed=0)
    evaluated = levels.evaluated.reshape(25, 25)
    assert evaluated[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2].all()


def test_a_grid_without_an_origin_has_a_coarse_first_level_only():
    a = np.linspace(0.1, 1.0, 25)
    loss = (1 + a[:, np.newaxis] ** 2 + a**2)[np.newaxis]
    measure = Surfaces(loss, 0.2)
    _, levels = run(measure, a, a)
    coarse = np.zeros((25, 25), dtype=bool)
    coarse[::4, ::4] = True
    np.testing.assert_array_equal(measure.levels[0], np.flatnonzero(coarse))
    assert len(measure.levels) == 2
    assert 49 + 24 < levels.evaluated.sum() <= 49 + 24 + 8  # the lowest are in the corner
    assert_levels_follow(measure, (a, a), drawn=24, seed=0)
    assert levels.evaluated.reshape(25, 25)[:2, :2].all()


@pytest.mark.parametrize(("row", "column"), [(9, 14), (1, 22), (24, 0), (0, 13), (18, 24)])
@pytest.mark.parametrize("points", [25, 51])
def test_the_lowest_points_that_are_predicted_are_evaluated(points, row, column):
    """Wherever they are, at an edge or a corner as well: the minimum is among them.

    So are, on 25x25, its neighbours along both axes, as the lowest ones of a round bowl; on 51x51
    the predicted minimum may be a step off the true one, and the predicted bowl not round.
    """
    row, column = row * (points - 1) // 24, column * (points - 1) // 24
    a, b, axes = square(points)
    loss = 1 + (a - axes[0][row]) ** 2 + (b - axes[1][column]) ** 2
    measure = Surfaces(loss[np.newaxis], 0.05, 0.2)
    _, levels = run(measure, *axes)
    assert len(measure.levels) == 2
    first, second = measure.levels
    assert np.isin(lowest_predicted(measure, a.shape, first, 8), second).all()
    i, j = divmod(int(predicted(measure, a.shape, first).argmin()), points)
    assert max(abs(i - row), abs(j - column)) <= (0 if points == 25 else 1)
    evaluated = levels.evaluated.reshape(points, points)
    assert evaluated[row, column]
    assert evaluated[i, j]
    if points == 25:
        assert evaluated[max(i - 1, 0) : i + 2, j].all()
        assert evaluated[i, max(j - 1, 0) : j + 2].all()
    assert 57 + 24 < evaluated.sum() <= 57 + 24 + 8
    assert_levels_follow(measure, axes, drawn=24, seed=0)


@pytest.mark.parametrize("seed", range(3))
def test_of_several_lines_the_minimum_of_their_mean_is_evaluated(seed):
    """Not that of the first, of the last or of the lowest of them."""
    axis = centred_grid(1.0, 101)
    places, curvatures = np.array([[-0.9], [0.1], [0.9]]), np.array([[1.0], [6.0], [2.0]])
    loss = np.array([[1.0], [2.0], [0.5]]) + curvatures * (axis - places) ** 2
    measure = Surfaces(loss, 0.2)
    values, _ = run(measure, axis, seed=seed)
    lowest = int(loss.mean(axis=0).argmin())
    assert lowest not in loss.argmin(axis=1)
    assert lowest in measure.asked
    assert np.isin(lowest_predicted(measure, (101,), measure.levels[0], 2), measure.levels[1]).all()
    assert [len(level) for level in measure.levels] in ([9, 8 + low] for low in range(3))
    assert_levels_follow(measure, (axis,), drawn=8, seed=seed)
    assert wrong_by(values, measure).max() <= 2


@pytest.mark.parametrize("shape", [(3,), (5,), (7,), (3, 3), (5, 5), (7, 7), (3, 7), (5, 3)])
def test_tiny_grids_are_evaluated_everywhere(shape):
    axes = [centred_grid(1.0, n) for n in shape]
    loss = sum(g**2 for g in np.meshgrid(*axes, indexing="ij"))[np.newaxis] + 0.1
    measure = Surfaces(loss, 0.1)
    values, levels = run(measure, *axes)
    assert_all_evaluated(values, levels, measure)


@pytest.mark.parametrize("shape", [(1, 51), (51, 1), (1,), (1, 1), (1, 51, 51)])
def test_grids_with_a_single_point_on_an_axis_are_evaluated_everywhere(shape):
    """There the points span no plane, and no interpolation is defined."""
    axes = [np.linspace(-0.5, 0.5, n) if n > 1 else np.zeros(1) for n in shape]
    loss = sum(g**2 for g in np.meshgrid(*axes, indexing="ij"))[np.newaxis] + 0.1
    measure = Surfaces(loss, 0.1)
    values, levels = run(measure, *axes)
    assert_all_evaluated(values, levels, measure)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("first", [[0.0, 1.0], [-1.0, 1.0]])  # with an origin and without
@pytest.mark.parametrize("transposed", [False, True])
def test_two_points_on_an_axis_are_enough(first, transposed, seed):
    """The 7 coarse points of such an axis are its ends, each once; 102 // 8 points are drawn."""
    axes = np.array(first), centred_grid(1.0, 51)
    axes = axes[::-1] if transposed else axes
    loss = quadratic(*np.meshgrid(*axes, indexing="ij"))[np.newaxis]
    measure = Surfaces(loss, 0.05 * loss)
    values, levels = run(measure, *axes, seed=seed)
    assert len(measure.levels[0]) == (18 if 0.0 in first else 14)
    assert len(measure.levels) == 2
    assert_levels_follow(measure, axes, drawn=12, seed=seed)
    assert_measured(values, measure, levels.evaluated)
    assert wrong_by(values, measure).max() <= 2


@pytest.mark.parametrize(("points", "few"), [(21, 0), (23, 0), (25, 0), (27, 12), (29, 12)])
def test_a_line_is_evaluated_everywhere_where_half_of_its_points_would_not_do(points, few):
    """Of which there are 9 in the first level, and no less than 3 and the lowest in the second."""
    axis = centred_grid(1.0, points)
    measure = Surfaces((2 + 0.1 * axis**2)[np.newaxis], 0.1)
    values, levels = run(measure, axis)
    if few:
        assert few <= levels.evaluated.sum() == len(measure.asked) <= few + 1
        assert_levels_follow(measure, (axis,), drawn=3, seed=0)
    else:
        assert_all_evaluated(values, levels, measure)


# More levels, and all points


@pytest.mark.parametrize("noise", [2.0, 10.0, 100.0])
@pytest.mark.parametrize("points", [25, 51])
def test_a_surface_as_rough_as_noise_is_evaluated_everywhere(rng, noise, points):
    """`noise`: how many standard errors neighbouring points differ by."""
    a, b, axes = square(points)
    loss = 20 + quadratic(a, b) + noise * 0.02 * rng.standard_normal(a.shape)
    measure = Surfaces(loss[np.newaxis], 0.02)
    values, levels = run(measure, *axes)
    assert_all_evaluated(values, levels, measure)


@pytest.mark.parametrize("seed", range(6))
def test_a_surface_too_rough_for_the_first_level_takes_more_of_them(seed):
    """For each, half as many are drawn as are known, until what is known predicts the next one."""
    measure, axes = ripples()
    values, levels = run(measure, *axes, seed=seed)
    assert_levels_follow(measure, axes, drawn=24, seed=seed)
    assert len(measure.levels) in (4, 5, 6)
    assert levels.evaluated.sum() == len(measure.asked) <= 29**2 / 2
    assert levels.held_out == sum(map(len, measure.levels[:-1])) // 4
    assert share_beyond(values, levels, measure) <= 0.05


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "make", [ripples, lambda: ripples(25), oblong, lambda: bowl(25), lambda: sunken(51)]
)
def test_the_first_level_that_is_predicted_is_the_last_one(make, seed):
    """Or all points are evaluated, once half of them would not do."""
    measure, axes = make()
    shape = tuple(len(axis) for axis in axes)
    values, levels = run(measure, *axes, seed=seed)
    assert_levels_follow(measure, axes, drawn=24, seed=seed)
    generator = np.random.default_rng(seed)
    drawn = 24
    right = []
    for index in range(1, len(measure.levels) - levels.evaluated.all()):
        known = np.sort(np.concatenate(measure.levels[:index]))
        left = np.setdiff1d(np.arange(np.prod(shape)), known)
        random = generator.choice(left, drawn, replace=False)
        stated = stated_error(measure, shape, known, random)
        _, in_se = prediction_errors(measure, shape, known, measure.levels[index])
        right.append(stated <= ACCEPTED and in_se.max() <= LARGEST)
        drawn = (len(known) + len(measure.levels[index])) // 4
    assert not any(right[:-1])
    assert right[-1] != levels.evaluated.all()
    if levels.evaluated.all():
        assert_all_evaluated(values, levels, measure)


def test_noise_that_is_slightly_too_large_takes_more_levels_or_all_points():
    """5 % of the rise: the interpolation of noise doubles it, and the largest of 24 is accepted."""
    _, _, axes = square(25)
    counts = set()
    for seed in range(10):
        noise = np.random.default_rng(100 + seed).standard_normal((1, 25, 25))
        measure = Surfaces(20 + 0.05 * noise, 1.0, 0.1, centre=[19.0])
        _, levels = run(measure, *axes, seed=seed)
        assert_levels_follow(measure, axes, drawn=24, seed=seed)
        assert levels.evaluated.sum() == len(measure.asked)
        counts.add("all" if levels.evaluated.all() else len(measure.levels))
    assert 2 in counts
    assert len(counts) > 1


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize(
    ("where", "rise_se", "loss_se", "enough"),
    [
        ("drawn", 1 / 1.33, 1.0, True),  # 1.5 times 13.3 % of the rise's standard error
        ("drawn", 1 / 1.34, 1.0, False),
        ("lowest", 1 / 1.34, 1.0, True),  # no random point
        ("drawn", 1.0, 1 / 19.9, True),  # 1.99 standard errors of the loss
        ("drawn", 1.0, 1 / 20.1, False),
        ("lowest", 1.0, 1 / 20.1, False),
    ],
)
def test_both_bounds_have_to_hold_of_the_rise_and_of_the_standard_error(
    where, rise_se, loss_se, enough, sign
):
    """One of the second level's points is off by 0.1, no others are.

    It is drawn or one of the lowest, which are those around the minimum in a corner.
    """
    a, b, axes = square(25)
    first = Surfaces((2.0 + 0.03 * a + 0.01 * b)[np.newaxis], 1.0)
    run(first, *axes)
    level, lowest = first.levels[1], lowest_predicted(first, a.shape, first.levels[0], 8)
    assert np.isin(lowest, level).all()
    drawn = np.random.default_rng(0).choice(np.flatnonzero(~first_level_of(25)), 24, replace=False)
    only = np.setdiff1d(drawn, lowest) if where == "drawn" else np.setdiff1d(lowest, drawn)
    loss = first.true["loss"].copy()
    loss[0, only[0]] += sign * 0.1
    measure = Surfaces(loss.reshape(1, 25, 25), loss_se, rise_se, centre=[2.0])
    _, levels = run(measure, *axes)
    np.testing.assert_array_equal(measure.levels[1], level)
    assert (levels.evaluated.sum() == 57 + len(level)) == enough
    assert (len(measure.levels) == 2) == enough


@pytest.mark.parametrize(("centre", "enough"), [(1.0, True), (1.4, False), (2.5, False)])
def test_an_error_counts_in_units_of_the_surfaces_own_rise(centre, enough):
    """0.1: enough for a rise of 1.1, too much for 0.7 or -0.6.

    Even where it is a tenth of the standard error of the loss, which all points share.
    """
    _, _, axes = square(25)
    drawn = np.random.default_rng(0).choice(np.flatnonzero(~first_level_of(25)), 24, replace=False)
    loss = np.full((1, 625), 2.0)
    loss[0, drawn[5]] += 0.1 * np.sign(2 - centre)
    measure = Surfaces(loss.reshape(1, 25, 25), 1.0, 0.001, centre=[centre])
    _, levels = run(measure, *axes)
    assert (len(measure.levels) == 2) == enough
    if enough:
        assert levels.interpolation_error == pytest.approx(SAFETY * 0.1 / 1.1, rel=1e-6)


WHERE = ["first level", "second level", "one of two surfaces"]


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_where_a_loss_is_not_finite_everything_is_evaluated_and_kept(bad, where):
    """With the standard errors and accuracies that such a loss has."""
    probe, axes = bowl(25)
    run(probe, *axes)
    true = {k: np.repeat(v, 2, axis=0) if "two" in where else v for k, v in probe.true.items()}
    point = probe.levels[1 if where == "second level" else 0][3]
    true["loss"][-1, point] = bad
    true["loss_se"][-1, point] = np.nan
    true["accuracy"][-1, point] = np.nan if np.isnan(bad) else 0.2
    measure = Surfaces(*(true[k].reshape(-1, 25, 25) for k in NAMES))
    values, levels = run(measure, *axes)
    assert_all_evaluated(values, levels, measure)
    assert len(measure.levels) == (3 if where == "second level" else 2), "at once"
    assert not np.isfinite(values["loss"][-1, point])


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["loss_se", "accuracy"])
def test_where_another_value_is_not_finite_everything_is_evaluated_and_kept(bad, name, where):
    """Interpolation would spread it over the whole surface, even if all losses are predicted."""
    probe, axes = bowl(25)
    run(probe, *axes)
    assert len(probe.levels) == 2
    true = {k: np.repeat(v, 2, axis=0) if "two" in where else v for k, v in probe.true.items()}
    point = probe.levels[1 if where == "second level" else 0][3]
    true[name][-1, point] = bad
    measure = Surfaces(*(true[k].reshape(-1, 25, 25) for k in NAMES))
    values, levels = run(measure, *axes)
    assert_all_evaluated(values, levels, measure)
    assert len(measure.levels) == (3 if where == "second level" else 2), "at once"
    assert not np.isfinite(values[name][-1, point])


def test_standard_errors_of_zero_predict_nothing():
    """A loss that is exactly zero has none to compare with: all is evaluated."""
    axis = centred_grid(1.0, 25)
    measure = Surfaces(np.zeros((1, 25, 25)), 0.0)
    values, levels = run(measure, axis, axis)
    assert_all_evaluated(values, levels, measure)


# Stencils


def waves(points: int = 51) -> tuple[Surfaces, np.ndarray]:
    """10 lines: parabolas with ripples of 4 grid steps, a few thousandths of the rise.

    Too small to matter to the loss, they decide over its curvature. Phases differ.
    """
    axis = centred_grid(1.0, points)
    phases = np.random.default_rng(5).uniform(0, 2 * np.pi, (10, 1))
    ripple = 0.004 * np.sin(np.pi / 2 * np.arange(points) + phases)
    loss = 0.5 + axis**2 + ripple
    return Surfaces(loss, 0.1, 0.1), axis


def convexity_of(values, levels, index: int, axis):
    """The geometry of one line, as the table has it."""
    stencils = None if levels.evaluated.all() else levels.stencils
    return line_geometry(axis, values["loss"][index], rise=0.1, persistence=0.01, stencils=stencils)


def test_what_is_convex_is_judged_by_evaluated_stencils_and_not_by_the_interpolant():
    """The interpolant is smooth and convex where the loss is not.

    From few points the 95 % interval has the full surface's fraction at least so often, and is
    exact with all points. Nothing is said of the roughness.
    """
    measure, axis = waves()
    full = [convexity_of(*run(measure, axis, estimator="full"), i, axis) for i in range(10)]
    truth = np.array([one.convex_fraction for one in full])
    second = np.diff(measure.true["loss"], 2, axis=1)
    np.testing.assert_array_equal(truth, (second > 0).mean(axis=1))
    assert all(one.convex_low == one.convex_fraction == one.convex_high for one in full)
    assert all(one.stencils == 49 and one.roughness > 0 for one in full)
    held, fractions, interpolants = [], [], []
    for seed in range(20):
        values, levels = run(measure, axis, stencils=4, seed=seed)
        assert not levels.evaluated.all()
        for index in range(10):
            one = convexity_of(values, levels, index, axis)
            assert one.stencils == 4
            assert np.isnan(one.roughness)
            held.append(one.convex_low <= truth[index] <= one.convex_high)
            fractions.append(one.convex_fraction)
            interpolants.append(line_geometry(axis, values["loss"][index], rise=0.1, persistence=0))
    assert np.mean(held) >= 0.95
    assert np.mean(fractions) == pytest.approx(truth.mean(), abs=0.05)
    assert np.mean([one.convex_fraction for one in interpolants]) > truth.mean() + 0.1


@pytest.mark.parametrize("stencils", [0, 1, 3])
def test_whole_stencils_around_random_inner_points_are_evaluated(stencils):
    """On a plane 3x3 points each; drawn before all else, and with the second level's points."""
    measure, axes = bowl(25)
    _, levels = run(measure, *axes, stencils=stencils, seed=4)
    inner = np.flatnonzero(np.pad(np.ones((23, 23), dtype=bool), 1))
    drawn = np.random.default_rng(4).choice(inner, stencils, replace=False)
    np.testing.assert_array_equal(np.flatnonzero(levels.stencils), np.sort(drawn))
    evaluated = levels.evaluated.reshape(25, 25)
    for point in drawn:
        row, column = divmod(point, 25)
        assert evaluated[row - 1 : row + 2, column - 1 : column + 2].all()
    assert levels.evaluated.sum() <= 89 + 9 * stencils
    assert 24 <= levels.held_out <= 24 + 9 * stencils


def test_the_points_of_stencils_are_held_out_like_those_drawn():
    """They are random too: the error is stated for both."""
    measure, axes = bowl(51)
    _, levels = run(measure, *axes, stencils=2, seed=1)
    first = first_level_of(51)
    generator = np.random.default_rng(1)
    centres = generator.choice(np.flatnonzero(np.pad(np.ones((49, 49)), 1)), 2, replace=False)
    around = (centres[:, np.newaxis] + np.array([[-52, -51, -50, -1, 0, 1, 50, 51, 52]])).ravel()
    drawn = generator.choice(np.flatnonzero(~first), 24, replace=False)
    random = np.setdiff1d(np.union1d(around, drawn), np.flatnonzero(first))
    assert levels.held_out == len(random)
    stated = stated_error(measure, (51, 51), first, random)
    assert levels.interpolation_error == pytest.approx(stated, rel=1e-9)


def test_where_all_points_are_evaluated_so_are_all_stencils():
    for shape in ((9,), (5, 7)):
        axes = [centred_grid(1.0, n) for n in shape]
        loss = sum(g**2 for g in np.meshgrid(*axes, indexing="ij"))[np.newaxis]
        for estimator in ("full", "multilevel"):
            _, levels = run(Surfaces(loss, 0.1), *axes, estimator=estimator, stencils=2)
            inner = np.pad(np.ones([n - 2 for n in shape], dtype=bool), 1)
            np.testing.assert_array_equal(levels.stencils.reshape(shape), inner)


# What is reported and what is filled in


def first_level_of(points: int) -> np.ndarray:
    """Mask (points, points) of 7x7 points and the 3x3 in the middle."""
    first = np.zeros((points, points), dtype=bool)
    coarse = np.round(np.linspace(0, points - 1, 7)).astype(int)
    first[np.ix_(coarse, coarse)] = True
    half = points // 2
    first[half - 1 : half + 2, half - 1 : half + 2] = True
    return first.reshape(-1)


def off_centre(a, b):
    """With a minimum at (0.5, -0.375), far from what is always evaluated."""
    return 1 + (a - 0.5) ** 2 + (b + 0.375) ** 2


@pytest.mark.parametrize("points", [25, 51])
@pytest.mark.parametrize("shape", [*BOWLS, off_centre])
def test_the_stated_error_is_of_predicting_the_random_points_of_the_second_level(points, shape):
    """Of points that the same generator draws, predicted from the first level alone.

    Not of the 8 lowest that are predicted from it: these are no sample of the others.
    """
    measure, axes = bowl(points, shape)
    _, levels = run(measure, *axes, seed=7)
    first = first_level_of(points)
    drawn = np.random.default_rng(7).choice(np.flatnonzero(~first), 24, replace=False)
    lowest = lowest_predicted(measure, (points, points), np.flatnonzero(first), 8)
    assert not np.isin(lowest, drawn).all(), "else nothing is tested that is not drawn"
    level = np.union1d(drawn, lowest)
    np.testing.assert_array_equal(np.sort(measure.asked[:57]), np.flatnonzero(first))
    np.testing.assert_array_equal(measure.asked[57:], level)
    stated = stated_error(measure, (points, points), first, drawn)
    assert levels.interpolation_error == pytest.approx(stated, rel=1e-9)
    assert levels.held_out == 24


@pytest.mark.parametrize("make", [ripples, oblong, lambda: bowl(25)])
def test_the_rest_is_predicted_from_all_levels(make):
    """Losses and their standard errors by their square roots, the others as they are.

    However many points an axis has, the whole of it counts as one unit of distance.
    """
    measure, axes = make()
    shape = tuple(len(axis) for axis in axes)
    values, levels = run(measure, *axes, seed=2)
    known, rest = np.flatnonzero(levels.evaluated), np.flatnonzero(~levels.evaluated)
    for name in ("loss", "loss_se"):
        root = interpolated(np.sqrt(measure.true[name]), shape, known, rest)
        np.testing.assert_allclose(values[name][:, rest], root**2, rtol=1e-9)
    direct = interpolated(measure.true["accuracy"], shape, known, rest)
    np.testing.assert_allclose(values["accuracy"][:, rest], direct.clip(0, 1), atol=1e-12)
    direct = interpolated(measure.true["rise_se"], shape, known, rest)
    np.testing.assert_allclose(values["rise_se"][:, rest], direct.clip(0), atol=1e-12)


def test_accuracies_and_losses_stay_where_they_can_be():
    """Where an interpolation would leave [0, 1], or a root its sign, it is cut off."""
    a, b, axes = square(25)
    accuracy = (np.hypot(a, b) < 0.7).astype(float)[np.newaxis]
    root = np.maximum(np.hypot(a, b) - 0.5, 0)[np.newaxis]  # a floor at zero with an edge
    measure = Surfaces(root**2, 1.0, 1.0, accuracy)
    values, levels = run(measure, *axes)
    known, rest = np.flatnonzero(levels.evaluated), np.flatnonzero(~levels.evaluated)
    free = interpolated(measure.true["accuracy"], (25, 25), known, rest)
    assert free.min() < -0.01, "else nothing had to be cut off"
    assert free.max() > 1.01
    free_root = interpolated(np.sqrt(measure.true["loss"]), (25, 25), known, rest)
    assert free_root.min() < -0.001
    np.testing.assert_allclose(values["accuracy"][:, rest], free.clip(0, 1), atol=1e-12)
    np.testing.assert_allclose(values["loss"][:, rest], free_root.clip(0) ** 2, atol=1e-12)
    assert values["accuracy"].min() == 0.0
    assert values["accuracy"].max() == 1.0


# Several surfaces at once


def several(count: int, points: int = 51) -> tuple[Surfaces, np.ndarray]:
    """Lines of different curvature and slope."""
    axis = centred_grid(1.0, points)
    curvatures, slopes = np.linspace(0.5, 6, count), np.linspace(-0.4, 0.4, count)
    loss = 0.5 + slopes[:, np.newaxis] * axis + curvatures[:, np.newaxis] * axis**2
    return Surfaces(loss, 0.05 * loss), axis


SHARED = [  # lines, points and how many of them are drawn
    (2, 51, 6),
    (2, 91, 11),
    (2, 201, 12),
    (3, 101, 8),
    (4, 27, 3),
    (4, 51, 6),
    (5, 33, 4),
    (6, 51, 4),
    (10, 51, 3),
    (30, 51, 3),
]


@pytest.mark.parametrize(("count", "points", "drawn"), SHARED)
def test_lines_share_their_points_and_each_is_right(count, points, drawn):
    """The more lines, the fewer points of each it takes to have 24 predictions.

    But no fewer than 3 points, and no more than an eighth of them; and the lowest, a third as many.
    """
    measure, axis = several(count, points)
    values, levels = run(measure, axis)
    assert len(measure.levels) == 2
    assert_levels_follow(measure, (axis,), drawn=drawn, seed=0)
    assert levels.evaluated.shape == (points,)
    assert 9 + drawn <= levels.evaluated.sum() <= 9 + drawn + drawn // 3
    assert levels.held_out == drawn * count
    assert_measured(values, measure, levels.evaluated)
    assert wrong_by(values, measure).max() <= 2


def test_the_stated_error_is_over_all_lines():
    measure, axis = several(6)
    _, levels = run(measure, axis, seed=3)
    first = measure.levels[0]
    drawn = np.random.default_rng(3).choice(np.setdiff1d(np.arange(51), first), 4, replace=False)
    stated = stated_error(measure, (51,), first, drawn)
    assert levels.interpolation_error == pytest.approx(stated, rel=1e-9)
    assert levels.held_out == 6 * 4


def test_one_rough_line_takes_all_others_along(rng):
    """They go on to the next level together."""
    measure, axis = several(6)
    loss = measure.true["loss"] + 5.0
    loss[4] += rng.standard_normal(51)
    measure = Surfaces(loss, measure.true["loss_se"])
    values, levels = run(measure, axis)
    assert_all_evaluated(values, levels, measure)


# Reproducibility


def as_bytes(values, levels) -> list[bytes]:
    reported = np.array([levels.held_out, levels.interpolation_error])
    return [*(values[k].tobytes() for k in NAMES), levels.evaluated.tobytes(), reported.tobytes()]


@pytest.mark.parametrize("make", [ripples, lambda: bowl(51)])
def test_equal_generators_give_equal_bytes_and_another_one_other_points(make):
    found = []
    for seed in (1, 1, 2):
        measure, axes = make()
        found.append(run(measure, *axes, seed=seed))
    assert as_bytes(*found[0]) == as_bytes(*found[1])
    assert (found[0][1].evaluated != found[2][1].evaluated).any()


@pytest.mark.parametrize("estimator", ["multilevel", "full"])
def test_the_global_random_states_are_left_as_they_were(mlp, estimator):
    state, np_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    theta, d = mlp.theta.clone(), direction_of(mlp, 1)
    before = d.clone()
    lines_of(mlp, [d, -d], centred_grid(1.0, 51), estimator)
    assert torch.equal(mlp.theta, theta)
    assert torch.equal(d, before)
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002


# Real networks


def direction_of(case, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return random_direction(case.theta, case.objective.layout, "filter", generator=generator)


def lines_of(case, directions, alphas, estimator, seed=0):
    generator = np.random.default_rng(seed)
    return lines(
        case.objective, case.theta, directions, alphas, estimator=estimator, generator=generator
    )


def plane_of(case, directions, alphas, betas, estimator, seed=0):
    generator = np.random.default_rng(seed)
    grid = (alphas, betas)
    return plane(
        case.objective, case.theta, *directions, *grid, estimator=estimator, generator=generator
    )


@pytest.mark.kernels
def test_full_lines_are_the_lines_of_each_direction(case):
    directions, alphas = [direction_of(case, seed) for seed in range(3)], centred_grid(1.0, 9)
    found, levels = lines_of(case, directions, alphas, "full")
    assert levels.evaluated.all()
    for index, d in enumerate(directions):
        exact = surface.line(case.objective, case.theta, d, alphas)
        for name in exact:
            assert found[name].shape == (3, 9)
            np.testing.assert_allclose(found[name][index], exact[name], rtol=1e-12)


@pytest.mark.kernels
def test_a_full_plane_is_the_plane(case):
    """With different axes, so that none is taken for the other."""
    directions = [direction_of(case, seed) for seed in range(2)]
    alphas, betas = centred_grid(0.5, 5), centred_grid(1.0, 7)
    found, levels = plane_of(case, directions, alphas, betas, "full")
    exact = surface.plane(case.objective, case.theta, *directions, alphas, betas)
    assert levels.evaluated.shape == (35,)
    assert levels.held_out == 0
    for name in exact:
        assert found[name].shape == (5, 7)
        np.testing.assert_allclose(found[name], exact[name], rtol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_a_networks_plane_from_few_points_is_its_plane(mlp, seed):
    directions, grid = [direction_of(mlp, 2 * seed), direction_of(mlp, 2 * seed + 1)], (25, 31)
    alphas, betas = (centred_grid(1.0, n) for n in grid)
    found, levels = plane_of(mlp, directions, alphas, betas, "multilevel", seed)
    exact = surface.plane(mlp.objective, mlp.theta, *directions, alphas, betas)
    assert levels.evaluated.sum() <= 25 * 31 / 4
    error = np.abs(found["loss"] - exact["loss"]) / exact["loss_se"]
    assert (error <= 2).mean() >= 0.99
    evaluated = levels.evaluated.reshape(grid)
    for name in exact:
        np.testing.assert_allclose(found[name][evaluated], exact[name][evaluated], rtol=1e-12)
    assert ((found["accuracy"] >= 0) & (found["accuracy"] <= 1)).all()


@pytest.mark.parametrize("seed", range(2))
def test_a_networks_lines_from_few_points_are_its_lines(mlp, seed):
    directions, alphas = [direction_of(mlp, 10 * seed + i) for i in range(10)], centred_grid(1, 51)
    found, levels = lines_of(mlp, directions, alphas, "multilevel", seed)
    assert levels.evaluated.sum() <= 51 / 3
    for index, d in enumerate(directions):
        exact = surface.line(mlp.objective, mlp.theta, d, alphas)
        error = np.abs(found["loss"][index] - exact["loss"]) / exact["loss_se"]
        assert (error <= 2).mean() >= 0.99
        for name in exact:
            np.testing.assert_allclose(
                found[name][index][levels.evaluated], exact[name][levels.evaluated], rtol=1e-12
            )


def test_a_theta_that_is_not_finite_has_lines_and_planes_of_nan(mlp):
    theta = torch.full_like(mlp.theta, torch.nan)
    d, grid = direction_of(mlp, 1), centred_grid(1.0, 25)
    keywords = {"estimator": "multilevel", "generator": np.random.default_rng(0)}
    for values, levels in (
        lines(mlp.objective, theta, [d, d], grid, **keywords),
        plane(mlp.objective, theta, d, d, grid, grid, **keywords),
    ):
        assert levels.evaluated.all()
        assert all(np.isnan(values[name]).all() for name in NAMES)


@pytest.mark.parametrize("estimator", ["multi", "", "Full"])
def test_an_unknown_estimator_is_refused_with_the_known_ones(mlp, estimator):
    expected = rf"(?s)'{estimator}'.*multilevel.*full"
    measure, axes = bowl(25)
    with pytest.raises(ValueError, match=expected):
        run(measure, *axes, estimator=estimator)
    assert not measure.levels, "nothing must have been evaluated by then"
    d, grid = direction_of(mlp, 1), centred_grid(1.0, 25)
    with pytest.raises(ValueError, match=expected):
        lines_of(mlp, [d], grid, estimator)
    with pytest.raises(ValueError, match=expected):
        plane_of(mlp, [d, d], grid, grid, estimator)
