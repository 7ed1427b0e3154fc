"""Claims are judged by their registry, and errors are as rare as is said."""

import copy
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from lossgeo import claims, registry, verdicts
from lossgeo.checks import ConfigError
from lossgeo.claims import Found, evaluate
from lossgeo.prediction import leave_one_out_gain
from lossgeo.statistics import (
    Effect,
    cluster_effect,
    holm,
    mean_effect,
    range_effect,
    share_effect,
)
from lossgeo.verdicts import judge, verdict_of_arm, verdict_of_claim, verdict_of_endpoint

NAN = math.nan
RATIO = math.log(1.25)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def runs_table(values: dict[str, list[float]], **columns) -> pd.DataFrame:
    """A table with one row per seed of each model: `values` are model -> the column x."""
    rows = [
        {"model": model, "optimizer": "sgd", "seed": seed, "point": "final", "x": x}
        | {"width": int(model.rpartition("-")[2])}
        for model, xs in values.items()
        for seed, x in enumerate(xs)
    ]
    return pd.DataFrame(rows).assign(**columns)


def registry_of(*endpoints: dict, **quantities: dict) -> dict:
    """A registry of one claim whose corrected arm has these endpoints, about the column x."""
    return {
        "smallest_effects": {"ratio": 1.25, "tau": 0.2, "gain": 0.1, "x": 0.5},
        "quantities": {"x": {"table": "runs", "column": "x"}, **quantities},
        "claims": {
            "own": {
                "section": "1",
                "statement": "x is larger.",
                "corrected": [{"part": f"part {i}", **e} for i, e in enumerate(endpoints)],
            }
        },
    }


def found(endpoint: dict, tables: dict, **quantities) -> Found:
    """The effect at one endpoint about the column x."""
    full = {"quantity": "x", **endpoint}
    return evaluate(full, registry_of(full, **quantities), tables, "name")


A_TO_B = {"contrast": "ratio", "of": "a-2/sgd/final", "to": "b-4/sgd/final", "side": "above"}


# effects


def test_the_sign_flip_p_is_exact(rng):
    """Three positive values: of the 8 ways to give signs, 2 are as far out. p = 1/4, the floor."""
    effect = mean_effect(np.array([1.0, 2.0, 4.0]), 0.1, rng=rng)
    assert effect.p == effect.p_floor == 0.25
    values = rng.normal(0.5, 1.0, 6)
    signs = np.array(np.meshgrid(*[[-1, 1]] * 6)).reshape(6, -1)
    means = np.abs(values @ signs) >= abs(values.sum()) * (1 - 1e-12)
    assert mean_effect(values, 0.1, rng=rng).p == pytest.approx(means.mean(), abs=1e-12)


def test_many_values_are_flipped_at_random_with_a_floor(rng):
    effect = mean_effect(rng.normal(5.0, 1.0, 30), 0.1, rng=rng)
    assert effect.p == effect.p_floor == pytest.approx(2 / (2**14 + 1), rel=1e-9)


def test_equivalence_is_the_interval_of_90_percent_inside(rng):
    """Two one-sided tests at 5 % are an interval of 90 % (Schuirmann 1987)."""
    values = rng.normal(0.05, 0.2, 8)
    half = stats.t.ppf(0.95, 7) * stats.sem(values)
    edge = abs(values.mean()) + half
    assert mean_effect(values, edge * 1.001, rng=rng).p_equivalent < 0.05
    assert mean_effect(values, edge * 0.999, rng=rng).p_equivalent > 0.05


def test_values_without_scatter_are_equivalent_or_not(rng):
    same = np.full(4, 0.1)
    assert mean_effect(same, 0.2, rng=rng).p_equivalent == 0
    assert mean_effect(same, 0.05, rng=rng).p_equivalent == 1


