"""What jobs cost: operations by count, rates from measured jobs, and no rule forgotten."""

import json
import re
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from lossgeo import costs, operations
from lossgeo.data import DATASETS, MNIST, Contents
from lossgeo.models import build

SECTION = {
    "model": {"family": "mlp", "width": 8},
    "data": {"train_samples": 1000, "test_samples": None, "sha256": DATASETS["mnist"].sha256},
    "epochs": 3,
    "evaluations_per_epoch": 2,
    "evaluation_samples": 50,
}


@pytest.mark.parametrize(
    "contents", [MNIST, DATASETS["cifar-100"].contents, Contents((2, 9, 14), 3)], ids=str
)
@pytest.mark.parametrize("spec", [{"family": "mlp", "width": 7}, {"family": "cnn", "width": 3}])
def test_operations_are_twice_the_multiplications_of_every_layer(spec, contents):
    """Each output is a sum over as many products as the weight has entries for it."""
    model, counted = build(spec, contents.input_shape, contents.outputs), 0

    def count(layer: nn.Module, inputs: tuple, outputs: torch.Tensor) -> None:
        nonlocal counted
        counted += 2 * outputs.numel() * layer.weight[0].numel()

    for layer in model.modules():
        if hasattr(layer, "weight"):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, *contents.input_shape))
    assert operations.operations_per_sample(spec, contents) == counted


def test_all_samples_are_those_that_the_data_hold():
    section = SECTION | {"data": {"train_samples": None, "test_samples": None}}
    own = Contents((5,), 2, train=300, test=20)
    assert operations.passes("train", section, own) == 3 * (3 * 300 + 2 * 2 * 50)
    assert operations.work("train", section, own) == 3 * 1100 * 2 * 8 * 7
    assert operations.passes("train", section) == 3 * (3 * 60_000 + 2 * 2 * 50)
    assert np.isnan(operations.work("train", section, None)), "not known what the data hold"


def test_a_training_run_passes_every_sample_forwards_and_backwards():
    """3 epochs of 1,000 samples at 3 passes, and 2 looks at 50 samples of two splits in each."""
    assert operations.passes("train", SECTION) == 3 * (3 * 1000 + 2 * 2 * 50)
    sharp = SECTION | {"optimizer": {"name": "SGD", "lr": 0.1, "sam": {"rho": 0.1}}}
    assert operations.passes("train", sharp) == 3 * (6 * 1000 + 2 * 2 * 50)


def test_a_users_model_has_no_known_operations():
    spec = {"factory": "mine:build", "family": "mlp", "width": 3}
    assert np.isnan(operations.operations_per_sample(spec))
    assert operations.family(SECTION | {"model": spec}) == "own"


def jobs(*rows: tuple[str, str, float, float]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["rule", "family", "operations", "core_seconds"])
    return frame.assign(job=[str(i) for i in range(len(rows))], peak_mb=100.0, more_mb=0.0)


def test_rates_are_recovered_from_jobs_without_noise():
    """2 s and 5 s per 10^12 operations."""
    found = costs.fit(jobs(*(("train", "mlp", n * 1e12, 2 + 5 * n) for n in (0.1, 1, 4, 20))))
    assert found["overhead_s"].item() == pytest.approx(2)
    assert found["seconds_per_teraop"].item() == pytest.approx(5)
    expected = costs.expect(jobs(("train", "mlp", 3e12, np.nan)), found)
    assert expected["expected_s"].item() == pytest.approx(17)
    assert not expected["guess"].any()


def test_memory_is_expected_to_grow_with_the_inputs():
    """900 MB were measured with 300 MB more than of MNIST: 600 MB, and what is more again."""
    past = jobs(("train", "mlp", 1e12, 3.0)).assign(peak_mb=900.0, more_mb=300.0)
    asked = jobs(("train", "mlp", 1e12, 0), ("train", "mlp", 1e12, 0)).assign(more_mb=[0.0, 50.0])
    assert costs.expect(asked, costs.fit(past))["expected_mb"].tolist() == [600.0, 650.0]


def test_what_was_not_measured_is_a_guess():
    """Another family by the rule's dearest rate, a user's model as the largest job; or nothing."""
    rates = costs.fit(
        jobs(("train", "mlp", 1e12, 3.0), ("train", "mlp", 2e12, 5.0), ("train", "cnn", 0, 1.0))
    )
    asked = jobs(("train", "vit", 3e12, 0), ("train", "own", np.nan, 0), ("paint", "mlp", 1e12, 0))
    expected = costs.expect(asked, rates)
    assert list(expected["expected_s"]) == pytest.approx([7.0, 5.0, 0.0])
    assert expected["guess"].all()


def test_rates_that_were_measured_here_go_before_others():
    others = costs.fit(jobs(("train", "mlp", 0, 1.0), ("train", "cnn", 0, 2.0)))
    here = costs.fit(jobs(("train", "mlp", 0, 3.0), ("tile", "mlp", 0, 4.0)))
    found = costs.updated(others, here).set_index(["rule", "family"])["overhead_s"].to_dict()
    assert found == pytest.approx(
        {("train", "mlp"): 3.0, ("train", "cnn"): 2.0, ("tile", "mlp"): 4.0}
    )


TILE = {
    "model": {"family": "mlp", "width": 8},
    "data": {"train_samples": 1000, "test_samples": None, "sha256": DATASETS["mnist"].sha256},
    "points": ["matched", "final"],
    "objective": {"samples": 60},
    "landscape": {
        "lines": {"directions": 3, "points": 51},
        "planes": {"count": 2, "points": 11},
        "eigenplane": {"points": 5},
    },
    "tile": 2,
    "tiles": 4,
}


