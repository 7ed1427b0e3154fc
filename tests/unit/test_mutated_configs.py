"""Whatever is put into a config: one line, or a study that can be done."""

import copy
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import train
from lossgeo import checks, sections, study
from lossgeo.checks import ConfigError
from lossgeo.data import FILES

from .configs import CONFIG, SCHEMA, completed, with_own_data

SOUND = [yaml.safe_load(CONFIG), completed()]

ODD = st.sampled_from(
    [
        *(None, True, False, 0, 1, 2, -1, 7, 32.0, 0.5, -0.5, 1e30, 10**30, 2**63, 1e-300),
        *(float("nan"), float("inf"), "", "x", "1", "1e-1", "mlp-32\n", "last", "final", "null"),
        *([], [[]], [None], [1], [0, 0], ["x"], ["final"], [1.5, 0.5], [{}]),
        *({}, {"x": 1}, {1: 2}, {"name": None}, {"factory": 5}, {None: {}}, {"mlp-32": 3}),
    ]
)


@st.composite
def mutated(draw, most: int = 3) -> dict:
    """A sound config with so many places changed at most: other values, keys gone, keys added."""
    config = copy.deepcopy(draw(st.sampled_from(SOUND)))
    for _ in range(draw(st.integers(1, most))):
        at = config
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(at[key], dict | list) and draw(st.integers(0, 3)):
                at = at[key]
                continue
            change = draw(st.sampled_from(["put", "put", "remove", "add"]))
            if change == "put":
                at[key] = copy.deepcopy(draw(ODD))
            elif change == "remove":
                del at[key]
            elif isinstance(at, dict):
                at[draw(st.sampled_from(["x", "nan", 1, "seeds", "factory"]))] = draw(ODD)
            else:
                at.append(copy.deepcopy(draw(ODD)))
            break
    return config


def completed_or_told(config: dict) -> dict | None:
    """The completed config; None where one line says what is wrong with it."""
    try:
        return checks.complete(config, SCHEMA)
    except ConfigError as error:
        message = str(error)
        assert message.startswith("config key ")
        assert "\n" not in message
        return None


def ask_everything(config: dict) -> None:
    """What the workflow asks of a config, in the order in which its rules do."""
    study.get_data_spec(config)
    study.get_taxonomy(config)
    study.get_planes(config)
    for name in config["experiments"]:
        study.get_shown(config, name)
        study.is_of_widths(config, name)
        study.get_shown_points(config, name)
    for stage in (None, "hessian", "landscape", "flatness", "trajectory", "published", "ladder"):
        for model, optimizer, seed in study.get_runs(config, stage):
            assert study.get_epochs(config, model, optimizer) >= 1
            study.has_matched_point(config, model, optimizer)
            if stage not in (None, "trajectory"):
                assert study.get_points(config, model, optimizer, stage)
            if stage == "ladder":
                assert study.get_ladder(config, model, optimizer)
            if stage == "flatness":
                study.get_rescaled_point(config, model, optimizer, seed)
            if stage == "published":
                study.get_last_point(study.get_published_points(config, model, optimizer))
    for pair in study.get_pairs(config):
        assert study.get_connected_points(config, pair.model, pair.optimizer, "connectivity")
        study.get_plane_points(config, pair.model, pair.optimizer)
        study.get_third_seed(config, pair.model)
    for fork in study.get_forks(config):
        shared = int(fork.b.removeprefix("fork"))
        assert study.get_fork_points(config, fork.model, fork.optimizer, shared)


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(mutated())
def test_any_config_gets_one_line_or_a_plan(config):
    made = completed_or_told(config)
    if made is not None:
        ask_everything(made)


@pytest.fixture(scope="module")
def own_data(tmp_path_factory) -> dict:
    """The section `data` of eight training and four test samples."""
    return with_own_data({"data": {}}, tmp_path_factory.mktemp("data"))["data"]


def first_job(config: dict, folder: Path) -> SimpleNamespace:
    """What Snakemake hands to the script that trains a study's first run."""
    run = study.get_runs(config)[0]
    return SimpleNamespace(
        threads=1,
        resources=SimpleNamespace(mem_mb=2000),
        input=SimpleNamespace(data=[study.get_data_folder(config) / name for name in FILES]),
        output=SimpleNamespace(snapshots=folder / "snapshots.h5", history=folder / "history.csv"),
        wildcards=SimpleNamespace(**run._asdict()),
        params=SimpleNamespace(config=sections.train(config, run), code={}),
        config=config,
    )


@settings(
    max_examples=60,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(mutated(most=1))  # a fifth of them are sound
@example(completed())
def test_a_plan_runs_its_first_job(own_data, tmp_path, config):
    if isinstance(config.get("data"), dict):
        config["data"] |= own_data
    made = completed_or_told(config)
    if made is None:
        return
    job = first_job(made, tmp_path)
    train.main(job)
    history = pd.read_csv(job.output.history)
    assert history["diverged"].iloc[-1] or history["epoch"].iloc[-1] == job.params.config["epochs"]
    assert all(a < b for a, b in pairwise(history["step"]))