def test_a_share_is_exact():
    effect = share_effect(np.array([True] * 3 + [False] * 7), 0.9)
    low, high = stats.beta.ppf(0.025, 3, 8), stats.beta.ppf(0.975, 4, 7)
    assert (effect.estimate, effect.n) == (pytest.approx(-0.6), 10)
    assert (effect.low, effect.high) == (pytest.approx(low - 0.9), pytest.approx(high - 0.9))
    assert effect.p_floor == pytest.approx(1e-10)


def test_a_range_goes_from_the_smallest_to_the_largest():
    assert range_effect(np.array([1.0, NAN, 4.0, 2.5])) == Effect(2.5, 1.0, 4.0, 3, "range")


def test_holms_p_by_hand():
    """0.01 x 3, 0.03 x 2, 0.04 x 1 but not below the one before; NaN does not count."""
    np.testing.assert_allclose(holm([0.04, 0.01, NAN, 0.03]), [0.06, 0.03, NAN, 0.06])
    assert list(holm([0.9, 0.8])) == [1.0, 1.0]


def test_a_bootstrap_over_clusters_is_scipys(rng):
    """The mean of one value per cluster: SciPy's interval of that sample, drawn the same way."""
    values = rng.lognormal(size=12)
    effect = cluster_effect(lambda i: values[i].mean(), 12, 0.1, rng=np.random.default_rng(1))
    known = stats.bootstrap(
        (values,), np.mean, n_resamples=1999, rng=np.random.default_rng(1), vectorized=False
    ).confidence_interval
    assert effect.interval == "BCa bootstrap"
    assert (effect.low, effect.high) == (pytest.approx(known.low), pytest.approx(known.high))


def test_a_statistic_without_scatter_has_percentiles(rng):
    effect = cluster_effect(lambda i: 1.0, 5, 0.1, rng=rng)
    assert (effect.low, effect.high, effect.interval) == (1.0, 1.0, "percentile bootstrap")
    assert math.isnan(cluster_effect(lambda i: 1.0, 2, 0.1, rng=rng).low)


def test_the_null_counts_the_observed_statistic_in(rng):
    effect = cluster_effect(lambda i: 2.0, 5, 0.1, null=lambda rng: 1.0, rng=rng)
    assert effect.p == effect.p_floor == 1 / 2000
    assert cluster_effect(lambda i: 2.0, 5, 0.1, null=lambda rng: -2.0, rng=rng).p == 1.0


# contrasts


def test_a_ratio_is_paired_by_seed():
    """b is in another order than a, and lacks seed 1: what is compared is one seed's a and b."""
    table = runs_table({"a-2": [2.0, 3.0, 8.0, 5.0], "b-4": [1.0, 9.0, 2.0, 5.0]})
    table = table[(table["model"] != "b-4") | (table["seed"] != 1)].iloc[::-1]
    got = found(A_TO_B, {"runs": table})
    logs = np.log([2.0, 4.0, 1.0])
    assert got.effect.estimate == pytest.approx(logs.mean())
    assert got.effect.n == 3
    assert got.smallest == pytest.approx(RATIO)
    assert not got.remark  # b was never trained with seed 1


def test_a_run_without_a_value_is_missed_and_one_that_was_never_trained_is_not():
    table = runs_table({"a-2": [2.0, 3.0, 8.0, 5.0], "b-4": [1.0, NAN, 2.0]})
    got = found(A_TO_B, {"runs": table})
    assert got.effect.n == 2
    assert got.remark == "1 of 3 seeds without a value"
    others = table.dropna().assign(x=1.0)
    got = found(
        A_TO_B | {"quantity": "y"}, {"runs": table, "t": others}, y={"table": "t", "column": "x"}
    )
    assert got.remark == "1 of 3 seeds without a value"


def test_what_is_not_positive_has_no_ratio():
    table = runs_table({"a-2": [2.0, -1.0, 3.0, 0.0], "b-4": [1.0, 1.0, 1.0, 1.0]})
    got = found(A_TO_B, {"runs": table})
    assert got.effect.n == 2
    assert got.remark == "2 of 4 seeds without a value"


