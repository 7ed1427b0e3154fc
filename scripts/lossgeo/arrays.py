"""The arrays of a data set, whatever files hold them: .npy, .npz, CIFAR's batches, or IDX.

A data set has four, ARRAYS: the inputs and the targets of two splits. What they may be is in
`kind_of`. From .npy files, and from members of an .npz that are not compressed, only the samples
that are asked for are read.
"""

import codecs
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lossgeo.data import DataError, load
from lossgeo.records import LARGE

if TYPE_CHECKING:
    from torch import Tensor

ARRAYS = ("inputs", "targets", "test_inputs", "test_targets")
NPY = tuple(f"{name}.npy" for name in ARRAYS)
OF_SPLIT = {"train": ARRAYS[:2], "test": ARRAYS[2:]}


def open_split(files: Sequence[Path | str], split: str) -> tuple[np.ndarray, np.ndarray]:
    """Inputs (n, ...) and targets (n, ...) of a split, as they are stored.

    `files` are one .npz, the four of NPY, those of CIFAR, or the four of `data.FILES`, in their
    order. Memory maps where the format allows it. Raises DataError where the files do not hold two
    arrays of numbers, as many of the one as of the other.
    """
    first = Path(files[0])
    if first.suffix == ".npz":
        inputs, targets = (_read_member(first, name) for name in OF_SPLIT[split])
    elif first.suffix == ".npy":
        inputs, targets = (_read_npy(file) for file in _halves(files, split))
    elif first.name in ("train", "data_batch_1"):
        inputs, targets = _read_batches(files[:-1] if split == "train" else files[-1:])
    else:
        return load(*_halves(files, split))
    if len(inputs) != len(targets):
        names = OF_SPLIT[split]
        raise DataError(
            f"{first if first.suffix == '.npz' else first.parent}: {names[0]} holds {len(inputs)} "
            f"samples and {names[1]} {len(targets)}, expected as many"
        )
    return inputs, targets


def kind_of(array: np.ndarray) -> str:
    """What an array of inputs or targets holds, by its type and axes.

    "images": unsigned bytes (n, height, width) or (n, channels, height, width); "numbers": floating
    point; "classes": integers (n,); "tokens": integers of any other shape, as (n, length).
    """
    if array.dtype == np.uint8 and array.ndim in (3, 4):
        return "images"
    if np.issubdtype(array.dtype, np.floating):
        return "numbers"
    return "classes" if array.ndim == 1 else "tokens"


def shape_of(inputs: np.ndarray) -> tuple[int, ...]:
    """The shape of one input as a network gets it: images have channels."""
    is_gray = kind_of(inputs) == "images" and inputs.ndim == 3
    return (1, *inputs.shape[1:]) if is_gray else tuple(inputs.shape[1:])


def outputs_of(splits: Sequence[tuple[np.ndarray, np.ndarray]]) -> int:
    """How many outputs a network has for a sample, or for each token.

    Classes: the largest label of all splits + 1. Numbers: the entries of one target. Tokens: the
    largest id, of targets and of inputs, + 1.
    """
    targets = splits[0][1]
    kind = kind_of(targets)
    if kind == "numbers":
        return int(np.prod(targets.shape[1:], dtype=int))
    counted = [targets for _, targets in splits]
    if kind != "classes":
        counted += [inputs for inputs, _ in splits if kind_of(inputs) in ("classes", "tokens")]
    return max(int(array.max()) for array in counted) + 1


def fault(arrays: Mapping[str, np.ndarray], shown: Mapping[str, str] | None = None) -> str | None:
    """What is wrong with the four arrays of a data set, in words; None: nothing.

    Each holds finite floating-point numbers or integers, of at least one sample; those of a split
    as many; those of both splits samples of one shape and kind. Classes count from 0, two of them
    at least, and no more than twice as many as occur; token ids count from 0. `shown` has other
    names for the arrays.
    """
    names = {name: (shown or {}).get(name, name) for name in ARRAYS}
    for name, array in arrays.items():
        if array.dtype.kind not in "uif":
            return f"{names[name]} holds values of type {array.dtype}, expected numbers"
        if not array.ndim or not array.size:
            return (
                f"{names[name]} has the shape {array.shape}, expected samples along its first axis"
            )
    for inputs, targets in OF_SPLIT.values():
        if len(arrays[inputs]) != len(arrays[targets]):
            return (
                f"{names[inputs]} holds {len(arrays[inputs])} samples and {names[targets]} "
                f"{len(arrays[targets])}, expected as many"
            )
    for train, test in zip(*OF_SPLIT.values(), strict=True):
        a, b = arrays[train], arrays[test]
        if a.shape[1:] != b.shape[1:] or kind_of(a) != kind_of(b):
            return (
                f"{names[train]} holds {a.dtype} samples of shape {a.shape[1:]} and {names[test]} "
                f"{b.dtype} ones of {b.shape[1:]}, expected the same of both"
            )
    for name, array in arrays.items():
        sample = _find(array, lambda x: ~np.isfinite(x) if x.dtype.kind == "f" else x < 0)
        if sample is not None:
            kind = {"numbers": "finite numbers", "classes": "classes counted from 0"}
            return (
                f"{names[name]} holds {_first_bad(array[sample])} in sample {sample}, expected "
                f"{kind.get(kind_of(array), 'ids counted from 0')}"
            )
    if kind_of(arrays["targets"]) != "classes":
        return None
    present = np.unique(np.concatenate([arrays["targets"], arrays["test_targets"]]))
    classes = int(present[-1]) + 1
    if len(np.unique(arrays["targets"])) < 2:
        return (
            f"{names['targets']} has the single label {arrays['targets'][0]}, expected two classes "
            "or more"
        )
    if 2 * len(present) < classes:
        return (
            f"the labels of {names['targets']} and {names['test_targets']} go up to "
            f"{classes - 1}, which makes {classes} classes, but only {len(present)} of them occur; "
            "expected labels from 0 on without large gaps"
        )
    return None


