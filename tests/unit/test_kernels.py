"""The tests marked `kernels` hold on the kernels that another CPU would pick as well."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lossgeo.kernels import PORTABLE

HERE = Path(__file__).parent
MARK = "@pytest.mark.kernels"

# What torch, oneDNN and MKL read at their start. They take as much of it as the CPU can do.
SETTINGS = {
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_CBWR": "AVX2"},
    "DEFAULT": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
    },
}


@pytest.mark.parametrize("capability", SETTINGS)
def test_truths_hold_on_the_kernels_of_other_cpus(capability):
    """In a process of its own, because the kernels are picked once."""
    if capability == "AVX2" and not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        pytest.skip("needs AVX2")
    marked = [file for file in sorted(HERE.glob("test_*.py")) if f"\n{MARK}\n" in file.read_text()]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "kernels", "-p", "no:cacheprovider", *marked],
        cwd=HERE.parents[1],
        env=os.environ | SETTINGS[capability],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


DRAWN = """
import hashlib, sys
import numpy as np, scipy.linalg, torch
from lossgeo.models import build
from lossgeo.numerics import kernels, make_deterministic, numpy_generator, root
from lossgeo.optimizers import make_optimizer
make_deterministic(1)
x = numpy_generator("x").standard_normal((64, 784))
found = [x @ x.T, np.exp(x), np.log1p(x**2), x.sum(0), scipy.linalg.svdvals(x)]
found += [root(torch.tensor(x**2)).numpy()]
inputs, targets = torch.tensor(x).float().reshape(64, 1, 28, 28), torch.arange(64) % 10
for spec in ({"family": "cnn", "width": 4}, {"family": "mlp", "width": 32, "activation": "gelu"}):
    model = build(spec, (1, 28, 28), 10)
    optimizer = make_optimizer(model.parameters(), {"name": "Adam", "lr": 0.001})
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found += [p.detach().numpy() for p in model.parameters()]
digests = [hashlib.sha256(np.ascontiguousarray(a).tobytes()).hexdigest() for a in found]
print(kernels(torch.device("cpu")), *digests)
"""


def drawn(settings: dict[str, str], *emulator: str) -> list[str]:
    """The kernels, and digests of products, transcendental functions and trained networks."""
    path = os.pathsep.join([str(HERE.parents[1] / "scripts"), *filter(None, sys.path)])
    done = subprocess.run(
        [*emulator, os.path.realpath(sys.executable), "-c", DRAWN],
        env=os.environ | settings | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    *kind, threads = done.stdout.split(", ")
    return [*kind, *threads.split()[2:]]


@pytest.fixture(scope="module")
def portable() -> list[str]:
    return drawn(PORTABLE)


def test_portable_kernels_are_not_those_that_the_cpu_does_best(portable):
    """Else the test below could not fail."""
    best = drawn(dict.fromkeys(PORTABLE, ""))
    if best[1] == "DEFAULT":
        pytest.skip("this CPU has no others")
    assert portable[1] == "portable"
    assert portable[2] != best[2]  # a product of matrices
    assert portable[-1] != best[-1]  # a trained network


@pytest.mark.parametrize("cpu", ["Nehalem", "EPYC-Rome"])
def test_portable_kernels_give_the_same_bytes_on_another_cpu(portable, cpu):
    """An emulated one: Intel's of 2008, without AVX, and AMD's of 2019, with AVX2."""
    emulator = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if emulator is None:
        pytest.skip("needs qemu-user: apt-get install qemu-user-static")
    assert drawn(PORTABLE, emulator, "-cpu", cpu) == portable
