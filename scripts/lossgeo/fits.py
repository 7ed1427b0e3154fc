"""Training that a user has written: a function that yields the states of a model."""

import copy
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing
from numbers import Real

import torch
from torch import Tensor, nn

from lossgeo.models import ModelError, load_factory


def states(
    spec: Mapping,
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    *,
    epochs: int,
    generator: torch.Generator,
) -> Iterator[float]:
    """Load each state that a user's training yields into `model`, and yield the epoch it is of.

    `spec` is `{"factory": "package.module:fit", "arguments": {...}}`. It is called as
    `fit(learner, inputs, targets, *, epochs, generator, **arguments)` with a copy of the model, in
    training mode, which is its own. What it yields is one of

        nothing           (`yield`) the learner's state now, at the end of the next whole epoch
        a state dict      the same, of that state, an average of weights say
        epoch, state      at that epoch, a number; the state may be None

    Epochs grow, to at most `epochs`. Raises ModelError where they do not, or where a state does
    not fit the model.
    """
    name = spec["factory"]
    fit, learner = load_factory(name), copy.deepcopy(model).train()
    arguments = {"epochs": epochs, "generator": generator} | spec.get("arguments", {})
    found = fit(learner, inputs, targets, **arguments)
    if not isinstance(found, Generator):
        raise ModelError(
            f"{name}: it returned a {type(found).__name__}, expected a generator that yields after "
            "each epoch"
        )
    last = 0.0
    with closing(found):
        for value in found:
            epoch, state = value if isinstance(value, tuple) else (int(last) + 1, value)
            if not isinstance(epoch, Real) or not last < epoch <= epochs:
                raise ModelError(
                    f"{name}: it yielded epoch {epoch!r} after {last:g}, expected one above that "
                    f"and at most {epochs}"
                )
            _load(name, model, learner.state_dict() if state is None else state)
            last = float(epoch)
            yield last


def _load(name: str, model: nn.Module, state: Mapping) -> None:
    if not isinstance(state, Mapping):
        raise ModelError(
            f"{name}: it yielded a {type(state).__name__}, expected nothing, a state dict, or "
            "an epoch and one of these"
        )
    frozen = {n: p.clone() for n, p in model.named_parameters() if not p.requires_grad}
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ModelError(f"{name}: it yielded a state of another model: {error}") from error
    moved = [n for n, p in model.named_parameters() if n in frozen and not p.equal(frozen[n])]
    if moved:
        raise ModelError(
            f"{name}: it has changed {moved[0]}, which is frozen (requires_grad is False) and no "
            "part of theta; expected it to stay"
        )
