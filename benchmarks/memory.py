"""What memory Hessian products take under the config's budget, each network in its own process.

python benchmarks/memory.py [NETWORK]    # of one network: prints its row
"""

import json
import subprocess
import sys
from pathlib import Path

import torch

from architectures import MODELS, images, trained
from harness import write_table
from lossgeo.hessian import hessian_operator
from lossgeo.numerics import make_deterministic
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten

BUDGET = 8e9  # bytes: `memory` of the config
SAMPLES = 2000


def peak() -> int:
    """The most memory that this process has had, in MB. That of getrusage counts its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if "VmHWM" in line) * 1024 / 1e6)


def measure(name: str) -> dict:
    """Peak memory with the data and a model that was trained, and after two products."""
    data = images(SAMPLES)
    model = trained(MODELS[name], tuple(part[:640] for part in data), steps=10)
    before, theta = peak(), flatten(model)
    objective = make_objective(model, *data, statistics="frozen", memory=BUDGET)
    operator = hessian_operator(objective, theta)
    for seed in (0, 1):
        operator.matvec(torch.randn(len(theta), generator=torch.Generator().manual_seed(seed)))
    return {
        "network": name,
        "parameters": len(theta),
        "samples": SAMPLES,
        "budget_mb": round(BUDGET / 1e6),
        "before_mb": before,
        "peak_mb": peak(),
    }


def main() -> None:
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        return
    rows = []
    for name in MODELS:
        command = [sys.executable, __file__, name]
        found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        rows.append(json.loads(found.splitlines()[-1]))
        print(rows[-1], flush=True)
    write_table("memory.csv", rows, tuple(rows[0]))


if __name__ == "__main__":
    make_deterministic(1)
    main()
