"""A user's own model, as `models.own` of tests/configs/tiny.yaml names it."""

from torch import nn


def two_layers(input_shape: tuple[int, ...], classes: int, width: int) -> nn.Module:
    channels, height, columns = input_shape
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * columns, width),
        nn.Tanh(),
        nn.Linear(width, classes),
    )
