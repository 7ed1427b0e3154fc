"""Put a study's tables, figures and findings into one folder that can be read on its own."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

import hashlib
import json
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from lossgeo import costs, findings, store

PACKAGES = ("torch", "numpy", "scipy", "pandas", "hessian-eigenthings", "loss-landscapes")


def main(snakemake) -> None:
    folder, inputs = Path(snakemake.output[0]), snakemake.input
    tables = {}
    for path in map(Path, inputs.tables):
        copy = folder / "tables" / path.name
        copy.parent.mkdir(parents=True, exist_ok=True)
        store.write_csv(findings.rounded(pd.read_csv(path)), copy)
        tables[path.stem] = pd.read_csv(copy)
    results = Path(snakemake.params.config["results"])
    for path in map(Path, inputs.figures):
        copy = folder / "figures" / path.relative_to(results / "figures")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    run = {
        **repository(snakemake.params.config["claims"]),
        "results": str(results),
        "machine": machine(),
        "kernels": "; ".join(pd.read_csv(folder / "tables" / "kernels.csv")["kernels"].unique()),
        "packages": {name: version(name) for name in PACKAGES},
        "config": snakemake.params.config,
        "registry": snakemake.params.registry,
        "tables": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted((folder / "tables").iterdir())
        },
        "costs": costs.spent(results),
    }
    (folder / "run.json").write_text(json.dumps(run, indent=1, sort_keys=True) + "\n")
    run = json.loads((folder / "run.json").read_text())  # as whoever renders the page again has it
    registry = snakemake.params.registry
    for name, template in (("README.md", inputs.page), ("answers.md", inputs.answers)):
        (folder / name).write_text(findings.render(template, tables, registry, run))


def repository(claims: str) -> dict:
    """The commit that is checked out, whether tracked files have changed since, and the last commit
    of the registry of claims, with its date."""

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True)
        return done.stdout.strip() if not done.returncode else ""

    return {
        "commit": git("rev-parse", "HEAD") or "unknown",
        "changed": bool(git("status", "--porcelain", "--untracked-files=no")),
        "registry_commit": git("log", "-1", "--format=%h of %cs", "--", claims) or "unknown",
    }


def machine() -> str:
    """The processor by its name where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    cores = f", {len(names)} cores" if names else ""
    return f"{names[0] if names else platform.machine()}{cores}"


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
