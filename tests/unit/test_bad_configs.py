"""Each file of tests/configs/bad holds what its message must say, and a change of tiny.yaml that
must get that message before anything is planned."""

import copy
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from snakemake.utils import update_config

from lossgeo import checks, own_data
from lossgeo.data import FILES, DataError, read_idx
from lossgeo.models import ModelError
from workflow.conftest import write_stripes

from .configs import SCHEMA, idx

CONFIGS = Path(__file__).parents[1] / "configs"
BAD = sorted((CONFIGS / "bad").glob("*.yaml"))
BAD_MODELS = sorted((CONFIGS / "bad" / "models").glob("*.yaml"))
BAD_DATA = sorted((CONFIGS / "bad" / "data").glob("*.yaml"))

# data set -> the file of the stripes that is another, and what it holds
DATA: dict[str, tuple[int, Callable[[np.ndarray], bytes]]] = {
    "four-axes": (0, lambda images: idx(images[..., None])),
    "labels-as-images": (0, lambda images: idx(images[:, 0, 0])),
    "images-as-labels": (3, lambda labels: idx(np.stack([labels] * 3, 1)[..., None])),
    "without-images": (0, lambda images: idx(images[:0])),
    "negative-sizes": (0, lambda images: negative(idx(images))),
    "other-numbers": (0, lambda images: idx(images[1:])),
    "other-shapes": (2, lambda images: idx(images[:, 1:])),
    "label-255": (1, lambda labels: idx(np.append(labels[1:], np.uint8(255)))),
    "one-class": (1, lambda labels: idx(np.full_like(labels, 2))),
    "cut": (0, lambda images: idx(images)[:-1]),
}


def negative(content: bytes) -> bytes:
    """An IDX file with the signs of two of its sizes changed: their product stays."""
    sizes = -np.frombuffer(content, ">i4", 2, offset=4)
    return content[:4] + sizes.astype(">i4").tobytes() + content[12:]


@pytest.fixture(scope="module")
def base() -> dict:
    """The tiny config."""
    config = checks.read_yaml(CONFIGS.parents[1] / "config.yaml")
    files = [CONFIGS / "tiny.yaml"]
    update_config(config, checks.read_yaml(files[0]))
    named = checks.named_experiments(files)
    config["experiments"] = {name: config["experiments"][name] for name in named}
    return config


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A folder with the data of the tiny config, with worse data, and with users' models."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(CONFIGS.parent / "workflow" / "my_models.py", folder)
    shutil.copy(CONFIGS / "bad" / "models" / "bad_models.py", folder)
    stripes = folder / "data" / "stripes"
    write_stripes(stripes)
    for name, (number, change) in DATA.items():
        shutil.copytree(stripes, folder / "data" / name)
        path = folder / "data" / name / FILES[number]
        path.write_bytes(change(read_idx(path)))
    shutil.copytree(stripes, folder / "data" / "mnist")  # not MNIST at all
    shutil.copytree(stripes, folder / "data" / "narrow")
    for number in (0, 2):
        path = folder / "data" / "narrow" / FILES[number]
        path.write_bytes(idx(read_idx(path)[:, :3]))
    write_weights(folder)
    write_npz_files(folder / "data")
    return folder


class Command:
    """A pickle that runs a command when it is read as one."""

    def __reduce__(self):
        return os.system, ("touch ran",)


def write_weights(folder: Path) -> None:
    """Files of weights that are not those of `own`, that run code, and that are elsewhere."""
    for name in ("weights", "results/tiny"):
        (folder / name).mkdir(parents=True)
    shapes = {"1.weight": (2, 2), "1.bias": (5,), "3.weight": (3, 5), "extra": (1,)}
    torch.save({name: torch.ones(shape) for name, shape in shapes.items()}, folder / "weights/a.pt")
    torch.save({"state_dict": {}, "more": Command()}, folder / "weights/b.pt")
    for name in ("weights/c.pt", "weights/a.onnx", "results/tiny/a.pt"):
        (folder / name).touch()


def write_npz_files(folder: Path) -> None:
    """Files of 150 training and 60 test samples of 81 numbers in three classes, and worse ones."""
    random = np.random.default_rng(0)
    sound = {"inputs": random.normal(size=(150, 81)), "targets": np.arange(150) % 3}
    sound |= {"test_inputs": random.normal(size=(60, 81)), "test_targets": np.arange(60) % 3}
    nan, negative = sound["inputs"].copy(), sound["targets"].copy()
    nan[7, 3], negative[2] = np.nan, -1
    ragged = np.array([np.zeros(n % 3 + 1) for n in range(150)], dtype=object)
    tokens = {name: np.abs(array).astype(np.int64) for name, array in sound.items()}
    images = {
        name: np.zeros((len(sound[name]), 3, 9, 9), np.uint8) for name in ("inputs", "test_inputs")
    }
    changes = {
        "sound": {},
        "of-other-numbers": {"targets": sound["targets"][1:]},
        "with-nan": {"inputs": nan},
        "of-objects": {"inputs": ragged},
        "of-text": {"targets": sound["targets"].astype("U1")},
        "of-negative-labels": {"targets": negative},
        "of-other-samples": {"test_inputs": sound["test_inputs"][:, 1:]},
        "of-float-targets": {
            name: sound[name].astype(float) for name in ("targets", "test_targets")
        },
        "tokens": tokens,
        "token-targets": {
            name: array if array.ndim > 1 else np.stack([array] * 4, 1)
            for name, array in tokens.items()
        },
        "rgb": images,
    }
    for name, change in changes.items():
        np.savez(folder / f"{name}.npz", **sound | change)
    without = {name: array for name, array in sound.items() if name != "targets"}
    np.savez(folder / "without-targets.npz", **without)
    (folder / "no-zip.npz").write_text("a page of HTML")


