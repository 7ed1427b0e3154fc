"""Which kernels compute: those that a CPU can do best, or one set that every x86-64 CPU has.

Torch and the libraries beneath it pick kernels by what the CPU can do, and another order of sums
rounds otherwise. They read the variables below once, when they are loaded.

Plain Python: the workflow imports it on every call, so it must not import torch.
"""

import os
import platform
from collections.abc import Mapping

# What the CPU has beyond SSE4.1, by the names of glibc, whose exp and log have variants as well;
# those with _Usable are of versions before 2.33.
_BEYOND = (
    *("AVX", "AVX2", "AVX512F", "AVX512VL", "AVX512BW", "FMA", "FMA4", "ERMS", "BMI1", "BMI2"),
    *("AVX_Usable", "AVX2_Usable", "AVX512F_Usable", "FMA_Usable", "FMA4_Usable"),
)

PORTABLE = {
    "ATEN_CPU_CAPABILITY": "default",  # torch's own kernels
    "MKL_CBWR": "COMPATIBLE",  # its matrix products; the one setting that holds on AMD too
    "ONEDNN_MAX_CPU_ISA": "SSE41",  # its convolutions
    "OPENBLAS_CORETYPE": "Nehalem",  # NumPy's and SciPy's matrix products; SSE4.2
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=" + ",".join(f"-{name}" for name in _BEYOND),
}


def are_portable(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether a process with these variables computes with the kernels of every x86-64 CPU."""
    return platform.machine() in ("x86_64", "AMD64") and all(
        environment.get(name) == value for name, value in PORTABLE.items()
    )
