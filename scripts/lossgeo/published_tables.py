"""The tidy table of what the study's own estimators say, as in `tables`."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import scipy

from lossgeo import store
from lossgeo.tables import MEASURED, identity_of

NUMBERS = (
    *("train_loss_all", "train_accuracy_all", "test_loss_all", "test_accuracy_all"),
    *("eigenvalue", "eigenvalue_low", "eigenvalue_high", "stopped"),
    *("noise_rise", "noise_spread"),
    *("plane_anisotropy", "plane_cosine", "plane_comb"),
    *("line_cosine", "line_start_distance", "line_start_rise", "line_lowest_rise", "line_range"),
    *("pc1_r2", "pc1_range"),
)


def published(paths: Sequence[Path | str]) -> pd.DataFrame:
    """One row per run and point: every published estimator, and what its faults amount to."""
    rows = []
    for path in paths:
        for point in store.subgroups(path):
            status = store.read(path, point, ()).attributes["status"]
            row = identity_of(path, MEASURED) | {"point": point, "status": status}
            for part in store.subgroups(path, point):
                row |= PARTS[part](store.read(path, f"{point}/{part}"))
            rows.append(row)
    table = pd.DataFrame(rows, columns=[*MEASURED, "point", "status", *NUMBERS])
    return table.astype({"stopped": "Int64"} | dict.fromkeys(set(NUMBERS) - {"stopped"}, float))


def _losses(group: store.Group) -> dict:
    return {name: group.attributes[name.removesuffix("_all")] for name in NUMBERS[:4]}


def _eigenvalues(group: store.Group) -> dict:
    values = group.variables["eigenvalue"].values
    return {
        "eigenvalue": values.mean(),
        "eigenvalue_low": values.min(),
        "eigenvalue_high": values.max(),
        "stopped": int(group.variables["stopped"].values.sum()),
    }


def _noise(group: store.Group) -> dict:
    rises = group.variables["rise"].values
    return {"noise_rise": rises.mean(), "noise_spread": rises.std(ddof=1)}


def _plane(group: store.Group) -> dict:
    return {f"plane_{name}": group.attributes[name] for name in ("anisotropy", "cosine", "comb")}


def _lines(group: store.Group) -> dict:
    found = {name: variable.values for name, variable in group.variables.items()}
    minimum = group.attributes["minimum"]
    with np.errstate(invalid="ignore"):  # a line that is infinite all along
        ranges = np.ptp(found["loss"], axis=1)
    return {
        "line_cosine": group.attributes["cosine"],
        "line_start_distance": found["distance"].mean(),
        "line_start_rise": found["start"].mean() - minimum,
        "line_lowest_rise": found["loss"].min() - minimum,
        "line_range": float(scipy.stats.gmean(ranges)),
    }


def _pc1(group: store.Group) -> dict:
    return {"pc1_r2": group.attributes["r2"], "pc1_range": np.ptp(group.variables["loss"].values)}


PARTS = {
    "losses": _losses,
    "eigenvalues": _eigenvalues,
    "noise": _noise,
    "plane": _plane,
    "lines": _lines,
    "pc1": _pc1,
}
