"""Claims as data: what a registry asks of a study's tables, and the effect that they show.

A registry (claims.yaml) names quantities, one number per run or per pair of runs, and endpoints,
each a contrast of one quantity. Effects are 0 where there is no effect: ratios as logarithms,
levels less what was expected.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy

from lossgeo.prediction import leave_one_out_gain
from lossgeo.registry import EFFECTS
from lossgeo.statistics import (
    LEVEL,
    Effect,
    cluster_effect,
    kendall_tau,
    mean_effect,
    range_effect,
    share_effect,
)

Tables = Mapping[str, pd.DataFrame]

LOGARITHMIC = ("ratio", "slope", "range")  # contrasts whose effect is a logarithm
CELL = ("model", "optimizer", "point")
NOTHING = Effect(math.nan, math.nan, math.nan, 0, "none")


class NoDataError(ValueError):
    """What a claim asks for is not in the tables, and why."""


class Found(NamedTuple):
    """The effect at an endpoint."""

    effect: Effect
    smallest: float  # effect that counts, on the effect's scale
    circular: bool  # the quantity was set by the design: all seeds of a model share one value
    remark: str  # what is missing; empty: nothing
    unit: str = "seeds"  # what the effect's n counts: seeds, pairs or models


def evaluate(endpoint: Mapping, registry: Mapping, tables: Tables, name: str) -> Found:
    """The effect at one endpoint; `name` seeds its resampling. See the README on contrasts."""
    smallest = smallest_effect(endpoint, registry)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    try:
        sample = CONTRASTS[endpoint["contrast"]](endpoint, registry["quantities"], tables)
    except NoDataError as error:
        return Found(NOTHING, smallest, False, str(error))
    effect = sample.effect(smallest, rng)
    return Found(effect, smallest, sample.circular, sample.remark, sample.unit)


def smallest_effect(endpoint: Mapping, registry: Mapping) -> float:
    """What counts as an effect at an endpoint, on the effect's scale; 0 for a share."""
    contrast = endpoint["contrast"]
    if contrast == "share":
        return 0.0
    named = endpoint.get("smallest_effect", EFFECTS.get(contrast))
    value = registry["smallest_effects"][named] if isinstance(named, str) else named
    return math.log(value) if contrast in LOGARITHMIC else value


def natural(endpoint: Mapping, value: float) -> float:
    """An effect as it is read: ratios and levels themselves, not their distance from no effect."""
    contrast = endpoint["contrast"]
    if contrast in ("ratio", "slope"):
        return math.exp(value)
    if contrast == "range":
        return endpoint["expected"] * math.exp(value)
    key = {"level": "expected", "share": "share"}.get(contrast)
    return value + endpoint[key] if key else value


def reference(endpoint: Mapping) -> float:
    """What `natural` gives where there is no effect."""
    return natural(endpoint, 0.0)


def measured(quantity: str, quantities: Mapping, tables: Tables, where: Mapping) -> pd.Series:
    """A quantity of every run, or pair of runs, that is as `where` says: indexed by seed(s).

    The mean of the rows that remain of each. A table without the column `point` has the same value
    for all of them. Raises NoDataError where there are none.
    """
    spec = quantities[quantity]
    if "over" in spec:
        above, below = (measured(name, quantities, tables, where) for name in spec["over"])
        return above / below
    if spec["table"] not in tables:
        raise NoDataError(f"no stage of this study makes the table {spec['table']}")
    frame = tables[spec["table"]]
    asked = {
        column: value
        for column, value in {**where, **spec.get("where", {})}.items()
        if column != "point" or column in frame
    }
    for column, value in asked.items():
        frame = frame[_equal(frame[column], value)]
        if frame.empty:
            known = ", ".join(f"{key} {entry}" for key, entry in asked.items())
            raise NoDataError(f"table {spec['table']} has no row with {known}")
    values = frame[spec["column"]].astype(float)
    if "minus" in spec:
        values = values - frame[spec["minus"]]
    return values.groupby([frame[name] for name in _unit(frame)]).mean()


class _Sample(NamedTuple):
    """What a contrast found in the tables: how to get its effect, and of how many."""

    effect: Any  # (smallest, rng) -> Effect
    unit: str  # what is counted as independent
    circular: bool
    remark: str  # what is missing


