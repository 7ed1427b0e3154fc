"""Losses at many points of the span of a few parameter vectors: what lines and planes are made of.

Dense networks get a short cut. The outputs of their first layer, where nearly all of the arithmetic
is, are linear in the coefficients: they are computed once for each vector instead of once for each
point, and the rest of the network then runs on many points at a time.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from lossgeo.objective import Objective, mean_and_error, sample_logits, score, scorer, summarise
from lossgeo.parameters import unflatten

CHUNK = 25  # points that go through a dense network together

ELEMENTWISE = (
    nn.Dropout,  # in evaluation mode, the identity
    nn.ELU,
    nn.GELU,
    nn.Identity,
    nn.LeakyReLU,
    nn.ReLU,
    nn.SELU,
    nn.Sigmoid,
    nn.SiLU,
    nn.Softplus,
    nn.Tanh,
)

Losses = Callable[[np.ndarray], tuple[Tensor, Tensor]]
Finish = Callable[[Tensor, Tensor], tuple[Tensor, ...]]  # logits (..., classes, n), targets (n,)


def spanned(
    objective: Objective, vectors: Sequence[Tensor], finish: Finish | None = None
) -> Losses:
    """The losses on the span of K vectors (P,), as a function of the coefficients.

    The function takes coefficients (M, K) and returns the loss (M, N) of each sample at
    theta_m = sum_k c_mk v_k, and whether it is classified right (M, N). With a `finish` in the
    place of `objective.scorer`, which may overwrite the outputs, what that makes of them, of one
    point or, in dense networks, of some, (points, ..., n). The values at a
    point do not depend on the other points of a call. To the bit they may depend on how many these
    are, on its place among them and on the CPU, which choose the kernels and their order of sums.

    Networks that `dense_layers` recognises take the short cut, whose memory grows with K N; all
    others are evaluated at one theta after the other. Where a vector is not finite, all losses are
    NaN.
    """
    stacked = torch.stack([v.to(objective.device, objective.dtype) for v in vectors])  # (K, P)
    if not torch.isfinite(stacked).all():
        return lambda coefficients: _undefined(objective, len(coefficients))
    layers, targets = dense_layers(objective.model), objective.targets
    if layers is not None:
        finish = finish or at_points(scorer(objective.loss, targets))
        return _dense(objective, *_with_frozen(objective, stacked), layers, finish)
    finish = finish or scorer(objective.loss, targets)

    def losses(coefficients: np.ndarray) -> tuple[Tensor, ...]:
        points = _as_tensor(coefficients, stacked)
        finished = [finish(sample_logits(objective, c @ stacked), targets) for c in points]
        return tuple(map(torch.stack, zip(*finished, strict=True)))

    return losses


def at_first(losses: Losses, count: int) -> Tensor:
    """The losses (N,) of each sample at the first of `count` vectors itself."""
    return losses(np.eye(1, count))[0][0]


def summaries(
    losses: Losses, coefficients: np.ndarray, reference: Tensor | None = None
) -> dict[str, np.ndarray]:
    """`objective.summarise` of M points, CHUNK at a time: memory does not grow with M.

    With the losses (N,) of a `reference`, also `rise_se` (M,): the standard error over the samples
    of L - L(reference). The samples are the same in both, so it is that of the paired differences.
    """
    parts = []
    for k in range(0, len(coefficients), CHUNK):
        each, correct = losses(coefficients[k : k + CHUNK])
        parts.append(summarise(each, correct))
        if reference is not None:
            parts[-1]["rise_se"] = mean_and_error(each - reference)[1]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def at_points(finish: Finish) -> Finish:
    """`finish` of outputs (points, ..., n)."""
    if finish is score:
        return score
    return lambda outputs, targets: tuple(
        map(torch.stack, zip(*(finish(one, targets) for one in outputs), strict=True))
    )


def dense_layers(model: nn.Module) -> list[tuple[str, nn.Module]] | None:
    """Names and layers of a dense network, or None for any other.

    Dense is an `nn.Sequential` of `nn.Flatten`, `nn.Linear`, and then linear and elementwise layers
    in any order, no two of which share parameters and none of which has hooks.
    """
    if type(model) is not nn.Sequential:
        return None
    layers = list(model._modules.items())  # named_children() leaves out what comes twice
    types = [type(layer) for _, layer in layers]
    parameters = list(model.named_parameters(remove_duplicate=False))
    if (
        types[:2] != [nn.Flatten, nn.Linear]
        or (layers[0][1].start_dim, layers[0][1].end_dim) != (1, -1)
        or not all(t is nn.Linear or t in ELEMENTWISE for t in types[2:])
        or len(parameters) != len(list(model.parameters()))
        or any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    ):
        return None
    return layers[1:]


def _with_frozen(objective: Objective, vectors: Tensor) -> tuple[dict[str, Tensor], int]:
    """All parameters at each of K vectors (K, P) by name, (K + F, ...), and F.

    F is 1 where some parameters are frozen: these are at a further vector, whose coefficient is
    always 1, and 0 at the others, as those of theta are at it.
    """
    parts = [unflatten(v, objective.layout) for v in vectors]
    named = {name: torch.stack([part[name] for part in parts]) for name in objective.layout.names}
    frozen = {
        name: p.detach().unsqueeze(0)
        for name, p in objective.model.named_parameters()
        if name not in named
    }
    if not frozen:
        return named, 0
    named = {name: torch.cat([part, torch.zeros_like(part[:1])]) for name, part in named.items()}
    for name, p in frozen.items():
        named[name] = torch.cat([p.new_zeros(len(vectors), *p.shape[1:]), p])
    return named, 1


def _dense(
    objective: Objective,
    named: dict[str, Tensor],
    frozen: int,
    layers: list[tuple[str, nn.Module]],
    finish: Finish,
) -> Losses:
    """`spanned` for a dense network. Activations are (points, features, samples)."""
    (first, _), *rest = layers
    weight = named[f"{first}.weight"]  # (K + frozen, features, pixels)
    count, features = weight.shape[:2]
    bias = named.get(f"{first}.bias", weight.new_zeros(count, features))
    first_outputs = []  # per block: (K + frozen, features * samples)
    for inputs, _ in objective.blocks:
        outputs = torch.addmm(bias.view(-1, 1), weight.flatten(0, 1), inputs.flatten(1).T)
        first_outputs.append(outputs.view(count, -1))
    buffer = weight.new_empty(CHUNK * max(outputs.shape[1] for outputs in first_outputs))

    def finished(c: Tensor) -> tuple[Tensor, ...]:  # of a chunk (m, K): (m, N), (m, N)
        parts = []
        if frozen:
            c = torch.cat([c, torch.ones_like(c[:, :1])], 1)
        later = {
            name: torch.mm(c, part.flatten(1)).view(len(c), *part.shape[1:])
            for name, part in named.items()
            if name.partition(".")[0] != first
        }
        for (_, targets), outputs in zip(objective.blocks, first_outputs, strict=True):
            x = buffer[: len(c) * outputs.shape[1]].view(len(c), -1)
            x = torch.mm(c, outputs, out=x).view(len(c), features, -1)
            for name, layer in rest:
                x = _apply(name, layer, later, x)
            parts.append(finish(x, targets))
        return tuple(torch.cat(part, -1) for part in zip(*parts, strict=True))

    def losses(coefficients: np.ndarray) -> tuple[Tensor, ...]:
        with torch.no_grad():
            chunks = _as_tensor(coefficients, weight).split(CHUNK)
            return tuple(map(torch.cat, zip(*map(finished, chunks), strict=True)))

    return losses


def _apply(name: str, layer: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """A layer with parameters of its own at each of m points: x (m, features, samples)."""
    if type(layer) is nn.ReLU:
        return torch.relu_(x)
    if type(layer) is not nn.Linear:
        return layer(x)
    weight = parameters[f"{name}.weight"]  # (m, outputs, features)
    if layer.bias is None:
        return torch.bmm(weight, x)
    return torch.baddbmm(parameters[f"{name}.bias"].unsqueeze(2), weight, x)


def _as_tensor(coefficients: np.ndarray, like: Tensor) -> Tensor:
    return torch.as_tensor(coefficients, dtype=torch.float64).to(like)


def _undefined(objective: Objective, points: int) -> tuple[Tensor, Tensor]:
    """The losses where theta is not finite."""
    losses = torch.full((points, objective.samples), torch.nan, dtype=torch.float64)
    return losses, torch.zeros_like(losses, dtype=torch.bool)