def test_rows_of_a_run_are_averaged_and_chosen_by_column():
    table = runs_table({"a-2": [2.0, 4.0, 8.0]})
    both = pd.concat(
        [
            table.assign(end="top"),
            table.assign(end="top", x=4.0),
            table.assign(end="bottom", x=99.0),
        ]
    )
    level = {"contrast": "level", "of": "a-2/sgd/final", "expected": 1.0, "side": "above"}
    level |= {"where": {"end": "top"}, "smallest_effect": "x"}
    assert found(level, {"runs": both}).effect.estimate == pytest.approx(np.mean([3, 4, 6]) - 1)


def test_a_quantity_can_be_a_difference_of_columns_or_one_over_another():
    table = runs_table({"a-2": [2.0, 4.0, 8.0]}).assign(y=2.0)
    level = {"contrast": "level", "of": "a-2/sgd/final", "expected": 0.0, "side": "above"}
    level |= {"smallest_effect": "x"}
    minus = {"table": "runs", "column": "x", "minus": "y"}
    got = found(level | {"quantity": "minus"}, {"runs": table}, minus=minus)
    assert got.effect.estimate == pytest.approx(14 / 3 - 2)
    y = {"table": "runs", "column": "y"}
    got = found(level | {"quantity": "r"}, {"runs": table}, y=y, r={"over": ["x", "y"]})
    assert got.effect.estimate == pytest.approx(7 / 3)


def test_a_slope_is_per_doubling_of_the_width():
    """x = 3 w^-0.7: log x falls by 0.7 log 2 with each doubling, whatever the seed's factor."""
    table = runs_table({f"m-{w}": [s * 3 * w**-0.7 for s in (1, 2, 5)] for w in (8, 32, 64)})
    slope = {"contrast": "slope", "models": ["m-8", "m-32", "m-64"], "at": "sgd/final"}
    got = found(slope | {"side": "below"}, {"runs": table})
    assert got.effect.estimate == pytest.approx(-0.7 * math.log(2))
    assert claims.natural(slope, got.effect.estimate) == pytest.approx(2**-0.7)


def test_a_slope_needs_widths():
    table = runs_table({"m-1": [1.0] * 3, "m-2": [1.0] * 3})
    table.loc[table["model"] == "m-1", "width"] = -1
    slope = {"contrast": "slope", "models": ["m-1", "m-2"], "at": "sgd/final", "side": "below"}
    assert found(slope, {"runs": table}).remark == "m-1 has no width: give it one in the config"


def test_a_share_of_pairs_counts_what_is_not_finite_as_above():
    pairs = pd.DataFrame({"model": "m", "optimizer": "sgd", "point": "final"}, index=range(5))
    pairs = pairs.assign(
        seed_a=range(0, 10, 2), seed_b=range(1, 11, 2), x=[0.1, 0.2, NAN, 0.9, 0.3]
    )
    share = {"contrast": "share", "of": "m/sgd/final", "below": 0.5, "share": 0.9}
    got = found(share, {"runs": pairs})
    assert (got.effect.n, got.effect.estimate) == (5, pytest.approx(3 / 5 - 0.9))


def test_tau_within_models_does_not_see_differences_between_them(rng):
    """y falls with x from model to model, and rises with it within each."""
    table = runs_table({"a-1": [1, 2, 3, 4], "b-2": [11, 12, 13, 14]})
    table = table.assign(y=table["x"].where(table["model"] == "a-1", table["x"] - 100))
    y = {"table": "runs", "column": "y"}
    tau = {"contrast": "tau", "with": "y", "models": ["a-1", "b-2"], "at": "sgd/final"}
    within = found(tau | {"within": "model", "side": "above"}, {"runs": table}, y=y)
    over = found(tau | {"within": "none", "side": "above"}, {"runs": table}, y=y)
    assert (within.effect.estimate, within.unit) == (pytest.approx(1.0), "seeds")
    assert (over.effect.estimate, over.unit) == (pytest.approx(-1.0), "models")


