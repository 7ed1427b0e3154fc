"""How a config trains is tried before any job starts: optimizers, and functions of the user's."""

import inspect
import random
from collections.abc import Mapping
from contextlib import closing

import numpy as np
import torch
from torch import Tensor, nn

from lossgeo import fits
from lossgeo.checks import REFUSED, SAMPLES
from lossgeo.models import ModelError, build, load_factory
from lossgeo.numerics import torch_generator
from lossgeo.optimizers import OURS, make_optimizer
from lossgeo.parameters import flatten

SHAPES = ((2, 1, 3, 3), (3, 4), (3,))  # of a convolution, of a linear layer, and of its biases


def try_training(
    step: Mapping,
    input_shape: tuple[int, ...],
    outputs: int,
    example: tuple[Tensor, Tensor] | None = None,
) -> None:
    """Raise ModelError unless a config's entry of `optimizers` can train its models.

    `step` has the entry, `optimizer`, and the `models` of the experiments that name it. They are
    tried on an `example` of a few samples, or on drawn ones of a shape.
    """
    spec = step["optimizer"]
    if example is None:
        inputs = torch.randn(SAMPLES, *input_shape, generator=torch_generator("trial"))
        example = inputs, torch.arange(SAMPLES) % outputs
    if "train" in spec:
        for model in step["models"].values():
            try_fit(spec["train"], model, input_shape, outputs, example)
        return
    try_optimizer(spec)
    if "augment" in spec:
        try_augment(spec["augment"], example[0])


def try_optimizer(spec: Mapping) -> None:
    """Raise ModelError unless torch's class takes these arguments, and two updates are finite."""
    name, made = f"torch.optim.{spec['name']}", getattr(torch.optim, spec["name"])
    known = sorted(set(inspect.signature(made).parameters) - {"params", *REFUSED})
    for key in spec:
        if key not in (*OURS, *known):
            raise ModelError(f"found {key!r}, expected arguments of {name}: {', '.join(known)}")
    parameters = [nn.Parameter(torch.ones(shape)) for shape in SHAPES]
    try:
        update = make_optimizer(parameters, spec)
        for _ in range(2):
            for parameter in parameters:
                parameter.grad = torch.ones_like(parameter)
            update.step()
    except Exception as error:
        arguments = {key: value for key, value in spec.items() if key not in OURS}
        raise ModelError(f"{name} refuses {arguments}: {error}") from error
    if not all(parameter.isfinite().all() for parameter in parameters):
        raise ModelError(f"{name}: two updates by gradients of ones gave what is not finite")


def try_augment(reference: str, inputs: Tensor) -> None:
    """Raise ModelError unless a function changes inputs by what it draws from its generator alone.

    It keeps their shape and type, and gives finite numbers.
    """
    augment = load_factory(reference)
    before = _drawn()
    found = [augment(inputs.clone(), torch_generator("trial augment")) for _ in range(2)]
    for values in found:
        if not isinstance(values, Tensor) or values.shape != inputs.shape:
            given = tuple(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise ModelError(
                f"{reference}: from inputs {tuple(inputs.shape)} it made {given}, expected a "
                "tensor of the same shape"
            )
        if values.dtype != inputs.dtype or not values.isfinite().all():
            raise ModelError(
                f"{reference}: from inputs of {inputs.dtype} it made {values.dtype}, or numbers "
                "that are not finite; expected finite ones of the same type"
            )
    if not torch.equal(*found) or _drawn() != before:
        raise ModelError(
            f"{reference}: it draws from another generator than the one that it is given, expected "
            "function(inputs, generator) to draw from that alone: a run could not be repeated"
        )


def try_fit(
    spec: Mapping,
    model: Mapping,
    input_shape: tuple[int, ...],
    outputs: int,
    example: tuple[Tensor, Tensor],
) -> None:
    """Raise ModelError unless a training yields the same state twice, of few samples."""

    def first() -> Tensor:
        torch.manual_seed(0)
        network = build(model, input_shape, outputs, example=example)
        generator = torch_generator("trial order")
        states = fits.states(spec, network, *example, epochs=1, generator=generator)
        with closing(states):
            for _ in states:
                return flatten(network).nan_to_num()
        raise ModelError(
            f"{spec['factory']}: it yielded nothing in an epoch of {len(example[0])} samples, "
            "expected a state, at its end at the latest"
        )

    if not torch.equal(first(), first()):
        raise ModelError(
            f"{spec['factory']}: two calls with the same seed gave other states, expected the "
            "same; draw from `generator`, or from torch's own generator, alone"
        )


def _drawn() -> tuple:
    """The states of the generators that everything shares."""
    numbers = np.random.get_state()[1]  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), numbers.tobytes(), random.getstate()
