"""A user's own model, as `models.own` of tests/configs/tiny.yaml names it."""

import torch
from torch import Tensor, nn


def two_layers(input_shape: tuple[int, ...], classes: int, width: int) -> nn.Module:
    channels, height, columns = input_shape
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * columns, width),
        nn.Tanh(),
        nn.Linear(width, classes),
    )


class Residual(nn.Module):
    """A layer, another whose output is added to its input, and the output layer."""

    def __init__(self, pixels: int, classes: int, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(pixels, width)
        self.inner = nn.Linear(width, width)
        self.output = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.first(x.flatten(1)))
        return self.output(x + torch.tanh(self.inner(x)))


def residual(input_shape: tuple[int, ...], classes: int, width: int) -> nn.Module:
    return Residual(torch.Size(input_shape).numel(), classes, width)


class Normalised(nn.Module):
    """A residual block with batch normalisation and dropout, and a mask that is a constant."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(0.1)
        self.output = nn.Linear(width, classes)
        self.register_buffer("kept", torch.ones(width, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.first(x)))
        x = torch.relu(x + self.norm2(self.second(x)))
        return self.output(self.drop(x.amax((2, 3)) * self.kept))


def normalised(input_shape: tuple[int, ...], classes: int, width: int) -> nn.Module:
    return Normalised(input_shape[0], classes, width)
