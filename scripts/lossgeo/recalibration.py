"""Batch normalisation whose statistics are a function of theta.

At each theta one fixed calibration batch goes through the network first. Each layer of batch
normalisation normalises that by the batch's own mean and variance, as in training, and everything
after it by this mean and the unbiased variance, as torch does in evaluation: what
`reset_running_stats`, a forward pass in training mode with `momentum=None`, and evaluation give,
with dropout off throughout (Izmailov et al. 2018; Jordan et al. 2023). The statistics have a graph:
gradients, products with the Hessian and Jacobians are those of L(theta) as it is evaluated.

L is the mean over its samples for this one batch, and so are its standard errors over them: that
another batch gives other statistics is no part of these. It is of order 1 / sqrt(C) too, and where
C is not much larger than N it can be the larger part. In a study each seed draws a batch of its
own, so that intervals over seeds contain it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lossgeo.models import ModelError

KNOWN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Recalibrated(_BatchNorm):
    """What a layer of batch normalisation becomes."""

    calibrating = False
    found: tuple[Tensor, Tensor] | None = None  # mean and unbiased variance (channels,)

    def forward(self, x: Tensor) -> Tensor:  # (n, channels, ...)
        if not self.calibrating:
            return self._normalised(x, *self.found)
        if self.found is not None:
            raise ModelError(
                "a layer of batch normalisation is called twice in a forward pass, so that its "
                "statistics cannot be recalibrated; expected a layer for each call"
            )
        count = x.numel() // x.shape[1]
        variance, mean = torch.var_mean(x, [0, *range(2, x.ndim)], correction=0)
        self.found = mean, variance * (count / (count - 1))
        return self._normalised(x, mean, variance)

    def _normalised(self, x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        scale = torch.rsqrt(variance + self.eps)
        if self.weight is not None:
            scale = scale * self.weight
        shift = -mean * scale
        if self.bias is not None:
            shift = shift + self.bias
        shape = (1, -1) + (1,) * (x.ndim - 2)
        return torch.addcmul(shift.view(shape), x, scale.view(shape))


class Calibration:
    """What runs around each forward pass of a model: the calibration batch before it."""

    def __init__(self, layers: list[Recalibrated], inputs: Tensor) -> None:
        self.layers, self.inputs, self.held = layers, inputs, False

    def before(self, model: nn.Module, _inputs=None) -> None:
        if self.held:
            return
        for layer in self.layers:
            layer.calibrating, layer.found = True, None
        try:
            model.forward(self.inputs)
        finally:
            for layer in self.layers:
                layer.calibrating = False

    def after(self, _model: nn.Module, _inputs=None, _outputs=None) -> None:
        if not self.held:
            for layer in self.layers:
                layer.found = None


def recalibrate(model: nn.Module, inputs: Tensor) -> None:
    """Let all batch normalisation of a model in evaluation mode be by the statistics of `inputs`.

    They are computed anew in every forward pass, with the parameters that it is made with.
    Raises ModelError where there are fewer than two inputs.
    """
    if len(inputs) < 2:
        raise ModelError(
            f"statistics are recalibrated on {len(inputs)} sample, which has no variance; expected "
            "at least 2 calibration samples"
        )
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm)]
    if others := [type(layer).__name__ for layer in layers if type(layer) not in KNOWN]:
        raise ModelError(
            f"a layer is a {others[0]}, whose statistics cannot be recalibrated; expected one of "
            f"{', '.join(kind.__name__ for kind in KNOWN)}, or statistics: frozen"
        )
    for layer in layers:
        layer.__class__ = Recalibrated
    model.calibration = Calibration(layers, inputs)
    model.register_forward_pre_hook(model.calibration.before)
    model.register_forward_hook(model.calibration.after)


def calibration_size(model: nn.Module) -> int:
    """How many samples go through the model before each forward pass; 0 where it has no mode."""
    calibration = getattr(model, "calibration", None)
    return len(calibration.inputs) if isinstance(calibration, Calibration) else 0


@contextmanager
def calibrated_once(model: nn.Module) -> Iterator[None]:
    """A context in which all forward passes are at one theta, and share its statistics."""
    calibration = getattr(model, "calibration", None)
    if not isinstance(calibration, Calibration):
        yield
        return
    calibration.before(model)
    calibration.held = True
    try:
        yield
    finally:
        calibration.held = False
        calibration.after(model)
