"""The workflow inside another one: `module:`."""

import re
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest
from snakemake.sourcecache import GenericSourceFile, LocalGitFile, LocalSourceFile

from .conftest import ROOT, snakemake, write_stripes

SNAKEFILE = f"""
configfile: "tiny.yaml"

module lossgeo:
    snakefile: "{ROOT}/workflow/Snakefile"
    config: config

use rule * from lossgeo as geometry_*

module again:
    snakefile: "{ROOT}/workflow/Snakefile"
    config: config | {{"results": "results/again", "seeds": [3]}}

use rule * from again as again_*

rule mine:
    default_target: True
    input:
        rules.geometry_tables.input,
        "results/again/runs/own/momentum/seed3/hessian.h5",
    output: "mine.txt"
    shell: "touch {{output}}"
"""


def test_another_workflow_uses_the_rules_under_its_own_names_and_with_its_own_config(tmp_path):
    config = (ROOT / "tests" / "configs" / "tiny.yaml").read_text()
    (tmp_path / "tiny.yaml").write_text(re.sub(r", connectivity\]", "]", config))
    shutil.copy2(Path(__file__).with_name("my_models.py"), tmp_path)
    write_stripes(tmp_path / "data" / "stripes")
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    copied = tmp_path / "results" / "tiny" / "runs" / "own" / "momentum" / "seed0"
    copied.mkdir(parents=True)
    for name in ("snapshots.h5", "history.csv"):  # which no record knows, so they are made again
        (copied / name).touch()
    done = snakemake(tmp_path, "-n", "--configfile", "tiny.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout, re.MULTILINE))
    assert jobs["mine"] == "1"
    assert jobs["geometry_train"] == "8"  # three models, and two optimizers of mlp-4, of two seeds
    assert jobs["again_train"] == jobs["again_hessian"] == "1"
    assert not (tmp_path / "results" / "tiny" / "tables").exists()


@pytest.fixture
def get_clone():
    return runpy.run_path(str(ROOT / "workflow" / "rules" / "source.smk"))["get_clone"]


def test_a_path_is_its_own_clone(get_clone):
    assert get_clone(LocalSourceFile(str(ROOT / "workflow"))) == ROOT


def test_a_tag_of_a_repository_is_unpacked_as_it_was_then(get_clone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    repository = tmp_path / "repository"
    (repository / "workflow").mkdir(parents=True)

    def git(*arguments: str) -> None:
        user = ("-c", "user.name=a", "-c", "user.email=a@b.org")
        subprocess.run(["git", *user, *arguments], cwd=repository, check=True)

    git("init", "--quiet")
    for version in ("first", "second"):
        (repository / "workflow" / "Snakefile").write_text(version)
        git("add", ".")
        git("commit", "--quiet", "--message", version)
        git("tag", version)
    for version in ("first", "second", "first"):
        clone = get_clone(LocalGitFile(str(repository), "workflow", tag=version))
        assert clone.is_relative_to(tmp_path / ".snakemake")
        assert (clone / "workflow" / "Snakefile").read_text() == version


def test_a_single_file_from_the_web_is_no_clone(get_clone):
    with pytest.raises(SystemExit, match=r"expected a path, github\(\.\.\.\) or gitlab"):
        get_clone(GenericSourceFile("https://example.org/lossgeo/workflow"))
