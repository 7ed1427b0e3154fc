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
from scipy import stats

from lossgeo.prediction import leave_one_out_gain
from lossgeo.registry import EFFECTS
from lossgeo.statistics import (
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


def evaluate(endpoint: Mapping, registry: Mapping, tables: Tables, name: str) -> Found:
    """The effect at one endpoint; `name` seeds its resampling. See the README on contrasts."""
    smallest = smallest_effect(endpoint, registry)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    try:
        sample = CONTRASTS[endpoint["contrast"]](endpoint, registry["quantities"], tables)
    except NoDataError as error:
        return Found(NOTHING, smallest, False, str(error))
    effect = sample.effect(smallest, rng)
    missing = sample.expected - effect.n
    remark = f"{missing} of {sample.expected} {sample.unit} without a value" if missing > 0 else ""
    return Found(effect, smallest, sample.circular, remark)


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
    expected: int  # runs, pairs or seeds there are
    unit: str
    circular: bool


def _ratio(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """log(a / b), paired by seed."""
    sides = [_of(endpoint, quantities, tables, side) for side in ("of", "to")]
    a, b = sides[0].align(sides[1], join="inner")
    logs = np.log(_positive(a)) - np.log(_positive(b))
    return _means(logs, sides)


def _difference(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """a - b, paired by seed."""
    sides = [_of(endpoint, quantities, tables, side) for side in ("of", "to")]
    a, b = sides[0].align(sides[1], join="inner")
    return _means(a - b, sides)


def _level(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """a - expected."""
    values = _of(endpoint, quantities, tables, "of")
    return _means(values - endpoint["expected"], [values], design=False)


def _range(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """log(a / expected)."""
    values = _of(endpoint, quantities, tables, "of")
    logs = np.log(_positive(values) / endpoint["expected"])
    return _Sample(lambda smallest, rng: range_effect(logs), len(values), "seeds", False)


def _share(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """Whether a < below; what is not finite is not."""
    values = _of(endpoint, quantities, tables, "of")
    inside = (values < endpoint["below"]).to_numpy()
    unit = "pairs" if values.index.nlevels > 1 else "seeds"
    return _Sample(
        lambda smallest, rng: share_effect(inside, endpoint["share"]), len(values), unit, False
    )


def _slope(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """By seed, the slope of log(a) against log2(width): least squares."""
    columns = _by_model(endpoint["quantity"], endpoint, quantities, tables)
    widths = [_width(model, tables) for model in columns]
    logs = np.log(_positive(pd.DataFrame(columns)))
    complete = logs.dropna()
    x = np.log2(widths)
    slopes = complete @ (x - x.mean()) / ((x - x.mean()) ** 2).sum()
    return _means(slopes, list(columns.values()))


def _tau(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """Kendall's tau-b of two quantities over runs: within models, or over all of them.

    Within models: the mean of the models' taus, each weighted by its number of pairs of runs. p is
    of permutations of one quantity among the runs of each model; or, over all, of the models'
    means, exactly: runs of one model are no independent evidence about models.
    """
    frame, seeds = _runs(endpoint, [endpoint["quantity"], endpoint["with"]], quantities, tables)
    within = endpoint["within"] == "model"
    parts = [part for _, part in frame.groupby("model", sort=False)] if within else [frame]
    arrays = [part.to_numpy(float) for part in (p[["seed", "x0", "x1"]] for p in parts)]

    def of_seeds(indices: np.ndarray) -> float:
        rows = [[np.flatnonzero(a[:, 0] == seeds[i]) for i in indices] for a in arrays]
        return kendall_tau(
            [a[np.concatenate(r)][:, 1:].T for a, r in zip(arrays, rows, strict=True)]
        )

    def permuted(rng: np.random.Generator) -> float:
        return kendall_tau([(a[:, 1], rng.permutation(a[:, 2])) for a in arrays])

    def effect(smallest: float, rng: np.random.Generator) -> Effect:
        null = permuted if within else None
        found = cluster_effect(of_seeds, len(seeds), smallest, null=null, rng=rng)
        if within:
            return found
        means = frame.groupby("model")[["x0", "x1"]].mean()
        p = stats.kendalltau(means["x0"], means["x1"]).pvalue
        return found._replace(p=float(p), p_floor=2 / math.factorial(len(means)))

    circular = _is_set([part["x1"] for _, part in frame.groupby("model")])
    return _Sample(effect, len(seeds), "seeds", circular)


def _gain(endpoint: Mapping, quantities: Mapping, tables: Tables) -> _Sample:
    """How much better a quantity of a model left out is predicted with further quantities."""
    beyond, further = endpoint["beyond"], endpoint["from"]
    names = [endpoint["quantity"], *beyond, *further]
    frame, seeds = _runs(endpoint, names, quantities, tables)
    logs = np.log(_positive(frame[[f"x{i}" for i in range(len(names))]]))
    keep = logs.notna().all(axis=1)
    logs, frame = logs[keep].to_numpy(), frame[keep]
    of_seed = [np.flatnonzero(frame["seed"] == seed) for seed in seeds]
    models = frame["model"].to_numpy()
    if len(set(models)) < 3:
        raise NoDataError("fewer than three models have all of its quantities")

    def gain(indices: np.ndarray) -> float:
        rows = np.concatenate([of_seed[i] for i in indices])
        base = logs[rows, 1 : 1 + len(beyond)]
        return leave_one_out_gain(logs[rows, 0], base, logs[rows, 1 + len(beyond) :], models[rows])

    circular = _is_set([part["x0"] for _, part in frame.groupby("model")])
    return _Sample(
        lambda smallest, rng: cluster_effect(gain, len(seeds), smallest, rng=rng),
        len(seeds),
        "seeds",
        circular,
    )


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


def _means(values: pd.Series, sides: Sequence[pd.Series], *, design: bool = True) -> _Sample:
    """Independent values, and whether what they come from was set by the design."""
    units = set().union(*(side.index for side in sides))
    return _Sample(
        lambda smallest, rng: mean_effect(values.to_numpy(), smallest, rng=rng),
        len(units),
        "seeds",
        design and _is_set(sides),
    )


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
