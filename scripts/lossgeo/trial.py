"""Users' models are tried before any job starts, in a process of its own that `checks` starts.

A factory is foreign code: it may crash, hang, or change what all models share.
"""

import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lossgeo import checkpoints, own_data, study
from lossgeo.arrays import as_tensors
from lossgeo.attention import step_by_step
from lossgeo.buffers import running_statistics
from lossgeo.checkpoints import CheckpointError
from lossgeo.data import DataError
from lossgeo.losses import Loss, check_loss, make_loss
from lossgeo.models import ModelError, build
from lossgeo.numerics import make_deterministic, torch_generator
from lossgeo.objective import make_objective, sample_logits, with_samples
from lossgeo.parameters import Layout, flatten, layout_of, trained
from lossgeo.part import match
from lossgeo.trial_training import try_training


def try_model(
    spec: Mapping,
    input_shape: tuple[int, ...],
    outputs: int,
    example: tuple[Tensor, Tensor] | None = None,
    loss: str | Mapping[str, Any] = "cross-entropy",
) -> None:
    """Raise ModelError unless a user's model can be trained and probed.

    Its initial parameters are float32 and finite, the same for the same seed; those that are not
    frozen are others for another seed (unless weights are given), those that are frozen the same;
    its loss on two samples has finite gradients and products with its Hessian; its outputs are a
    function of theta and a sample (`_check_state`); and its factory leaves the working directory,
    the default dtype and the recording of gradients alone.
    """
    factory, folder = spec["factory"], os.getcwd()
    example = example or _drawn(input_shape, outputs)
    make = partial(build, spec, input_shape, outputs, example=example)
    try:
        try:
            model = make(seed=0)
        finally:  # what it has changed may be why it failed
            _check_shared(factory, folder)
        _check_parameters(factory, model)
        again, other = (make(seed=seed) for seed in (0, 1))
        if not _equal(model, again):
            raise ModelError(
                f"{factory}: two calls with the same seed gave different parameters, expected the "
                "same; draw from torch's own generator alone"
            )
        if _equal(model, other, list(trained(model))) and "weights" not in spec:
            raise ModelError(
                f"{factory}: two seeds gave the same parameters, expected others; leave the seed "
                "of torch's generator as it is, and draw from it"
            )
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        if not _equal(model, other, frozen):
            raise ModelError(
                f"{factory}: two seeds gave other values of parameters that are frozen "
                f"({', '.join(frozen[:3])}), expected the same: draw them from a generator of your "
                "own, torch.Generator().manual_seed(...)"
            )
        _check_state(spec, model, again, other, example[0])
        _check_gradients(factory, model, *example, make_loss(loss))
    finally:
        os.chdir(folder)
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)


def _drawn(input_shape: tuple[int, ...], outputs: int) -> tuple[Tensor, Tensor]:
    """Inputs and classes of two samples that nobody has."""
    inputs = torch.randn(2, *input_shape, generator=torch_generator("trial"))
    return inputs, torch.tensor([0, outputs - 1])


def _check_shared(factory: str, folder: str) -> None:
    for what, found, expected in (
        ("the working directory", os.getcwd(), folder),
        ("torch's default dtype", torch.get_default_dtype(), torch.float32),
        ("whether torch records gradients", torch.is_grad_enabled(), True),
    ):
        if found != expected:
            raise ModelError(
                f"{factory}: it has changed {what} to {found}, expected it to stay {expected}"
            )


def _check_parameters(factory: str, model: nn.Module) -> None:
    if not trained(model):
        raise ModelError(
            f"{factory}: all parameters are frozen (requires_grad is False), expected some to be "
            "trained"
        )
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise ModelError(
                f"{factory}: the parameter {name} is {parameter.dtype}, expected torch.float32"
            )
        if not parameter.isfinite().all():
            raise ModelError(
                f"{factory}: the parameter {name} is initialised with values that are not finite"
            )


def _equal(a: nn.Module, b: nn.Module, names: list[str] | None = None) -> bool:
    """Whether two models have the same parameters, or the same ones of some `names`."""
    of_a, of_b = dict(a.named_parameters()), dict(b.named_parameters())
    names = list(of_a) if names is None else names
    return of_a.keys() == of_b.keys() and all(torch.equal(of_a[n], of_b[n]) for n in names)


