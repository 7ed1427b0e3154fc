"""Sharpness-aware minimisation: the gradient at the worst place near theta (Foret et al. 2021)."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def sharpness_aware(
    model: nn.Module, gradient: Callable[[], Tensor], *, rho: float, adaptive: bool = False
) -> Tensor:
    """Put the gradient at theta + epsilon into the parameters; return the loss at theta.

    With g the gradient at theta, epsilon = rho g / ||g|| is where the loss is highest, to first
    order, in the ball ||epsilon|| <= rho; `adaptive`, rho theta^2 g / || |theta| g ||, where it is
    in the ball ||epsilon / |theta| || <= rho (ASAM, Kwon et al. 2021). theta is the same
    afterwards, bit for bit, and so are the model's buffers as the first gradient left them.

    `gradient()` adds the gradient of the loss to those of the parameters, which are None, and
    returns the loss. Where g is 0, so is epsilon.
    """
    loss = gradient()
    moved = [p for p in model.parameters() if p.grad is not None]
    kept = [(t, t.detach().clone()) for t in (*moved, *model.buffers())]
    with torch.no_grad():
        scales = [p.abs() if adaptive else torch.ones_like(p) for p in moved]
        norm = _norm(scale * p.grad for p, scale in zip(moved, scales, strict=True))
        if norm > 0:
            for p, scale in zip(moved, scales, strict=True):
                p.add_(scale**2 * p.grad, alpha=rho / norm)
    for p in moved:
        p.grad = None
    gradient()
    with torch.no_grad():
        for tensor, values in kept:
            tensor.copy_(values)
    return loss


def _norm(parts: Iterable[Tensor]) -> float:
    return float(torch.stack([part.norm() for part in parts]).norm())
