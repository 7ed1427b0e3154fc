"""The Gauss-Newton matrix of an objective: the Hessian as far as it is the loss's own curvature.

With outputs z(theta), J = dz/dtheta, and a loss l(z) whose gradient is g and whose second
derivative A, the Hessian of sample i is J'AJ + sum_k g_k grad^2 z_k: its Gauss-Newton matrix G_i,
which is positive semi-definite where l is convex, and a rest that is there because z is not linear
in theta. Of the cross-entropy, with probabilities p and class y, A = diag p - pp' and
g_k = p_k - [k = y].
"""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from hessian_eigenthings import LambdaOperator
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn import functional

from lossgeo.attention import step_by_step
from lossgeo.hessian import twice_differentiable
from lossgeo.kept import keep
from lossgeo.losses import Loss, cotangents, is_traced_exactly, output_hessian
from lossgeo.models import in_memory_format
from lossgeo.numerics import torch_generator
from lossgeo.objective import Objective, leaves_of
from lossgeo.parameters import Layout, join, trained, unflatten

CHUNK = 16  # samples whose Jacobians are held together


def gauss_newton_operator(objective: Objective, theta: Tensor) -> LambdaOperator:
    """G = 1/N sum_i J_i'A_i J_i, (P, P), as a matrix-free operator.

    What does not depend on the vector is built once and kept, as in `hessian.hessian_operator`: the
    outputs z, and u -> J'u, which is linear, so that its derivative by u gives J v. A product is
    one backward pass through each (Schraudolph 2002). Memory as there.
    """
    leaves = leaves_of(objective, theta)
    wanted = tuple(leaves.values())
    makers = [partial(_pushforward, objective, leaves, *block) for block in objective.blocks]
    graphs = keep(makers, objective.memory, leaves.values())

    def matvec(v: Tensor) -> Tensor:
        total = torch.zeros_like(v)
        for push in graphs():
            bent = push.bend(push.along(v, objective.layout)) / objective.samples
            total += join(
                torch.autograd.grad(
                    push.outputs, wanted, bent, retain_graph=True, materialize_grads=True
                )
            )
            del push  # before the next is built, where it is not kept
        return total

    return LambdaOperator(
        matvec, objective.layout.size, device=objective.device, dtype=objective.dtype
    )


def sample_forms(objective: Objective, theta: Tensor, vectors: Tensor) -> Tensor:
    """v'G_i v of every sample i, for each of k vectors (k, P): (k, N) float64.

    As `hessian.sample_forms`, for G: of the cross-entropy, the variance under p of the rates J v at
    which logits change.
    """
    leaves = leaves_of(objective, theta)
    vectors = vectors.to(objective.device, objective.dtype)
    forms = torch.empty(len(vectors), objective.samples, dtype=torch.float64)
    at = 0
    for inputs, targets in objective.blocks:
        push = _pushforward(objective, leaves, inputs, targets)
        form_of = _forms(objective.loss, push, targets)
        for form, v in zip(forms, vectors, strict=True):
            form[at : at + len(targets)] = form_of(push.along(v, objective.layout))
        at += len(targets)
    return forms


