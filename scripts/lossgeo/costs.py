"""What the jobs of a study cost: measured, and expected from the operations that they do.

A job of a rule is expected to take overhead + rate * operations seconds, with the samples that it
passes through its network times the network's operations per sample. Overhead (imports, reading)
and rate are a rule's, for MLPs and CNNs apart, fitted to jobs that were measured.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
from scipy.optimize import nnls

SIZES = {"train": 60_000, "test": 10_000}  # where the config takes all samples: those of MNIST
PIXELS, CLASSES, SIDE = 784, 10, 28
BACKWARD = 3  # forward and backward pass, in forward passes
JOBS = ("rule", "job", "family", "operations", "core_seconds", "peak_mb")
RATES = ("rule", "family", "overhead_s", "seconds_per_teraop", "peak_mb", "jobs", "operations")
ARTEFACTS = {"train": "snapshots"}  # of a rule whose file has another name


def operations_per_sample(spec: Mapping) -> float:
    """Floating-point operations of a forward pass of one sample; NaN for a user's model.

    MLP of width w: 2 (784 w + 10 w). CNN: two convolutions of 3 x 3 on 28 x 28 and 14 x 14 pixels,
    and two dense layers. Images other than MNIST's take as many more as they have pixels: not
    counted.
    """
    w = spec.get("width", np.nan)
    if spec.get("family") == "mlp" and "factory" not in spec:
        return 2.0 * w * (PIXELS + CLASSES)
    if spec.get("family") == "cnn" and "factory" not in spec:
        quarter = PIXELS // 4
        convolutions = 9 * w * PIXELS + 9 * w * 2 * w * quarter
        return 2.0 * (convolutions + 2 * w * (quarter // 4) * 128 + 128 * CLASSES)
    return np.nan


def passes(rule: str, section: Mapping) -> float:
    """Samples that a job of a rule passes forwards, from its section of the config.

    What a rule does beside what is counted here (products of a Lanczos run, points that a surface
    needs) grows with it, and is in its rate.
    """
    data = section["data"]
    train, test = (data[f"{split}_samples"] or SIZES[split] for split in ("train", "test"))
    samples = section.get("objective", {}).get("samples", section.get("samples", 0))
    points = len(section.get("points", [None]))
    if rule == "train":
        looks = 2 * section["evaluations_per_epoch"] * section["evaluation_samples"]
        return section["epochs"] * (BACKWARD * train + looks)
    if rule == "fork":
        return section["epochs"] * (BACKWARD * train + 2 * section["evaluation_samples"])
    if rule == "curve":
        return points * len(section["rungs"]) * section["curve"]["epochs"] * BACKWARD * train
    if rule == "hessian":
        return points * samples * (section["hessian"]["top"] + section["hessian"]["steps"])
    if rule == "ladder":
        return sum(
            at["top"] * float(np.dot(np.minimum(at["samples"], train), at["subsets"]))
            for at in section["ladder"]["at"].values()
        )
    if rule == "landscape":
        return points * samples * 100
    if rule == "flatness":
        settings = section["flatness"]
        draws = settings["draws"] * (2 * len(settings["radii"]) + 1)
        worst = sum(len(settings["worst"][ball]) for ball in ("euclidean", "elementwise"))
        rescaled = 6 if section.get("rescaled") else 1
        return points * samples * rescaled * (draws + BACKWARD * worst * settings["worst"]["steps"])
    if rule == "trajectory":
        return samples * section["trajectory"]["plane"]["points"]
    if rule == "published":
        settings = section["published"]
        lines = settings["lines"]["count"] * settings["lines"]["steps"]
        surfaces = len(section["landscape"] or ()) * (settings["plane"]["steps"] ** 2 + lines)
        products = settings["batches"] * settings["eigenvalues"] * settings["power_steps"]
        return settings["batch_size"] * (surfaces + 2 * BACKWARD * products * points) + points * (
            settings["noise_draws"] * test + train
        )
    if rule == "connectivity":
        return points * section["t"] * 2 * section["samples"] * (len(section["rungs"]) + 1)
    if rule == "planes":
        return points * samples * 100
    return 0.0


def job(rule: str, name: str, section: Mapping) -> dict:
    """A job as it is expected: rule, name, family of its model, and operations."""
    spec = section["model"]
    counted = passes(rule, section) * operations_per_sample(spec)
    family = spec.get("family") if "factory" not in spec else "own"
    return {"rule": rule, "job": name, "family": family, "operations": counted}


def measured(results: Path | str) -> pd.DataFrame:
    """The jobs of a study that were measured: those with a benchmark file, as `JOBS`.

    What a job did is read from its artefact, which carries its section of the config. Jobs without
    one (tables, figures) did no operations.
    """
    folder = Path(results) / "benchmarks"
    rows = []
    for path in sorted(folder.rglob("*.tsv")):
        rule, *names = path.relative_to(folder).with_suffix("").parts
        cost = pd.read_csv(path, sep="\t", na_values="-").iloc[-1]
        row = {"rule": rule, "job": "/".join(names), "family": "", "operations": 0.0}
        section = _section(Path(results), rule, names)
        if section:
            with suppress(KeyError):  # of another version's config: what it did is not known
                row = job(rule, "/".join(names), section)
        rows.append(row | {"core_seconds": cost["cpu_time"], "peak_mb": cost["max_rss"]})
    return pd.DataFrame(rows, columns=JOBS)


def fit(jobs: pd.DataFrame) -> pd.DataFrame:
    """Overhead, rate and peak memory of each rule and family (`RATES`), from measured jobs.

    Non-negative least squares of relative deviations, so that long jobs do not outweigh the rest.
    Jobs whose operations are not known (a user's model) give an overhead alone.
    """
    rows = []
    for (rule, family), part in jobs.groupby(["rule", "family"], sort=True):
        seconds = part["core_seconds"].clip(lower=0.1).to_numpy()
        work = part["operations"].fillna(0.0).to_numpy() / 1e12
        design = np.column_stack([np.ones(len(part)), work])
        (overhead, rate), _ = nnls(design / seconds[:, None], np.ones(len(part)))
        row = (rule, family, overhead, rate, part["peak_mb"].max(), len(part))
        rows.append((*row, part["operations"].max()))
    return pd.DataFrame(rows, columns=RATES)


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
        found = known.loc[cell] if cell in known.index else None
        if found is None and (rates["rule"] == one["rule"]).any():
            of_rule = rates[rates["rule"] == one["rule"]]
            found = of_rule.loc[of_rule["seconds_per_teraop"].idxmax()]
        if found is None:
            seconds.append(0.0)
            memory.append(np.nan)
        else:
            work = one["operations"]
            work = found["operations"] if np.isnan(work) else work
            seconds.append(found["overhead_s"] + found["seconds_per_teraop"] * work / 1e12)
            memory.append(found["peak_mb"])
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
    else:
        kind = "pairs" if names and "-" in names[-1] else "runs"
        path = results.joinpath(kind, *names, f"{stem}.h5")
    if not path.is_file():
        return None
    with h5py.File(path, "r") as file:
        return json.loads(file.attrs["config"])
