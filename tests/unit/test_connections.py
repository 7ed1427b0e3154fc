"""What the stages of pairs make of two runs: paths, curves and planes between the right ends."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import connectivity
import curve
import planes
from lossgeo import curves, probe, store
from lossgeo.objective import evaluate
from lossgeo.parameters import layout_of
from lossgeo.permutations import find_groups, parameter_order
from lossgeo.renormalisation import hidden_moments
from lossgeo.store import Group, Variable

T = np.linspace(0, 1, 5)
RUNGS = ("line", "aligned", "renormalised", "curve", "aligned_curve")


@pytest.fixture
def pair(case, generator):
    """Two thetas, an order of the second's units, and a midpoint."""
    noise = torch.randn(3, len(case.theta), generator=generator, dtype=torch.float64)
    a, b, midpoint = case.theta + 0.3 * noise
    groups = find_groups(case.model)
    drawn = [torch.randperm(group.units, generator=generator) for group in groups]
    return a, b, parameter_order(layout_of(case.model), groups, drawn), midpoint


def path_of(case, pair, rung, status="ok", **changes):
    a, b, order, midpoint = pair
    given = {"order": order, "midpoint": midpoint} | changes
    return connectivity.get_path(
        rung, a, b, given["order"], given["midpoint"], T, case.objective, status
    )


@pytest.mark.kernels
@pytest.mark.parametrize("rung", RUNGS)
def test_a_path_goes_from_a_to_b_or_to_b_aligned(case, pair, rung):
    a, b, order, midpoint = pair
    end = b if rung in ("line", "curve") else b[order]
    path = path_of(case, pair, rung)
    assert path.status == "ok"
    if path.coefficients is None:
        thetas = path.vectors
    else:
        thetas = list(torch.from_numpy(path.coefficients) @ torch.stack(path.vectors))
    torch.testing.assert_close(thetas[0], a, rtol=0, atol=1e-12)
    torch.testing.assert_close(thetas[-1], end, rtol=0, atol=1e-12)
    assert torch.equal(path.vectors[0], a)
    assert torch.equal(path.vectors[-1], end)
    distance = float((end - a).norm())
    if rung in ("line", "aligned"):
        assert path.length == pytest.approx(distance, rel=1e-12)
        torch.testing.assert_close(thetas[2], (a + end) / 2, rtol=0, atol=1e-12)
    elif rung == "renormalised":
        steps = torch.diff(torch.stack(thetas), dim=0).norm(dim=1)
        assert path.length == pytest.approx(float(steps.sum()), rel=1e-12)
        ends = [hidden_moments(case.objective, theta)[0] for theta in (a, end)]
        middle = hidden_moments(case.objective, thetas[2])[0]
        expected = sum(moments.mean for moments in ends) / 2
        torch.testing.assert_close(middle.mean, expected, rtol=0, atol=1e-10)
    else:
        assert path.length == pytest.approx(curves.length(a, midpoint, end), rel=1e-12)
        torch.testing.assert_close(thetas[2], (a + end) / 4 + midpoint / 2, rtol=0, atol=1e-12)
    losses = connectivity.logits_of(case.objective, path, [None, None])
    for theta, logits in zip(thetas, losses, strict=True):
        loss = torch.nn.functional.cross_entropy(logits.T, case.objective.targets)
        assert float(loss) == pytest.approx(evaluate(case.objective, theta).loss, rel=1e-11)


@pytest.mark.parametrize("rung", ["aligned", "renormalised", "aligned_curve"])
def test_without_an_order_there_is_no_aligned_path(case, pair, rung):
    path = path_of(case, pair, rung, order=None)
    assert path.status == "not available"
    assert connectivity.logits_of(case.objective, path, [None, None]).isnan().all()
    assert path_of(case, pair, rung, "diverged", order=None).status == "diverged"


def test_a_path_that_overflows_between_sound_ends_says_so(case, pair):
    """Its ends are the largest numbers there are, with opposite signs in between."""
    a, *_ = pair
    path = connectivity.Path([a, 1e308 * torch.ones_like(a), a], curves.coefficients(T), 1.0, "ok")
    logits = connectivity.logits_of(case.objective, path, [None, None])
    profile = connectivity.paths.profile(T, logits, case.objective.targets)
    group = connectivity.as_group(profile, path, 1.0)
    assert group.attributes["status"] == "not finite"
    assert np.isnan(group.attributes["loss_barrier"])