def sample_traces(objective: Objective, theta: Tensor) -> dict[str, Tensor]:
    """The trace of every sample's G_i, by parameter tensor and filter: name -> (N, filters).

    A_i = sum_k a_k b_k', so that tr G_i = sum_k (J'a_k)'(J'b_k) (`losses.cotangents`). Of the
    cross-entropy diag p - pp' = sum_k p_k (e_k - p)(e_k - p)', and
    tr G_i = sum_k p_k ||grad z_k - sum_l p_l grad z_l||^2, the sum being over K classes: K backward
    passes give it exactly, with no random probe; 2 K do so for any other loss of K outputs. Beyond
    losses.MOST_OUTPUTS it is estimated by random signs of each sample (`is_exact`), whose noise is
    part of the scatter of the samples. A filter is a row of a linear layer or an output
    channel of a convolution, as in `directions.normalize`; a 1-D tensor counts as one. The sum over
    a tensor is its layer's trace, that over all tensors the trace of G_i, and means over samples
    are those of G.

    The gradient of one sample by a linear layer's weight is the outer product of the gradient by
    its output, delta, and its input, a, with the squared norm ||delta||^2 ||a||^2; by a
    convolution's it is one small product of delta and the patches of a. So no gradient of single
    samples is ever made for these; for all other parameters it is, by `torch.func`.
    """
    leaves = leaves_of(objective, theta)
    layers, signs = _known_layers(objective, leaves), torch_generator("output probes")
    known = {_full(name, part) for name, layer in layers.items() for part in trained(layer)}
    others = {name: leaf.detach() for name, leaf in leaves.items() if name not in known}
    blocks = []
    for inputs, targets in objective.blocks:
        with _recorded(layers) as calls:
            outputs = functional_call(objective.model, leaves, (inputs,))
        pairs = cotangents(objective.loss, outputs, targets, generator=signs)
        rows = _rows_of_layers(pairs, outputs, layers, calls) if layers else {}
        if others:
            fixed = {name: leaf.detach() for name, leaf in leaves.items() if name in known}
            rows |= _rows_of_others(objective, (inputs, targets), outputs, others, fixed, signs)
        blocks.append(rows)
    return {name: torch.cat([rows[name] for rows in blocks]) for name in objective.layout.names}


def is_exact(objective: Objective, theta: Tensor) -> bool:
    """Whether `sample_traces` are exact, and not estimated from random signs."""
    inputs, targets = (part[:2] for part in objective.blocks[0])
    with torch.no_grad():
        outputs = functional_call(objective.model, leaves_of(objective, theta), (inputs,))
    return is_traced_exactly(objective.loss, outputs, targets)


def _forms(loss: Loss, push: "_Pushforward", targets: Tensor) -> Callable[[Tensor], Tensor]:
    """J v (n, ...) -> v'J'AJv (n,) float64."""
    if loss.is_plain(targets):
        p = push.outputs.detach().softmax(1).double()

        def variance(pushed: Tensor) -> Tensor:
            pushed = pushed.double()
            centred = pushed - (p * pushed).sum(1, keepdim=True)
            return (p * centred.square()).sum(1)

        return variance
    return lambda u: (u * push.bend(u)).reshape(len(u), -1).double().sum(1)


class _Pushforward(NamedTuple):
    """The outputs z of a block, and u -> J'u, whose graph gives v -> J v."""

    outputs: Tensor  # (n, ...), with their graph
    bend: Callable[[Tensor], Tensor]  # u -> A u, (n, ...)
    cotangent: Tensor  # u (n, ...)
    pulled: tuple[Tensor, ...]  # J'u

    def along(self, v: Tensor, layout: Layout) -> Tensor:
        """J v, (n, ...): the derivative of v'J'u by u. The graph is kept."""
        parts = unflatten(v, layout).values()
        outputs, weights = zip(
            *((g, part) for g, part in zip(self.pulled, parts, strict=True) if g.requires_grad),
            strict=True,
        )
        return torch.autograd.grad(outputs, self.cotangent, weights, retain_graph=True)[0]


def _pushforward(
    objective: Objective, leaves: dict[str, Tensor], inputs: Tensor, targets: Tensor
) -> _Pushforward:
    inputs = in_memory_format(inputs, torch.contiguous_format)
    with twice_differentiable():
        outputs = functional_call(objective.model, leaves, (inputs,))
    if not outputs.requires_grad:  # no parameter has a part in them: J = 0
        outputs = outputs + 0 * sum(leaf.sum() for leaf in leaves.values())
    u = torch.zeros_like(outputs, requires_grad=True)
    pulled = torch.autograd.grad(
        outputs, tuple(leaves.values()), u, create_graph=True, materialize_grads=True
    )
    return _Pushforward(outputs, output_hessian(objective.loss, outputs, targets), u, pulled)


