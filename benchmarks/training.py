"""One epoch of training: tensors in memory against the usual DataLoader loop."""

import torch
from torch import nn
from torchvision import transforms
from torchvision.datasets import MNIST

from harness import HERE, SGD, SPECS, compare, mnist, trained, usual_model, write
from lossgeo.data import FILES
from lossgeo.numerics import make_deterministic

RAW = HERE.parent / "results" / "data" / "torchvision"  # MNIST's files where torchvision looks


def usual_epoch(model: nn.Module, samples: int) -> None:
    """DataLoader, ToTensor, Normalize."""
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))])
    data = torch.utils.data.Subset(MNIST(str(RAW), train=True, transform=steps), range(samples))
    loader = torch.utils.data.DataLoader(data, batch_size=128, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=SGD["lr"], momentum=SGD["momentum"])
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def main() -> None:
    (RAW / "MNIST" / "raw").mkdir(parents=True, exist_ok=True)
    for file in FILES:
        link = RAW / "MNIST" / "raw" / file
        if not link.exists():
            link.symlink_to(HERE.parent / "results" / "data" / "mnist" / file)
    inputs, targets = mnist()
    rows = []
    for name, samples in (("MLP-128", 60000), ("CNN-16", 12800), ("CNN-64", 6400)):
        spec, usual = SPECS[name], usual_model(SPECS[name])
        rows.append(
            compare(
                f"training epoch, {name}",
                "DataLoader, ToTensor, Normalize",
                lambda spec=spec, n=samples: trained(spec, inputs[:n], targets[:n], epochs=1),
                lambda model=usual, n=samples: usual_epoch(model, n),
                samples=samples,
            )
        )
    write("training", rows)


if __name__ == "__main__":
    make_deterministic(1)
    main()
