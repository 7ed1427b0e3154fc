"""What a user starts a study of their own from, and what is said of the config and the version."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from snakemake.utils import update_config

from lossgeo import checks, registry, study
from lossgeo.models import build
from lossgeo.version import __version__

from .configs import ROOT, SCHEMA

CLAIMS = ROOT / "workflow" / "schemas" / "claims.schema.yaml"

new = runpy.run_path(str(ROOT / "scripts" / "new.py"))


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An empty folder in which a user works."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("spirals", None)


def completed(file: Path) -> dict:
    """The study's config under an overlay, as the workflow completes it; its claims are read."""
    config = checks.read_yaml(ROOT / "config.yaml")
    update_config(config, checks.read_yaml(file))
    made = checks.complete(config, SCHEMA, checks.named_experiments([file]))
    found = registry.load(made["claims"], CLAIMS, ("ladder", "curvature"))
    assert found["claims"]
    return made


def test_a_new_study_is_whole_and_its_network_takes_its_data(home):
    new["write_study"]("spirals", home)
    config = completed(home / "spirals.yaml")
    assert config["results"] == "results/spirals"
    assert {run.model for run in study.get_runs(config)} == {"spirals"}
    import spirals

    inputs, targets, *_ = spirals.load(**config["data"]["arguments"])
    model = build(config["models"]["spirals"], inputs.shape[1:], int(targets.max()) + 1)
    import torch

    assert model(torch.from_numpy(inputs)).shape == (len(targets), 3)
    assert all(np.array_equal(a, b) for a, b in zip(spirals.load(), spirals.load(), strict=True))


def test_what_is_written_is_formatted(home):
    new["write_study"]("spirals", home)
    assert "mine" not in (home / "spirals.yaml").read_text()
    ruff, config = Path(sys.executable).with_name("ruff"), ROOT / "pyproject.toml"
    for check in (["check"], ["format", "--check"]):
        command = [ruff, *check, "--quiet", "--no-cache", "--config", config, "spirals.py"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_is_overwritten(home):
    (home / "spirals.py").write_text("precious")
    with pytest.raises(SystemExit, match=r"spirals\.py is there already"):
        new["write_study"]("spirals", home)
    assert [path.name for path in home.iterdir()] == ["spirals.py"]
    assert (home / "spirals.py").read_text() == "precious"


@pytest.mark.parametrize("name", ["", "my-study", "1st", "lambda", "nan", "torch", "../up"])
def test_a_name_that_cannot_be_a_module_is_refused(home, name):
    with pytest.raises(SystemExit, match="NAME: found"):
        new["write_study"](name, home)
    assert not list(home.iterdir())


def test_the_template_is_a_study_where_it_lies(monkeypatch):
    """As `snakedeploy` brings it: config/config.yaml names mine.py beside it, and its claims."""
    monkeypatch.chdir(ROOT)
    config = completed(ROOT / "config" / "config.yaml")
    module = config["models"]["mine"]["factory"].partition(":")[0]
    assert (ROOT / "config" / f"{module}.py").is_file()


def test_the_page_of_keys_is_what_the_schema_says():
    keys = runpy.run_path(str(ROOT / "docs" / "keys.py"))
    schema = yaml.safe_load(keys["SCHEMA"].read_text())
    is_current = keys["PAGE"].read_text() == keys["page"](schema)
    assert is_current, "config/README.md is out of date: run python docs/keys.py"
    documented = keys["PAGE"].read_text()
    assert all(f"## `{name}`" in documented for name in schema["properties"])


def test_citation_and_changelog_are_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__
    assert citation["license"] == "MIT"
    released = citation["date-released"]
    assert f"## {__version__} ({released})" in (ROOT / "CHANGELOG.md").read_text()
