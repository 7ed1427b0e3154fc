"""Surfaces in tiles: which points each has, their losses, and all of them put together.

Points go through a network CHUNK at a time (`span.summaries`), and to the bit their losses depend
on which these are. Tiles are therefore cut between chunks alone: the same kernels then run on the
same shapes in whichever tile, and tiles put together are the surfaces, bit for bit on one kind of
CPU.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from lossgeo import multilevel, store
from lossgeo.multilevel import Levels
from lossgeo.objective import Objective
from lossgeo.span import CHUNK, at_first, spanned, summaries
from lossgeo.store import Group, Variable
from lossgeo.views import KINDS, Surface, layout

MEASURED = {
    "loss": ("nats", "mean cross-entropy"),
    "loss_se": ("nats", "standard error of the loss over the samples"),
    "rise_se": ("nats", "standard error of loss minus loss at the centre, on the same samples"),
    "accuracy": ("1", "fraction classified correctly"),
}


class Piece(NamedTuple):
    """Points of one surface that belong to one tile: flat indices of its grid, row-major."""

    point: str  # of the run
    kind: str  # of surface
    surface: int  # index among those of its kind
    start: int
    stop: int

    @property
    def group(self) -> str:
        """Where a tile's file has them."""
        return f"{self.point}/{self.kind}/{self.surface}"


def cut(points: Sequence[str], settings: Mapping, tiles: int) -> list[list[Piece]]:
    """The pieces of each of `tiles` tiles: together every surface at every point of a run, once.

    A chunk goes to the tile in which its first grid point lies where all are counted through, so
    that tiles differ by no more than a chunk. Where there are fewer chunks than tiles, some tiles
    are empty. `settings` is the section `landscape` of a config.
    """
    chunks = []
    for point in points:
        for kind in KINDS:
            count, size = _shape(kind, settings)
            chunks += [
                Piece(point, kind, surface, start, min(start + CHUNK, size))
                for surface in range(count)
                for start in range(0, size, CHUNK)
            ]
    sizes = [chunk.stop - chunk.start for chunk in chunks]
    places = (np.cumsum(sizes) - sizes) * tiles // sum(sizes)
    cuts: list[list[Piece]] = [[] for _ in range(tiles)]
    pairs = zip(places, chunks, strict=True)
    for (tile, _), found in groupby(pairs, key=lambda pair: (pair[0], pair[1].group)):
        pieces = [piece for _, piece in found]
        cuts[tile].append(pieces[0]._replace(stop=pieces[-1].stop))
    return cuts


def measure(
    objective: Objective, theta: Tensor, surface: Surface, start: int, stop: int
) -> dict[str, np.ndarray]:
    """MEASURED (stop - start,) at so many points of a surface, `start` a multiple of CHUNK."""
    losses = spanned(objective, (theta, *surface.axes))
    indices = np.arange(start, stop)
    at = np.unravel_index(indices, [len(axis) for axis in surface.grid])
    coordinates = [axis[index] for axis, index in zip(surface.grid, at, strict=True)]
    coefficients = np.stack([np.ones(len(indices)), *coordinates], axis=1)
    return summaries(losses, coefficients, at_first(losses, 1 + len(surface.axes)))


def group(piece: Piece, values: Mapping[str, np.ndarray]) -> Group:
    """A piece's losses as a tile's file has them."""
    indices = np.arange(piece.start, piece.stop)
    variables = {"index": Variable(("index",), indices, "1", "of the grid point, row-major")}
    for name, description in MEASURED.items():
        variables[name] = Variable(("index",), values[name], *description)
    return Group(variables)


def join(
    files: Sequence[Path | str], points: Sequence[str], settings: Mapping
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Point -> kind of surface -> MEASURED (K, grid points) of its K surfaces, from all tiles.

    `files` are those of all tiles, in their order. Raises ValueError where one has other points
    of a surface than `cut` says, and KeyError where it has none of them.
    """
    joined = {
        point: {
            kind: {name: np.full(_shape(kind, settings), np.nan) for name in MEASURED}
            for kind in KINDS
        }
        for point in points
    }
    for file, pieces in zip(files, cut(points, settings, len(files)), strict=True):
        for piece in pieces:
            found = store.read(file, piece.group).variables
            indices = found["index"].values
            if not np.array_equal(indices, np.arange(piece.start, piece.stop)):
                raise ValueError(f"{file} has other points of {piece.group} than its tile")
            for name in MEASURED:
                row = joined[piece.point][piece.kind][name][piece.surface]
                row[indices] = found[name].values
    return joined


def whole(
    values: Mapping[str, np.ndarray], grid: Sequence[np.ndarray]
) -> tuple[dict[str, np.ndarray], Levels]:
    """What `multilevel.estimate` returns of K surfaces whose MEASURED (K, points) are all known."""
    return multilevel.estimate(
        lambda points: {name: rows[:, points] for name, rows in values.items()},
        grid,
        np.zeros(len(values["loss"])),  # what rises count from plays no part where all are known
        estimator="full",
        generator=np.random.default_rng(0),  # nor does it draw anything
    )


def _shape(kind: str, settings: Mapping) -> tuple[int, int]:
    """How many surfaces of a kind there are at a point, and how many points each has."""
    count, grid = layout(kind, settings)
    return count, int(np.prod([len(axis) for axis in grid]))
