"""Factories that the study cannot use, each for the reason that it is named for."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import torch
from my_models import two_layers
from torch import Tensor, nn


def other_shape(input_shape, classes, width):
    return two_layers(input_shape, classes + 1, width)


def no_module_returned(input_shape, classes, width):
    return "a model"


def batch_norm(input_shape, classes, width, tracked=True):
    norm = nn.BatchNorm2d(1, track_running_stats=tracked)
    return nn.Sequential(norm, *two_layers(input_shape, classes, width))


class OwnNorm(nn.BatchNorm2d):
    """A layer of batch normalisation that may do anything."""


def own_norm(input_shape, classes, width):
    return nn.Sequential(OwnNorm(1), *two_layers(input_shape, classes, width))


def drawn_buffer(input_shape, classes, width):
    model = two_layers(input_shape, classes, width)
    model.register_buffer("features", torch.randn(3))
    return model


def draws_in_evaluation(input_shape, classes, width):
    return Changed(two_layers(input_shape, classes, width), nn.functional.dropout)


def mixes_samples(input_shape, classes, width):
    return Changed(two_layers(input_shape, classes, width), lambda x: x - x.mean(0))


class Counting(nn.Module):
    """A counter of calls in training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return x


def counts_calls(input_shape, classes, width):
    return nn.Sequential(Counting(), *two_layers(input_shape, classes, width))


def exits(input_shape, classes, width):
    sys.exit(3)


def raises_at_every_call(input_shape, classes, width):
    return width / 0


def seeds_itself(input_shape, classes, width):
    torch.manual_seed(0)
    return two_layers(input_shape, classes, width)


def draws_elsewhere(input_shape, classes, width):
    model = two_layers(input_shape, classes, width)
    model[1].bias.data.fill_(random.SystemRandom().random())
    return model


def frozen(input_shape, classes, width):
    return two_layers(input_shape, classes, width).requires_grad_(False)


def frozen_by_seed(input_shape, classes, width):
    model = two_layers(input_shape, classes, width)
    model[1].weight.requires_grad_(False)
    return model


class Changed(nn.Module):
    """A model whose outputs go through a function."""

    def __init__(self, model: nn.Module, function) -> None:
        super().__init__()
        self.model, self.function = model, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.model(x))


def detached(input_shape, classes, width):
    return Changed(two_layers(input_shape, classes, width), Tensor.detach)


class Once(torch.autograd.Function):
    """The identity, whose gradient has none."""

    @staticmethod
    def forward(context, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(context, gradient: Tensor) -> Tensor:
        return gradient.clone()


def once_differentiable(input_shape, classes, width):
    return Changed(two_layers(input_shape, classes, width), Once.apply)


def infinite_gradient(input_shape, classes, width):
    """The square root of 0 has no slope."""
    return Changed(
        two_layers(input_shape, classes, width), lambda x: x + (x - x.detach()).abs().sqrt()
    )


def float64_default(input_shape, classes, width):
    torch.set_default_dtype(torch.float64)
    return two_layers(input_shape, classes, width)


class Doubled(nn.Flatten):
    """Images in float64."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.double())


def float64_parameters(input_shape, classes, width):
    _, *layers = two_layers(input_shape, classes, width).double()
    return nn.Sequential(Doubled(), *layers)


def other_folder(input_shape, classes, width):
    os.chdir("/")
    return two_layers(input_shape, classes, width)


def gradients_off(input_shape, classes, width):
    torch.set_grad_enabled(False)
    return two_layers(input_shape, classes, width)


def starts_as_nan(input_shape, classes, width):
    model = two_layers(input_shape, classes, width)
    model[1].weight.data.fill_(torch.nan)
    return model


# These end or outlive the process that tries them: each is tried alone.


def crashes(input_shape, classes, width):
    os.kill(os.getpid(), 11)


def leaves(input_shape, classes, width):
    os._exit(0)


def hangs(input_shape, classes, width):
    child = subprocess.Popen(["sleep", "600"])
    Path("child").write_text(str(child.pid))
    time.sleep(600)


def prints_at_exit(input_shape, classes, width):
    import atexit

    print("built")
    atexit.register(print, "config key models.own: printed at exit", file=sys.stderr)
    return two_layers(input_shape, classes, width)
