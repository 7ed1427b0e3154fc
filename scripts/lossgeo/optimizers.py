"""Optimizers of torch.optim by name: what they remember, and what they divide gradients by."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lossgeo.numerics import root
from lossgeo.parameters import Layout, flatten, join, put, unflatten

FUSED = ("SGD", "Adam", "AdamW")  # made in one kernel per update, which halves small networks' time
OURS = ("name", "schedule", "clip", "sam", "augment", "label_smoothing")  # no arguments of torch's


def make_optimizer(parameters, spec: Mapping) -> torch.optim.Optimizer:
    """The optimizer of a config entry, e.g. `{"name": "SGD", "lr": 0.01, "momentum": 0.9}`.

    `name` is a class of torch.optim, and what is not one of OURS its arguments; a list is a tuple.
    """
    arguments = {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in spec.items()
        if key not in OURS
    }
    fused = {"fused": True} if spec["name"] in FUSED else {}
    return getattr(torch.optim, spec["name"])(parameters, **fused, **arguments)


def preconditioner(update: torch.optim.Optimizer) -> Tensor | None:
    """The preconditioner P (P,) of the last update, theta <- theta - lr m / P.

    For Adam and AdamW, m is the running mean of the gradients and v that of their squares (AMSGrad:
    its maximum so far), both after t updates: P = (1 - beta_1^t) (sqrt(v / (1 - beta_2^t)) + eps),
    as in Cohen et al. 2022. For RMSprop, m is the gradient and P = sqrt(v) + eps, with v less the
    square of the mean gradient if it is centered; its momentum sums m / P. For Adagrad, m is the
    gradient, v the sum of all squared ones, and P = (1 + (t - 1) lr_decay) (sqrt(v) + eps).

    NaN before the first update; None for other optimizers. Weight decay is not a part of it:
    AdamW's is beside this update, that of the others in the gradients.
    """
    (group,) = update.param_groups
    divisor = next((f for kind, f in DIVISORS.items() if isinstance(update, kind)), None)
    if divisor is None:
        return None
    return join(
        divisor(update.state[parameter], group)
        if "step" in update.state.get(parameter, {}) and update.state[parameter]["step"] > 0
        else torch.full_like(parameter, torch.nan).detach()
        for parameter in group["params"]
    )


def _adam(state: Mapping, group: Mapping) -> Tensor:
    beta_1, beta_2 = group["betas"]
    squares = "max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"
    t = float(state["step"])
    scale = root(state[squares] / (1 - beta_2**t)) + group["eps"]
    return (1 - beta_1**t) * scale


def _rmsprop(state: Mapping, group: Mapping) -> Tensor:
    squares = state["square_avg"]
    if group["centered"]:
        squares = squares - state["grad_avg"] ** 2
    return root(squares) + group["eps"]


def _adagrad(state: Mapping, group: Mapping) -> Tensor:
    decay = 1 + (float(state["step"]) - 1) * group["lr_decay"]
    return decay * (root(state["sum"]) + group["eps"])


DIVISORS = {
    torch.optim.Adam: _adam,  # and AdamW, which is one
    torch.optim.RMSprop: _rmsprop,
    torch.optim.Adagrad: _adagrad,
}


def read_states(update: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers of its past updates, by name: (P,), or one number a tensor.

    SGD with momentum has its `momentum_buffer`, Adam its `exp_avg` and `exp_avg_sq` and the number
    of its updates, `step`, of each parameter tensor; plain SGD has nothing, nor has any before its
    first update. A state that is constant along axes of its parameter, as Adafactor's rows and
    columns, is repeated along them. NaN for parameters without one: those without a gradient are
    not updated.
    """
    (group,) = update.param_groups
    parameters = group["params"]
    states = [update.state.get(parameter, {}) for parameter in parameters]
    names = {name for state in states for name, value in state.items() if value is not None}
    found = {}
    for name in sorted(names):
        values = [state.get(name) for state in states]
        single = all(value is None or value.ndim == 0 for value in values)
        shapes = [() if single else parameter.shape for parameter in parameters]
        found[name] = join(
            torch.full(shape, torch.nan, device=parameter.device)
            if value is None
            else value.detach().to(parameter.device).expand(shape)
            for value, shape, parameter in zip(values, shapes, parameters, strict=True)
        )
    return found


def write_states(
    update: torch.optim.Optimizer, states: Mapping[str, Tensor], model: nn.Module, layout: Layout
) -> None:
    """Put states from `read_states` into an optimizer of the model's parameters.

    Shapes, kinds and strides of the states are those that an update makes; what it does to theta is
    undone.
    """
    if not states:
        return
    numbers = Layout(layout.names, ((),) * len(layout.names))
    parts = {
        name: list(unflatten(vector, layout if len(vector) == layout.size else numbers).values())
        for name, vector in states.items()
    }
    (group,) = update.param_groups
    theta = flatten(model)
    for number, parameter in enumerate(group["params"]):
        known = any(not of_name[number].isnan().all() for of_name in parts.values())
        parameter.grad = torch.zeros_like(parameter) if known else None
    update.step()
    put(model, theta)
    for number, parameter in enumerate(group["params"]):
        for name, state in update.state.get(parameter, {}).items():
            part = parts[name][number].detach()
            state.copy_(part[tuple(slice(size) for size in state.shape)])
    update.zero_grad()