def _find(array: np.ndarray, is_bad: Callable[[np.ndarray], np.ndarray]) -> int | None:
    """The first sample with a bad value; a part of the array is read at a time."""
    if array.dtype.kind == "u":
        return None
    step = max(1, 2**24 // max(1, array[:1].size))
    for start in range(0, len(array), step):
        bad = is_bad(array[start : start + step])
        if bad.any():
            return start + int(bad.reshape(len(bad), -1).any(1).argmax())
    return None


def _first_bad(sample: np.ndarray) -> Any:
    values = np.ravel(sample)
    return values[~np.isfinite(values) | (values < 0 if sample.dtype.kind != "f" else False)][0]


def as_tensors(
    inputs: np.ndarray,
    targets: np.ndarray,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
) -> tuple["Tensor", "Tensor"]:
    """Inputs (n, ...) as a network gets them and targets as a loss does: float32, or int64.

    Images are scaled to [0, 1]. Where mean and std are given, of all values or of each channel
    (the second axis), images and numbers are then (x - mean) / std. Integers stay what they are.
    """
    import torch

    y = _as_stored(targets)
    kind = kind_of(inputs)
    if kind in ("classes", "tokens") or (kind == "numbers" and mean is None):
        return _as_stored(inputs), y
    x = torch.from_numpy(inputs.astype(np.float32)).view(len(inputs), *shape_of(inputs))
    if kind == "images":
        x.div_(255)
    if mean is None:
        return x, y
    mean, std = (
        torch.tensor(value, dtype=torch.float32).view(-1, *[1] * (x.ndim - 2))
        if isinstance(value, Sequence)
        else value
        for value in (mean, std)
    )
    return x.sub_(mean).div_(std), y


def _as_stored(values: np.ndarray) -> "Tensor":
    """float32 or int64; of an array of LARGE bytes or more that is that already no copy.

    Such a tensor is of a map, of which what is indexed is read; it must not be written into.
    """
    import torch

    kind = np.float32 if kind_of(values) == "numbers" else np.int64
    if values.dtype != kind or values.nbytes < LARGE:
        return torch.from_numpy(np.require(values, kind, ("C", "W")))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def _halves(files: Sequence[Path | str], split: str) -> Sequence[Path | str]:
    return files[:2] if split == "train" else files[2:]


def _read_npy(path: Path | str) -> np.ndarray:
    """A .npy file as a memory map."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: {_no_numbers(error)}") from error


def _read_member(path: Path, name: str) -> np.ndarray:
    """An array of an .npz file; a memory map unless it is compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [member.removesuffix(".npy") for member in archive.namelist()]
            if name not in names:
                raise DataError(
                    f"{path}: found the arrays {', '.join(names) or '(none)'}, expected "
                    f"{', '.join(ARRAYS)}"
                )
            info = archive.getinfo(f"{name}.npy")
            if info.compress_type != zipfile.ZIP_STORED:
                with archive.open(info) as member:
                    return np.lib.format.read_array(member, allow_pickle=False)
            with archive.open(info) as member:
                shape, is_fortran, dtype = _read_header(member)
                start = member.tell()
        if dtype.hasobject:
            raise ValueError("Object arrays cannot be loaded when allow_pickle=False")
        with open(path, "rb") as file:  # its own header may be longer than the directory says
            file.seek(info.header_offset + 26)
            lengths = int(np.fromfile(file, "<u2", 2).sum())
        if 0 in shape:
            return np.empty(shape, dtype)
        offset = info.header_offset + 30 + lengths + start
        return np.memmap(path, dtype, "r", offset, shape, order="F" if is_fortran else "C")
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}, array {name}: {_no_numbers(error)}") from error


def _read_header(member) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(member)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(member)
    return np.lib.format.read_array_header_2_0(member)


def _no_numbers(error: Exception) -> str:
    if "Object arrays" in str(error):
        return (
            "it holds Python objects (dtype object), expected numbers: arrays of different lengths "
            "make one of objects; pad them"
        )
    return f"it cannot be read as an array ({error})"


class _ArraysOnly(pickle.Unpickler):
    """Reads pickled dicts, lists, text, numbers and NumPy arrays, and runs nothing else."""

    KNOWN: Mapping[tuple[str, str], Any] = {
        ("multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],  # wherever NumPy has it
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("_codecs", "encode"): codecs.encode,  # of bytes, where Python 3 wrote them
    }

    def find_class(self, module: str, name: str) -> Any:
        known = self.KNOWN.get((module.rpartition(".")[2], name))
        if known is None:
            raise pickle.UnpicklingError(f"found {module}.{name}, expected arrays of numbers alone")
        return known


def _read_batches(files: Sequence[Path | str]) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, 32, 32) uint8 and labels (n,) of CIFAR's batches, one after the other."""
    batches = []
    for path in files:
        try:
            with open(path, "rb") as file:
                batch = _ArraysOnly(file, encoding="latin1").load()  # as Python 2 wrote it
            labels = batch["fine_labels"] if "fine_labels" in batch else batch["labels"]
            batches.append((batch["data"].reshape(-1, 3, 32, 32), np.array(labels, np.int64)))
        except Exception as error:  # what a damaged pickle raises can be anything
            raise DataError(f"{path} is no batch of CIFAR's Python version ({error})") from error
    images, classes = zip(*batches, strict=True)
    return np.concatenate(images), np.concatenate(classes)
