"""Tidy tables of pairs of runs: one row per observation, as in `tables`."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lossgeo import store
from lossgeo.statistics import mean_interval, share_interval
from lossgeo.tables import RUN, identity_of, with_identity

Paths = Sequence[Path | str]

CELL = RUN[:-1]
PAIR = (*CELL, "seed_a", "seed_b")
SPLITS = {"train": "samples", "test": "test_samples"}  # -> the attribute with their number
RUNGS = ("line", "aligned", "renormalised", "curve", "aligned_curve")
MEASURES = ("loss", "error", "tempered_loss")
SIMILARITIES = ("disagreement", "cka", "debiased_cka", "unit_correlation")
ENDS = ("naive", "aligned")


def connectivity(paths: Paths) -> pd.DataFrame:
    """One row per pair of seeds, point, split, rung and measure: the barrier on the path."""
    rows = [
        identity
        | {"status": _status(group, measure), "rung": rung, "measure": measure}
        | _barrier(group, measure)
        | {"length_ratio": _ratio(group.attributes["length"], group.attributes["distance"])}
        for _, identity, rung, group in _profiles(paths)
        for measure in MEASURES
    ]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=PAIR)


def connectivity_path(paths: Paths) -> pd.DataFrame:
    """One row per point t of each path between a pair of seeds, and split."""
    frames = []
    for _, identity, rung, group in _profiles(paths):
        names = ["t", *(f"{m}{end}" for m in MEASURES for end in ("", "_se")), "temperature"]
        frame = pd.DataFrame({name: group.variables[name].values for name in names})
        known = identity | {"status": group.attributes["status"], "rung": rung}
        frames.append(with_identity(known, frame))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=PAIR)


def barriers(paths: Paths, limits: Mapping[str, float]) -> pd.DataFrame:
    """One row per model, optimizer, point, split, rung and measure: its barriers over the pairs.

    Disjoint pairs are independent: the interval is Student's t over them, and that of the share
    below the limit is exact (Clopper and Pearson 1934).
    """
    table = connectivity(paths)
    if table.empty:
        return pd.DataFrame(columns=CELL)
    keys = [*CELL, "point", "split", "rung", "measure"]
    rows = []
    for key, part in table.groupby(keys, sort=False):
        found = dict(zip(keys, key, strict=True))
        limit = limits[found["measure"].removeprefix("tempered_")]
        heights = part.loc[part["status"] == "ok", "barrier"].to_numpy()
        rows.append(found | _summary(heights, int((part["status"] == "not finite").sum()), limit))
    return pd.DataFrame(rows)


def similarity(paths: Paths) -> pd.DataFrame:
    """One row per pair of seeds, point, split, kind of ends and measure of their similarity."""
    rows = []
    for path in paths:
        for point in store.subgroups(path):
            status = store.read(path, point, ()).attributes["status"]
            for split in SPLITS:
                found = store.read(path, f"{point}/similarity/{split}").variables
                identity = _identity(path, point, split) | {"status": status}
                for i, ends in enumerate(ENDS):
                    for name in SIMILARITIES:
                        row = identity | {"ends": ends, "quantity": name}
                        row |= {"similarity": found[name].values[i]}
                        row |= {"similarity_se": found[f"{name}_se"].values[i]}
                        if status == "ok" and np.isnan(row["similarity"]):
                            row["status"] = "not available"
                        rows.append(row)
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=PAIR)


def alignment(paths: Paths) -> pd.DataFrame:
    """One row per pair of seeds, point and start of the search for the best permutations."""
    rows = []
    for path in paths:
        for point in store.subgroups(path):
            group = store.read(path, point)
            found = group.attributes
            identity = _pair(path) | {"point": point, "status": found["status"]}
            if found["status"] != "ok":
                rows.append(identity)
                continue
            starts = (group.variables[name].values for name in ("objectives", "sweeps"))
            for start, (reached, sweeps) in enumerate(zip(*starts, strict=True)):
                rows.append(
                    identity
                    | {"exact": bool(found["exact"])}
                    | {name: found[name] for name in ("distance_before", "distance")}
                    | {"objective_before": found["objective_before"]}
                    | {"start": start, "kept": start == found["best"]}
                    | {"objective": reached, "sweeps": sweeps}
                )
    columns = ("exact", "distance_before", "distance", "objective_before")
    columns += ("start", "kept", "objective", "sweeps")
    table = pd.DataFrame(rows, columns=[*PAIR, "point", "status", *columns])
    return table.astype({"start": "Int64", "sweeps": "Int64"})


def instability(paths: Paths, limits: Mapping[str, float]) -> pd.DataFrame:
    """One row per run, point, split, number of shared epochs and measure: the barrier to its fork.

    Fork and run shared initialisation and their first epochs, and then parted by the order of the
    data (Frankle et al. 2020).
    """
    rows = []
    for path, identity, _, group in _profiles(paths):
        b = store.attributes(path)["b"]
        identity.pop("seed_b")
        for measure in MEASURES:
            rows.append(
                {"seed" if name == "seed_a" else name: value for name, value in identity.items()}
                | {"status": _status(group, measure)}
                | {"shared_epochs": int(b.removeprefix("fork")), "measure": measure}
                | _barrier(group, measure)
                | {"limit": limits[measure.removeprefix("tempered_")]}
            )
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=RUN)


def _profiles(paths: Paths) -> Iterator[tuple[Path | str, dict, str, store.Group]]:
    """Every path of every file: file, identity with point and split, rung, profile."""
    for path in paths:
        for point in store.subgroups(path):
            present = store.subgroups(path, point)
            for rung in (rung for rung in RUNGS if rung in present):
                for split in SPLITS:
                    group = store.read(path, f"{point}/{rung}/{split}")
                    yield path, _identity(path, point, split), rung, group


def _pair(path: Path | str) -> dict:
    return identity_of(path, PAIR)


def _identity(path: Path | str, point: str, split: str) -> dict:
    samples = store.attributes(path)[SPLITS[split]]
    return _pair(path) | {"point": point, "split": split, "samples": samples}


def _ratio(length: float, distance: float) -> float:
    """NaN for ends in one place."""
    return length / distance if distance else np.nan


def _status(group: store.Group, measure: str) -> str:
    """Of a measure that a loss has not, not available: error, or the best temperature."""
    return group.attributes.get(f"{measure}_status", group.attributes["status"])


def _barrier(group: store.Group, measure: str) -> dict:
    return {f"barrier{s}": group.attributes[f"{measure}_barrier{s}"] for s in ("", "_se", "_t")}


def _summary(heights: np.ndarray, lost: int, limit: float) -> dict:
    """Mean and interval of the barriers (n,) of n pairs, and how they lie to the limit.

    `lost` pairs more have a path on which the loss is not finite: they are not below the limit,
    and nobody can say that it is not exceeded.
    """
    interval = mean_interval(heights)
    below = int((heights < limit).sum())
    low, high = share_interval(below, len(heights) + lost)
    exceeded = "undecided"
    if interval.low > limit:
        exceeded = "yes"
    elif interval.high < limit and not lost:
        exceeded = "no"
    return {
        "pairs": len(heights),
        "barrier_mean": interval.mean,
        "barrier_low": interval.low,
        "barrier_high": interval.high,
        "limit": limit,
        "exceeded": exceeded if len(heights) + lost else "no pair",
        "pairs_below": below,
        "share_below_low": low,
        "share_below_high": high,
    }
