"""What a study's jobs cost, by rule: from the benchmark file that Snakemake writes of each."""

from pathlib import Path

import pandas as pd


def benchmarks(folder: Path | str) -> pd.DataFrame:
    """One row per job whose benchmark file is under `folder`: rule, seconds, core_seconds, peak_mb.

    The rule is the first part of a file's path. Empty where there are none.
    """
    rows = []
    for path in sorted(Path(folder).rglob("*.tsv")):
        one = pd.read_csv(path, sep="\t", na_values="-").iloc[-1]
        rule = path.relative_to(folder).parts[0].removesuffix(".tsv")
        job = "/".join(path.relative_to(folder).with_suffix("").parts)
        rows.append((rule, job, one["s"], one["cpu_time"], one["max_rss"]))
    return pd.DataFrame(rows, columns=["rule", "job", "seconds", "core_seconds", "peak_mb"])


def spent(folder: Path | str) -> list[dict]:
    """By rule, in descending order of cost, and in total: what the jobs of a study have cost."""
    jobs = benchmarks(folder)
    found = [_row(rule, part) for rule, part in jobs.groupby("rule")]
    found.sort(key=lambda row: -row["core_hours"])
    return [*found, _row("all", jobs)] if found else []


def _row(rule: str, jobs: pd.DataFrame) -> dict:
    return {
        "rule": rule,
        "jobs": len(jobs),
        "core_hours": float(jobs["core_seconds"].sum() / 3600),
        "longest_s": float(jobs["seconds"].max()),
        "peak_mb": float(jobs["peak_mb"].max()),
    }
