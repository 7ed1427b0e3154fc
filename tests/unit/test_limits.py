"""What a job may take: more than jobs of its kind took, and more on every attempt."""

import re
from pathlib import Path

import pytest

from lossgeo import limits, operations
from lossgeo.data import MNIST, Contents
from lossgeo.limits import Rate

ROOT = Path(__file__).parents[2]
RATES = {
    "train": {"mlp": Rate(2.0, 10.0, 900.0, 1e12), "cnn": Rate(5.0, 100.0, 4000.0, 60e12)},
    "table": {"": Rate(1.0, 0.0, 160.0, 0.0)},
}


def section(spec: dict, epochs: int = 12) -> dict:
    looks = {"evaluations_per_epoch": 1, "evaluation_samples": 1000}
    data = {"train_samples": None, "test_samples": None}
    return {"model": spec, "data": data, "epochs": epochs} | looks


MLP, CNN = ({"family": family, "width": 64} for family in ("mlp", "cnn"))


def test_a_job_gets_more_memory_than_its_kind_took_and_more_on_every_attempt():
    assert limits.memory(RATES, "train", section(CNN), 1) == 6000
    assert limits.memory(RATES, "train", section(CNN), 3) == 18000
    assert limits.memory(RATES, "train", section(MLP), 1) == 1400
    assert limits.memory(RATES, "table", None, 1) == limits.LEAST_MB


def test_a_job_gets_several_times_what_its_operations_are_expected_to_take():
    long = section(CNN, epochs=500)
    seconds = 5 + 100 * operations.work("train", long) / 1e12
    found = limits.minutes(RATES, "train", long, 1)
    assert 4 * seconds / 60 <= found <= 4 * seconds / 60 + 5
    assert 2 * found - 5 <= limits.minutes(RATES, "train", long, 2) <= 2 * found
    assert limits.minutes(RATES, "train", section(MLP), 1) == limits.LEAST_MINUTES


def test_larger_inputs_are_added_to_the_memory_that_was_measured_on_mnist():
    """Twice 2,000 float32 images of 3 x 64 x 64 pixels and all 300 test ones, less MNIST's."""
    data = {"train_samples": 2000, "test_samples": None}
    own = Contents((3, 64, 64), 7, train=50_000, test=300)
    more = 2 * 4 * (2300 * 3 * 64 * 64 - (2000 + 10_000) * 784) / 1e6
    found = limits.memory(RATES, "train", section(MLP) | {"data": data}, 1, own)
    assert found == pytest.approx(1.5 * (900 + more), abs=100)
    ids = own._replace(entry_bytes=8)
    assert limits.memory(RATES, "train", section(MLP) | {"data": data}, 1, ids) > found
    assert limits.memory(RATES, "train", section(MLP), 1, MNIST) == 1400
    small = Contents((5,), 2, train=100, test=100)
    assert limits.memory(RATES, "train", section(MLP), 1, small) == 1400


@pytest.mark.parametrize("family", [MLP, {"factory": "mine:build"}], ids=str)
def test_a_stage_holds_the_samples_that_it_is_measured_on(family):
    probed = section(family) | {"objective": {"samples": 1000}}
    large = Contents((3, 1000, 1000), 7, train=50_000, test=300)
    held = (1000 + 300) * 3e6 * 4
    assert operations.inputs_held("hessian", probed, large) == held
    alignment = {"model": family, "data": probed["data"], "points": ["final"]}
    assert operations.inputs_held("alignment", alignment, large) == 0
    mnist = (1000 + 1000) * 784 * 4
    assert operations.more_mb("hessian", probed, large) == pytest.approx(2 * (held - mnist) / 1e6)


def test_what_was_not_measured_counts_as_the_largest_that_was():
    own = section({"factory": "mine:build"})
    assert limits.memory(RATES, "train", own, 1) == 6000
    assert limits.minutes(RATES, "train", own, 1) == pytest.approx(4 * 6005 / 60, abs=5)
    assert limits.memory(RATES, "paint", None, 1) == limits.LEAST_MB


def test_the_committed_rates_limit_what_was_measured():
    rates = limits.read_rates(ROOT / "benchmarks" / "costs.csv")
    assert limits.memory(rates, "train", section(CNN), 1) > rates["train"]["cnn"].peak_mb


def test_every_rule_that_runs_a_script_is_limited_by_its_own_name():
    limited = []
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for part in re.split(r"^ *(?=rule\b)", path.read_text(), flags=re.MULTILINE)[1:]:
            if "script:" not in part or "localrule: True\n" in part:
                continue
            name = re.match(r"rule (\w+):", part)
            name = name[1] if name else "figure"
            assert f'mem_mb=partial(get_memory, "{name}"),' in part, path.name
            assert f'runtime=partial(get_minutes, "{name}"),' in part, path.name
            limited.append(name)
    assert {"train", "planes", "figure", "dictionary", "publish"} <= set(limited)
