"""One epoch of training: tensors in memory against the usual DataLoader loop."""

import torch
from torch import nn
from torchvision import transforms
from torchvision.datasets import MNIST

from harness import CLASSES, HERE, SHAPE, SPECS, compare, mnist, usual_model, write
from lossgeo.data import FILES
from lossgeo.models import build
from lossgeo.numerics import make_deterministic
from lossgeo.objective import make_objective
from lossgeo.training import train

SGD = {"name": "SGD", "lr": 0.01, "momentum": 0.9}


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


def our_epoch(spec: dict, inputs: torch.Tensor, targets: torch.Tensor) -> None:
    """`train`, with the least evaluation that it does: one batch before and after."""
    probe = make_objective(build(spec, SHAPE, CLASSES), inputs[:64], targets[:64])
    train(
        build(spec, SHAPE, CLASSES),
        inputs,
        targets,
        probe,
        probe,
        optimizer=SGD,
        epochs=1,
        batch_size=128,
        evaluations_per_epoch=1,
        snapshots_per_epoch=1,
        generator=torch.Generator().manual_seed(0),
    )


def main() -> None:
    inputs, targets = mnist()
    rows = []
    for name, samples in (("MLP-128", 60000), ("CNN-16", 12800), ("CNN-64", 6400)):
        spec = SPECS[name]
        theirs = usual_model(spec)
        rows.append(
            compare(
                f"training epoch, {name}",
                "DataLoader, ToTensor, Normalize",
                lambda spec=spec, n=samples: our_epoch(spec, inputs[:n], targets[:n]),
                lambda model=theirs, n=samples: usual_epoch(model, n),
                samples=samples,
            )
        )
    write("training", rows)


RAW = HERE.parent / "results" / "data" / "torchvision"  # MNIST's files where torchvision looks

if __name__ == "__main__":
    make_deterministic(1)
    (RAW / "MNIST" / "raw").mkdir(parents=True, exist_ok=True)
    for file in FILES:
        link = RAW / "MNIST" / "raw" / file
        if not link.exists():
            link.symlink_to(HERE.parent / "results" / "data" / "mnist" / file)
    main()
