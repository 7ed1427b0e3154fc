"""What the stage `alignment` writes of a pair, and what later stages read of it."""

import pytest
import torch

from alignment import align
from lossgeo import probe, store
from lossgeo.parameters import layout_of
from lossgeo.permutations import find_groups, permute
from lossgeo.probe import Point


def point(theta, status="ok") -> Point:
    return Point(theta.float(), status, 3, None)


@pytest.fixture
def write(cnn, tmp_path):
    """Align a pair of points and write what was found; return the file."""
    layout, groups = layout_of(cnn.model), find_groups(cnn.model)

    def write(a: Point, b: Point, units=groups):
        path = tmp_path / "alignment.h5"
        store.write(path, {"final": align(a, b, layout, units, 3, "final")}, {})
        return path

    return write


def test_a_permuted_copy_is_read_back_in_its_own_order(write, cnn, generator):
    layout, groups = layout_of(cnn.model), find_groups(cnn.model)
    drawn = [torch.randperm(group.units, generator=generator) for group in groups]
    a = cnn.theta.float()
    b = permute(a, layout, groups, drawn)
    file = write(point(a), point(b))
    order = probe.load_order(file, "final")
    assert torch.equal(b[order], a)
    found = store.read(file, "final")
    assert found.attributes["status"] == "ok"
    assert not found.attributes["exact"]
    assert found.attributes["distance"] == 0
    assert found.attributes["distance_before"] == pytest.approx(float((a - b).norm()), rel=1e-6)
    for group, permutation in zip(groups, drawn, strict=True):
        found_there = found.variables[f"permutation_{group.name}"].values
        assert permutation[found_there].tolist() == list(range(group.units))


def test_distances_follow_from_the_objectives(write, cnn, generator):
    a, b = cnn.theta, torch.randn(cnn.theta.shape, generator=generator, dtype=torch.float64)
    attributes = store.read(write(point(a), point(b)), "final").attributes
    squares = float(
        a.float().double() @ a.float().double() + b.float().double() @ b.float().double()
    )
    for suffix in ("", "_before"):
        expected = squares - 2 * attributes[f"objective{suffix}"]
        assert attributes[f"distance{suffix}"] ** 2 == pytest.approx(expected, rel=1e-6)
    assert attributes["distance"] < attributes["distance_before"]


@pytest.mark.parametrize(
    ("statuses", "known", "status"),
    [
        (("ok", "diverged"), True, "diverged"),
        (("not reached", "ok"), True, "not reached"),
        (("ok", "ok"), False, "not available"),
    ],
)
def test_a_pair_that_cannot_be_aligned_says_why(write, cnn, statuses, known, status):
    ends = [point(cnn.theta if s == "ok" else cnn.theta * torch.nan, s) for s in statuses]
    file = write(*ends) if known else write(*ends, units=None)
    assert store.read(file, "final").attributes == {"status": status}
    assert probe.load_order(file, "final") is None


def test_without_a_hidden_layer_the_order_is_that_of_the_parameters(write, cnn):
    file = write(point(cnn.theta), point(2 * cnn.theta), units=[])
    assert torch.equal(probe.load_order(file, "final"), torch.arange(len(cnn.theta)))
    assert store.read(file, "final").attributes["exact"]
