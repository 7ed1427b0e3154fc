"""Where, how precisely and from which random numbers everything is computed."""

import hashlib
import os
import platform

import numpy as np
import torch

from lossgeo.kernels import are_portable


def derive_seed(*parts: str | int) -> int:
    """A seed in [0, 2**63) that depends on every part and on nothing else.

    `derive_seed("order", 3)` and `derive_seed("initialisation", 3)` start unrelated streams, so
    that one study seed can drive initialisation, data order and directions independently.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def torch_generator(*parts: str | int) -> torch.Generator:
    """A CPU generator seeded from `parts`; draws are made on the CPU whatever the device."""
    return torch.Generator().manual_seed(derive_seed(*parts))


def numpy_generator(*parts: str | int) -> np.random.Generator:
    """A NumPy generator seeded from `parts`."""
    return np.random.default_rng(derive_seed(*parts))


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one and the CPU elsewhere; any other name is taken as it is."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def make_deterministic(threads: int) -> None:
    """Fix what the bytes of a result depend on: the number of threads and the kernels.

    Torch sums in another order on another number of threads, so every job of the study runs on
    one and gets its parallelism from other jobs. Filling fresh memory with NaN, which torch does
    beside it to expose reads of what was never written, costs a tenth of the time and stays off.
    cuBLAS needs its workspace fixed as well.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_num_threads(threads)
    torch.set_deterministic_debug_mode(
        "error"
    )  # use_deterministic_algorithms less its 1 s of imports
    torch.utils.deterministic.fill_uninitialized_memory = False


def root(x: torch.Tensor) -> torch.Tensor:
    """Square roots, to within two units in the last place, of the same bits on every CPU.

    torch.sqrt takes those of MKL's vector library on CPUs, which are not correctly rounded and
    round otherwise on CPUs of another make.
    """
    return x.rsqrt().reciprocal()


def kernels(device: torch.device) -> str:
    """What the order of sums depends on: "x86_64, AVX512, 1 thread", say, or the kind of GPU.

    The kind of CPU, the instructions that torch takes its kernels for ("portable": those that every
    such CPU has), and the threads. The same call on the same kernels gives the same bytes; other
    kernels give the same numbers to rounding.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    chosen = "portable" if are_portable() else torch.backends.cpu.get_cpu_capability()
    return f"{platform.machine()}, {chosen}, {threads} thread{'s' if threads > 1 else ''}"