def _check_state(
    spec: Mapping,
    model: nn.Module,
    again: nn.Module,
    other: nn.Module,
    inputs: Tensor,
) -> None:
    """What a model has beside theta is the same wherever it is built, or has a mode.

    Its outputs are a function of theta and the sample alone: not of random draws, nor of the other
    samples. `again` was built with the same seed, `other` with another one.
    """
    factory, mode = spec["factory"], spec.get("statistics")
    try:
        running = running_statistics(model, inputs, mode)
        targets = torch.zeros(len(inputs), dtype=torch.int64)
        objective = make_objective(model, inputs, targets, statistics=mode, calibration=inputs)
    except ModelError as error:
        raise ModelError(f"{factory}: {error}") from error
    if mode and objective.statistics is None:
        raise ModelError(
            f"{factory}: found statistics: {mode}, but the model has no running statistics; leave "
            "the key out"
        )
    for built, whose in ((again, "calls with the same seed"), (other, "seeds")):
        of_built = dict(built.named_buffers())
        for name, buffer in model.named_buffers():
            same = name in of_built and torch.equal(buffer, of_built[name])
            if not same and (built is again or name not in running.names):
                raise ModelError(
                    f"{factory}: two {whose} gave other values of the buffer {name}, expected the "
                    "same: it is no part of theta, so draw it from a generator of your own, "
                    "torch.Generator().manual_seed(...)"
                )
    theta = flatten(model)
    outputs = sample_logits(objective, theta)
    if not outputs.isfinite().all():
        return  # which the gradients show
    if not torch.equal(outputs, sample_logits(objective, theta)):
        raise ModelError(
            f"{factory}: two passes in evaluation mode gave different outputs, expected the same; "
            "switch random draws off there (nn.Dropout does, functional dropout with "
            "training=self.training)"
        )
    alone = [
        sample_logits(with_samples(objective, x, y), theta)
        for x, y in zip(inputs.split(1), targets.split(1), strict=True)
    ]
    scale = outputs.abs().max()
    if not (torch.cat(alone, -1) - outputs).abs().max() <= 1e-3 * scale:
        raise ModelError(
            f"{factory}: a sample gave other outputs alone than beside another one, expected the "
            "same; the loss is a mean over samples, each of which is by itself"
        )


def _check_gradients(
    factory: str, model: nn.Module, inputs: Tensor, targets: Tensor, of: Loss
) -> None:
    """A backward pass of the loss of two samples, and another one through it."""
    parameters = list(trained(model).values())
    try:
        with step_by_step():
            outputs = model(inputs)
        if not outputs.requires_grad:
            raise ModelError(
                f"{factory}: the outputs are detached from the parameters, expected gradients"
            )
        loss = of.of_samples(outputs, targets).mean()
        gradient = torch.autograd.grad(
            loss, parameters, create_graph=True, allow_unused=True, materialize_grads=True
        )
        # not autograd.grad, which passes a function by that can be differentiated only once
        sum(g.sum() for g in gradient).backward()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{factory}: gradients, or gradients of gradients, of the loss on two samples failed: "
            f"{error!r}"
        ) from error
    products = [p.grad for p in parameters if p.grad is not None]
    if not all(values.isfinite().all() for values in (*gradient, *products)):
        raise ModelError(
            f"{factory}: on two samples the gradient of the loss, or the product of its Hessian "
            "with a vector, is not finite"
        )


def _check_device(name: str) -> None:
    number, found = torch.device(name).index or 0, torch.cuda.device_count()
    if number >= found:
        raise ModelError(
            f"found {name!r}, but torch sees {found} CUDA devices here; expected auto, cpu or one "
            "of them"
        )