def test_runs_of_one_model_are_no_evidence_about_models():
    """Three models: p over all of them cannot fall below 2 / 3!, however many seeds there are."""
    table = runs_table({f"m-{w}": [w + s / 100 for s in range(8)] for w in (1, 2, 3)})
    tau = {"contrast": "tau", "with": "x", "models": ["m-1", "m-2", "m-3"], "at": "sgd/final"}
    got = found(tau | {"within": "none", "side": "above"}, {"runs": table})
    assert got.effect.p == got.effect.p_floor == pytest.approx(1 / 3)
    assert (got.effect.n, got.effect.low) == (3, 1.0)  # of every draw of the seeds
    assert verdict_of_endpoint(got, "above") == "inconclusive"


@pytest.mark.parametrize("contrast", ["tau", "gain"])
def test_models_that_differ_by_chance_have_no_verdict(rng, contrast):
    """What is measured belongs to six models, and not to their seeds, and is unrelated: the seeds
    agree in each study, and yet at most 5 % of 80 studies, within their error, may see something.
    """
    seen = 0
    for _ in range(80):
        rows = [
            {"model": f"m-{m}", "optimizer": "sgd", "point": "final", "seed": s}
            | dict(zip("xyz", of_model + 0.05 * rng.normal(size=3), strict=True))
            for m, of_model in enumerate(rng.uniform(2, 4, (6, 3)))
            for s in range(4)
        ]
        tables = {"runs": pd.DataFrame(rows)}
        models = {"models": [f"m-{m}" for m in range(6)], "at": "sgd/final", "side": "above"}
        y, z = ({"table": "runs", "column": name} for name in "yz")
        how = {"with": "y", "within": "none"} if contrast == "tau" else {"from": ["y"]}
        how |= {"beyond": ["z"]} if contrast == "gain" else {}
        with pytest.MonkeyPatch.context() as fewer:
            fewer.setattr("lossgeo.statistics.RESAMPLES", 49)
            got = found({"contrast": contrast} | models | how, tables, y=y, z=z)
        seen += verdict_of_endpoint(got, "above") == "reproduced"
    assert seen <= 80 * 0.05 + 4 * math.sqrt(80 * 0.05 * 0.95)


def test_a_gain_that_every_model_shares_is_found(rng):
    """x = y of each of seven models, beside a base feature of noise."""
    rows = [
        {"model": f"m-{m}", "optimizer": "sgd", "point": "final", "seed": s, "z": rng.uniform(1, 2)}
        | dict.fromkeys("xy", 2.0**m * (1 + 0.01 * s))
        for m in range(7)
        for s in range(4)
    ]
    gain = {"contrast": "gain", "models": [f"m-{m}" for m in range(7)], "at": "sgd/final"}
    y, z = ({"table": "runs", "column": name} for name in "yz")
    gain |= {"side": "above", "from": ["y"], "beyond": ["z"]}
    got = found(gain, {"runs": pd.DataFrame(rows)}, y=y, z=z)
    assert (got.effect.n, got.unit) == (7, "models")
    assert got.effect.p < 0.01
    assert verdict_of_endpoint(got, "above") == "reproduced"


def test_draws_that_leave_a_model_without_scatter_do_not_void_an_interval(rng):
    """Five seeds: one draw in 625 has one of them five times, and no tau."""
    x = rng.normal(size=5)
    table = runs_table({"m-1": list(x)}).assign(y=x + 0.5 * rng.normal(size=5))
    tau = {"contrast": "tau", "with": "y", "models": ["m-1"], "at": "sgd/final", "side": "above"}
    got = found(tau | {"within": "model"}, {"runs": table}, y={"table": "runs", "column": "y"})
    assert -1 <= got.effect.low < got.effect.high <= 1


