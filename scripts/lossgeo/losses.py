"""The loss of one sample as a function of the network's outputs and its target.

A `Loss` is what an `Objective` averages. What is measured needs two things of it: the values of
single samples, and, for Gauss-Newton matrices, products with its second derivative by the outputs.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lossgeo.models import ModelError, load_factory
from lossgeo.numerics import root

MOST_OUTPUTS = 512  # of a sample, beyond which traces are estimated from PROBES
PROBES = 32

PerSample = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Loss:
    """A loss l_i of each sample.

    Outputs are (n, ...) and targets (n, ...): integer classes (n,) or sequences of them (n, T), or
    floating numbers.
    """

    name: str
    of_samples: PerSample  # (outputs, targets) -> (n,), twice differentiable by the outputs
    units: str = "1"
    right: PerSample | None = None  # -> (n,) share of a sample's outputs that are right; or none
    is_tempered: bool = False  # outputs are logits, which a softmax temperature may divide
    smoothing: float | None = None  # of the labels, for cross-entropy alone

    @property
    def suffix(self) -> str:
        """What stands behind a number in these units."""
        return "" if self.units == "1" else f" {self.units}"

    def is_plain(self, targets: Tensor) -> bool:
        """Whether it is the cross-entropy of one class for each sample, for which there are short
        cuts."""
        return self.smoothing == 0 and targets.ndim == 1 and not targets.is_floating_point()


def make_loss(spec: "Loss | str | Mapping[str, Any] | PerSample" = "cross-entropy") -> Loss:
    """The loss that a config or a caller names.

    "cross-entropy", in nats: -sum_k q_k log softmax(z)_k, with q = [k = y], or with
    `{"name": "cross-entropy", "label_smoothing": s}` (1 - s) [k = y] + s / K. Outputs are (n, K);
    or (n, T, K) of targets (n, T), whose mean over T is a sample's loss.

    "mse": 1/K sum_k (z_k - y_k)^2, the mean over all entries of a sample's output. Integer targets
    (n,) of outputs (n, K) are classes, y_k = [k = y].

    "binary-cross-entropy", in nats: -1/K sum_k [y_k log s(z_k) + (1 - y_k) log(1 - s(z_k))], s the
    logistic function; outputs and targets are (n,) or (n, K), targets in [0, 1] or classes as
    above.

    `{"factory": "package.module:loss", "arguments": {...}, "units": "1", "classes": False}`: a
    function `loss(outputs, targets, **arguments)` -> (n,); with `classes`, targets are classes
    and the largest output is what is predicted. Or such a function itself, or a `Loss`.

    Raises ModelError for anything else.
    """
    if isinstance(spec, Loss):
        return spec
    if callable(spec):
        return Loss(getattr(spec, "__name__", type(spec).__name__), spec)
    if isinstance(spec, str):
        spec = {"name": spec}
    if "factory" in spec:
        function = load_factory(spec["factory"])
        return Loss(
            spec["factory"].rpartition(":")[2],
            partial(function, **spec.get("arguments", {})),
            spec.get("units", "1"),
            right_classes if spec.get("classes") else None,
        )
    name, smoothing = spec.get("name"), spec.get("label_smoothing", 0.0)
    if name == "cross-entropy" and 0 <= smoothing < 1:
        function = partial(cross_entropy, label_smoothing=smoothing)
        return Loss(name, function, "nats", right_classes, True, smoothing)
    if name in OTHERS and "label_smoothing" not in spec:
        return OTHERS[name]
    raise ModelError(
        f"the loss is {spec}, expected one of cross-entropy (with label_smoothing from 0 to below "
        f"1), {', '.join(OTHERS)}, or a factory"
    )


def linear_in_outputs(loss: Loss) -> Loss:
    """The loss g'z, linear in the outputs z, g being the gradient of l at those that it is given.

    Its Hessian by theta is sum_k g_k grad^2 z_k: what that of l is beside its Gauss-Newton matrix.
    """

    def of_samples(outputs: Tensor, targets: Tensor) -> Tensor:
        z = outputs.detach().requires_grad_()
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(loss.of_samples(z, targets).sum(), z)
        return (outputs * slope).reshape(len(outputs), -1).sum(1)

    return Loss(f"{loss.name}, linear in the outputs", of_samples, loss.units)


def cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """(n,) nats, of outputs (n, ..., K) and classes (n, ...): the mean over what is between."""
    if outputs.ndim < 2 or targets.shape != outputs.shape[:-1] or targets.is_floating_point():
        raise ModelError(
            f"cross-entropy of outputs {tuple(outputs.shape)} and {targets.dtype} targets "
            f"{tuple(targets.shape)}: expected integer targets {tuple(outputs.shape[:-1])}"
        )
    each = functional.cross_entropy(
        outputs.flatten(0, -2),
        targets.flatten().long(),
        reduction="none",
        label_smoothing=label_smoothing,
    )
    return each.view(len(outputs), -1).mean(1) if targets.ndim > 1 else each


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """(n,): see `make_loss`."""
    outputs, targets = _paired(outputs, targets)
    return (outputs - targets).square().flatten(1).mean(1)


def binary_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """(n,) nats: see `make_loss`."""
    outputs, targets = _paired(outputs, targets)
    each = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
    return each.flatten(1).mean(1)


def right_classes(outputs: Tensor, targets: Tensor) -> Tensor:
    """(n,): the share of classes (n, ...) whose output has strictly the largest of (n, ..., K).

    NaN where targets are not classes, as those of a single output.
    """
    if targets.is_floating_point() or targets.shape != outputs.shape[:-1] or outputs.shape[-1] < 2:
        return torch.full((len(outputs),), torch.nan, device=outputs.device)
    own = outputs.gather(-1, targets.long().unsqueeze(-1))
    right = (outputs >= own).sum(-1) == 1
    return right.float().view(len(outputs), -1).mean(1)


def right_signs(outputs: Tensor, targets: Tensor) -> Tensor:
    """(n,): the share of a sample's logits whose sign is that of its target above 1/2."""
    outputs, targets = _paired(outputs, targets)
    return ((outputs > 0) == (targets > 0.5)).float().mean(1)


