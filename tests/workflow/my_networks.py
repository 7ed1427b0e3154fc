"""A user's own networks and data, of every kind that the README says can be measured."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions, each normalised, whose output is added to their input."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = normalisation(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = normalisation(norm, width)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.softplus(self.norm1(self.conv1(x)))
        return F.softplus(x + self.norm2(self.conv2(inner)))


def normalisation(norm: str, width: int) -> nn.Module:
    return nn.GroupNorm(1, width) if norm == "group" else nn.BatchNorm2d(width)


def resnet(input_shape: tuple[int, ...], classes: int, norm: str, width: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False),
        normalisation(norm, width),
        nn.Softplus(),
        Block(width, norm),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, classes),
    )


class VisionTransformer(nn.Module):
    """Patches of 4x4 pixels, their positions, one layer of attention, and the mean over patches."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, width: int = 4) -> None:
        super().__init__()
        channels, height, columns = input_shape
        self.patches = nn.Conv2d(channels, width, 4, stride=4)
        places = torch.arange(height * columns // 16)[:, None] / 10 ** torch.arange(width)
        self.register_buffer("positions", places.sin())
        self.query_key_value = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).mT + self.positions
        query, key, value = self.query_key_value(tokens)[:, None].chunk(3, -1)
        attended = F.scaled_dot_product_attention(query, key, value)[:, 0]
        return self.output((tokens + attended).mean(1))


class NextToken(nn.Module):
    """The next token from this one and the mean of those before it."""

    def __init__(self, length: int, vocabulary: int, width: int = 4) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.hidden = nn.Linear(2 * width, width)
        self.output = nn.Linear(width, vocabulary)
        self.register_buffer("counts", torch.arange(1, length + 1)[:, None])

    def forward(self, tokens: Tensor) -> Tensor:  # (n, T) -> (n, T, vocabulary)
        embedded = self.embedding(tokens)
        context = embedded.cumsum(1) / self.counts
        return self.output(torch.tanh(self.hidden(torch.cat([embedded, context], -1))))


def vit(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    return VisionTransformer(input_shape, classes)


def next_token(input_shape: tuple[int, ...], vocabulary: int) -> nn.Module:
    return NextToken(*input_shape, vocabulary)


def regressor(input_shape: tuple[int, ...], outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(*input_shape, 6), nn.Tanh(), nn.Linear(6, outputs))


def images():
    """RGB images of 8x8 pixels in three classes: which colour is bright."""
    random = np.random.default_rng(0)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        classes = random.integers(0, 3, count)
        pixels = random.standard_normal((count, 3, 8, 8)).astype(np.float32)
        pixels[np.arange(count), classes] += 1
        return pixels, classes

    return (*split(120), *split(60))


def sentences():
    """Ten tokens of five, each the one before plus one, with noise; and what follows each."""
    random = np.random.default_rng(0)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        steps = random.choice([1, 2], (count, 11), p=[0.8, 0.2])
        tokens = steps.cumsum(1) % 5
        return tokens[:, :-1], tokens[:, 1:]

    return (*split(120), *split(60))


def curve():
    """Two noisy functions of three numbers."""
    random = np.random.default_rng(0)

    def split(count: int) -> tuple[np.ndarray, np.ndarray]:
        x = random.standard_normal((count, 3)).astype(np.float32)
        y = np.stack([np.sin(x.sum(1)), x[:, 0] * x[:, 1]], 1)
        return x, (y + 0.1 * random.standard_normal(y.shape)).astype(np.float32)

    return (*split(120), *split(60))
