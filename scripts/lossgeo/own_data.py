"""Data that a user's function returns: called, looked at, and kept as four .npy files."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lossgeo.arrays import ARRAYS, NPY, fault
from lossgeo.data import DataError
from lossgeo.models import load_factory


def bring(reference: str, arguments: Mapping[str, Any], folder: Path | str) -> None:
    """Call `package.module:function` with keyword arguments; keep what it returns in `folder`.

    It returns the inputs, targets, test inputs and test targets: arrays or tensors (`arrays.fault`
    says of what kinds). They are written as `arrays.NPY`, which appear when all four are whole. The
    function is called twice, and must return the same.

    Raises DataError, and ModelError where there is no such function.
    """
    factory, folder = load_factory(reference), Path(folder)
    returned = _call(reference, factory, arguments)
    wrong = fault(dict(zip(ARRAYS, returned, strict=True)))
    if wrong:
        raise DataError(f"{reference}: {wrong}")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as scratch:
        files = [Path(scratch) / name for name in NPY]
        for path, array in zip(files, returned, strict=True):
            np.save(path, array)
        del returned
        again = _call(reference, factory, arguments)
        for name, path, array in zip(ARRAYS, files, again, strict=True):
            if not np.array_equal(np.load(path, mmap_mode="r"), array):
                raise DataError(
                    f"{reference}: two calls returned different {name}, expected the same; draw "
                    "from a generator with a fixed seed, numpy.random.default_rng(0)"
                )
        for path in files:
            os.replace(path, folder / path.name)


def _call(reference: str, factory: Any, arguments: Mapping[str, Any]) -> list[np.ndarray]:
    try:
        returned = factory(**arguments)
    except Exception as error:
        raise DataError(
            f"{reference} failed when called with arguments={dict(arguments)}: {error!r}"
        ) from error
    expected = f"expected four arrays or tensors: {', '.join(ARRAYS)}"
    if not isinstance(returned, tuple | list):
        raise DataError(f"{reference} returned a {type(returned).__name__}, {expected}")
    if len(returned) != 4:
        raise DataError(f"{reference} returned {len(returned)} things, {expected}")
    arrays = []
    for name, value in zip(ARRAYS, returned, strict=True):
        if hasattr(value, "detach"):
            value = value.detach().cpu().numpy()
        if not isinstance(value, np.ndarray):
            raise DataError(f"{reference} returned a {type(value).__name__} as {name}, {expected}")
        arrays.append(value)
    return arrays
