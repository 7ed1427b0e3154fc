"""The same tensors come from every kind of file, of maps only what is asked for, and what cannot be
data is named."""

import hashlib
import io
import pickle
import re
import resource
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets

from lossgeo import checks, digest, own_data, probe, study
from lossgeo.arrays import ARRAYS, NPY, as_tensors, fault, kind_of, open_split, outputs_of, shape_of
from lossgeo.data import DATASETS, FILES, DataError, check_files, fetch, sha256

from .configs import CONFIG, completed, idx
from .test_data import send, serve  # noqa: F401 (a fixture)

SPEC = {"mean": 0.3, "std": 0.2, "train_samples": 5, "test_samples": None}


@pytest.fixture
def images(rng) -> dict[str, np.ndarray]:
    """Six training and four test images of 5 x 4 pixels, three classes."""
    return {
        "inputs": rng.integers(0, 256, (6, 5, 4), dtype=np.uint8),
        "targets": np.array([0, 1, 2, 0, 1, 2], np.uint8),
        "test_inputs": rng.integers(0, 256, (4, 5, 4), dtype=np.uint8),
        "test_targets": np.array([2, 1, 0, 1], np.uint8),
    }


def write(folder: Path, arrays: dict[str, np.ndarray], kind: str) -> list[Path]:
    """The arrays in files of a kind, as `open_split` takes them."""
    if kind in ("npz", "compressed npz"):
        save = np.savez if kind == "npz" else np.savez_compressed
        save(folder / "data.npz", **arrays)
        return [folder / "data.npz"]
    files = [folder / name for name in (NPY if "npy" in kind else FILES)]
    for path, name in zip(files, ARRAYS, strict=True):
        if kind == "idx":
            path.write_bytes(idx(arrays[name]))
        else:
            np.save(path, np.asarray(arrays[name], order="F" if "Fortran" in kind else "C"))
    return files