@pytest.fixture(autouse=True)
def at_home(project, monkeypatch) -> None:
    monkeypatch.chdir(project)


def changed(base: dict, path: Path, tmp_path: Path) -> tuple[list[str], dict]:
    """What must be said of a bad config, and the config."""
    expected, _, overlay = path.read_text().partition("\n---\n")
    (tmp_path / path.name).write_text(overlay)
    config = copy.deepcopy(base)
    update_config(config, checks.read_yaml(tmp_path / path.name))
    return yaml.safe_load(expected)["expected"], config


def assert_says(message: str, expected: list[str]) -> None:
    assert "\n" not in message
    assert message.startswith(expected[0])
    for part in expected:
        assert part in message, f"{part!r} is not in: {message}"


def test_the_config_that_is_changed_is_sound(base):
    made = checks.complete(base, SCHEMA)
    assert list(made["models"]) == ["mlp-4", "cnn-2", "own"]
    assert list(made["optimizers"]) == ["momentum", "wild"]
    assert len(BAD) + len(BAD_MODELS) >= 60


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_config_is_told_what_is_wrong(base, path, tmp_path):
    expected = yaml.safe_load(path.read_text().partition("\n---\n")[0])["expected"]
    with pytest.raises(checks.ConfigError) as raised:
        checks.complete(changed(base, path, tmp_path)[1], SCHEMA)
    assert_says(str(raised.value), expected)


@pytest.mark.parametrize("path", BAD_DATA, ids=lambda path: path.stem)
def test_a_function_that_returns_no_data_is_told_why(base, path, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(path.parent)
    expected, config = changed(base, path, tmp_path)
    data = checks.complete(config, SCHEMA)["data"]
    with pytest.raises((DataError, ModelError)) as raised:
        own_data.bring(data["factory"], data.get("arguments", {}), tmp_path / "made")
    assert_says(f"config key data.factory: {raised.value}", expected)
    assert not list(tmp_path.glob("made/*"))


def test_models_that_cannot_be_used_are_told_why(base, tmp_path):
    """All in one process: it is none the worse for any of them."""
    expected, steps = {}, {}
    for path in BAD_MODELS:
        expected[path.stem], config = changed(base, path, tmp_path)
        steps[path.stem] = checks.complete(config, SCHEMA)["models"]["own"]
    steps["sound"] = base["models"]["own"]
    found = dict(zip(steps, checks.try_out(steps, (1, 9, 9), 3), strict=True))
    assert [name for name, message in found.items() if message is None] == ["sound"]
    del found["sound"]
    assert not Path("ran").exists(), "a file of weights has run a command"
    for name, message in found.items():
        assert_says(f"config key {message.replace(name, 'models.own', 1)}", expected[name])


def own(function: str) -> dict:
    return {"models.own": {"factory": f"bad_models:{function}", "arguments": {"width": 5}}}


@pytest.mark.parametrize(
    ("function", "words"),
    [("crashes", "died of signal 11 (SIGSEGV)"), ("leaves", "ended the process")],
)
def test_a_model_that_ends_its_process_is_named(function, words):
    (message,) = checks.try_out(own(function), (1, 9, 9), 3)
    assert message.startswith(f"models.own: bad_models:{function} {words}")


def test_a_model_that_hangs_is_named_and_ended_with_what_it_has_started(project):
    (message,) = checks.try_out(own("hangs"), (1, 9, 9), 3, limit=2)
    assert message == "models.own: bad_models:hangs has given no model and no gradient within 2 s"
    child = int((project / "child").read_text())
    for _ in range(100):
        state = Path(f"/proc/{child}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return
        time.sleep(0.05)
    os.kill(child, 9)
    pytest.fail("what the model has started goes on")


def test_what_a_model_prints_is_no_error():
    assert checks.try_out(own("prints_at_exit"), (1, 9, 9), 3) == [None]


def test_a_device_that_is_not_there_is_named(base):
    config = checks.complete(base | {"device": "cuda:7"}, SCHEMA)
    with pytest.raises(checks.ConfigError) as raised:
        checks.check_models(config, {})
    assert_says(str(raised.value), ["config key device: found 'cuda:7'", "CUDA devices", "auto"])


def test_an_epochs_last_batch_of_one_sample_has_no_statistics(base):
    own = base["models"]["own"] | {"statistics": "frozen"}
    training = base["training"] | {"batch_size": 149}
    config = base | {"models": base["models"] | {"own": own}, "training": training}
    with pytest.raises(checks.ConfigError, match="found 149, which leaves one of 150 training"):
        checks.check_models(config, {})
