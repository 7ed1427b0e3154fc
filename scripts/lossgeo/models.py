"""The study's networks, and networks that a user names as `package.module:function`."""

import importlib
import sys
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

BLOCK = 2**20  # numbers of the inputs that go through a network together
ID = 64  # numbers for which a token id counts


class ModelError(ValueError):
    """A model that cannot be built, or that the study cannot probe."""


def mlp(
    width: int, input_shape: tuple[int, ...], classes: int, activation: str = "relu"
) -> nn.Sequential:
    """One hidden layer: pixels -> width -> classes."""
    layers = {
        "flatten": nn.Flatten(),
        "hidden": nn.Linear(torch.Size(input_shape).numel(), width),
        activation: ACTIVATIONS[activation](),
        "output": nn.Linear(width, classes),
    }
    return nn.Sequential(OrderedDict(layers))


def cnn(
    width: int, input_shape: tuple[int, ...], classes: int, activation: str = "relu"
) -> nn.Sequential:
    """Two 3x3 convolutions (width and 2 width channels), each max-pooled 2x2, then two layers.

    The pooling comes before the activation: it commutes with ReLU, and this way the ReLU touches a
    quarter of the memory. With GELU the network is smooth but for the pooling's maxima.
    """
    channels, height, columns = input_shape
    function = ACTIVATIONS[activation]
    layers = {
        "conv1": nn.Conv2d(channels, width, 3, padding=1),
        "pool1": MaxPool(),
        f"{activation}1": function(),
        "conv2": nn.Conv2d(width, 2 * width, 3, padding=1),
        "pool2": MaxPool(),
        f"{activation}2": function(),
        "flatten": nn.Flatten(),
        "hidden": nn.Linear(2 * width * (height // 4) * (columns // 4), 128),
        f"{activation}3": function(),
        "output": nn.Linear(128, classes),
    }
    return nn.Sequential(OrderedDict(layers))


class MaxPool(nn.Module):
    """2x2 max-pooling of what a convolution has just computed.

    Torch's kernel also notes where each maximum was, for the gradient. Under `torch.no_grad` that
    is not needed, and maxima of neighbouring rows, then of neighbouring columns, take half the
    time. The first of these are written into the input, which nothing else may need any more.
    """

    def forward(self, x: Tensor) -> Tensor:  # (n, channels, h, w) -> (n, channels, h // 2, w // 2)
        if torch.is_grad_enabled():
            return nn.functional.max_pool2d(x, 2)
        height, columns = (size - size % 2 for size in x.shape[-2:])
        top, bottom = x[..., 0:height:2, :columns], x[..., 1:height:2, :columns]
        torch.maximum(top, bottom, out=top)
        return torch.maximum(top[..., 0::2], top[..., 1::2])


ACTIVATIONS = {"relu": partial(nn.ReLU, inplace=True), "gelu": nn.GELU}

FAMILIES = {"mlp": mlp, "cnn": cnn}


def build(
    spec: Mapping,
    input_shape: tuple[int, ...],
    outputs: int,
    *,
    seed: int = 0,
    example: tuple[Tensor, Tensor] | None = None,
) -> nn.Module:
    """A freshly initialised network; equal arguments give equal parameters.

    `spec` is a model of the config: `{"family": "mlp" | "cnn", "width": w}`, where `"activation"`
    may be "gelu" in place of "relu", or `{"factory": "package.module:function",
    "arguments": {...}}`, which is called as `function(input_shape, outputs, **arguments)`. The
    caller's random state is left as it was. `outputs` counts classes, entries of a target, or
    tokens (`arrays.outputs_of`); a user's model is tried on the inputs and targets of an `example`
    of two samples, or on zeros where there is none.

    Raises ModelError where a factory cannot be imported or called, or where what it returns cannot
    be probed: no parameters, parameters that are not floating point, or outputs that are not
    (n, outputs), or of tokens (n, length, outputs).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if "factory" not in spec:
            activation = spec.get("activation", "relu")
            return FAMILIES[spec["family"]](spec["width"], input_shape, outputs, activation)
        try:
            model = load_factory(spec["factory"])(input_shape, outputs, **spec.get("arguments", {}))
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"the factory {spec['factory']} failed when called with input_shape={input_shape}, "
                f"outputs={outputs}, arguments={spec.get('arguments', {})}: {error!r}"
            ) from error
    if example is None:
        example = torch.zeros(2, *input_shape), torch.zeros(2, dtype=torch.int64)
    _check(model, spec["factory"], outputs, *example)
    return model


def load_factory(reference: str):
    """The function that `package.module:function` names, in the working directory too."""
    module_name, _, function_name = reference.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        factory = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(
            f"the factory {reference} cannot be imported ({error}): expected "
            "package.module:function, importable from the project's folder or the environment"
        ) from error
    if not callable(factory):
        raise ModelError(f"the factory {reference} is a {type(factory).__name__}, not a function")
    return factory


def memory_format(model: nn.Module) -> torch.memory_format:
    """channels_last for networks with convolutions: there the CPU reaches its multiply rate."""
    convolutional = any(p.ndim == 4 for p in model.parameters())
    return torch.channels_last if convolutional else torch.contiguous_format


def block_size(model: nn.Module, inputs: Tensor) -> int:
    """How many samples (n, ...) go through the network together.

    With more, activations leave the cache. There are fewer of large ones, so that a block has no
    more than BLOCK numbers, or BLOCK / ID token ids, of which a network makes vectors.
    """
    most = 64 if memory_format(model) == torch.channels_last else 1024
    numbers = inputs[:1].numel() * (1 if inputs.is_floating_point() else ID)
    return max(1, min(most, BLOCK // max(1, numbers)))


def in_memory_format(inputs: Tensor, layout: torch.memory_format) -> Tensor:
    """A copy of inputs (n, channels, height, width) whose strides are those of `layout`.

    Inputs of other shapes have the contiguous one.

    `Tensor.contiguous` leaves a single channel as it is, because both layouts then hold the same
    numbers in the same order; the strides alone decide which kernels every later layer gets.
    """
    if inputs.ndim != 4:
        layout = torch.contiguous_format
    return torch.empty(
        inputs.shape, dtype=inputs.dtype, device=inputs.device, memory_format=layout
    ).copy_(inputs)


def _check(model: nn.Module, reference: str, outputs: int, inputs: Tensor, targets: Tensor) -> None:
    if not isinstance(model, nn.Module):
        raise ModelError(f"{reference} returned a {type(model).__name__}, not a torch.nn.Module")
    parameters = list(model.parameters())
    if not parameters or not all(p.is_floating_point() for p in parameters):
        raise ModelError(f"{reference}: the model needs parameters, all of them floating point")
    of_tokens = not targets.is_floating_point() and targets.ndim > 1
    expected = (*targets.shape, outputs) if of_tokens else (len(targets), outputs)
    found = f"{len(inputs)} inputs of {tuple(inputs.shape[1:])}"
    try:
        with torch.no_grad():
            shape = tuple(model.eval()(inputs).shape)
    except Exception as error:
        raise ModelError(
            f"{reference}: the model failed on {found}, expected outputs {expected}: {error!r}"
        ) from error
    model.train()
    if shape != expected:
        raise ModelError(f"{reference}: {found} gave {shape}, not {expected}")
