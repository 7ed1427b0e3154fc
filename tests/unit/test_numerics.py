"""Random streams depend on their names alone; a job's bytes do not depend on the machine's mood."""

import subprocess
import sys

import numpy as np
import pytest
import torch

from lossgeo.numerics import (
    choose_device,
    derive_seed,
    kernels,
    make_deterministic,
    numpy_generator,
    root,
    torch_generator,
)


def test_a_seed_is_the_same_in_every_process():
    """Unlike Python's hash, which is salted per process."""
    program = "from lossgeo.numerics import derive_seed; print(derive_seed('order', 3))"
    scripts = sys.modules["lossgeo"].__path__[0].removesuffix("lossgeo")
    printed = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": scripts}, capture_output=True, text=True
    )
    assert int(printed.stdout) == derive_seed("order", 3)


def test_seeds_are_distinct_and_in_range():
    parts = [(purpose, seed) for purpose in ("order", "initialisation") for seed in range(500)]
    parts += [("line", seed, index) for seed in range(30) for index in range(30)]
    found = {derive_seed(*p) for p in parts}
    assert len(found) == len(parts)
    assert all(0 <= seed < 2**63 for seed in found)


def test_the_order_of_the_parts_counts():
    assert derive_seed("line", 1, 12) != derive_seed("line", 12, 1)
    assert derive_seed("line", 1, 12) != derive_seed("line", 11, 2)


def test_streams_of_two_purposes_are_uncorrelated():
    a, b = (torch.randn(10_000, generator=torch_generator(p, 0)) for p in ("order", "noise"))
    assert abs(float((a * b).mean())) < 4 / 100


def test_generators_repeat_themselves_and_leave_the_global_state_alone():
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first, second = (torch.rand(5, generator=torch_generator("x", 1)) for _ in range(2))
    assert torch.equal(first, second)
    np.testing.assert_array_equal(
        numpy_generator("x", 1).random(5), numpy_generator("x", 1).random(5)
    )
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], legacy)  # noqa: NPY002


def test_auto_is_cuda_where_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == expected
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    assert choose_device("cpu").type == "cpu"


@pytest.fixture
def restored():
    threads = torch.get_num_threads()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)
    torch.utils.deterministic.fill_uninitialized_memory = filled


@pytest.mark.usefixtures("restored")
def test_deterministic_kernels_and_the_number_of_threads_are_set():
    make_deterministic(1)
    assert torch.get_num_threads() == 1
    assert torch.are_deterministic_algorithms_enabled()


@pytest.mark.usefixtures("restored")
def test_the_kernels_are_named_by_instructions_and_threads():
    for threads in (1, 2):
        torch.set_num_threads(threads)
        *_, instructions, found = kernels(torch.device("cpu")).split(", ")
        assert instructions == torch.backends.cpu.get_cpu_capability()
        assert found == {1: "1 thread", 2: "2 threads"}[threads]


@pytest.mark.kernels
@pytest.mark.usefixtures("restored")
def test_a_deterministic_gradient_repeats_bit_for_bit(cnn):
    make_deterministic(1)
    first, second = (torch.func.grad(cnn.loss)(cnn.theta.clone()) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_roots_are_right_to_two_units_in_the_last_place(dtype):
    x = torch.cat([torch.rand(1001, dtype=dtype), torch.tensor([0.0, torch.inf], dtype=dtype)])
    found, expected = root(x).numpy(), np.sqrt(x.numpy())
    np.testing.assert_allclose(found, expected, rtol=2 * torch.finfo(dtype).eps, atol=0)
    assert root(torch.tensor(-1.0)).isnan()