def _ratio(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """log(a / b), paired by seed."""
    sides = [_of(endpoint, quantities, tables, side) for side in ("of", "to")]
    a, b = sides[0].align(sides[1], join="inner")
    logs = np.log(_positive(a)) - np.log(_positive(b))
    return _means(logs, sides, tables, [endpoint["of"], endpoint["to"]])


def _difference(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """a - b, paired by seed."""
    sides = [_of(endpoint, quantities, tables, side) for side in ("of", "to")]
    a, b = sides[0].align(sides[1], join="inner")
    return _means(a - b, sides, tables, [endpoint["of"], endpoint["to"]])


def _level(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """a - expected."""
    values = _of(endpoint, quantities, tables, "of")
    return _means(values - endpoint["expected"], [values], tables, [endpoint["of"]], design=False)


def _range(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """log(a / expected)."""
    values = _of(endpoint, quantities, tables, "of")
    logs = np.log(_positive(values) / endpoint["expected"])
    missing = _missing(int(logs.notna().sum()), logs.index, tables, [endpoint["of"]])
    return _Sample(lambda smallest, rng: range_effect(logs), "seeds", False, missing)


def _share(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """Whether a < below; what is not finite is not."""
    values = _of(endpoint, quantities, tables, "of")
    inside, share = (values < endpoint["below"]).to_numpy(), endpoint["share"]
    unit = _counted(values.index)
    # all n below the limit are beyond the share where 0.025^(1/n) is (Clopper and Pearson 1934)
    takes = math.ceil(math.log((1 - LEVEL) / 2) / math.log(share))
    few = len(inside) < takes and inside.all()
    remark = f"{len(inside)} {unit} cannot show a share above {share:.0%}: that takes {takes}"
    return _Sample(
        lambda smallest, rng: share_effect(inside, share), unit, False, remark if few else ""
    )


def _slope(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """By seed, the slope of log(a) against log2(width): least squares."""
    columns = _by_model(endpoint["quantity"], endpoint, quantities, tables)
    widths = [_width(model, tables) for model in columns]
    logs = np.log(_positive(pd.DataFrame(columns)))
    complete = logs.dropna()
    x = np.log2(widths)
    slopes = complete @ (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    cells = [f"{model}/{endpoint['at']}" for model in columns]
    return _means(slopes, list(columns.values()), tables, cells)


def _tau(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """Kendall's tau-b of two quantities: over runs within models, or over models.

    Within models: the mean of the models' taus, each weighted by its number of pairs of runs, with
    p of permutations of one quantity among the seeds, the same in every model, as these share what
    belongs to a seed. Over models: tau of the models' means, with its exact p: runs of one model
    are no independent evidence about models, and n counts models. Intervals are over seeds in both.
    """
    frame, seeds = _runs(endpoint, [endpoint["quantity"], endpoint["with"]], quantities, tables)
    parts = [part for _, part in frame.groupby("model", sort=False)]
    columns = [part[["seed", "x0", "x1"]].to_numpy(float) for part in parts]
    arrays = [(np.searchsorted(seeds, a[:, 0]), a[:, 1], a[:, 2]) for a in columns]
    circular = _is_set([part["x1"] for part in parts])
    lost = _lost(endpoint, frame)

    def rows_of(indices: np.ndarray, seed: np.ndarray) -> np.ndarray:
        return np.concatenate([np.flatnonzero(seed == i) for i in indices])

    if endpoint["within"] == "model":

        def of_seeds(indices: np.ndarray) -> float:
            drawn = [(rows_of(indices, seed), x, y) for seed, x, y in arrays]
            return kendall_tau([(x[rows], y[rows]) for rows, x, y in drawn])

        def permuted(rng: np.random.Generator) -> float:
            order = rng.permutation(len(seeds))
            return kendall_tau([(x, y[np.argsort(order[seed])]) for seed, x, y in arrays])

        return _Sample(
            lambda smallest, rng: cluster_effect(
                of_seeds, len(seeds), smallest, null=permuted, rng=rng
            ),
            "seeds",
            circular,
            lost,
        )

    def of_means(indices: np.ndarray) -> float:
        rows = [rows_of(indices, seed) for seed, _, _ in arrays]
        if not all(map(len, rows)):
            return math.nan  # not one of a model's seeds was drawn
        means = [(x[r].mean(), y[r].mean()) for r, (_, x, y) in zip(rows, arrays, strict=True)]
        return kendall_tau([tuple(np.array(means).T)])

    def effect(smallest: float, rng: np.random.Generator) -> Effect:
        found = cluster_effect(of_means, len(seeds), smallest, rng=rng)
        x, y = np.array([(x.mean(), y.mean()) for _, x, y in arrays]).T
        p, n = float(scipy.stats.kendalltau(x, y).pvalue), len(arrays)
        return found._replace(n=n, p=p, p_floor=2 / math.factorial(n), p_equivalent=math.nan)

    return _Sample(effect, "models", circular, lost)


def _gain(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """How much better a quantity of a model left out is predicted with further quantities.

    The interval is over seeds. p says how often further quantities are as good whose means were
    exchanged between the models: of that, n counts models.
    """
    beyond, further = endpoint["beyond"], endpoint["from"]
    names = [endpoint["quantity"], *beyond, *further]
    frame, seeds = _runs(endpoint, names, quantities, tables)
    logs = np.log(_positive(frame[[f"x{i}" for i in range(len(names))]]))
    keep = logs.notna().all(axis=1)
    logs, frame = logs[keep].to_numpy(), frame[keep]
    of_seed = [np.flatnonzero(frame["seed"] == seed) for seed in seeds]
    models, at = np.unique(frame["model"], return_inverse=True)
    if len(models) < 3:
        raise NoDataError("fewer than three models have all of its quantities")
    target, base, features = np.split(logs, [1, 1 + len(beyond)], axis=1)
    means = np.array([features[at == model].mean(0) for model in range(len(models))])

    def gain(indices: np.ndarray, features: np.ndarray = features) -> float:
        rows = np.concatenate([of_seed[i] for i in indices])
        return leave_one_out_gain(target[rows, 0], base[rows], features[rows], at[rows])

    def exchanged(rng: np.random.Generator) -> float:
        order = rng.permutation(len(models))
        return gain(np.arange(len(seeds)), features + (means[order] - means)[at])

    def effect(smallest: float, rng: np.random.Generator) -> Effect:
        found = cluster_effect(gain, len(seeds), smallest, null=exchanged, two_sided=False, rng=rng)
        return found._replace(n=len(models), p_equivalent=math.nan)

    circular = _is_set([part["x0"] for _, part in frame.groupby("model")])
    return _Sample(effect, "models", circular, _lost(endpoint, frame))


CONTRASTS = {
    "ratio": _ratio,
    "difference": _difference,
    "level": _level,
    "range": _range,
    "share": _share,
    "slope": _slope,
    "tau": _tau,
    "gain": _gain,
}


def cell_of(text: str) -> dict[str, str]:
    """What "model/optimizer" or "model/optimizer/point" selects."""
    return dict(zip(CELL, text.split("/"), strict=False))


def _of(endpoint: Mapping, quantities: Mapping, tables: Tables, side: str) -> pd.Series:
    where = cell_of(endpoint[side]) | endpoint.get("where", {})
    return measured(endpoint["quantity"], quantities, tables, where)


def _by_model(
    quantity: str, endpoint: Mapping, quantities: Mapping, tables: Tables
) -> dict[str, pd.Series]:
    """A quantity of each of an endpoint's models."""
    optimizer, *point = endpoint["at"].split("/")
    at = {"optimizer": optimizer} | ({"point": point[0]} if point else {})
    where = at | endpoint.get("where", {})
    return {
        model: measured(quantity, quantities, tables, {"model": model} | where)
        for model in endpoint["models"]
    }


def _runs(
    endpoint: Mapping, names: Sequence[str], quantities: Mapping, tables: Tables
) -> tuple[pd.DataFrame, np.ndarray]:
    """One row per run with model, seed and quantities x0, x1, ..., all finite; and the seeds."""
    frames = []
    for number, name in enumerate(names):
        columns = _by_model(name, endpoint, quantities, tables)
        stacked = pd.concat(columns, names=["model"]).rename(f"x{number}")
        frames.append(stacked)
    frame = pd.concat(frames, axis=1, join="inner").dropna().reset_index()
    if frame.empty:
        raise NoDataError(f"no run has all of {', '.join(names)}")
    return frame, np.sort(frame["seed"].unique())


def _means(
    values: pd.Series,
    sides: Sequence[pd.Series],
    tables: Tables,
    cells: Sequence[str],
    *,
    design: bool = True,
) -> _Sample:
    """Independent values, what of them is missing, and whether what they come from was set."""
    finite = int(np.isfinite(values).sum())
    return _Sample(
        lambda smallest, rng: mean_effect(values.to_numpy(), smallest, rng=rng),
        _counted(values.index),
        design and _is_set(sides),
        _missing(finite, values.index, tables, cells),
    )


def _missing(found: int, index: pd.Index, tables: Tables, cells: Sequence[str]) -> str:
    """How many of the seeds that all `cells` have runs of, or of the pairs, are without a value."""
    expected = len(index)
    runs = tables.get("runs")
    if index.nlevels == 1 and runs is not None:
        asked = [{key: cell_of(cell)[key] for key in ("model", "optimizer")} for cell in cells]
        trained = [
            set(runs.loc[(runs[list(one)] == pd.Series(one)).all(axis=1), "seed"]) for one in asked
        ]
        expected = len(set.intersection(*trained))
    missing = expected - found
    return f"{missing} of {expected} {_counted(index)} without a value" if missing > 0 else ""


def _lost(endpoint: Mapping, frame: pd.DataFrame) -> str:
    """Which of an endpoint's models have no run with all of its quantities."""
    known = set(frame["model"])
    lost = [model for model in endpoint["models"] if model not in known]
    return f"without all quantities: {', '.join(lost)}" if lost else ""


def _counted(index: pd.Index) -> str:
    return "pairs" if index.nlevels > 1 else "seeds"


def _is_set(sides: Sequence[pd.Series]) -> bool:
    """Whether every model has one value for all of its seeds, two or more."""
    return all(len(side) > 1 and side.nunique() == 1 for side in sides)


def _positive(values):
    return values.where(values > 0)


def _width(model: str, tables: Tables) -> float:
    runs = tables["runs"]
    width = runs.loc[runs["model"] == model, "width"].iloc[0]
    if width < 1:
        raise NoDataError(f"{model} has no width: give it one in the config")
    return float(width)


def _equal(column: pd.Series, value) -> pd.Series:
    if isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool)):
        return pd.Series(np.isclose(column.astype(float), value), index=column.index)
    return column == value


def _unit(frame: pd.DataFrame) -> list[str]:
    """The columns that say which run, or which pair of runs, a row is of."""
    return ["seed"] if "seed" in frame else ["seed_a", "seed_b"]