def test_an_interval_of_which_many_draws_are_undefined_is_none(rng):
    """Three values: one draw in nine has one of them three times, and no standard deviation."""
    values = rng.normal(size=3)

    def spread(chosen: np.ndarray) -> float:
        return values[chosen].std() if len(set(chosen)) > 1 else NAN

    assert math.isnan(cluster_effect(spread, 3, 0.1, rng=rng).low)
    assert cluster_effect(lambda i: values[i].std(), 3, 0.1, rng=rng).low >= 0


def test_models_that_share_their_seeds_are_permuted_together(rng):
    """Three models whose x and y both follow the seed's, unrelated: p is uniform all the same.

    Permuted apart, 10 to 20 % of such studies are below 0.05.
    """
    below = 0
    for _ in range(80):
        of_seed = rng.normal(size=(2, 8))
        noise = rng.normal(size=(2, 3, 8))
        x, y = np.sqrt(0.9) * of_seed[:, None] + np.sqrt(0.1) * noise
        table = runs_table({f"m-{m + 1}": list(x[m]) for m in range(3)}).assign(y=y.ravel())
        tau = {"contrast": "tau", "with": "y", "models": ["m-1", "m-2", "m-3"], "at": "sgd/final"}
        with pytest.MonkeyPatch.context() as fewer:
            fewer.setattr("lossgeo.statistics.RESAMPLES", 49)
            got = found(
                tau | {"within": "model", "side": "above"},
                {"runs": table},
                y={"table": "runs", "column": "y"},
            )
        below += got.effect.p <= 0.05
    assert below <= 80 * 0.05 + 3 * math.sqrt(80 * 0.05 * 0.95)


@pytest.mark.parametrize(("n", "says"), [(5, True), (35, True), (36, False)])
def test_how_many_pairs_a_share_takes_is_said(n, says):
    pairs = pd.DataFrame({"model": "m", "optimizer": "sgd", "point": "final"}, index=range(n))
    pairs = pairs.assign(seed_a=range(0, 2 * n, 2), seed_b=range(1, 2 * n, 2), x=0.1)
    share = {"contrast": "share", "of": "m/sgd/final", "below": 0.5, "share": 0.9}
    got = found(share, {"runs": pairs})
    assert verdict_of_endpoint(got, "above") == ("inconclusive" if says else "reproduced")
    assert got.remark == (f"{n} pairs cannot show a share above 90%: that takes 36" if says else "")


def test_p_of_a_claim_of_no_difference_is_that_of_a_difference():
    """Seeds exactly where they are claimed to be: no p of no effect, but one of equivalence."""
    table = runs_table({"a-2": [2.0, 2.1, 1.9, 2.0]})
    level = {"contrast": "level", "quantity": "x", "of": "a-2/sgd/final", "expected": 2.0}
    level |= {"side": "within", "smallest_effect": "x"}
    rows, claimed = judge({"runs": table}, registry_of(level))
    assert claimed["verdict"][0] == "reproduced"
    assert claimed["p"][0] == rows["p_equivalent"][0] < 0.05


def test_taus_permutation_p_is_that_of_scipy(rng):
    """One model, seven runs: SciPy has the exact p of Kendall's tau."""
    x, y = rng.normal(size=(2, 7))
    table = runs_table({"m-1": list(x)}).assign(y=y)
    tau = {"contrast": "tau", "with": "y", "models": ["m-1"], "at": "sgd/final", "side": "above"}
    got = found(tau | {"within": "model"}, {"runs": table}, y={"table": "runs", "column": "y"})
    known = stats.kendalltau(x, y, method="exact").pvalue
    assert got.effect.p == pytest.approx(known, abs=4 * math.sqrt(known * (1 - known) / 2000))


