"""A ResNet-20 and a small vision transformer, as their users write them.

They are factories of the workflow as well: called as function(input_shape, classes, **arguments).
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


def resnet20(input_shape: tuple[int, ...], classes: int, norm: str = "batch") -> nn.Module:
    """Nine residual blocks of 16, 32 and 64 channels (He et al. 2016); `norm` is batch or group."""
    normalisation = {"batch": nn.BatchNorm2d, "group": lambda width: nn.GroupNorm(8, width)}[norm]
    layers: list[nn.Module] = [
        nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False),
        normalisation(16),
        nn.ReLU(),
    ]
    widths = [16, *[16] * 3, *[32] * 3, *[64] * 3]
    for before, width in pairwise(widths):
        layers.append(Block(before, width, normalisation))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


class Block(nn.Module):
    """Two 3x3 convolutions, added to their input; where it grows, every second pixel of that."""

    def __init__(self, before: int, width: int, normalisation) -> None:
        super().__init__()
        self.stride = width // before
        self.conv1 = nn.Conv2d(before, width, 3, stride=self.stride, padding=1, bias=False)
        self.norm1 = normalisation(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = normalisation(width)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        if self.stride > 1:  # option A: no parameters
            added = inner.shape[1] - x.shape[1]
            x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, added))
        return torch.relu(inner + x)


class VisionTransformer(nn.Module):
    """Patches of 4 x 4 pixels as tokens, blocks of attention, and the mean token's class."""

    def __init__(self, input_shape: tuple[int, ...], classes: int, width: int, depth: int) -> None:
        super().__init__()
        channels, height, columns = input_shape
        self.patches = nn.Conv2d(channels, width, 4, stride=4)
        tokens = (height // 4) * (columns // 4)
        self.position = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        block = nn.TransformerEncoderLayer(
            width,
            width // 64,
            2 * width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(
            block, depth, nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.output = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.output(self.blocks(tokens).mean(1))


def vit(
    input_shape: tuple[int, ...], classes: int, width: int = 192, depth: int = 4
) -> VisionTransformer:
    """A vision transformer of ViT-Tiny's width, with heads of 64 channels, and of less depth."""
    return VisionTransformer(input_shape, classes, width, depth)