def test_a_tile_passes_its_share_of_all_points_of_all_surfaces():
    assert operations.passes("tile", TILE) == 2 * 60 * (3 * 51 + 2 * 11**2 + 5**2) / 4


def test_measured_tiles_are_read_with_what_their_artefacts_say(tmp_path):
    benchmark = tmp_path / "benchmarks" / "tile" / "mlp-8" / "sgd" / "seed0" / "2-of-4.tsv"
    artefact = tmp_path / "runs" / "mlp-8" / "sgd" / "seed0" / "tiles" / "2-of-4.h5"
    for path in (benchmark, artefact):
        path.parent.mkdir(parents=True)
    benchmark.write_text("s\th:m:s\tmax_rss\tcpu_time\n5.0\t0:00:05\t321.5\t4.5\n")
    with h5py.File(artefact, "w") as file:
        file.attrs["config"] = json.dumps(TILE)
    (found,) = costs.measured(tmp_path).to_dict("records")
    assert found["job"] == "mlp-8/sgd/seed0/2-of-4"
    assert found["operations"] == operations.work("tile", TILE)


def test_a_summary_holds_what_was_measured_against_what_was_expected():
    rates = costs.fit(jobs(("train", "mlp", 0, 10.0)))
    asked = jobs(("train", "mlp", 0, 0), ("train", "mlp", 0, 0)).drop(columns=["core_seconds"])
    past = jobs(("train", "mlp", 0, 12.0))
    table = costs.summary(costs.expect(asked, rates), past).set_index("rule")
    assert list(table.index) == ["train", "all"]
    assert table.loc["train", ["jobs", "done"]].tolist() == [2, 1]
    assert table.loc["all", "core_hours"] == pytest.approx(20 / 3600)
    assert table.loc["all", "ratio"] == pytest.approx(1.2)


def test_what_measured_jobs_did_is_known_of_public_data_and_of_ones_own(tmp_path):
    """Jobs on other data count for no rate."""
    own, digests = Contents((5,), 2, train=300, test=20), {"data.npz": "1" * 64}
    for seed, sha256 in enumerate([SECTION["data"]["sha256"], digests, {"data.npz": "2" * 64}]):
        benchmark = tmp_path / "benchmarks" / "train" / "mlp-8" / "sgd" / f"seed{seed}.tsv"
        artefact = tmp_path / "runs" / "mlp-8" / "sgd" / f"seed{seed}" / "snapshots.h5"
        for path in (benchmark, artefact):
            path.parent.mkdir(parents=True, exist_ok=True)
        benchmark.write_text("s\th:m:s\tmax_rss\tcpu_time\n5.0\t0:00:05\t321.5\t4.5\n")
        with h5py.File(artefact, "w") as file:
            section = SECTION | {"data": SECTION["data"] | {"sha256": sha256}}
            file.attrs["config"] = json.dumps(section)
    jobs = costs.measured(tmp_path, (digests, own))
    passed = operations.passes("train", SECTION)
    np.testing.assert_equal(
        jobs["operations"].to_numpy(), [passed * 2 * 8 * 794, passed * 2 * 8 * 7, np.nan]
    )
    assert costs.fit(jobs)["jobs"].tolist() == [2]
    assert costs.measured(tmp_path)["operations"].isna().sum() == 2


def test_measured_jobs_are_read_with_what_their_artefacts_say(tmp_path):
    benchmark = tmp_path / "benchmarks" / "train" / "mlp-8" / "sgd" / "seed0.tsv"
    other = tmp_path / "benchmarks" / "table" / "runs.tsv"
    for path in (benchmark, other):
        path.parent.mkdir(parents=True)
        path.write_text("s\th:m:s\tmax_rss\tcpu_time\n5.0\t0:00:05\t321.5\t4.5\n")
    artefact = tmp_path / "runs" / "mlp-8" / "sgd" / "seed0" / "snapshots.h5"
    artefact.parent.mkdir(parents=True)
    with h5py.File(artefact, "w") as file:
        file.attrs["config"] = json.dumps(SECTION)
    found = costs.measured(tmp_path).set_index("rule")
    assert found.loc["train", "operations"] == operations.passes("train", SECTION) * 2 * 8 * 794
    assert found.loc["train", "core_seconds"] == 4.5
    assert found.loc["table", "operations"] == 0
    assert [row["rule"] for row in costs.spent(tmp_path)] == ["table", "train", "all"]


def test_every_rule_that_measures_has_a_cost():
    """A rule that reads the data has operations to count, and its jobs are in the estimate."""
    rules = Path(__file__).parents[2] / "workflow" / "rules"
    listed = (rules / "common.smk").read_text().partition("def get_jobs")[2]
    measuring = {
        path.stem
        for path in rules.glob("*.smk")
        if re.search(r"data=(partial\()?get_data_", path.read_text())
    } - {"connectivity"} | {"connectivity", "planes"}
    assert measuring >= {"train", "hessian", "published", "curve"}
    for rule in measuring:
        assert f'"{rule}"' in listed, f"make estimate forgets {rule}"
    counted = re.findall(r'rule == "(\w+)"', Path(operations.__file__).read_text())
    assert set(counted) == measuring - {"alignment"}, "alignment passes no sample"
    committed = pd.read_csv(rules.parents[1] / "benchmarks" / "costs.csv")
    of_both = set(zip(committed["rule"], committed["family"], strict=True))
    assert of_both >= {(rule, kind) for rule in measuring for kind in ("mlp", "cnn")}
