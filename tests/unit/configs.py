"""A small config that asks for two experiments, and data of a user's own."""

import atexit
import json
import shutil
import struct
import tempfile
from pathlib import Path

import numpy as np
import yaml

from lossgeo import checks, study
from lossgeo.data import FILES

ROOT = Path(__file__).parents[2]


def as_json(path: Path) -> Path:
    """A copy of a schema until the tests end: Snakemake reads JSON ten times as fast as YAML."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    copy = folder / path.with_suffix(".json").name
    copy.write_text(json.dumps(yaml.safe_load(path.read_text())))
    return copy


SCHEMA = as_json(ROOT / "workflow" / "schemas" / "config.schema.yaml")

CONFIG = """
data: {folder: nowhere}
connectivity: {at: [epoch12]}
seeds: [0, 1, 2, 5, 7]
models:
  mlp-32: {family: mlp, width: 32}
  mlp-128: {family: mlp, width: 128}
  cnn-16: {family: cnn, width: 16}
optimizers:
  sgd: {name: SGD, lr: 0.1}
  momentum: {name: SGD, lr: 0.01, momentum: 0.9}
experiments:
  architecture:
    models: [mlp-32, mlp-128, cnn-16]
    optimizers: [momentum]
    epochs: published
    points: [matched, epoch12]
    stages: [landscape, hessian, flatness, trajectory, connectivity]
  optimizer:
    models: [mlp-128]
    optimizers: [sgd, momentum]
    epochs: 20
    points: [epoch5, final]
    stages: [landscape, hessian]
"""


def completed(text: str = CONFIG) -> dict:
    """The config with the schema's defaults, as the workflow completes it."""
    return checks.validate(yaml.safe_load(text), SCHEMA)


def idx(values: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
    return header + values.tobytes()


def with_own_data(config: dict, folder: Path) -> dict:
    """The config with data of the user's own: 6 x 5 pixels, four classes."""
    files = folder / "own" / "mine"
    files.mkdir(parents=True)
    own = {"name": "mine", "folder": str(files.parent), "source": "files", "mean": 0.5, "std": 0.2}
    config["data"] |= own
    put_data(config, "train", np.arange(8) % 4)
    put_data(config, "test", np.arange(4))
    return config


def with_fork(config: dict) -> dict:
    """mlp-128's runs are forked after none and three epochs, for two of the seeds."""
    config["experiments"]["fork"] = {
        "models": ["mlp-128"],
        "optimizers": ["momentum"],
        "epochs": 6,
        "points": ["epoch6"],
        "stages": ["instability"],
    }
    config["instability"] |= {"epochs": [0, 3], "runs": 2}
    config["connectivity"]["at"] = "last"
    return config


def put_data(config: dict, name: str, labels: np.ndarray, shape: tuple = (6, 5)) -> None:
    """Put labels, and as many images of a shape, in the place of a split's files."""
    images, targets = FILES[:2] if name == "train" else FILES[2:]
    folder = study.get_data_folder(config)
    (folder / images).write_bytes(idx(np.zeros((len(labels), *shape), np.uint8)))
    (folder / targets).write_bytes(idx(labels.astype(np.uint8)))
