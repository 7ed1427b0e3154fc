"""Where the update of an optimizer stops being stable on a quadratic: the ceilings of curvature.

All of this is for gradients of the whole loss (full batches) and a constant Hessian. Training on
full batches drives the largest eigenvalue up to the ceiling and holds it there, the edge of
stability (Cohen et al. 2021; for Adam, Cohen et al. 2022); on mini-batches it stays below.
"""

from collections.abc import Mapping

import numpy as np

CHANGES = {"schedule", "clip", "sam", "augment", "label_smoothing"}


def companion(optimizer: Mapping, curvature: float) -> np.ndarray:
    """The matrix (2, 2) that takes (theta, running mean of gradients) over one update.

    Of torch.optim's update of a config entry, on the quadratic curvature / 2 theta^2. `SGD`, with
    momentum m, dampening t and weight decay w, from the gradient g = (curvature + w) theta:

        b <- m b + (1 - t) g,  theta <- theta - lr b,  with Nesterov theta <- theta - lr (g + m b).

    `Adam` and `AdamW`, with the preconditioner P held fixed: theta is then an eigenvector of
    P^-1 H and `curvature` its eigenvalue, and with beta the decay of the running mean

        b <- beta b + (1 - beta) g,  theta <- (1 - lr w) theta - lr b,

    from g = curvature theta; w is the decoupled weight decay of `AdamW`. `Adam`'s own weight decay
    is a part of the gradient, hence of H: the curvature is then that of P^-1 (H + w I), and w does
    not occur here.
    """
    lr, name = optimizer["lr"], optimizer["name"]
    decay = optimizer.get("weight_decay", 0.01 if name == "AdamW" else 0.0)  # torch's defaults
    if name == "SGD":
        m = optimizer.get("momentum", 0.0)
        g = curvature + decay
        mean = np.array([(1 - optimizer.get("dampening", 0.0)) * g, m] if m else [g, 0.0])
        step = np.array([g, 0.0]) + m * mean if optimizer.get("nesterov", False) else mean
        shrink = 1.0
    else:
        beta = optimizer.get("betas", (0.9, 0.999))[0]
        mean = step = np.array([(1 - beta) * curvature, beta])
        shrink = 1.0 - lr * decay * (name == "AdamW")
    return np.array([np.array([shrink, 0.0]) - lr * step, mean])


def has_ceiling(optimizer: Mapping) -> bool:
    """Whether `ceiling` knows a config entry: a plain update of `SGD`, `Adam` or `AdamW`.

    Where the learning rate changes, or the gradient is another than that of the loss that is
    probed, there is none.
    """
    return optimizer.get("name") in ("SGD", "Adam", "AdamW") and not CHANGES & set(optimizer)


def is_preconditioned(optimizer: Mapping) -> bool:
    """Whether the ceiling is one of P^-1 H, the preconditioned Hessian, instead of H."""
    return optimizer["name"] != "SGD"


def ceiling(optimizer: Mapping) -> float:
    """The largest curvature at which the full-batch update is stable on a quadratic.

    It is the supremum of the curvatures at which the `companion` matrix has a spectral radius
    below 1, which for a matrix of two rows means 1 - tr + det > 0, 1 + tr + det > 0 and det < 1
    (Jury 1964). All three are affine in the curvature here, so that the bound is exact. Without
    weight decay it is 2 / lr for SGD, 2 (1 + m) / lr for heavy ball (Polyak 1964),
    2 (1 + m) / ((1 + 2 m) lr) for Nesterov's momentum, and 2 (1 + beta) / ((1 - beta) lr) for Adam
    (Cohen et al. 2022; 38 / lr at beta = 0.9).

    SGD's is one of H, Adam's of P^-1 H, with P from `optimizers.preconditioner`: see
    `is_preconditioned`. 0 where no positive curvature is stable, and infinite where all are.
    """

    def margins(curvature: float) -> np.ndarray:
        (a, b), (c, d) = companion(optimizer, curvature)
        trace, det = a + d, a * d - b * c
        return np.array([1 - trace + det, 1 + trace + det, 1 - det])

    unit = 1 / optimizer["lr"]  # at which the margins are of order 1
    start = margins(0.0)
    fall = start - margins(unit)
    falling = fall > 1e-12
    bound = unit * np.min(start[falling] / fall[falling], initial=np.inf)
    return float(bound) if bound > 1e-12 * unit else 0.0