OTHERS = {
    "mse": Loss("mse", mean_squared_error, right=right_classes),
    "binary-cross-entropy": Loss(
        "binary-cross-entropy", binary_cross_entropy, "nats", right_signs, True
    ),
}

CROSS_ENTROPY = make_loss()


def total(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    """The sum of the losses of samples."""
    if loss.smoothing is not None and targets.ndim == 1 and not targets.is_floating_point():
        return functional.cross_entropy(
            outputs, targets.long(), reduction="sum", label_smoothing=loss.smoothing
        )
    return loss.of_samples(outputs, targets).sum()


def smoothed(loss: Loss, label_smoothing: float) -> Loss:
    """The cross-entropy with labels that are smoothed; any loss itself for 0.

    Raises ModelError for another loss.
    """
    if not label_smoothing:
        return loss
    if loss.smoothing is None:
        raise ModelError(
            f"label_smoothing is {label_smoothing} and the loss {loss.name}, expected cross-entropy"
        )
    return make_loss({"name": loss.name, "label_smoothing": label_smoothing})


def output_hessian(loss: Loss, outputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
    """u -> A_i u_i of each sample, A_i the second derivative of its loss by its outputs.

    Outputs and u are (n, ...). diag p - pp' of the cross-entropy; by autograd for all others.
    """
    if loss.is_plain(targets):
        p = outputs.detach().softmax(1)
        return lambda u: p * (u - (p * u).sum(1, keepdim=True))
    with torch.enable_grad():
        z = outputs.detach().requires_grad_()
        (slope,) = torch.autograd.grad(
            loss.of_samples(z, targets).sum(), z, create_graph=True, materialize_grads=True
        )
    if not slope.requires_grad:  # linear in the outputs
        return torch.zeros_like
    return lambda u: torch.autograd.grad(slope, z, u, retain_graph=True, materialize_grads=True)[0]


def is_traced_exactly(loss: Loss, outputs: Tensor, targets: Tensor) -> bool:
    """Whether `cotangents` sum to the whole trace, and do not estimate it."""
    return loss.is_plain(targets) or outputs[0].numel() <= MOST_OUTPUTS


def cotangents(
    loss: Loss, outputs: Tensor, targets: Tensor, *, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (a, b), both (n, ...), whose sum over a b' is each sample's A_i (see `output_hessian`).

    So tr J'AJ = sum (J'a)'(J'b) for any J. For the cross-entropy a = b = sqrt(p_k) (e_k - p); for
    others a = e_k and b = A e_k, k running through all outputs. Where a sample has more than
    MOST_OUTPUTS of those, a are PROBES random signs over sqrt(PROBES), so that the sum is right on
    average (Hutchinson 1989). They are drawn from `generator`, which samples after these go on with
    if their errors are to be independent.
    """
    if loss.is_plain(targets):
        p = outputs.detach().softmax(1)
        eye = torch.eye(p.shape[1], dtype=p.dtype, device=p.device)
        for c in root(p.T).unsqueeze(2) * (eye.unsqueeze(1) - p):
            yield c, c
        return
    bend = output_hessian(loss, outputs, targets)
    if is_traced_exactly(loss, outputs, targets):
        for k in range(outputs[0].numel()):
            a = torch.zeros_like(outputs, requires_grad=False)
            a.view(len(a), -1)[:, k] = 1
            yield a, bend(a)
        return
    for _ in range(PROBES):
        signs = torch.randint(0, 2, outputs.shape, generator=generator) * 2 - 1
        a = signs.to(outputs) / PROBES**0.5
        yield a, bend(a)


def check_loss(loss: Loss, outputs: Tensor, targets: Tensor) -> None:
    """Raise ModelError unless the loss of outputs (n, ...) is (n,), finite, and can be
    differentiated twice; and unless each value is a function of that sample alone."""
    try:
        z = outputs.detach().requires_grad_()
        values = loss.of_samples(z, targets)
        shape = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
        if shape != (len(outputs),):
            raise ModelError(
                f"the loss {loss.name} of {len(outputs)} samples is {shape}, expected one value "
                f"for each, ({len(outputs)},)"
            )
        if not values.requires_grad:
            raise ModelError(
                f"the loss {loss.name} is detached from the outputs, expected gradients"
            )
        (slope,) = torch.autograd.grad(values.sum(), z, create_graph=True)
        if slope.requires_grad:
            slope.sum().backward()
        again, pairs = loss.of_samples(z, targets), zip(z.split(1), targets.split(1), strict=True)
        alone = torch.cat([loss.of_samples(*pair) for pair in pairs])
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"the loss {loss.name} of outputs {tuple(outputs.shape)} and targets "
            f"{tuple(targets.shape)}, or its first or second derivative, failed: {error!r}"
        ) from error
    if not all(part.isfinite().all() for part in (values, slope, z.grad) if part is not None):
        raise ModelError(
            f"the loss {loss.name}, or its first or second derivative, is not finite on "
            f"{len(outputs)} samples"
        )
    if not torch.equal(values, again):
        raise ModelError(
            f"the loss {loss.name}: two calls gave different values, expected the same; it must "
            "draw nothing"
        )
    if not torch.allclose(alone, values, rtol=1e-3, atol=1e-3 * values.abs().max().item()):
        raise ModelError(
            f"the loss {loss.name}: a sample's value alone is another than beside others, expected "
            "the same; what is measured is the mean over samples, each of which is by itself"
        )


def _paired(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and targets as numbers (n, K) of the same shape; classes become indicators."""
    samples = len(outputs)
    flat = outputs.reshape(samples, -1)
    if not targets.is_floating_point() and targets.ndim == 1 and flat.shape[1] > 1:
        targets = functional.one_hot(targets.long(), flat.shape[1])
    flat_targets = targets.reshape(samples, -1).to(outputs.dtype)
    if flat.shape != flat_targets.shape:
        raise ModelError(
            f"outputs are {tuple(outputs.shape)} and targets {tuple(targets.shape)}, expected as "
            "many numbers in each sample of both"
        )
    return flat, flat_targets
