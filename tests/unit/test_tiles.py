"""Surfaces in tiles: every point once, and put together the same bits."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import landscape
from lossgeo import probe, sections, store, tiles, views
from lossgeo.numerics import kernels
from lossgeo.probe import Point
from lossgeo.span import CHUNK
from lossgeo.store import Group, Variable

from .configs import completed

SETTINGS = {
    "normalization": "filter",
    "lines": {"directions": 3, "distance": 1.0, "points": 51},
    "planes": {"count": 2, "distance": 1.0, "points": 11},
    "eigenplane": {"distance": 2.0, "points": 7},
    "stencils": 1,
    "rise": 0.1,
}
SIZES = {"lines": 51, "planes": 121, "eigenplane": 49}
COUNTS = {"lines": 3, "planes": 2, "eigenplane": 1}
POINTS = ["matched", "final"]


@pytest.mark.parametrize("count", [1, 2, 3, 16, 1000])
def test_tiles_have_every_point_of_every_surface_once_in_order_and_in_whole_chunks(count):
    cut = tiles.cut(POINTS, SETTINGS, count)
    assert len(cut) == count
    pieces = [piece for tile in cut for piece in tile]
    covered = [(piece.group, i) for piece in pieces for i in range(piece.start, piece.stop)]
    assert covered == [
        (f"{point}/{kind}/{surface}", index)
        for point in POINTS
        for kind, size in SIZES.items()
        for surface in range(COUNTS[kind])
        for index in range(size)
    ]
    for piece in pieces:
        assert piece.start % CHUNK == 0
        assert piece.stop % CHUNK == 0 or piece.stop == SIZES[piece.kind]


@pytest.mark.parametrize("count", [2, 5, 16])
def test_tiles_differ_by_a_chunk_at_most(count):
    sizes = [sum(p.stop - p.start for p in tile) for tile in tiles.cut(POINTS, SETTINGS, count)]
    assert max(abs(size - sum(sizes) / count) for size in sizes) <= CHUNK


def test_a_surface_has_one_piece_in_a_tile():
    for tile in tiles.cut(POINTS, SETTINGS, 4):
        assert len({piece.group for piece in tile}) == len(tile)


def test_where_there_are_more_tiles_than_chunks_some_are_empty():
    cut = tiles.cut(["final"], SETTINGS, 1000)
    chunks = sum(COUNTS[kind] * -(-size // CHUNK) for kind, size in SIZES.items())
    assert sum(map(bool, cut)) == chunks < 1000


def point_of(case, status: str) -> Point:
    theta = case.theta if status == "ok" else torch.full_like(case.theta, torch.nan)
    return Point(theta, status, 1 if status == "ok" else -1, None)


def hessian_of(case, status: str) -> Group:
    """Two eigenpairs of some matrix: NaN where there is no theta."""
    vectors = torch.linalg.qr(torch.randn(len(case.theta), 2, generator=torch.manual_seed(5)))[0]
    gap = 1.0 if status == "ok" else np.nan
    return Group(
        {
            "eigenvectors": Variable(("k", "parameter"), gap * vectors.T.numpy(), "1", "vectors"),
            "top_eigenvalues": Variable(("k",), gap * np.array([3.0, -1.0]), "nats", "values"),
        }
    )


def write_tiles(folder, case, points, hessians, count: int) -> list:
    """The files of all tiles, each evaluated by itself."""
    files = []
    for number, pieces in enumerate(tiles.cut(list(points), SETTINGS, count)):
        groups = {}
        for piece in pieces:
            args = points[piece.point], SETTINGS, 0, hessians[piece.point]
            found = views.surfaces(piece.kind, case.objective, *args)[piece.surface]
            theta = points[piece.point].theta
            values = tiles.measure(case.objective, theta, found, piece.start, piece.stop)
            groups[piece.group] = tiles.group(piece, values)
        files.append(folder / f"{number + 1}-of-{count}.h5")
        store.write(files[-1], groups, {})
    return files


def stage(case, point, hessian, known) -> dict[str, Group]:
    args = case.objective, point, SETTINGS, "full", 0
    return {
        "lines": landscape.lines(*args, known.get("lines")),
        "planes": landscape.planes(*args, known.get("planes")),
        "eigenplane": landscape.eigenplane(*args, hessian, known.get("eigenplane")),
    }


@pytest.mark.kernels
@pytest.mark.parametrize("count", [2, 3, 40])
def test_tiles_put_together_are_the_surfaces_bit_for_bit(case, count, tmp_path):
    """Of a point, and of one that was not reached; of more tiles than there are chunks too."""
    statuses = {"matched": "not reached", "final": "ok"}
    points = {name: point_of(case, status) for name, status in statuses.items()}
    hessians = {name: hessian_of(case, status) for name, status in statuses.items()}
    files = write_tiles(tmp_path, case, points, hessians, count)
    joined = tiles.join(files, list(points), SETTINGS)
    written = []
    for known in ({}, joined):
        groups = {
            f"{name}/{kind}": group
            for name in points
            for kind, group in stage(
                case, points[name], hessians[name], known.get(name, {})
            ).items()
        }
        written.append(tmp_path / f"{len(written)}.h5")
        store.write(written[-1], groups, {})
    loss = store.read(written[0], "final/planes").variables["loss"].values
    assert np.ptp(loss) > 0.05, "planes that are flat would prove nothing"
    assert written[0].read_bytes() == written[1].read_bytes()


def test_a_tile_with_other_points_is_refused(mlp, tmp_path):
    points, hessians = {"final": point_of(mlp, "ok")}, {"final": hessian_of(mlp, "ok")}
    files = write_tiles(tmp_path, mlp, points, hessians, 3)
    with pytest.raises((ValueError, KeyError)):
        tiles.join(files[::-1], ["final"], SETTINGS)
    other = store.read(files[0], "final/lines/0").variables
    short = {name: Variable(v.dims, v.values[1:], "1", "") for name, v in other.items()}
    store.write(files[0], {"final/lines/0": Group(short)}, {})
    with pytest.raises(ValueError, match=r"1-of-3\.h5 has other points of final/lines/0"):
        tiles.join(files, ["final"], SETTINGS)


def test_a_file_says_on_which_kernels_its_tiles_were_computed(tmp_path):
    own = kernels(torch.device("cpu"))
    inputs = {name: tmp_path / f"{name}.h5" for name in ("snapshots", "hessian", "a", "b", "c")}
    for name, path in inputs.items():
        store.write(path, {}, {"kernels": own if name in "ab" else "others"})

    def made(*names: str) -> dict:
        files = [inputs[name] for name in names]
        single = {name: str(inputs[name]) for name in ("snapshots", "hessian")}
        job = SimpleNamespace(
            input={**single, "tiles": files},
            config={"device": "cpu"},
            params=SimpleNamespace(config={}, code={}),
            output=[tmp_path / "made.h5"],
        )
        probe.write(job, {}, parts=files, seed=3)
        return store.attributes(tmp_path / "made.h5")

    alone = made()
    assert made("a", "b") == alone
    assert alone["kernels"] == own
    assert json.loads(alone["inputs"]).keys() == {"snapshots", "hessian"}
    assert made("a", "c") == alone | {"kernels": "; ".join(sorted([own, "others"]))}


def test_what_a_tile_depends_on_is_no_more_than_it_needs():
    """And what the landscape does has nothing of how it is cut."""
    config = completed() | {"estimator": "full"}
    names = {"model": "cnn-16", "optimizer": "momentum", "seed": "0", "tile": "2", "tiles": "3"}
    before = sections.landscape(config, SimpleNamespace(**names))
    tile = sections.tile(config, SimpleNamespace(**names))
    assert (tile["tile"], tile["tiles"]) == (2, 3)
    assert "estimator" not in tile
    config["landscape"] |= {"tiles": 3, "persistence": 1.0}
    assert sections.landscape(config, SimpleNamespace(**names)) == before
    assert "tiles" not in before["landscape"]
    config["landscape"]["stencils"] = 7
    assert sections.tile(config, SimpleNamespace(**names)) == tile
    config["landscape"]["rise"] = 0.5
    assert sections.tile(config, SimpleNamespace(**names)) != tile
