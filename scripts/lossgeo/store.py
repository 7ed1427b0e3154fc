"""HDF5 artefacts: named dimensions, units, provenance, and the same bytes for the same content.

A file opens in h5py and, group by group, in xarray (`xarray.open_dataset(path, group=...,
engine="h5netcdf")`): dimensions are HDF5 dimension scales, as in netCDF-4.
"""

import json
import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import numpy as np

from lossgeo import job

if TYPE_CHECKING:
    import pandas

PACKAGES = ("h5py", "numpy", "torch")
CHUNK = 2**16  # bytes of the pieces that arrays are kept in, where a row is not longer


@dataclass(frozen=True)
class Variable:
    """An array with a name for each axis, its unit and what it is."""

    dims: tuple[str, ...]
    values: np.ndarray
    units: str  # "1" for a pure number
    description: str


@dataclass(frozen=True)
class Group:
    """Variables that share dimensions, and attributes that hold for all of them.

    A variable whose only dimension has its own name is the coordinate of that dimension;
    dimensions without one count 0, 1, 2, ...
    """

    variables: Mapping[str, Variable]
    attributes: Mapping[str, str | int | float] = field(default_factory=dict)


def provenance(
    config: Mapping,
    code: Mapping,
    inputs: Mapping[str, str],
    packages: Collection[str] = (),
    **identity,
) -> dict:
    """The root attributes of an artefact: everything its content depends on, and nothing else.

    `config` is the section of the study's config that was used, `code` maps source files to their
    digests, `inputs` maps roles ("snapshots") to the digests of the files that were read,
    `packages` are those used beside PACKAGES, and `identity` says which run this is (model,
    optimizer, seed, ...) and on which `kernels` (see `numerics.kernels`). No time, host or path
    goes in.
    """
    return {
        **identity,
        "config": json.dumps(config, sort_keys=True),
        "code": json.dumps(dict(code), sort_keys=True),
        "inputs": json.dumps(dict(inputs), sort_keys=True),
        "versions": json.dumps(
            {"python": ".".join(map(str, sys.version_info[:3]))}
            | {package: version(package) for package in (*PACKAGES, *packages)},
            sort_keys=True,
        ),
    }


def of_loss(groups: Mapping[str, Group], name: str, units: str) -> dict[str, Group]:
    """Groups that say nats and cross-entropy, of another loss in its units."""

    def renamed(variable: Variable) -> Variable:
        found = variable.units.replace("nats", units).replace("1^2", "1")
        description = variable.description.replace("cross-entropy", name)
        return replace(variable, units=found, description=description)

    return {
        path: replace(group, variables={n: renamed(v) for n, v in group.variables.items()})
        for path, group in groups.items()
    }


def write(path: Path | str, groups: Mapping[str, Group], attributes: Mapping) -> None:
    """Write an artefact; it appears under its name only when it is whole."""
    with whole_or_not(path) as beside, h5py.File(beside, "w") as file:
        file.attrs.update(attributes)
        for name, group in groups.items():
            _write_group(file.require_group(name), group)


def write_csv(table: "pandas.DataFrame", path: Path | str) -> None:
    """Write a table without its index; it appears under its name only when it is whole."""
    with whole_or_not(path) as beside:
        table.to_csv(beside, index=False, lineterminator="\n")


@contextmanager
def whole_or_not(path: Path | str) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its name when the block has ended well.

    In a job of the workflow, `job.check` may refuse that.
    """
    path = Path(path)
    beside = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        yield beside
        job.check(path)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read(path: Path | str, group: str = "/", names: Collection[str] | None = None) -> Group:
    """One group of an artefact with its variables, or those of `names`, in memory."""
    with h5py.File(path, "r") as file:
        node = file[group]
        found = [name for name in node if isinstance(node[name], h5py.Dataset)]
        return Group(
            {name: _read(node[name]) for name in found if names is None or name in names},
            {name: _plain(value) for name, value in node.attrs.items()},
        )


def read_row(path: Path | str, name: str, row: int) -> np.ndarray:
    """One row of a variable, without reading the others."""
    with h5py.File(path, "r") as file:
        return file[name][row]


def attributes(path: Path | str) -> dict:
    """The root attributes of an artefact, as plain Python values."""
    with h5py.File(path, "r") as file:
        return {name: _plain(value) for name, value in file.attrs.items()}


def subgroups(path: Path | str, group: str = "/") -> list[str]:
    """The names of the groups directly under `group`."""
    with h5py.File(path, "r") as file:
        return [name for name, node in file[group].items() if isinstance(node, h5py.Group)]


def _write_group(node: h5py.Group, group: Group) -> None:
    node.attrs.update(group.attributes)
    lengths: dict[str, int] = {}
    for name, variable in group.variables.items():
        values = np.asarray(variable.values)
        if values.ndim != len(variable.dims):
            raise ValueError(f"{name}: {values.ndim} axes, {len(variable.dims)} dimension names")
        for dim, length in zip(variable.dims, values.shape, strict=True):
            if lengths.setdefault(dim, length) != length:
                raise ValueError(
                    f"{name}: dimension {dim} is {length} here, {lengths[dim]} elsewhere"
                )
    counted = {
        dim: Variable((dim,), np.arange(length), "1", f"index of {dim}")
        for dim, length in lengths.items()
        if dim not in group.variables
    }
    for name, variable in {**counted, **group.variables}.items():
        dataset = node.create_dataset(name, data=variable.values, **_checked(variable.values))
        dataset.attrs["units"] = variable.units
        dataset.attrs["long_name"] = variable.description
        if variable.dims == (name,):
            dataset.make_scale(name)
    for name, variable in {**counted, **group.variables}.items():
        if variable.dims == (name,):
            continue
        for axis, dim in enumerate(variable.dims):
            node[name].dims[axis].attach_scale(node[dim])


def _checked(values: np.ndarray) -> dict:
    """How an array is kept: in pieces of rows, with checksums that HDF5 compares when it reads."""
    values = np.asarray(values)
    if not values.ndim or not values.size or values.dtype.kind not in "biuf":
        return {}  # these have none in HDF5
    rows = min(len(values), max(1, CHUNK * len(values) // values.nbytes))
    return {"chunks": (rows, *values.shape[1:]), "fletcher32": True}


def _read(dataset: h5py.Dataset) -> Variable:
    dims = (
        (dataset.name.rpartition("/")[2],)
        if dataset.is_scale
        else tuple(axis[0].name.rpartition("/")[2] for axis in dataset.dims)
    )
    return Variable(
        dims, np.asarray(dataset[()]), dataset.attrs["units"], dataset.attrs["long_name"]
    )


def _plain(value):
    return value.item() if isinstance(value, np.generic) else value
