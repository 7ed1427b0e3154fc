"""Convolutions of which the gradient can be differentiated as fast as the convolution itself.

Torch's double backward of a convolution (`_convolution_double_backward`) convolves with a kernel as
large as the image, for which its routines are not tuned, and also computes the derivative by an
input that needs no gradient.

A convolution x * w is bilinear, and so are its two gradients: the input's, I(g, w), and the
weight's, W(g, x), each defined by

    <g, x * w> = <I(g, w), x> = <W(g, x), w>.

The derivatives of all three are therefore again among the three, to any order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.overrides import TorchFunctionMode


class FastDoubleBackward(TorchFunctionMode):
    """A context in which `torch.nn.functional.conv2d`, and so `nn.Conv2d`, is `conv2d` of here."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is functional.conv2d:
            func = conv2d
        return func(*args, **(kwargs or {}))


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Tensor:
    """`torch.nn.functional.conv2d`, made of convolutions and their gradients to every order.

    Shapes are torch's: input (n, channels, height, width), weight (outputs, channels / groups,
    kernel height, kernel width), bias (outputs,). What torch refuses raises its RuntimeError.
    What needs more than these is left to torch: single images (channels, height, width), padding
    given by name, complex numbers, autocast and the transforms of `torch.func`.
    """
    if (
        input.ndim != 4
        or isinstance(padding, str)
        or not input.is_floating_point()
        or torch.is_autocast_enabled(input.device.type)
        or torch._C._are_functorch_transforms_active()
    ):
        return functional.conv2d(input, weight, bias, stride, padding, dilation, groups)
    options = (*(_pair(option) for option in (stride, padding, dilation)), groups)
    return _Convolution.apply(input, weight, bias, options)


class _Convolution(Function):
    """x * w + b."""

    @staticmethod
    def forward(ctx, x: Tensor, w: Tensor, b: Tensor | None, options: tuple) -> Tensor:
        ctx.save_for_backward(x, w)
        ctx.options, ctx.biased = options, b is not None
        return functional.conv2d(x, w, b, *options)

    @staticmethod
    def backward(ctx, g: Tensor) -> tuple:
        x, w = ctx.saved_tensors
        needs_input, needs_weight, needs_bias, _ = ctx.needs_input_grad
        of_input = of_weight = of_bias = None
        if needs_input:
            of_input = _InputGradient.apply(g, w, x.shape, ctx.options)
        if needs_weight or needs_bias:
            of_weight, of_bias = _WeightGradient.apply(g, x, w.shape, ctx.biased, ctx.options)
        return of_input, of_weight, of_bias, None


class _InputGradient(Function):
    """I(g, w)."""

    @staticmethod
    def forward(ctx, g: Tensor, w: Tensor, shape: torch.Size, options: tuple) -> Tensor:
        ctx.save_for_backward(g, w)
        ctx.options = options
        return _gradients(g, g.new_empty(shape), w, options, [True, False, False])[0]

    @staticmethod
    def backward(ctx, x: Tensor) -> tuple:
        g, w = ctx.saved_tensors
        of_output = of_weight = None
        if ctx.needs_input_grad[0]:
            of_output = _Convolution.apply(x, w, None, ctx.options)
        if ctx.needs_input_grad[1]:
            of_weight, _ = _WeightGradient.apply(g, x, w.shape, False, ctx.options)
        return of_output, of_weight, None, None


class _WeightGradient(Function):
    """W(g, x), and the bias's gradient: g summed over samples and places."""

    @staticmethod
    def forward(
        ctx, g: Tensor, x: Tensor, shape: torch.Size, biased: bool, options: tuple
    ) -> tuple[Tensor, Tensor | None]:
        ctx.save_for_backward(g, x)
        ctx.options = options
        return _gradients(g, x, g.new_empty(shape), options, [False, True, biased])[1:]

    @staticmethod
    def backward(ctx, w: Tensor, b: Tensor | None) -> tuple:
        g, x = ctx.saved_tensors
        of_output = of_input = None
        if ctx.needs_input_grad[0]:
            of_output = _Convolution.apply(x, w, b, ctx.options)
        if ctx.needs_input_grad[1]:
            of_input = _InputGradient.apply(g, w, x.shape, ctx.options)
        return of_output, of_input, None, None, None


def _gradients(g: Tensor, x: Tensor, w: Tensor, options: tuple, wanted: list[bool]) -> tuple:
    """Torch's gradients of input, weight and bias, those `wanted`; of others, only shapes matter.

    `torch.nn.grad` has the first two, but with stand-ins whose memory layout misleads the kernels.
    """
    stride, padding, dilation, groups = options
    return torch.ops.aten.convolution_backward(
        g, x, w, [w.shape[0]], stride, padding, dilation, False, [0, 0], groups, wanted
    )


def _pair(option: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(option) if isinstance(option, Sequence) else (option, option)
