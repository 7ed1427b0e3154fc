"""What the jobs of a study cost: measured, and expected from the operations that they do.

A job of a rule is expected to take overhead + rate * operations seconds (see `operations`).
Overhead (imports, reading) and rate are a rule's, for MLPs and CNNs apart, fitted to jobs that were
measured.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy.optimize import nnls

from lossgeo.data import MNIST, Contents, contents_of
from lossgeo.operations import family, more_mb, work

JOBS = ("rule", "job", "family", "operations", "more_mb", "core_seconds", "peak_mb")
RATES = ("rule", "family", "overhead_s", "seconds_per_teraop", "peak_mb", "jobs", "operations")
ARTEFACTS = {"train": "snapshots", "weights": "snapshots"}  # of a rule whose file has another name


def job(rule: str, name: str, section: Mapping, contents: Contents | None) -> dict:
    """A job as it is expected: rule, name, family of its model, operations, and by how much the
    inputs that it holds outweigh those of MNIST.

    `contents` are what its data hold; None: not known, and neither are then its operations.
    """
    return {
        "rule": rule,
        "job": name,
        "family": family(section),
        "operations": work(rule, section, contents),
        "more_mb": more_mb(rule, section, contents or MNIST),
    }


def measured(
    results: Path | str, own: tuple[Mapping[str, str], Contents] | None = None
) -> pd.DataFrame:
    """The jobs of a study that were measured: those with a benchmark file, as `JOBS`.

    What a job did is read from its artefact, which carries its section of the config. Jobs without
    one (tables, figures) did no operations. What the data held is known of public data sets, and of
    a user's `own`, by the digests of their files.
    """
    digests, contents = own or ({}, None)
    folder = Path(results) / "benchmarks"
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        rule, *names = path.relative_to(folder).with_suffix("").parts
        cost = pd.read_csv(path, sep="\t", na_values="-").iloc[-1]
        row = without_model(rule, "/".join(names))
        section = _section(Path(results), rule, names)
        if section:
            with suppress(KeyError):  # of another version's config: what it did is not known
                spec = section["data"]
                held = contents if spec.get("sha256") == digests else contents_of(spec)
                row = job(rule, "/".join(names), section, held)
        rows.append(row | {"core_seconds": cost["cpu_time"], "peak_mb": cost["max_rss"]})
    return pd.DataFrame(rows, columns=JOBS)


def without_model(rule: str, name: str) -> dict:
    """A job of a rule that passes no sample through a network, as `job` has it."""
    return {"rule": rule, "job": name, "family": "", "operations": 0.0, "more_mb": 0.0}


def fit(jobs: pd.DataFrame) -> pd.DataFrame:
    """Overhead, rate and peak memory of each rule and family (`RATES`), from measured jobs.

    Non-negative least squares of relative deviations, so that long jobs do not outweigh the rest.
    Jobs of a user's model, whose operations are not known, give an overhead alone; those on data of
    which it is not known what they hold give nothing.
    """
    rows = []
    jobs = jobs[jobs["operations"].notna() | (jobs["family"] == "own")]
    for (rule, kind), part in jobs.groupby(["rule", "family"], sort=True):
        seconds = part["core_seconds"].clip(lower=0.1).to_numpy()
        work = part["operations"].fillna(0.0).to_numpy() / 1e12
        design = np.column_stack([np.ones(len(part)), work])
        (overhead, rate), _ = nnls(design / seconds[:, None], np.ones(len(part)))
        peak = (part["peak_mb"] - part["more_mb"]).max()  # as it were on MNIST
        row = (rule, kind, overhead, rate, peak, len(part))
        rows.append((*row, part["operations"].max()))
    return pd.DataFrame(rows, columns=RATES)


def updated(rates: pd.DataFrame, here: pd.DataFrame) -> pd.DataFrame:
    """Rates, with those that were fitted `here` in place of theirs."""
    known = set(zip(here["rule"], here["family"], strict=True))
    left = [cell not in known for cell in zip(rates["rule"], rates["family"], strict=True)]
    return pd.concat([here, rates[left]])


def read_rates(path: Path | str) -> pd.DataFrame:
    """The rates in a CSV file, as `benchmarks/costs.py` writes them."""
    return pd.read_csv(path, keep_default_na=False, na_values={"seconds_per_teraop": ""})


def expect(jobs: pd.DataFrame, rates: pd.DataFrame) -> pd.DataFrame:
    """Jobs with the core-seconds and memory that are expected of them.

    A family that was not measured goes by the rule's dearest rate, and so does a user's model,
    whose operations are not known: it counts as the largest job that was measured (`guess`). A rule
    that was never measured counts as nothing, and is marked as well.
    """
    known = rates.set_index(["rule", "family"])
    seconds, memory, guess = [], [], []
    for _, one in jobs.iterrows():
        cell = (one["rule"], one["family"])
        rule = one["rule"]
        found = known.loc[cell] if cell in known.index else None
        if found is None and (rates["rule"] == rule).any():
            of_rule = rates[rates["rule"] == rule]
            found = of_rule.loc[of_rule["seconds_per_teraop"].idxmax()]
        if found is None:
            seconds.append(0.0)
            memory.append(np.nan)
        else:
            work = one["operations"]
            work = found["operations"] if np.isnan(work) else work
            seconds.append(found["overhead_s"] + found["seconds_per_teraop"] * work / 1e12)
            memory.append(found["peak_mb"] + one["more_mb"])
        guess.append(cell not in known.index or bool(np.isnan(one["operations"])))
    return jobs.assign(expected_s=seconds, expected_mb=memory, guess=guess)


def summary(jobs: pd.DataFrame, past: pd.DataFrame) -> pd.DataFrame:
    """By rule: what is expected of all jobs, and what those that are there have cost.

    `jobs` are a study's, as `expect` returns them, and `past` those that were measured. `ratio` is
    measured over expected, of the jobs that both have.
    """
    both = jobs.merge(past[["rule", "job", "core_seconds"]], on=["rule", "job"], how="left")
    found = [_row(rule, part) for rule, part in both.groupby("rule", sort=False)]
    found.sort(key=lambda row: -row["core_hours"])
    return pd.DataFrame([*found, _row("all", both)])


def spent(results: Path | str) -> list[dict]:
    """By rule, in descending order of cost, and in total: what the jobs of a study have cost."""
    jobs = measured(results)
    rows = [
        {
            "rule": rule,
            "jobs": len(part),
            "core_hours": float(part["core_seconds"].sum() / 3600),
            "longest_s": float(part["core_seconds"].max()),
            "peak_mb": float(part["peak_mb"].max()),
        }
        for rule, part in [*jobs.groupby("rule"), ("all", jobs)]
    ]
    return sorted(rows, key=lambda row: (row["rule"] == "all", -row["core_hours"]))


def _row(rule: str, part: pd.DataFrame) -> dict:
    done = part[part["core_seconds"].notna()]
    expected = done["expected_s"].sum()
    return {
        "rule": rule + (" (guess)" if rule != "all" and part["guess"].any() else ""),
        "jobs": len(part),
        "core_hours": part["expected_s"].sum() / 3600,
        "longest_s": part["expected_s"].max(),
        "peak_mb": part["expected_mb"].max(),
        "done": len(done),
        "measured_core_hours": done["core_seconds"].sum() / 3600,
        "ratio": done["core_seconds"].sum() / expected if expected else np.nan,
    }


def _section(results: Path, rule: str, names: Sequence[str]) -> dict | None:
    """The section of the config that a job's artefact carries, if there is an artefact."""
    stem = ARTEFACTS.get(rule, rule)
    if rule == "fork":
        names = "/".join(names).replace("-fork", "/fork").split("/")
        path = results.joinpath("runs", *names).with_suffix(".h5")
    elif rule == "tile":
        path = results.joinpath("runs", *names[:-1], "tiles", f"{names[-1]}.h5")
    else:
        kind = "pairs" if names and "-" in names[-1] else "runs"
        path = results.joinpath(kind, *names, f"{stem}.h5")
    if not path.is_file():
        return None
    with h5py.File(path, "r") as file:
        return json.loads(file.attrs["config"])
