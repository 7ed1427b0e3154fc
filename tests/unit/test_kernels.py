"""The tests marked `kernels` hold on the kernels that another CPU would pick as well."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