def _known_layers(objective: Objective, leaves: dict[str, Tensor]) -> dict[str, nn.Module]:
    """Name -> linear and convolution layers whose gradients of single samples are outer products.

    They share their parameters with nothing, and nothing else reads these; they are called once,
    on inputs whose first axis counts the samples (tried with one sample and with two) and which
    nothing overwrites later.
    """
    owners = Counter(id(p) for _, p in objective.model.named_parameters(remove_duplicate=False))
    candidates = {
        name: module
        for name, module in objective.model.named_modules()
        if (type(module) is nn.Linear or (type(module) is nn.Conv2d and _is_plain(module)))
        and trained(module)
        and all(owners[id(p)] == 1 for p in module.parameters())
        and {part for part, _ in module.named_parameters()} <= {"weight", "bias"}
    }
    inputs = objective.blocks[0][0]
    for samples in (1, min(2, len(inputs))):
        with _recorded(candidates) as calls:
            logits = functional_call(objective.model, leaves, (inputs[:samples],))
        uses = _uses(logits.grad_fn)
        candidates = {
            name: layer
            for name, layer in candidates.items()
            if len(calls[name]) == 1
            and len(calls[name][0].input) == samples
            and calls[name][0].input._version == calls[name][0].version
            and all(uses[leaves[_full(name, part)]] <= 1 for part in trained(layer))
        }
    return candidates


def _full(layer: str, part: str) -> str:
    """The name of a layer's parameter; the layer may be the model itself."""
    return f"{layer}.{part}" if layer else part


def _uses(output) -> Counter[Tensor]:
    """How many of the operations that lead to a node of autograd's graph take each leaf."""
    seen, waiting, uses = set(), [output], Counter()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        for source, _ in node.next_functions:
            if type(source).__name__ == "AccumulateGrad":
                uses[source.variable] += 1
            else:
                waiting.append(source)
    return uses


def _is_plain(layer: nn.Conv2d) -> bool:
    return (
        layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    )


class _Call(NamedTuple):
    """A call of a layer: its input, how often that had been written to by then, and its output."""

    input: Tensor
    version: int
    output: Tensor


@contextmanager
def _recorded(layers: dict[str, nn.Module]) -> Iterator[dict[str, list[_Call]]]:
    """The calls of each layer in the block. What follows a layer gets a copy of its output."""
    calls: dict[str, list[_Call]] = {name: [] for name in layers}

    def note(name: str):
        def hook(module, inputs, named, output):
            x = inputs[0] if inputs else named["input"]
            calls[name].append(_Call(x.detach(), x._version, output))
            return output.clone()

        return hook

    handles = [
        layer.register_forward_hook(note(name), with_kwargs=True) for name, layer in layers.items()
    ]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _rows_of_layers(
    pairs: Iterator[tuple[Tensor, Tensor]],
    outputs: Tensor,
    layers: dict[str, nn.Module],
    calls: dict[str, list[_Call]],
) -> dict[str, Tensor]:
    """`sample_traces` of the known layers in one block, from their inputs and outputs."""
    ends = [calls[name][0].output for name in layers]
    rows: dict[str, Tensor] = {}
    patches = {name: _patches(layer, calls[name][0].input) for name, layer in layers.items()}
    norms = {name: a.double().square().sum(2) for name, a in patches.items()}  # (n, places)

    def deltas_of(cotangent: Tensor) -> list[Tensor]:
        """Per layer (n, outputs, places)."""
        deltas = torch.autograd.grad(
            outputs, ends, cotangent, retain_graph=True, materialize_grads=True
        )
        return [
            delta.flatten(2)
            if type(layer) is nn.Conv2d
            else delta.reshape(len(delta), -1, delta.shape[-1]).transpose(1, 2)
            for layer, delta in zip(layers.values(), deltas, strict=True)
        ]

    for a, b in pairs:
        of_a = deltas_of(a)
        of_b = of_a if b is a else deltas_of(b)
        for (name, layer), *both in zip(layers.items(), of_a, of_b, strict=True):
            for part, products in _products(layer, *both, patches[name], norms[name]).items():
                key = _full(name, part)
                rows[key] = rows[key] + products if key in rows else products
    return rows


