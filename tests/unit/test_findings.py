"""The page of findings: its numbers are those of tables, and what is missing is said."""

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import yaml

from lossgeo.findings import in_unit, number, render, rounded, shown
from lossgeo.verdicts import judge

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "docs" / "study"
TEMPLATES = {
    "README.md": ROOT / "workflow" / "report" / "findings.md.jinja",
    "answers.md": ROOT / "workflow" / "report" / "answers.md.jinja",
}
RUN = {
    "commit": "c0ffee",
    "changed": True,
    "registry_commit": "badc0de of 2026-01-02",
    "results": "results/own",
    "machine": "a processor",
    "kernels": "x86_64",
    "packages": {"torch": "1.2"},
    "config": {
        "objective": {"samples": 77},
        "training": {"matched_loss": 0.1, "evaluation_samples": 55},
        "landscape": {"rise": 0.1},
    },
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
    assert shown(row) == "2 [1.5, 2.67; n = 5]"
    assert shown(row | {"unit": "models"}) == "2 [1.5, 2.67; n = 5 models]"
    assert shown(row | {"n": 0}) == "no data"
    assert shown(row | {"low": math.nan}) == "2 [n = 5]"
    share = row | {"contrast": "share", "estimate": 0.4, "low": 0.05, "high": 0.853}
    assert shown(share) == "40 % [5, 85.3; n = 5]"
    level = row | {"contrast": "level", "quantity": "accuracy", "reference": 0.97}
    assert in_unit(level, "reference") == "97 %"
    points = row | {"contrast": "difference", "quantity": "accuracy", "smallest_effect": 0.003}
    assert in_unit(points, "smallest_effect") == "0.3 points"


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
    assert "3 [3, 3; n = 4]" in page
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
    assert answers.count("no data") >= 14
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
        named = re.findall(r'(?:endpoint|part)\("([^"]+)", "([^"]+)", "([^"]+)"\)', text)
        assert named
        assert set(named) <= parts
        assert set(re.findall(r'mean\("([^"]+)"', text)) <= set(registry["quantities"])
        assert set(re.findall(r'(?:verdict|arm)\("([^"]+)"', text)) <= set(registry["claims"])


@pytest.mark.parametrize("name", TEMPLATES)
def test_sentences_read_with_every_verdict(registry, name):
    """Whatever comes out, no sentence is left without its verdict, or with half a number."""
    tables = {"runs": pd.DataFrame({"model": ["x"], "optimizer": ["y"], "seed": [0]})}
    endpoints, claims = judge(tables, registry)
    endpoints = endpoints.assign(estimate=-1.25, low=-2.5, high=0.5, n=5)
    for word in ("reproduced", "contradicted", "no effect", "inconclusive", "circular", "artefact"):
        arms = dict.fromkeys(("published", "corrected", "controls", "verdict"), word)
        made = {
            **tables,
            "endpoints": endpoints.assign(verdict=word),
            "verdicts": claims.assign(**arms),
        }
        page = render(TEMPLATES[name], made, registry, RUN)
        assert word in page.lower()
        assert "no verdict" not in page
        assert not re.search(
            r"\bnan\b|\bNone\b|  +\.|\( *\)", page.partition("## Where a number")[0]
        )


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_registry_of_ones_own_has_no_answers_of_this_study(name):
    book = {"smallest_effects": {}, "quantities": {}, "claims": {}}
    claim = {"claim": "mine", "section": "1", "statement": "Mine.", "published": None}
    claim |= {"corrected": "reproduced", "controls": None, "verdict": "reproduced", "n": 3}
    claim |= {"p": 0.1, "p_floor": 0.1, "p_holm": 0.1, "remark": None}
    made = {"endpoints": pd.DataFrame(columns=["claim"]), "verdicts": pd.DataFrame([claim])}
    page = render(TEMPLATES[name], made, book, RUN)
    assert "momentum" not in page.partition("What it leaves open")[0]


def test_estimators_have_tests(registry):
    for name, spec in registry["quantities"].items():
        assert (ROOT / "tests" / "unit" / spec["test"]).is_file(), name
