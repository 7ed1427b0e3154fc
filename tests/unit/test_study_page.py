"""The study that is published in docs/study: its page, its tables and its commit fit together."""

import hashlib
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lossgeo.claims import Found
from lossgeo.findings import render
from lossgeo.registry import ARMS
from lossgeo.statistics import Effect
from lossgeo.verdicts import judge, verdict_of_arm, verdict_of_claim, verdict_of_endpoint

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "docs" / "study"
TEMPLATES = {
    "README.md": ROOT / "workflow" / "report" / "findings.md.jinja",
    "answers.md": ROOT / "workflow" / "report" / "answers.md.jinja",
}

pytestmark = pytest.mark.skipif(not STUDY.is_dir(), reason="no study has been published yet")


@pytest.fixture(scope="module")
def registry() -> dict:
    return yaml.safe_load((ROOT / "claims.yaml").read_text())


@pytest.fixture(scope="module")
def published() -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_csv(path) for path in sorted((STUDY / "tables").glob("*.csv"))}


@pytest.fixture(scope="module")
def run() -> dict:
    return json.loads((STUDY / "run.json").read_text())


def test_every_number_on_the_published_page_is_in_its_tables(published, run, registry):
    """The page and the README's answers are what the templates make of the tables, and no more."""
    pages = {
        name: render(template, published, registry, run) for name, template in TEMPLATES.items()
    }
    assert (STUDY / "README.md").read_text() == pages["README.md"]
    assert pages["answers.md"] in (ROOT / "README.md").read_text()


EXACT = ("t", "exact binomial", "range", "none")  # intervals that are not resampled


def test_the_published_endpoints_follow_from_the_published_tables(published, registry, monkeypatch):
    """Judged again from the tables: the same estimates, to their digits, and intervals."""
    monkeypatch.setattr("lossgeo.statistics.RESAMPLES", 99)  # of intervals that are not compared
    again, _ = judge(published, registry)
    kept = published["endpoints"]
    assert list(zip(again["claim"], again["arm"], again["part"], strict=True)) == list(
        zip(kept["claim"], kept["arm"], kept["part"], strict=True)
    )
    assert list(again["unit"]) == list(kept["unit"])
    for column in ("estimate", "n", "smallest_effect", "p_floor"):
        found, known = again[column].astype(float), kept[column].astype(float)
        if column == "p_floor":
            known = known.where(kept["interval"].isin(EXACT), found)
        np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-6, err_msg=column)
    exact = kept["interval"].isin(EXACT)
    for column in ("low", "high", "p", "p_equivalent"):
        found, known = (frame.loc[exact, column].astype(float) for frame in (again, kept))
        np.testing.assert_allclose(found, known, rtol=1e-3, atol=1e-6, err_msg=column)
    assert list(again.loc[exact, "verdict"]) == list(kept.loc[exact, "verdict"])


def test_the_published_verdicts_follow_from_the_published_endpoints(published, registry):
    """By the rules: endpoint by endpoint, arm by arm, claim by claim."""
    endpoints = published["endpoints"]
    for row in endpoints.itertuples():
        effect = Effect(
            *(row.scaled, row.scaled_low, row.scaled_high),
            *(row.n, str(row.interval), row.p, row.p_floor, row.p_equivalent),
        )
        if row.verdict != "circular":  # in smallest effects, towards the claimed side
            smallest = 0.0 if row.contrast == "share" else 1.0
            side = "above" if row.side == "below" else row.side
            known = verdict_of_endpoint(Found(effect, smallest, False, "", row.unit), side)
            assert row.verdict == known, (row.claim, row.part)
    for row in published["verdicts"].itertuples():
        needs = registry["claims"][row.claim].get("needs", "all")
        of_claim = endpoints[endpoints["claim"] == row.claim]
        arms = {
            arm: verdict_of_arm(of_claim.loc[of_claim["arm"] == arm, "verdict"], needs)
            for arm in ARMS
        }
        assert row.verdict == verdict_of_claim(**arms), row.claim
        assert {arm: getattr(row, arm) for arm in ARMS if arms[arm]} == {
            arm: verdict for arm, verdict in arms.items() if verdict
        }


def test_the_published_tables_are_those_of_the_run(run, registry):
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (STUDY / "tables").iterdir()
    }
    assert digests == run["tables"]
    assert run["registry"] == registry
    assert not run["changed"], "the study was published from a tree with uncommitted changes"


def test_the_published_commit_is_one_of_ours(run):
    """The commit that the page names is in the history, with the registry that it was judged by."""

    def git(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)

    if git("cat-file", "-e", run["commit"]).returncode:
        shallow = git("rev-parse", "--is-shallow-repository").stdout.strip()
        assert shallow == "true" or not (ROOT / ".git").exists(), "an unknown commit"
        pytest.skip("a clone without the history")
    assert git("merge-base", "--is-ancestor", run["commit"], "HEAD").returncode == 0
    then = yaml.safe_load(git("show", f"{run['commit']}:claims.yaml").stdout)
    assert then == run["registry"]


def test_the_published_folder_is_small_and_its_links_lead_somewhere():
    files = [path for path in STUDY.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6
    for page in (STUDY / "README.md", ROOT / "README.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"