def _answer(
    key: str,
    step: Any,
    input_shape: tuple[int, ...],
    outputs: int,
    example: tuple[Tensor, Tensor] | None,
    loss: str | Mapping[str, Any],
) -> str | None:
    """The key and what is wrong with it, or None."""
    kinds = {"optimizers": "training", "data": "the function", "loss": "the loss"}
    what = kinds.get(key.partition(".")[0], "the model")
    try:
        if key == "device":
            _check_device(step)
            return None
        if key == "data.factory":
            own_data.bring(step["factory"], step["arguments"], step["folder"])
            return None
        if key == "loss":
            _check_loss(step, outputs, example)
            return None
        if key.startswith("optimizers."):
            try_training(step, input_shape, outputs, example)
            return None
        if "factory" in step:
            two = example and (example[0][:2], example[1][:2])
            try_model(step, input_shape, outputs, two, loss)
        if "weights" in step:
            _check_weights(step, input_shape, outputs, example)
        if {"parameters", "probed"} & set(step):
            layout = layout_of(build(step, input_shape, outputs, example=example))
            try:
                _check_part(layout, step.get("parameters", ["*"]), **step.get("probed", {}))
            except ModelError as error:
                return f"{key}{'.parameters' if 'parameters' in step else ''}: {error}"
        if "permutations" in step:
            from lossgeo import permutations

            key += ".permutations"
            model = build(step, input_shape, outputs, example=example)
            inputs = None if example is None else example[0]
            permutations.check_table(model, step["permutations"], input_shape, inputs)
    except (ModelError, DataError) as error:
        return f"{key}: {error}"
    except CheckpointError as error:
        return f"{key}.weights: {error}"
    except SystemExit as error:
        return f"{key}: {step.get('factory')} called sys.exit({error.code!r}) when it was tried"
    except Exception as error:
        return f"{key}: {step.get('factory')}: {what} failed when it was tried: {error!r}"
    return None


def _check_part(
    layout: Layout,
    patterns: Sequence[str],
    eigenpairs: int = 0,
    directions: Mapping[str, str] | None = None,
) -> None:
    """The parameters that are probed have as many dimensions, and directions, as are asked for.

    `directions` are keys of the config, and the normalisation that each of them has.
    """
    names = match(layout, patterns)
    shapes = [layout.shapes[layout.names.index(name)] for name in names]
    size = sum(map(math.prod, shapes))
    if size < eigenpairs:
        raise ModelError(
            f"found {size} parameters to probe ({', '.join(names[:3])}), expected at least "
            f"hessian.top + hessian.bottom = {eigenpairs}"
        )
    for key, found in (directions or {}).items():
        if found in ("filter", "layer") and all(len(shape) < 2 for shape in shapes):
            raise ModelError(
                f"found 1-D parameters alone ({', '.join(names[:3])}), which {key}: {found} never "
                f"moves; expected {key}: model, element or none"
            )


def _check_loss(spec: Mapping, outputs: int, example: tuple[Tensor, Tensor] | None) -> None:
    """The loss of drawn outputs, of the kind that models have, and the data's targets."""
    targets = torch.arange(2) % outputs if example is None else example[1]
    of_tokens = not targets.is_floating_point() and targets.ndim > 1
    shape = (*targets.shape, outputs) if of_tokens else (len(targets), outputs)
    drawn = torch.randn(shape, generator=torch_generator("trial"))
    check_loss(make_loss(spec), drawn, targets)


def _check_weights(
    spec: Mapping,
    input_shape: tuple[int, ...],
    outputs: int,
    example: tuple[Tensor, Tensor] | None,
) -> None:
    model = build(spec, input_shape, outputs, example=example)
    inputs, _ = example or _drawn(input_shape, outputs)
    running = running_statistics(model, inputs, spec.get("statistics"))
    for file in chain.from_iterable(study.runs_of(spec["weights"])):
        checkpoints.load(file, model, running)


def main() -> None:
    """Write an answer to each step of a task as a line of JSON; the first line: it has begun.

    Beside the task lie a few samples of the data, where there are some.
    """
    task, answers = map(Path, sys.argv[2:])
    steps, input_shape, outputs = json.loads(task.read_text())
    example, loss = None, steps.get("loss", "cross-entropy")
    if task.with_suffix(".npz").exists():
        with np.load(task.with_suffix(".npz")) as samples:
            example = as_tensors(samples["inputs"], samples["targets"])
    make_deterministic(1)
    with open(answers, "w", buffering=1) as file:
        print("null", file=file)
        for key, step in steps.items():
            print(
                json.dumps(_answer(key, step, tuple(input_shape), outputs, example, loss)),
                file=file,
            )
    os._exit(0)  # what a model does at the end of a process is no part of it