def test_similarities_are_of_the_ends_as_they_are_and_aligned(case, pair):
    a, b, order, _ = pair
    found = connectivity.similarities(case.objective, a, b, order, [None, None]).variables
    for name in ("disagreement", "cka", "debiased_cka"):
        np.testing.assert_allclose(*found[name].values, rtol=1e-10)
    naive, aligned = found["unit_correlation"].values
    assert naive != pytest.approx(aligned, rel=0.01)
    own = connectivity.similarities(case.objective, a, a, None, [None, None]).variables
    assert own["unit_correlation"].values[0] == pytest.approx(1.0)
    assert np.isnan(own["cka"].values[1])


# Curves


@pytest.fixture
def files(case, pair, tmp_path):
    """What the job of the stage `curve` has: snapshots of two runs, and an alignment."""
    a, b, order, _ = pair
    for name, theta in (("a", a), ("b", b)):
        columns = {"step": np.array([7]), "epoch": np.array([1.0])}
        variables = {n: Variable(("snapshot",), v, "1", n) for n, v in columns.items()}
        rows = theta.float().numpy()[np.newaxis]
        variables["theta"] = Variable(("snapshot", "parameter"), rows, "1", "theta")
        attributes = {"preconditioned": False, "diverged": False, "parameters": len(theta)}
        store.write(tmp_path / f"{name}.h5", {"/": Group(variables)}, attributes)
    ordered = Variable(("parameter",), order.numpy().astype(np.int32), "1", "order")
    known = {"final": Group({"order": ordered}, {"status": "ok"})}
    store.write(tmp_path / "known.h5", known, {})
    store.write(tmp_path / "unknown.h5", {"final": Group({}, {"status": "not available"})}, {})

    def job(alignment: str):
        paths = {"snapshots_a": tmp_path / "a.h5", "snapshots_b": tmp_path / "b.h5"}
        return SimpleNamespace(input=SimpleNamespace(**paths, alignment=tmp_path / alignment))

    return job


def test_an_aligned_curve_is_trained_between_aligned_ends(files, pair):
    a, b, order, _ = (v.float() if v.is_floating_point() else v for v in pair)
    ends, status = curve.load_ends(files("known.h5"), "final", "curve")
    assert (status, torch.equal(ends[0], a), torch.equal(ends[1], b)) == ("ok", True, True)
    ends, status = curve.load_ends(files("known.h5"), "final", "aligned_curve")
    assert (status, torch.equal(ends[0], a), torch.equal(ends[1], b[order])) == ("ok", True, True)
    assert curve.load_ends(files("unknown.h5"), "final", "aligned_curve")[1] == "not available"
    assert curve.load_ends(files("unknown.h5"), "final", "curve")[1] == "ok"
    assert curve.load_ends(files("known.h5"), "epoch9", "curve")[1] == "not reached"


# Planes

SETTINGS = {"plane": {"points": 5, "margin": 0.25}, "estimator": "full"}


@pytest.mark.kernels
def test_a_plane_is_the_objective_at_its_distances(case, pair):
    """At every grid point, in parameter space; its corners are the three points."""
    a, b, _, third = pair
    group = planes.plane(
        case.objective, (a, b, third), [None] * 3, SETTINGS, generator=np.random.default_rng(0)
    )
    found = {name: variable.values for name, variable in group.variables.items()}
    corners = found["corners"]
    first = (b - a) / (b - a).norm()
    across = (third - a) - (first @ (third - a)) * first
    second = across / across.norm()
    for corner, theta in zip(corners, (a, b, third), strict=True):
        torch.testing.assert_close(a + corner[0] * first + corner[1] * second, theta)
    for i, alpha in enumerate(found["alpha"]):
        for j, beta in enumerate(found["beta"]):
            loss = evaluate(case.objective, a + alpha * first + beta * second).loss
            assert found["loss"][i, j] == pytest.approx(loss, rel=1e-9)
    spans = np.ptp(corners, axis=0)
    for axis, grid in enumerate((found["alpha"], found["beta"])):
        low, high = corners[:, axis].min(), corners[:, axis].max()
        assert grid[0] <= low - 0.25 * spans.max() * (1 - 1e-9)
        assert grid[-1] >= high + 0.25 * spans.max() * (1 - 1e-9)


def test_three_points_without_a_plane_say_why(case, pair):
    a, b, *_ = pair

    def status(*points):
        group = planes.plane(
            case.objective, points, [None] * 3, SETTINGS, generator=np.random.default_rng(0)
        )
        assert not group.variables
        return group.attributes["status"]

    assert status(a, b, (a + b) / 2) == "on a line"
    assert status(a, b, None) == "not available"
    assert status(a, b, a * torch.nan) == "not finite"


def test_the_status_of_several_points_is_the_first_that_is_not_sound(pair):
    sound, lost = (probe.Point(pair[0], status, 1, None) for status in ("ok", "diverged"))
    assert probe.status_of((sound, sound)) == "ok"
    assert probe.status_of((sound, lost)) == "diverged"
