"""Small networks and small images for the examples: seconds on one core."""

import math

import torch
from torch import Tensor, nn

CLASSES = 4


def striped_images(count: int, size: int = 8, *, seed: int) -> tuple[Tensor, Tensor]:
    """RGB images (N, 3, size, size) of stripes in noise, and which of four angles these have (N,).

    Colour, phase and width of the stripes are random and say nothing about the class.
    """
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(CLASSES, (count,), generator=generator)
    angle = classes * math.pi / CLASSES
    at = torch.linspace(-1, 1, size)
    x, y = at.view(1, 1, -1), at.view(1, -1, 1)
    along = x * angle.cos().view(-1, 1, 1) + y * angle.sin().view(-1, 1, 1)
    phase, width = torch.rand(2, count, 1, 1, generator=generator)
    stripes = torch.sin((4 + 3 * width) * along + 2 * math.pi * phase)
    colour = torch.rand(count, 3, 1, 1, generator=generator) + 0.2
    noise = torch.randn(count, 3, size, size, generator=generator)
    return colour * stripes.unsqueeze(1) + 0.5 * noise, classes


class Residual(nn.Module):
    """Two convolutions with group normalisation, added to what goes in."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(2, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.GroupNorm(2, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.body(x))


def resnet(channels: int = 8, blocks: int = 1) -> nn.Module:
    """A residual network with group normalisation."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, stride=2, padding=1),
        *(Residual(channels) for _ in range(blocks)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, CLASSES),
    )


class VisionTransformer(nn.Module):
    """Patches of 4 x 4 pixels, two blocks of attention, the mean of all patches."""

    def __init__(self, width: int = 16, heads: int = 2, size: int = 8) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 4, stride=4)
        self.positions = nn.Parameter(0.02 * torch.randn((size // 4) ** 2, width))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 2 * width, dropout=0, batch_first=True, norm_first=True
            )
            for _ in range(2)
        )
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(tokens.mean(1))


def train(model: nn.Module, images: Tensor, classes: Tensor, steps: int, lr: float = 0.01) -> None:
    """Steps of Adam on all images."""
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), classes).backward()
        optimizer.step()