def test_a_gain_is_one_where_further_features_say_all():
    """Base features are noise and the further one is the target."""
    random = np.random.default_rng(3)
    groups = np.repeat(np.arange(6), 4)
    target = np.repeat(random.normal(size=6), 4)
    base = random.normal(size=(24, 1))
    assert leave_one_out_gain(target, base, target[:, None], groups) == pytest.approx(1.0)
    assert leave_one_out_gain(target, base, base, groups) == pytest.approx(0.0, abs=1e-9)
    assert leave_one_out_gain(target, base, random.normal(size=(24, 3)), groups) < 0.5


def test_leaving_out_a_model_by_hand():
    """Three models at (0, 0), (1, 1), (2, 3): lines through two of them miss the third by 1."""
    target, feature = np.array([0.0, 1.0, 3.0]), np.array([[0.0], [1.0], [2.0]])
    flat = np.zeros((3, 1))
    missed = np.sqrt(np.mean([1.0, 0.5**2, 1.0]))
    means = np.sqrt(np.mean([2.0**2, 0.5**2, 2.5**2]))
    gain = leave_one_out_gain(target, flat, feature, np.arange(3))
    assert gain == pytest.approx(1 - missed / means)


def test_what_the_design_has_set_is_circular():
    """Every seed of a model has the same number of epochs: it was an input."""
    table = runs_table({"a-2": [10.0] * 5, "b-4": [24.0] * 5})
    got = found(A_TO_B | {"side": "below"}, {"runs": table})
    assert got.circular
    assert verdict_of_endpoint(got, "below") == "circular"
    table.loc[0, "x"] = 11.0
    assert not found(A_TO_B, {"runs": table}).circular


def test_what_is_missing_is_named():
    table = runs_table({"a-2": [1.0] * 3})
    assert "model b-4" in found(A_TO_B, {"runs": table}).remark
    assert found(A_TO_B, {}).remark == "no stage of this study makes the table runs"


# verdicts


def effect(low: float, high: float, *, equivalent: float = 1.0, n: int = 5, kind: str = "t"):
    found = Effect((low + high) / 2, low, high, n, kind, p_equivalent=equivalent)
    return Found(found, 1.0, False, "")


@pytest.mark.parametrize(
    ("low", "high", "equivalent", "side", "verdict"),
    [
        (1.1, 2.0, 1.0, "above", "reproduced"),
        (0.9, 2.0, 1.0, "above", "inconclusive"),
        (-2.0, -1.1, 1.0, "above", "contradicted"),
        (-0.5, 0.5, 0.01, "above", "no effect"),
        (-2.0, -1.1, 1.0, "below", "reproduced"),
        (1.1, 2.0, 1.0, "below", "contradicted"),
        (-0.5, 0.5, 0.01, "within", "reproduced"),
        (1.1, 2.0, 1.0, "within", "contradicted"),
        (0.5, 2.0, 1.0, "within", "inconclusive"),
        (-0.1, 0.2, 1.0, "range", "reproduced"),
        (0.1, 0.2, 1.0, "range", "contradicted"),
        (NAN, NAN, NAN, "above", "inconclusive"),
    ],
)
def test_the_verdict_of_an_endpoint(low, high, equivalent, side, verdict):
    assert verdict_of_endpoint(effect(low, high, equivalent=equivalent), side) == verdict


def test_two_seeds_have_no_verdict():
    assert verdict_of_endpoint(effect(1.1, 2.0, n=2), "above") == "inconclusive"


@pytest.mark.parametrize(
    ("verdicts", "needs", "together"),
    [
        (["reproduced", "reproduced"], "all", "reproduced"),
        (["reproduced", "inconclusive"], "all", "inconclusive"),
        (["inconclusive", "no effect"], "all", "no effect"),
        (["no effect", "contradicted"], "all", "contradicted"),
        (["reproduced", "contradicted"], "any", "reproduced"),
        (["no effect", "contradicted"], "any", "no effect"),
        (["contradicted", "contradicted"], "any", "contradicted"),
        (["inconclusive", "contradicted"], "any", "inconclusive"),
        (["circular", "circular"], "any", "circular"),
        ([], "all", None),
    ],
)
def test_the_verdict_of_an_arm(verdicts, needs, together):
    assert verdict_of_arm(verdicts, needs) == together


