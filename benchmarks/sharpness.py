"""The worst case in a ball: our ascent against projected gradient ascent as it is usually written.

Both take as many gradients of the loss on all samples, and its value after each.
"""

import torch
from torch import nn
from torch.utils.data import DataLoader

from harness import (
    CLASSES,
    SHAPE,
    SPECS,
    compare,
    mnist,
    trained,
    usual_loader,
    usual_model,
    write,
)
from lossgeo.models import build
from lossgeo.numerics import make_deterministic
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten
from lossgeo.sharpness import worst_case

RADIUS, STEPS = 0.1, 10


def mean_loss(model: nn.Module, loader: DataLoader) -> float:
    losses = [nn.functional.cross_entropy(model(x), y, reduction="sum").item() for x, y in loader]
    return sum(losses) / len(loader.dataset)


def projected_ascent(model: nn.Module, loader: DataLoader, radius: float, steps: int) -> float:
    """max L(w + e) - L(w) in ||e|| <= radius, moving the model's own w (Foret et al. 2021).

    Normalised gradients and a step of 2.5 radius / steps (Madry et al. 2018).
    """
    parameters = list(model.parameters())
    start = [p.detach().clone() for p in parameters]
    with torch.no_grad():
        at_start = best = mean_loss(model, loader)
    for _ in range(steps):
        model.zero_grad()
        for x, y in loader:
            loss = nn.functional.cross_entropy(model(x), y, reduction="sum")
            (loss / len(loader.dataset)).backward()
        with torch.no_grad():
            norm = torch.stack([p.grad.norm() for p in parameters]).norm()
            for p in parameters:
                p.add_(p.grad, alpha=float(2.5 * radius / steps / norm))
            moved = [p - s for p, s in zip(parameters, start, strict=True)]
            length = float(torch.stack([e.norm() for e in moved]).norm())
            for p, s, e in zip(parameters, start, moved, strict=True):
                p.copy_(s + e * min(1.0, radius / length))
            best = max(best, mean_loss(model, loader))
    with torch.no_grad():
        for p, s in zip(parameters, start, strict=True):
            p.copy_(s)
    return best - at_start


def main() -> None:
    train = mnist()
    rows = []
    for name, samples in (("MLP-128", 2000), ("CNN-16", 1000)):
        spec = SPECS[name]
        model = trained(spec, *(part[: 12800 if "CNN" in name else 60000] for part in train))
        x, y = (part[:samples] for part in train)
        theta = flatten(model)
        objective = make_objective(build(spec, SHAPE, CLASSES), x, y)
        in_memory = DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=128)
        usual = usual_model(spec, model.state_dict()).eval()

        def ours(objective=objective, theta=theta) -> float:
            return float(worst_case(objective, theta, [RADIUS], STEPS).rises.mean())

        found = ours()
        for title, loader in (
            ("DataLoader of 128, ToTensor, Normalize", usual_loader(samples, shuffle=False)),
            ("DataLoader of 128 of tensors in memory", in_memory),
        ):
            reached = projected_ascent(usual, loader, RADIUS, STEPS) / found
            rows.append(
                compare(
                    f"sharpness, {name}",
                    f"projected ascent, {title}, which finds {reached:.3g} of our rise",
                    ours,
                    lambda m=usual, o=loader: projected_ascent(m, o, RADIUS, STEPS),
                    samples=samples,
                    repeats=5 if name == "MLP-128" else 3,
                )
            )
    write("sharpness", rows)


if __name__ == "__main__":
    make_deterministic(1)
    main()
