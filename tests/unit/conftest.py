"""Shared cases: tiny networks on random data, in float64, small enough for dense Hessians."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn
from torch.func import functional_call

from lossgeo.models import build
from lossgeo.objective import Objective, make_objective

from .artefacts import write_study

settings.register_profile(
    "lossgeo", deadline=None, derandomize=True, database=None, max_examples=30
)
settings.load_profile("lossgeo")
torch.set_num_threads(1)

CLASSES = 3


@dataclass(eq=False)
class Case:
    """A network, its samples and a theta after a few steps of gradient descent."""

    family: str
    model: nn.Module
    inputs: Tensor  # (N, 1, height, width) float64
    targets: Tensor  # (N,)
    theta: Tensor  # (P,) float64

    @cached_property
    def objective(self) -> Objective:
        """The library's objective; blocks of 7 leave a last block that is smaller."""
        return make_objective(
            copy.deepcopy(self.model), self.inputs, self.targets, dtype=torch.float64, block=7
        )

    @cached_property
    def hessian(self) -> Tensor:
        """Dense (P, P), by torch.func on a loss written without the library."""
        return dense_hessian(self.model, self.inputs, self.targets, self.theta)

    def loss(self, theta: Tensor) -> Tensor:
        return plain_loss(self.model, self.inputs, self.targets)(theta)


def plain_loss(model: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """theta -> mean cross-entropy, straight from torch: the oracle for everything probed."""

    def loss(theta: Tensor) -> Tensor:
        parameters, at = {}, 0
        for name, parameter in model.named_parameters():
            parameters[name] = theta[at : at + parameter.numel()].reshape(parameter.shape)
            at += parameter.numel()
        return nn.functional.cross_entropy(functional_call(model, parameters, (inputs,)), targets)

    return loss


def dense_hessian(model: nn.Module, inputs: Tensor, targets: Tensor, theta: Tensor) -> Tensor:
    """(P, P), by torch.func."""
    with warnings.catch_warnings():  # torch's forward mode uses what torch has deprecated
        warnings.filterwarnings("ignore", message=".*torch.jit.script. is deprecated")
        return torch.func.hessian(plain_loss(model, inputs, targets))(theta).detach()


def make_case(family: str, width: int, input_shape: tuple[int, ...], samples: int) -> Case:
    generator = torch.Generator().manual_seed(20240501)
    model = build({"family": family, "width": width}, input_shape, CLASSES, seed=3).double()
    inputs = torch.randn(samples, *input_shape, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, CLASSES, (samples,), generator=generator)
    theta = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    loss = plain_loss(model, inputs, targets)
    for _ in range(20):
        theta = theta - 0.1 * torch.func.grad(loss)(theta)
    return Case(family, model, inputs, targets, theta.detach())


@pytest.fixture(scope="session")
def mlp() -> Case:
    return make_case("mlp", 4, (1, 6, 6), 30)  # P = 163


@pytest.fixture(scope="session")
def cnn() -> Case:
    return make_case("cnn", 2, (1, 8, 8), 24)  # P = 2,659


@pytest.fixture(scope="session", params=["mlp", "cnn"])
def case(request) -> Case:
    return request.getfixturevalue(request.param)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def artefacts(tmp_path_factory) -> dict[str, list[Path]]:
    """Stage -> files of a small study in which some runs diverged (see artefacts.py)."""
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="session")
def one_seed(tmp_path_factory) -> dict[str, list[Path]]:
    """The same with a single seed, and so without pairs."""
    return write_study(tmp_path_factory.mktemp("one-seed"), seeds=(0,))
