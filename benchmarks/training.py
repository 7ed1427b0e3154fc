"""One epoch of training: tensors in memory against the usual DataLoader loop."""

import torch
from torch import nn

from harness import SGD, SPECS, compare, mnist, trained, usual_loader, usual_model, write
from lossgeo.numerics import make_deterministic


def usual_epoch(model: nn.Module, samples: int) -> None:
    """DataLoader, ToTensor, Normalize."""
    loader = usual_loader(samples, shuffle=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=SGD["lr"], momentum=SGD["momentum"])
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def main() -> None:
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