@pytest.mark.parametrize(
    ("published", "corrected", "controls", "verdict"),
    [
        ("reproduced", "reproduced", "reproduced", "reproduced"),
        ("reproduced", "reproduced", "no effect", "artefact"),
        ("reproduced", "contradicted", None, "artefact"),
        ("reproduced", "inconclusive", "reproduced", "inconclusive"),
        ("contradicted", "contradicted", "reproduced", "contradicted"),
        ("circular", "inconclusive", None, "circular"),
        ("circular", "reproduced", "reproduced", "reproduced"),
        (None, "no effect", None, "no effect"),
        ("reproduced", None, None, "inconclusive"),
    ],
)
def test_the_verdict_of_a_claim(published, corrected, controls, verdict):
    assert verdict_of_claim(published, corrected, controls) == verdict


def simulated(rng, shift: float, scatter: float, n: int) -> str:
    """The verdict of a study of n seeds whose log-ratios have this mean and standard deviation."""
    got = Found(mean_effect(rng.normal(shift, scatter, n), RATIO, rng=rng), RATIO, False, "")
    return verdict_of_endpoint(got, "above")


def test_identical_populations_rarely_differ(rng, monkeypatch):
    """1,000 studies of ten seeds without an effect, whatever the scatter: at most 5 % say so."""
    monkeypatch.setattr("lossgeo.statistics.FLIPS", 8)  # p plays no part
    for scatter in (0.05, 0.22, 1.0):
        drawn = [simulated(rng, 0.0, scatter, 10) for _ in range(1000)]
        differing = sum(verdict in ("reproduced", "contradicted") for verdict in drawn)
        assert differing <= 50


def test_an_effect_at_the_edge_is_claimed_in_one_of_forty(rng, monkeypatch):
    """A mean of the smallest effect itself: intervals of 95 % lie beyond it in 2.5 % of studies."""
    monkeypatch.setattr("lossgeo.statistics.FLIPS", 8)
    drawn = [simulated(rng, RATIO, 0.22, 10) for _ in range(4000)]
    claimed = sum(verdict == "reproduced" for verdict in drawn) / 4000
    assert claimed == pytest.approx(0.025, abs=4 * math.sqrt(0.025 * 0.975 / 4000))


def test_twice_the_smallest_effect_is_found(rng, monkeypatch):
    """A ratio of 1.25^2 among ten seeds that scatter by 22 %: at least 80 % of 1,000 studies."""
    monkeypatch.setattr("lossgeo.statistics.FLIPS", 8)
    drawn = [simulated(rng, 2 * RATIO, 0.22, 10) for _ in range(1000)]
    assert sum(verdict == "reproduced" for verdict in drawn) >= 800


def test_a_claim_has_its_rows_and_its_verdict():
    table = runs_table({"a-2": [2.0, 2.1, 2.2, 1.9], "b-4": [1.0, 1.1, 0.9, 1.0]})
    both = registry_of({"quantity": "x", **A_TO_B}, {"quantity": "x", **A_TO_B, "side": "below"})
    both["claims"]["own"]["published"] = [{"part": "p", "quantity": "x", **A_TO_B}]
    rows, claimed = judge({"runs": table}, both)
    assert list(rows["verdict"]) == ["reproduced", "reproduced", "contradicted"]
    assert list(rows["arm"]) == ["published", "corrected", "corrected"]
    row = rows.iloc[1]
    logs = np.log(np.array([2.0, 2.1, 2.2, 1.9]) / [1.0, 1.1, 0.9, 1.0])
    assert row["estimate"] == pytest.approx(np.exp(logs.mean()))
    assert row["scaled"] == pytest.approx(logs.mean() / RATIO)
    assert (row["reference"], row["smallest_effect"]) == (1.0, pytest.approx(1.25))
    assert row["low"] < row["estimate"] < row["high"]
    assert rows.iloc[2]["scaled"] == pytest.approx(-row["scaled"])
    assert rows.iloc[2]["scaled_low"] == pytest.approx(-row["scaled_high"])
    assert list(claimed["verdict"]) == ["artefact"]
    assert list(claimed["p"]) == [0.125]
    assert list(claimed["p_floor"]) == [0.125]