def _patches(layer: nn.Module, a: Tensor) -> Tensor:
    """What each place of a layer's output is a product with, (n, places, features)."""
    if type(layer) is nn.Linear:
        return a.reshape(len(a), -1, a.shape[-1])
    return functional.unfold(
        a, layer.kernel_size, layer.dilation, layer.padding, layer.stride
    ).transpose(1, 2)


def _products(
    layer: nn.Module, delta: Tensor, other: Tensor, patches: Tensor, norms: Tensor
) -> dict[str, Tensor]:
    """Inner products (n, filters) of two gradients of every sample, from their deltas.

    These are (n, outputs, places); the squared norms where both are the same.
    """
    if patches.shape[1] == 1:
        weight = delta[:, :, 0].double() * other[:, :, 0].double() * norms
    elif other is delta:
        weight = torch.bmm(delta, patches).square_().sum(2, dtype=torch.float64)
    else:
        weight = torch.bmm(delta, patches).mul_(torch.bmm(other, patches))
        weight = weight.sum(2, dtype=torch.float64)
    found = {"weight": weight}
    if layer.bias is not None:
        bias = delta.sum(2).double() * other.sum(2).double()
        found["bias"] = bias.sum(1, keepdim=True)
    return {part: found[part] for part in trained(layer)}


def _rows_of_others(
    objective: Objective,
    block: tuple[Tensor, Tensor],
    outputs: Tensor,
    others: dict[str, Tensor],
    fixed: dict[str, Tensor],
    signs: torch.Generator,
) -> dict[str, Tensor]:
    """`sample_traces` of any parameters in one block, from every sample's own Jacobian."""

    def output_of(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        every = {**fixed, **parameters}
        return functional_call(objective.model, every, (x.unsqueeze(0),)).squeeze(0)

    def rows_of(x: Tensor, left: Tensor, right: Tensor | None) -> dict[str, Tensor]:
        _, pull = vjp(lambda parameters: output_of(parameters, x), others)
        rows: dict[str, Tensor] = {}
        for k, a in enumerate(left):
            of_a = pull(a)[0]
            of_b = of_a if right is None else pull(right[k])[0]
            for name, gradient in of_a.items():
                filters = len(gradient) if gradient.ndim > 1 else 1
                both = (g.reshape(filters, -1).double() for g in (gradient, of_b[name]))
                products = math.prod(both).sum(1)
                rows[name] = rows[name] + products if name in rows else products
        return rows

    parts = []
    for x, y, z in zip(*(part.split(CHUNK) for part in (*block, outputs.detach())), strict=True):
        pairs = list(cotangents(objective.loss, z, y, generator=signs))
        left = torch.stack([a for a, _ in pairs], 1)  # (n, pairs, ...)
        is_same = pairs[0][0] is pairs[0][1]
        right = None if is_same else torch.stack([b for _, b in pairs], 1)
        try:
            with step_by_step():  # fused attention is no operation for vmap
                rows = vmap(rows_of, in_dims=(0, 0, None if is_same else 0))(x, left, right)
        except RuntimeError:  # an operation that torch cannot do for many samples at once
            each = [
                rows_of(x[i], left[i], None if right is None else right[i]) for i in range(len(x))
            ]
            rows = {name: torch.stack([row[name] for row in each]) for name in others}
        parts.append(rows)
    return {name: torch.cat([rows[name] for rows in parts]) for name in others}