@pytest.mark.parametrize("kind", ["npz", "compressed npz", "npy", "npy in Fortran's order"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_same_tensors_come_from_every_kind_of_file(tmp_path, images, kind, split):
    (tmp_path / "idx").mkdir()
    expected = write(tmp_path / "idx", images, "idx")
    found = write(tmp_path, images, kind)
    for samples, seed in ((None, None), (3, 1)):
        a, b = (
            probe.load_split(files, SPEC, split, samples, seed=seed) for files in (expected, found)
        )
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
        assert (b[0].dtype, b[1].dtype) == (torch.float32, torch.int64)
    assert probe.load_shape(found) == probe.load_shape(expected) == ((1, 5, 4), 3)


def test_what_is_done_to_tensors_of_a_map_leaves_its_file_as_it_is(tmp_path, rng):
    arrays = {name: rng.normal(size=(4, 3)).astype(np.float32) for name in ARRAYS}
    (path,) = write(tmp_path, arrays, "npz")
    before = sha256(path)
    spec = SPEC | {"mean": None, "std": None, "train_samples": None}
    inputs, targets = probe.load_split([path], spec, "train")
    inputs.zero_()
    targets.zero_()
    assert sha256(path) == before
    np.testing.assert_array_equal(open_split([path], "train")[0], arrays["inputs"])


def test_of_a_map_larger_than_memory_the_chosen_samples_alone_are_read(tmp_path):
    """400 GB of float32, nearly all of them a hole in the file."""
    files = [tmp_path / name for name in NPY]
    for inputs, targets in (files[:2], files[2:]):
        with open(inputs, "wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (100_000, 1_000_000)}
            np.lib.format.write_array_header_1_0(file, header)
            file.truncate(file.tell() + 4 * 10**11)
        np.save(targets, np.arange(100_000) % 7)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    spec = SPEC | {"mean": None, "std": None, "train_samples": None}
    inputs, targets = probe.load_split(files, spec, "train", 3, seed=0)
    assert inputs.shape == (3, 1_000_000)
    assert len(targets) == 3
    assert probe.load_shape(files) == ((1_000_000,), 7)
    whole, _ = probe.load_split(files, spec, "train")  # opened, and read where it is indexed
    assert whole[[5, 99_999], -1].tolist() == [0, 0]
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 300_000, "KB"


def test_images_of_three_channels_are_normalised_channel_by_channel(rng):
    pixels = rng.integers(0, 256, (4, 3, 6, 5), dtype=np.uint8)
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]
    inputs, _ = as_tensors(pixels, np.zeros(4, np.int32), mean, std)
    for channel in range(3):
        expected = (pixels[:, channel] / 255 - mean[channel]) / std[channel]
        np.testing.assert_allclose(inputs[:, channel], expected, rtol=1e-5, atol=1e-6)
    assert shape_of(pixels) == (3, 6, 5)


def test_numbers_stay_as_they_are_unless_they_are_to_be_normalised(rng):
    numbers, targets = rng.normal(size=(5, 3)), rng.normal(size=5)
    inputs, y = as_tensors(numbers, targets)
    np.testing.assert_array_equal(inputs, numbers.astype(np.float32))
    np.testing.assert_array_equal(y, targets.astype(np.float32))
    inputs, _ = as_tensors(numbers, targets, [1, 2, 3], 2.0)
    np.testing.assert_allclose(inputs, (numbers - [1, 2, 3]) / 2, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint16, np.int64])
def test_tokens_stay_integers(tmp_path, rng, kind):
    arrays = {name: rng.integers(0, 20, (6, 9)).astype(kind) for name in ARRAYS}
    arrays["test_inputs"][2, 3] = 30  # of all arrays the largest
    files = write(tmp_path, arrays, "npz")
    spec = SPEC | {"mean": None, "std": None, "train_samples": None}
    inputs, targets = probe.load_split(files, spec, "train")
    assert (inputs.dtype, targets.dtype) == (torch.int64, torch.int64)
    np.testing.assert_array_equal(inputs, arrays["inputs"])
    np.testing.assert_array_equal(targets, arrays["targets"])
    assert probe.load_shape(files) == ((9,), 31)


@pytest.mark.parametrize(
    ("targets", "kind", "outputs"),
    [
        (np.array([0, 4, 1]), "classes", 7),
        (np.zeros((3,), np.float32), "numbers", 1),
        (np.zeros((3, 2)), "numbers", 2),
        (np.zeros((3, 9), np.int64), "tokens", 20),
    ],
)
def test_a_network_has_as_many_outputs_as_the_targets_ask_for(targets, kind, outputs):
    inputs = np.full((3, 9), 19)
    others = targets + 2 if kind == "classes" else targets
    assert kind_of(targets) == kind
    assert outputs_of([(inputs, targets), (inputs, others)]) == outputs


def sound() -> dict[str, np.ndarray]:
    classes = np.array([0, 1, 0, 1])
    numbers = np.zeros((4, 3), np.float32)
    return dict(zip(ARRAYS, (numbers, classes, numbers, classes), strict=True))


FAULTS = {
    "complex": ({"inputs": np.zeros((4, 3), complex)}, "inputs holds values of type complex128"),
    "one number": ({"targets": np.array(3)}, r"targets has the shape \(\)"),
    "nothing": ({"test_inputs": np.zeros((0, 3))}, r"test_inputs has the shape \(0, 3\)"),
    "fewer": ({"test_targets": np.array([0, 1])}, "test_inputs holds 4 .* test_targets 2"),
    "kinds": ({"test_inputs": np.zeros((4, 3), int)}, r"float32 .* test_inputs int64"),
    "infinite": ({"inputs": np.full((4, 3), -np.inf)}, "inputs holds -inf in sample 0"),
    "negative": ({"test_targets": np.array([0, 1, 1, -100])}, "holds -100 in sample 3"),
    "one class": ({"targets": np.array([5, 5, 5, 5])}, "single label 5"),
    "gaps": ({"targets": np.array([0, 1, 1, 99])}, "100 classes, but only 3 of them occur"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_arrays_is_named(name):
    assert fault(sound()) is None
    change, message = FAULTS[name]
    found = fault(sound() | change)
    assert found is not None
    assert re.search(message, found), found


# CIFAR's batches


def batch(images: np.ndarray, labels: list[int], key: str = "labels") -> bytes:
    return pickle.dumps({"data": images.reshape(len(images), -1), key: labels}, protocol=2)


@pytest.fixture
def cifar(rng, monkeypatch) -> dict[str, bytes]:
    """Batches of three images each, under the name cifar-10."""
    names = list(DATASETS["cifar-10"].sha256)
    contents = {
        name: batch(rng.integers(0, 256, (3, 3, 32, 32), dtype=np.uint8), [n, 1, 2])
        for n, name in enumerate(names)
    }
    digests = {
        name: f"md5:{hashlib.md5(content).hexdigest()}" for name, content in contents.items()
    }
    known = replace(DATASETS["cifar-10"], sha256=digests)
    monkeypatch.setitem(DATASETS, "cifar-10", known)
    return contents


def test_batches_of_cifar_are_read_as_torchvision_reads_them(tmp_path, cifar):
    for name, content in cifar.items():
        (tmp_path / name).write_bytes(content)
    files = [tmp_path / name for name in cifar]
    for split, names in (("train", list(cifar)[:-1]), ("test", list(cifar)[-1:])):
        images, labels = open_split(files, split)
        batches = [pickle.loads(cifar[name]) for name in names]
        theirs = np.vstack([b["data"] for b in batches]).reshape(-1, 3, 32, 32)
        np.testing.assert_array_equal(images, theirs)
        assert labels.tolist() == [label for b in batches for label in b["labels"]]
    assert probe.load_shape(files) == ((3, 32, 32), 6)


def test_a_batch_that_would_run_code_is_refused(tmp_path):
    class Runs:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    files = [tmp_path / "train", tmp_path / "test"]
    for path in files:
        path.write_bytes(pickle.dumps({"data": Runs(), "fine_labels": [0]}, protocol=2))
    with pytest.raises(DataError, match="expected arrays of numbers alone"):
        open_split(files, "train")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("is_whole", [True, False])
def test_cifar_is_fetched_as_one_archive(tmp_path, cifar, serve, monkeypatch, is_whole):  # noqa: F811
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in cifar.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    content = packed.getvalue()
    (tmp_path / "packed").write_bytes(content)
    known = replace(DATASETS["cifar-10"], archive=sha256(tmp_path / "packed"))
    monkeypatch.setitem(DATASETS, "cifar-10", known)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    url = serve(lambda request, _: send(request, content if is_whole else content[:-9] + b"x" * 9))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", f"{url}cifar-10-python.tar.gz")
    if is_whole:
        assert fetch("cifar-10", tmp_path / "new", "auto", stall=2, limit=5) == "mirror"
        check_files(tmp_path / "new", known.sha256, list(cifar))
        (tmp_path / "new" / "test_batch").write_bytes(b"other")
        with pytest.raises(DataError, match=r"test_batch: its md5 is md5:.*expected md5:"):
            check_files(tmp_path / "new", known.sha256, list(cifar))
    else:
        with pytest.raises(DataError, match=r"mirror: .*its sha256 is.*\n.*npm: .*\n.*debian"):
            fetch("cifar-10", tmp_path / "new", "auto", stall=2, limit=5)
        assert not list((tmp_path / "new").iterdir())


# What a user's function returns

LOAD = """
import numpy, torch
def load(n=4, scale=1.0, file=None):
    random = numpy.random.default_rng(0)
    inputs = scale * random.normal(size=(n, 3))
    return inputs, torch.arange(n) % 2, torch.ones(n, 3, dtype=torch.float64), numpy.arange(n) % 2
"""


@pytest.fixture
def load(tmp_path, monkeypatch) -> str:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "data_of_a_test.py").write_text(LOAD)
    yield "data_of_a_test:load"
    sys.modules.pop("data_of_a_test", None)


def test_what_a_function_returns_is_kept_as_it_is(tmp_path, load):
    own_data.bring(load, {"n": 5, "scale": 2.0}, tmp_path / "made")
    files = [tmp_path / "made" / name for name in NPY]
    inputs, targets = open_split(files, "train")
    np.testing.assert_array_equal(inputs, 2 * np.random.default_rng(0).normal(size=(5, 3)))
    assert targets.tolist() == [0, 1, 0, 1, 0]
    assert {p.name for p in (tmp_path / "made").iterdir()} == set(NPY)


def test_a_call_is_another_with_other_code_arguments_or_files(tmp_path, load):
    def key(**arguments) -> str:
        digest._factory_digests.cache_clear()
        digest._source.cache_clear()
        return digest.call_digest(load, arguments)

    (tmp_path / "table.csv").write_text("1,2")
    first, of_file = key(n=4), key(n=4, file="table.csv")
    assert key(n=4) == first
    assert len({first, of_file, key(n=5)}) == 3
    (tmp_path / "table.csv").write_text("1,2,3")
    assert key(n=4, file="table.csv") != of_file
    (tmp_path / "data_of_a_test.py").write_text(LOAD + "# a comment\n")
    assert key(n=4) == first
    (tmp_path / "data_of_a_test.py").write_text(LOAD.replace("3)", "2)"))
    assert key(n=4) != first


@pytest.mark.parametrize(
    ("section", "source", "files"),
    [
        ("name: mnist", "auto", [f"d/mnist/{name}" for name in FILES]),
        ("name: cifar-100", "auto", ["d/cifar-100/train", "d/cifar-100/test"]),
        ("name: own, source: files", "files", [f"d/own/{name}" for name in FILES]),
        ("name: own, source: npy", "npy", [f"d/own/{name}" for name in NPY]),
        ("name: own, file: some/where.npz", "npz", ["some/where.npz"]),
        ("name: mnist, source: npz, file: a.npz", "npz", ["a.npz"]),
    ],
)
def test_where_the_files_of_each_source_are(section, source, files):
    config = completed(CONFIG.replace("folder: nowhere", f"folder: d, {section}"))
    assert study.get_source(config) == source
    assert [str(path) for path in study.get_data_files(config)] == files
    assert study.is_fetched(config) == (source == "auto")


def test_what_a_function_returned_lies_in_a_folder_of_its_call(load):
    data = {"folder": "d", "name": "own", "source": "auto", "factory": load, "arguments": {"n": 4}}
    folder = study.get_data_folder({"data": data})
    assert folder.parent == Path("d/own")
    assert folder.name == digest.call_digest(load, {"n": 4})[:16]


TOKENS = """
import numpy, torch
def load():
    ids = numpy.random.default_rng(0).integers(0, 7, (20, 5))
    return ids, ids[:, 0] % 2, ids[:8], ids[:8, 0] % 2
def build(input_shape, outputs, vocabulary):
    return torch.nn.Sequential(
        torch.nn.Embedding(vocabulary, 3), torch.nn.Flatten(), torch.nn.Linear(15, outputs)
    )
"""


def test_a_function_is_called_before_any_job_and_its_samples_try_the_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tokens_of_a_test.py").write_text(TOKENS)
    monkeypatch.syspath_prepend(tmp_path)
    text = CONFIG.replace("folder: nowhere", 'name: own, factory: "tokens_of_a_test:load"')
    config = completed(text) | {
        "models": {
            name: {"factory": "tokens_of_a_test:build", "arguments": {"vocabulary": vocabulary}}
            for name, vocabulary in (("mlp-128", 7), ("small", 2))
        }
    }
    config["experiments"] = {"optimizer": config["experiments"]["optimizer"]}
    checks.check(config)
    assert not checks.has_data(config)
    checks.bring_data(config)
    assert checks.has_data(config)
    assert probe.load_shape(study.get_data_files(config)) == ((5,), 2)
    assert set(study.get_data_spec(config)["sha256"]) == set(NPY)
    with pytest.raises(checks.ConfigError, match=r"models\.small: .*IndexError"):
        checks.check_models(config, {})
