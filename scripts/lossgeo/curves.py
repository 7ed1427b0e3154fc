"""Trained curves between two minima: quadratic Bezier curves whose midpoint minimises the loss."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from lossgeo import buffers
from lossgeo.losses import CROSS_ENTROPY, Loss
from lossgeo.optimizers import make_optimizer
from lossgeo.parameters import Layout, flatten, put, string_together
from lossgeo.training import make_backward


@dataclass(frozen=True)
class Midpoint:
    """A trained midpoint, and the losses on the way to it."""

    theta: Tensor  # (P,); NaN if the training diverged
    loss: np.ndarray  # (epochs,) nats, mean over an epoch's batches at their t; NaN once diverged


def coefficients(t: np.ndarray) -> np.ndarray:
    """Those (..., 3) of theta_a, the midpoint and theta_b in the curve phi(t) at t (...).

    phi(t) = (1 - t)^2 theta_a + 2 t (1 - t) midpoint + t^2 theta_b (Garipov et al. 2018). With the
    middle of theta_a and theta_b as the midpoint it is the straight line between them.
    """
    t = np.asarray(t, dtype=np.float64)
    return np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=-1)


def length(theta_a: Tensor, midpoint: Tensor, theta_b: Tensor) -> float:
    """The length of the curve in parameter space, the integral of |phi'(t)| over t from 0 to 1.

    phi'(t) = 2 (u + t w) with u = midpoint - theta_a and w = theta_a - 2 midpoint + theta_b, so
    that |phi'|^2 is a quadratic of t whose coefficients are three inner products, taken in float64.
    NaN where a vector is not finite.
    """
    a, m, b = (vector.double() for vector in (theta_a, midpoint, theta_b))
    u, w = m - a, (b - m) - (m - a)
    uu, uw, ww = float(u @ u), float(u @ w), float(w @ w)
    if not math.isfinite(uu + uw + ww):
        return math.nan
    if (
        ww <= 0.01 * uu
    ):  # nearly straight: the integral below would be a difference of large numbers
        nodes, weights = np.polynomial.legendre.leggauss(20)  # exact to rounding here
        t = (nodes + 1) / 2
        return float(weights @ np.sqrt(uu + 2 * t * uw + t**2 * ww))
    root = math.sqrt(ww)
    along = uw / root  # of u, along w: |phi'(t)| = 2 sqrt((along + t root)^2 + across^2)
    across = math.sqrt(max(uu - along**2, 0.0))

    def integral(x: float) -> float:
        """Of 2 sqrt(x^2 + across^2)."""
        return x * math.hypot(x, across) + (across**2 * math.asinh(x / across) if across else 0.0)

    return (integral(along + root) - integral(along)) / root


def bend(
    theta: Tensor,
    loss_and_gradient: Callable[[Tensor], tuple[Tensor, Tensor]],
    theta_a: Tensor,
    theta_b: Tensor,
    samples: int,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    momentum: float,
    generator: torch.Generator,
) -> Midpoint:
    """Minimise the mean of L(phi(t)) over t, uniform from 0 to 1, by phi's midpoint.

    phi(t) is written into `theta` (P,), and `loss_and_gradient` gives L and its gradient (P,) there
    on a batch of indices below `samples`; the gradient may be overwritten. SGD starts at the middle
    of theta_a and theta_b, and takes one t for each batch; the gradient by the midpoint is
    2 t (1 - t) times that of L at phi(t). `generator` gives each epoch a permutation of the
    samples, then its t. Training stops after an epoch at whose end the midpoint is not finite.
    """
    # What is trained is how far the midpoint is from the middle: phi(t) is then the line and a
    # multiple of that, in fewer passes over memory than of three vectors.
    offset = torch.zeros_like(theta_a)
    update = make_optimizer([offset], {"name": "SGD", "lr": lr, "momentum": momentum})
    losses = np.full(epochs, np.nan)
    for epoch in range(epochs):
        batches = torch.randperm(samples, generator=generator).to(theta.device).split(batch_size)
        ts = torch.rand(len(batches), generator=generator, dtype=torch.float64).tolist()
        total = 0.0
        for t, batch in zip(ts, batches, strict=True):
            share = 2 * t * (1 - t)
            torch.lerp(theta_a, theta_b, t, out=theta).add_(offset, alpha=share)
            loss, gradient = loss_and_gradient(batch)
            offset.grad = gradient.mul_(share)
            update.step()
            total = total + loss.double() * len(batch)  # a tensor: reading it would wait for a GPU
        if not torch.isfinite(offset).all():
            return Midpoint(torch.full_like(offset, torch.nan), losses)
        losses[epoch] = float(total) / samples
    return Midpoint(torch.lerp(theta_a, theta_b, 0.5).add_(offset), losses)


def train_midpoint(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    theta_a: Tensor,
    theta_b: Tensor,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    momentum: float,
    device: torch.device | str,
    generator: torch.Generator,
    loss: Loss = CROSS_ENTROPY,
) -> Midpoint:
    """`bend` the straight line between two minima (P,) where `model` has a low mean loss.

    The loss is that over inputs (n, ...) and targets (n,), as in `training.train`, and goes
    through the network in the same way. After 0 epochs the midpoint is that of the straight line.
    The model's own parameters are overwritten; its dropout, if any, draws from the caller's random
    state. The midpoint lies in the main memory.
    """
    backward = make_backward(model, inputs, targets, device, loss)
    theta, gradient = string_together(model)

    def loss_and_gradient(batch: Tensor) -> tuple[Tensor, Tensor]:
        gradient.zero_()
        return backward(batch), gradient

    ends = []  # in the order of the vector that the parameters are views of
    for end in (theta_a, theta_b):
        put(model, end)
        ends.append(theta.clone())
    model.train()
    found = bend(
        theta,
        loss_and_gradient,
        *ends,
        len(inputs),
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        momentum=momentum,
        generator=generator,
    )
    theta.copy_(found.theta)
    return Midpoint(flatten(model).cpu(), found.loss)


def statistics_at(
    model: nn.Module, inputs: Tensor, theta: Tensor, running: Layout, batch_size: int
) -> Tensor:
    """The running statistics (B,) of theta (P,), which a curve's training left no right ones of.

    Batch normalisation gets the means over all batches of inputs (n, ...) of what these have there
    (Izmailov et al. 2018; `torch.optim.swa_utils.update_bn`). The model's own are overwritten; its
    dropout, if any, draws from the caller's random state.
    """
    put(model, theta)
    device = next(model.parameters()).device
    update_bn((batch.to(device) for batch in inputs.split(batch_size)), model)
    return buffers.read(model, running).cpu()