def test_judging_twice_gives_the_same_numbers(rng):
    table = runs_table({f"m-{w}": list(rng.normal(size=6)) for w in (1, 2, 4)}).assign(
        y=rng.normal(size=18)
    )
    tau = {"contrast": "tau", "quantity": "x", "with": "y", "models": ["m-1", "m-2", "m-4"]}
    tau |= {"at": "sgd/final", "within": "model", "side": "above"}
    book = registry_of(tau, y={"table": "runs", "column": "y"})
    for one, other in zip(*(judge({"runs": table}, book) for _ in range(2)), strict=True):
        pd.testing.assert_frame_equal(one, other)


# the registry


@pytest.fixture(scope="module")
def ours() -> dict:
    return yaml.safe_load((Path(__file__).parents[2] / "claims.yaml").read_text())


TABLES = ("runs", "history", "eigenvalues", "curvature", "ladder", "landscape", "flatness")
TABLES = (*TABLES, "connectivity", "trajectory", "parabola", "published")


def test_our_registry_is_whole(ours):
    registry.check(ours, TABLES, registry.known_columns())
    assert len(ours["claims"]) == 18
    used = {
        name
        for _, endpoint in registry.endpoints(ours)
        for name in registry.quantities_of(endpoint)
    }
    used |= {part for name in used for part in ours["quantities"][name].get("over", [])}
    assert used == set(ours["quantities"])


def test_our_smallest_effects_are_the_ones_fixed_before_the_run(ours):
    known = {"ratio": 1.25, "accuracy": 0.003, "r2": 0.01, "tau": 0.2, "gain": 0.1}
    known |= {"barrier": 0.05, "error": 0.02}
    known |= {"anisotropy": 1.118, "radius": 1.118}  # the square root of 1.25
    assert ours["smallest_effects"] == known
    limits = {e["below"] for _, e in registry.endpoints(ours) if e["contrast"] == "share"}
    assert limits == {0.05, 0.02}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r["quantities"]["gap"].update(table="run"), ["gap.table", "'run'", "runs"]),
        (lambda r: r["quantities"]["gap"].update(minus="train"), ["gap", "'train'", "dictionary"]),
        (
            lambda r: r["quantities"]["eigenvalue-ratio"].update(over=["eigenvalue", "nothing"]),
            ["eigenvalue-ratio.over", "'nothing'"],
        ),
        (
            lambda r: r["claims"]["sgd-sharpest"]["corrected"][1].update(quantity="sharpness"),
            ["claims.sgd-sharpest.corrected.1", "'sharpness'", "eigenvalue"],
        ),
        (
            lambda r: r["claims"]["accuracy-levels"]["corrected"][0].update(smallest_effect="acc"),
            ["accuracy-levels.corrected.0.smallest_effect", "'acc'", "accuracy"],
        ),
    ],
)
def test_a_name_that_leads_nowhere_is_named(ours, change, words):
    changed = copy.deepcopy(ours)
    change(changed)
    with pytest.raises(ConfigError) as error:
        registry.check(changed, TABLES, registry.known_columns())
    assert all(word in str(error.value) for word in words)


def test_no_verdict_is_typed_into_the_registry(ours):
    words = {*verdicts.ORDER, "reproduced", "artefact"}

    def texts(entry):
        if isinstance(entry, dict):
            return [text for value in entry.values() for text in texts(value)]
        if isinstance(entry, list):
            return [text for value in entry for text in texts(value)]
        return [entry] if isinstance(entry, str) else []

    assert not words & {text.lower() for text in texts(ours["claims"])}
