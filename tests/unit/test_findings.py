"""The page of findings: its numbers are those of tables, and what is missing is said."""

import hashlib
import json
import math
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from lossgeo.claims import Found
from lossgeo.findings import number, render, rounded, shown
from lossgeo.registry import ARMS
from lossgeo.statistics import Effect
from lossgeo.verdicts import judge, verdict_of_arm, verdict_of_claim, verdict_of_endpoint

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "docs" / "study"
TEMPLATES = {
    "README.md": ROOT / "workflow" / "report" / "findings.md.jinja",
    "answers.md": ROOT / "workflow" / "report" / "answers.md.jinja",
}
RUN = {
    "commit": "c0ffee",
    "changed": True,
    "results": "results/own",
    "machine": "a processor",
    "kernels": "x86_64",
    "packages": {"torch": "1.2"},
    "config": {"objective": {"samples": 77}},
    "costs": [{"rule": "train", "jobs": 3, "core_hours": 0.5, "longest_s": 9.0, "peak_mb": 800.0}],
}


@pytest.fixture(scope="module")
def registry() -> dict:
    return yaml.safe_load((ROOT / "claims.yaml").read_text())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.98765, "0.988"),
        (118.94, "119"),
        (1234.5, "1230"),
        (20000.0, "20000"),
        (0.00123, "0.00123"),
        (1.23e-5, "1.23e-05"),
        (-4.0, "-4"),
        (0.0, "0"),
        (math.nan, "–"),
    ],
)
def test_numbers_have_three_significant_digits(value, text):
    assert number(value) == text


def test_an_estimate_is_shown_with_its_interval_and_n():
    row = {
        "contrast": "ratio",
        "quantity": "x",
        "estimate": 2.0,
        "low": 1.5,
        "high": 2.6667,
        "n": 5,
    }
    assert shown(row) == "2 [1.5, 2.67], n = 5"
    assert shown(row | {"n": 0}) == "no data"
    assert shown(row | {"low": math.nan}) == "2, n = 5"
    share = row | {"contrast": "share", "estimate": 0.4, "low": 0.05, "high": 0.853}
    assert shown(share) == "40 % [5, 85.3], n = 5"


def test_rounding_keeps_seven_digits_and_text():
    table = pd.DataFrame({"x": [math.pi * 1e5, math.nan], "n": [1234567891, 2], "s": ["a", "b"]})
    found = rounded(table)
    assert found["x"][0] == 314159.3
    assert list(found["n"]) == [1234567891, 2]
    assert list(found["s"]) == ["a", "b"]


def page_of(registry: dict, tables: dict, template: Path | None = None) -> str:
    endpoints, verdicts = judge(tables, registry)
    made = {**tables, "endpoints": endpoints, "verdicts": verdicts}
    return render(template or TEMPLATES["README.md"], made, registry, RUN)


def test_the_page_of_ones_own_claims_has_their_numbers_and_no_others():
    book = {
        "smallest_effects": {"ratio": 1.25},
        "quantities": {"x": {"table": "runs", "column": "x", "test": "test_x.py"}},
        "claims": {
            "mine-is-larger": {
                "section": "7",
                "statement": "Mine | yours.",
                "corrected": [
                    {
                        "part": "mine : yours",
                        "contrast": "ratio",
                        "quantity": "x",
                        "of": "mine/sgd",
                        "to": "yours/sgd",
                        "side": "above",
                    }
                ],
            }
        },
    }
    rows = [
        {"model": m, "optimizer": "sgd", "seed": s, "x": x * (1 + s / 100)}
        for m, x in (("mine", 6.0), ("yours", 2.0))
        for s in range(4)
    ]
    page = page_of(book, {"runs": pd.DataFrame(rows)})
    assert "mine-is-larger: reproduced" in page
    assert "3 [3, 3], n = 4" in page
    assert "snakemake --cores 8 results/own/tables/runs.csv" in page
    assert "tests/unit/test_x.py" in page
    assert "`c0ffee`, with changes that were not committed" in page
    assert "| train | 3 | 0.5 | 9 | 800 |" in page
    assert "Four answers" not in page


def test_a_study_without_data_says_so_in_every_sentence(registry):
    page = page_of(
        registry, {"runs": pd.DataFrame({"model": ["x"], "optimizer": ["y"], "seed": [0]})}
    )
    answers = page.partition("## Four answers")[2].partition("## Verdicts")[0]
    assert answers.count("no data") >= 15
    assert not re.search(r"\d\.\d+ \[", answers)
    assert not re.search(r"\bnan\b", page.lower())


def test_sentences_name_endpoints_that_there_are(registry):
    """What the registry does not have would read 'no data' for ever."""
    parts = {
        (claim, arm, endpoint["part"])
        for claim, entry in registry["claims"].items()
        for arm in ("published", "corrected", "controls")
        for endpoint in entry.get(arm, [])
    }
    for template in TEMPLATES.values():
        text = template.read_text()
        named = re.findall(r'endpoint\("([^"]+)", "([^"]+)", "([^"]+)"\)', text)
        assert named
        assert set(named) <= parts
        assert set(re.findall(r'mean\("([^"]+)"', text)) <= set(registry["quantities"])
        assert set(re.findall(r'(?:verdict|arm)\("([^"]+)"', text)) <= set(registry["claims"])


def test_estimators_have_tests(registry):
    for name, spec in registry["quantities"].items():
        assert (ROOT / "tests" / "unit" / spec["test"]).is_file(), name


# the page that is in the repository


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
            *(row.n, row.interval, row.p, row.p_floor, row.p_equivalent),
        )
        if row.verdict != "circular":  # in smallest effects, towards the claimed side
            smallest = 0.0 if row.contrast == "share" else 1.0
            side = "above" if row.side == "below" else row.side
            known = verdict_of_endpoint(Found(effect, smallest, False, ""), side)
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
