"""A bad config stops before any job, with one line: which key, what was found, what to do.

What the line says is tested without Snakemake: unit/test_bad_configs.py.
"""

import os
import re
import zipfile

import pytest
import yaml

from workflow.conftest import RESULTS, edit_config, run, snakemake


def put(path: str, value):
    """A change of the config: the key at a dotted path gets a value."""

    def change(config: dict) -> None:
        *parents, last = path.split("/")
        for parent in parents:
            config = config.setdefault(parent, {})
        config[last] = value

    return change


def assert_one_line(done, *words: str) -> None:
    """A call that stopped says one line of its own, and no traceback."""
    message = done.stdout + done.stderr
    assert done.returncode != 0
    (line,) = [line for line in message.splitlines() if words[0] in line]
    assert line.startswith(words[0])
    for word in words:
        assert word in line
    assert "Traceback" not in message
    assert 'File "' not in message


BAD = {
    "schema": (put("models", 5), ["config key models: found 5", "object"]),
    "model": (
        put("models/own", {"factory": "my_models:two_layers", "arguments": {"depth": 3}}),
        ["config key models.own: ", "depth"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_config_stops_before_any_job(fresh, name):
    change, expected = BAD[name]
    edit_config(fresh, change)
    assert_one_line(snakemake(fresh), *expected)
    assert not (fresh / "results").exists()


def test_a_key_that_is_there_twice_is_found_in_whichever_file(fresh):
    with open(fresh / "config.yaml", "a") as file:
        file.write("seeds: [5]\n")
    assert_one_line(snakemake(fresh), "config key seeds: found twice in config.yaml")


def test_a_list_on_the_command_line_came_as_text(fresh):
    done = snakemake(fresh, "--config", "seeds=[0,1]")
    assert_one_line(done, "config key seeds.0: found '0' (text)", "--config")


def test_targets_outside_the_study_are_told_what_there_is(fresh):
    """And leave no lock behind."""
    for target, words in {
        "figures/nobody/lines.pdf": ("the experiment 'nobody'", "architecture, optimizer"),
        "runs/nobody/momentum/seed0/hessian.h5": ("the model 'nobody'", "mlp-4, cnn-2, own"),
        "pairs/own/momentum/seed0-seed5/planes.h5": ("the seed '5'", "0, 1"),
    }.items():
        done = snakemake(fresh, str(RESULTS / target))
        assert_one_line(done, "target outside the study: found", *words)
    assert not (fresh / "results").exists()
    run(fresh, "--dry-run")


def test_a_study_of_ones_own_lists_what_is_ones_own(fresh):
    """Nothing of config.yaml has to be dropped."""
    (fresh / "mine.yaml").write_text(
        """
        data: { name: stripes, folder: data, source: files, mean: 0.5, std: 0.25 }
        models: { mine: { factory: "my_models:two_layers", arguments: { width: 5 } } }
        experiments:
          mine: { models: [mine], optimizers: [sgd], epochs: 1, points: [final], stages: [] }
        """
    )
    done = snakemake(fresh, "--summary", "--configfile", "mine.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    runs = {line.split("\t")[0] for line in done.stdout.splitlines() if "/runs/" in line}
    folder = "results/runs/mine/sgd/seed{}/"
    files = ("snapshots.h5", "history.csv")
    assert runs == {folder.format(seed) + file for seed in range(10) for file in files}


def test_a_bad_registry_stops_before_any_job(fresh):
    registry = yaml.safe_load((fresh / "claims.yaml").read_text())
    registry["claims"]["sgd-sharpest"]["armed"] = []
    (fresh / "mine.yaml").write_text(yaml.safe_dump(registry))
    edit_config(fresh, put("claims", "mine.yaml"))
    words = ("mine.yaml: registry key claims.sgd-sharpest.armed", "needs")
    assert_one_line(snakemake(fresh), *words)
    assert not (fresh / "results").exists()


def test_a_factory_that_is_no_python_is_named_in_one_line(fresh):
    (fresh / "my_models.py").write_text("def two_layers(:\n")
    assert_one_line(snakemake(fresh, "--dry-run"), "config key models.own: ", "my_models")


def test_a_factory_without_source_is_refused(fresh):
    """Nobody could tell when it has changed."""
    with zipfile.ZipFile(fresh / "zipped.zip", "w") as file:
        file.write(fresh / "my_models.py", "zipped_models.py")
    edit_config(fresh, put("models/own/factory", "zipped_models:two_layers"))
    path = os.environ | {"PYTHONPATH": str(fresh / "zipped.zip")}
    done = snakemake(fresh, "--dry-run", env=path)
    assert_one_line(done, "models.own.factory: found no source of 'zipped_models:two_layers'")


@pytest.mark.parametrize("asked", [None, 4321])
def test_one_machine_is_asked_for_nine_tenths_of_its_memory_unless_told(fresh, asked):
    """So that jobs which ask for more than there is wait for each other."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e6
    arguments = ["--resources", f"mem_mb={asked}"] if asked else []
    printed = run(fresh, "estimate", *arguments)
    (given,) = re.findall(r"Provided resources: .*mem_mb\D+(\d+)", printed)
    assert int(given) == (asked or int(0.9 * total))
