"""Weights from elsewhere, as tests/configs/checkpoints.yaml names them: trained by plain torch."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lossgeo.data import FILES, read_idx

from .my_models import residual, two_layers


def write_weights(folder: Path, data: Path) -> None:
    """Two networks trained from two initialisations, one as another is trained; of float16 once."""
    inputs, targets = (torch.from_numpy(read_idx(data / name).copy()) for name in FILES[:2])
    split = (inputs[:, None].float() / 255 - 0.5) / 0.25, targets.long()
    folder.mkdir(parents=True)
    for seed in (0, 1):
        torch.manual_seed(seed)
        *_, state = states(two_layers((1, 9, 9), 3, width=5), *split)
        if seed:
            torch.save({"epoch": 3, "model_state_dict": state}, folder / "b.pt")
        else:
            save_file(
                {name: tensor.half() for name, tensor in state.items()}, folder / "a.safetensors"
            )
    path = states(residual((1, 9, 9), 3, width=5), *split)
    for number, state in enumerate(path):
        wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save(wrapped, folder / f"{number}.pth")


def states(model: nn.Module, inputs: Tensor, targets: Tensor) -> Iterator[dict[str, Tensor]]:
    """The state dict of a model before, and after each of three stretches of gradient descent."""
    yield {name: tensor.clone() for name, tensor in model.state_dict().items()}
    update = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(3):
        for _ in range(10):
            update.zero_grad()
            nn.functional.cross_entropy(model(inputs), targets).backward()
            update.step()
        yield {name: tensor.clone() for name, tensor in model.state_dict().items()}
