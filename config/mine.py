"""The network and the data of a study of your own. What is here is small, and runs as it is.

mine.yaml names both functions, and gives them their keyword arguments.
"""

import numpy as np
import torch
from torch import nn


def build(input_shape: tuple[int, ...], classes: int, width: int = 16) -> nn.Module:
    """Your network, for inputs (n, *input_shape), with one output for each class.

    Draw initial weights from torch's generator, as torch's layers do: it is seeded for each run.
    """
    inputs = torch.Size(input_shape).numel()
    layers = [nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, classes))


def load(samples: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Your data: inputs (n, ...) and targets (n,) to train on, and those of the test split.

    Here they are points (n, 2) on the three arms of a spiral, and which arm each one is on. The
    same call must return the same data: seed what is random.
    """
    random = np.random.default_rng(0)
    arm = random.integers(0, 3, 2 * samples)
    radius = random.uniform(0.1, 1.0, 2 * samples)
    angle = 2 * np.pi * arm / 3 + 4 * radius + random.normal(0, 0.15, 2 * samples)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    inputs, targets = points.astype(np.float32), arm.astype(np.int64)
    return inputs[:samples], targets[:samples], inputs[samples:], targets[samples:]
