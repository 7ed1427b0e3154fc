"""What portable kernels cost: the same work on the kernels of every x86-64 CPU, and on the best.

Kernels are picked once in a process, so each side has its own, which waits for its turns.
"""

import os
import subprocess
import sys
from pathlib import Path

from harness import compare, write
from lossgeo.kernels import PORTABLE

HERE = Path(__file__).parent
SAMPLES, MODELS = 2000, ("MLP-32", "MLP-128", "CNN-16")
WORKER = """
import sys
import torch
from harness import SHAPE, CLASSES, SPECS, mnist, trained
from lossgeo.hessian import hessian_operator
from lossgeo.models import build
from lossgeo.numerics import make_deterministic, torch_generator
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten
make_deterministic(1)
inputs, targets = mnist(2000)
works = {}
for name in sys.argv[1:]:
    spec = SPECS[name]
    model = trained(spec, inputs, targets, epochs=1)
    objective, theta = make_objective(model, inputs, targets), flatten(model)
    works[f"training epoch, {name}"] = lambda spec=spec: trained(spec, inputs, targets, epochs=1)
    product = hessian_operator(objective, theta)
    v = torch.randn(len(theta), generator=torch_generator("v"))
    works[f"Hessian-vector product, {name}"] = lambda product=product, v=v: product @ v
print("ready", flush=True)
for line in sys.stdin:
    works[line.strip()]()
    print("done", flush=True)
"""


def main() -> None:
    best, portable = worker({}), worker(PORTABLE)
    rows = []
    for work in ("training epoch", "Hessian-vector product"):
        for name in MODELS:
            label = f"{work}, {name}"
            rows.append(
                compare(
                    label + ", portable",
                    "the kernels that this CPU does best",
                    lambda label=label: turn(portable, label),
                    lambda label=label: turn(best, label),
                    samples=SAMPLES,
                )
            )
    for process in (best, portable):
        process.stdin.close()
        process.wait()
    write("portable", rows)


def worker(settings: dict[str, str]) -> subprocess.Popen:
    """A process that does a work whenever its name is sent."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORKER, *MODELS],
        env=os.environ | settings | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent / 'scripts'}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def turn(process: subprocess.Popen, work: str) -> None:
    process.stdin.write(work + "\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


if __name__ == "__main__":
    main()
