"""One epoch of a curve's training against one of a network's, both with our own kernels."""

import torch

from harness import CLASSES, SGD, SHAPE, SPECS, compare, mnist, trained, write
from lossgeo.curves import Midpoint, train_midpoint
from lossgeo.models import build
from lossgeo.numerics import make_deterministic
from lossgeo.parameters import flatten


def curve_epoch(spec: dict, inputs: torch.Tensor, targets: torch.Tensor) -> Midpoint:
    """Between two initialisations, which costs what any other pair costs."""
    ends = [flatten(build(spec, SHAPE, CLASSES, seed=seed)) for seed in (0, 1)]
    return train_midpoint(
        build(spec, SHAPE, CLASSES),
        inputs,
        targets,
        *ends,
        epochs=1,
        batch_size=128,
        lr=SGD["lr"],
        momentum=SGD["momentum"],
        device="cpu",
        generator=torch.Generator().manual_seed(0),
    )


def main() -> None:
    inputs, targets = mnist()
    rows = []
    for name, samples in (("MLP-128", 60000), ("CNN-16", 12800), ("CNN-64", 6400)):
        spec, x, y = SPECS[name], inputs[:samples], targets[:samples]
        rows.append(
            compare(
                f"curve's epoch, {name}",
                "an ordinary epoch of our own training",
                lambda spec=spec, x=x, y=y: curve_epoch(spec, x, y),
                lambda spec=spec, x=x, y=y: trained(spec, x, y, epochs=1),
                samples=samples,
            )
        )
    write("curves", rows)


if __name__ == "__main__":
    make_deterministic(1)
    main()
