"""Planning a study of many runs with every stage, against a bare Snakefile of the same shape.

The bare one has the same jobs, files and dependencies, but asks nothing of a config: what it takes
is Snakemake's own. Tables and figures are those of a small study. Also the peak memory.
"""

import json
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import compare, write

ROOT = Path(__file__).parents[1]
CLONED = ("Snakefile", "config.yaml", "claims.yaml", "requirements.txt", "workflow", "scripts")
STAGES = ("hessian", "ladder", "landscape", "flatness", "trajectory", "published")

BARE = """
RUNS = range({runs})
STAGES = {stages}
TABLES = {tables}

rule all:
    input: expand("tables/{{table}}.csv", table=TABLES)

rule train:
    output: "runs/{{seed}}/snapshots.h5", "runs/{{seed}}/history.csv"
    shell: "true"

for stage in STAGES:
    rule:
        name: stage
        input: "runs/{{seed}}/snapshots.h5"
        output: f"runs/{{{{seed}}}}/{{stage}}.h5"
        shell: "true"

rule table:
    input: lambda wildcards: [f"runs/{{run}}/{{TABLES[wildcards.table]}}" for run in RUNS]
    output: "tables/{{table}}.csv"
    shell: "true"
"""
TABLES = {  # as in workflow/rules/tables.smk
    **{"history": "history.csv", "runs": "snapshots.h5", "ladder": "ladder.h5"},
    **{f"hessian{n}": "hessian.h5" for n in range(4)},
    **{f"flatness{n}": "flatness.h5" for n in range(3)},
    **{f"trajectory{n}": "trajectory.h5" for n in range(3)},
    **{"landscape": "landscape.h5", "published": "published.h5"},
}


def main() -> None:
    counts = [int(text) for text in sys.argv[1:]] or [1000]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        for runs in counts:
            ours, bare = study(Path(name, f"ours{runs}"), runs), plain(Path(name, "bare"), runs)
            rows.append(
                compare(
                    f"planning {runs:,} runs x {len(STAGES) + 1} stages",
                    "a bare Snakefile of the same shape",
                    lambda ours=ours: plan(ours),
                    lambda bare=bare: plan(bare),
                    samples=0,
                    repeats=1,
                )
            )
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
            print(f"peak memory of what was planned so far: {peak:.2f} GiB", flush=True)
    write("planning", rows)


def study(folder: Path, runs: int) -> Path:
    """A clone whose study has so many seeds of one model."""
    folder.mkdir(parents=True)
    for name in CLONED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    (folder / "benchmarks").mkdir()
    shutil.copy2(ROOT / "benchmarks" / "costs.csv", folder / "benchmarks")
    experiment = {
        "models": ["mlp-32"],
        "optimizers": ["sgd"],
        "epochs": 10,
        "points": ["final"],
        "stages": list(STAGES),
    }
    overlay = {
        "seeds": list(range(runs)),
        "models": {"mlp-32": {"family": "mlp", "width": 32}},
        "experiments": {"many": experiment},
    }
    (folder / "many.json").write_text(json.dumps(overlay))
    return folder


def plain(folder: Path, runs: int) -> Path:
    """A folder with the bare Snakefile."""
    folder.mkdir(parents=True, exist_ok=True)
    text = BARE.format(runs=runs, stages=STAGES, tables=json.dumps(TABLES))
    (folder / "Snakefile").write_text(text)
    return folder


def plan(folder: Path) -> None:
    """A dry run that prints nothing."""
    config = ["--configfile", "many.json"] if (folder / "many.json").exists() else []
    subprocess.run(
        [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "all", *config],
        cwd=folder,
        check=True,
        capture_output=True,
    )


if __name__ == "__main__":
    main()
