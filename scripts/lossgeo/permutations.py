"""Permutations of hidden units that leave a network's function as it is, and the ones that bring
the weights of two networks closest to each other."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lossgeo.chain import find_chain
from lossgeo.models import ModelError
from lossgeo.numerics import root, torch_generator
from lossgeo.parameters import Layout, flatten, join, layout_of, unflatten

SPREAD, MOST_SPREAD = 0.5, 5.0  # of the factors' logarithms: its growth with each start, its end


@dataclass(frozen=True)
class Axis:
    """An axis of a parameter along which hidden units are strung up.

    A unit is `block` consecutive entries: more than one where a flatten after convolutions has
    strung up the pixels of each channel.
    """

    parameter: str
    axis: int
    block: int = 1


@dataclass(frozen=True)
class Group:
    """Hidden units whose order is free, and all axes along which they have to be permuted."""

    name: str
    units: int
    axes: tuple[Axis, ...]


@dataclass(frozen=True)
class Alignment:
    """The permutations of one network's hidden units that bring it closest to another.

    Objectives are inner products <theta_a, pi(theta_b)> over all parameters, in float64, so that
    ||theta_a - pi(theta_b)||^2 = ||theta_a||^2 + ||theta_b||^2 - 2 objective.
    """

    permutations: tuple[Tensor, ...]  # (units,) int64 of each group
    objective: float  # of these permutations
    objective_before: float  # of theta_b as it is
    objectives: np.ndarray  # (starts,) where each start ended
    sweeps: np.ndarray  # (starts,) passes through the groups, of each start
    ascent: np.ndarray  # of the kept start's last ascent: as it begins, then after each assignment
    best: int  # the start that is kept: the first of those with the highest objective
    exact: bool  # whether no permutations whatsoever have a higher objective


def find_groups(model: nn.Module, table: Mapping | None = None) -> list[Group] | None:
    """The groups of hidden units that can be permuted; empty where there is no hidden layer.

    Those of a network that is a chain (`chain.find_chain`) are found: the units between two of its
    layers are rows of the first layer's weight and bias and columns of the second layer's weight.
    For any other network they are not guessed (None), but can be given by a `table`

        {group: {parameter: axis or [axis, ...]}}

    of the axes that are permuted together. A group has as many units as its shortest axis is long;
    longer ones hold an equal number of consecutive entries of each unit.

    Raises ModelError where the table does not fit the model's parameters. Whether it is true is
    what `check_table` tries.
    """
    if table is not None:
        return _read_table(model, table)
    links = find_chain(model)
    if links is None:
        return None
    names = dict(model.named_parameters())
    return [
        Group(
            link.first,
            link.units,
            (
                Axis(f"{link.first}.weight", 0),
                *(Axis(bias, 0) for bias in [f"{link.first}.bias"] if bias in names),
                Axis(f"{link.second}.weight", 1, link.block),
            ),
        )
        for link in links
    ]


def _read_table(model: nn.Module, table: Mapping) -> list[Group]:
    layout = layout_of(model)
    shapes = dict(zip(layout.names, layout.shapes, strict=True))
    groups: list[Group] = []
    taken: dict[tuple[str, int], str] = {}
    for name, entries in table.items():
        lengths: dict[tuple[str, int], int] = {}
        for parameter, axes in entries.items():
            if parameter not in shapes:
                raise ModelError(
                    f"group {name}: the model has no parameter {parameter!r}; "
                    f"expected one of: {', '.join(shapes)}"
                )
            shape = shapes[parameter]
            for axis in [axes] if isinstance(axes, int) else axes:
                if not 0 <= axis < len(shape):
                    raise ModelError(
                        f"group {name}: {parameter} of shape {shape} has no axis {axis}; "
                        f"expected 0 to {len(shape) - 1}"
                    )
                if (parameter, axis) in taken:
                    raise ModelError(
                        f"group {name}: axis {axis} of {parameter} is in group "
                        f"{taken[parameter, axis]} already; expected each axis once"
                    )
                taken[parameter, axis] = name
                lengths[parameter, axis] = shape[axis]
        if not lengths:
            raise ModelError(f"group {name}: found no axis, expected at least one")
        (shortest, units) = min(lengths.items(), key=lambda item: item[1])
        for (parameter, axis), length in lengths.items():
            if length % units:
                raise ModelError(
                    f"group {name}: axis {axis} of {parameter} has length {length}, expected a "
                    f"multiple of {units}, the length of axis {shortest[1]} of {shortest[0]}"
                )
        axes = tuple(Axis(*key, length // units) for key, length in lengths.items())
        groups.append(Group(name, units, axes))
    return groups


def check_table(
    model: nn.Module, table: Mapping, input_shape: tuple[int, ...], inputs: Tensor | None = None
) -> None:
    """Raise ModelError unless a user's table fits the model and is true of it.

    It is true if permuting any group's units leaves the model's function as it is. Each group alone
    is permuted at random, so that no unit stays in its place, and the outputs on random inputs (or
    `inputs` that are token ids) are compared in float64. The parameters are moved at random from
    where they are initialised: there, biases of 0 and scales of 1 would hide that they were
    forgotten.
    """
    groups = _read_table(model, table)
    generator = torch_generator("table of permutations")
    model = copy.deepcopy(model).double().eval()
    layout = layout_of(model)
    with torch.no_grad():
        for parameter in model.parameters():
            scale = root(parameter.square().mean())
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.add_(noise, alpha=0.5 * float(scale) or 0.1)
    theta = flatten(model)
    if inputs is None or inputs.is_floating_point():
        inputs = torch.randn(8, *input_shape, generator=generator, dtype=torch.float64)

    def outputs(vector: Tensor) -> Tensor:
        try:
            with torch.no_grad():
                return functional_call(model, unflatten(vector, layout), (inputs,))
        except Exception as error:
            raise ModelError(
                f"the model failed in float64, in which its groups are tried: {error!r}"
            ) from error

    expected = outputs(theta)
    size = float(expected.abs().max())
    for group in groups:
        order = torch.randperm(group.units, generator=generator)
        cycle = torch.empty_like(order)
        cycle[order] = order.roll(1)
        moved = outputs(permute(theta, layout, [group], [cycle]))
        change = float((moved - expected).abs().max())
        if not change <= 1e-9 * size:
            raise ModelError(
                f"group {group.name}: a permutation of its {group.units} units changes the "
                f"outputs by up to {change:.2g}, of at most {size:.2g}; expected no change"
                f"{_hint(layout, groups, group.units)}"
            )


def _hint(layout: Layout, groups: Sequence[Group], units: int) -> str:
    """Which axes may have been forgotten: those of a fitting length that are in no group."""
    taken = {(axis.parameter, axis.axis) for group in groups for axis in group.axes}
    free = [
        f"axis {axis} of {name}"
        for name, shape in zip(layout.names, layout.shapes, strict=True)
        for axis, length in enumerate(shape)
        if length % units == 0 and (name, axis) not in taken
    ]
    return f" (in no group, and of a fitting length: {', '.join(free[:5])})" if free else ""


def permute(
    theta: Tensor, layout: Layout, groups: Sequence[Group], permutations: Sequence[Tensor]
) -> Tensor:
    """theta (P,) with the units of each group reordered, the network's function unchanged.

    `permutations` holds p (units,) for each group: unit i of the permuted network is unit p[i] of
    the old one.
    """
    parts = unflatten(theta, layout)
    for group, permutation in zip(groups, permutations, strict=True):
        for axis in group.axes:
            within = torch.arange(axis.block)
            index = (axis.block * permutation[:, None] + within).reshape(-1).to(theta.device)
            parts[axis.parameter] = parts[axis.parameter].index_select(axis.axis, index)
    return join(parts.values())


def parameter_order(
    layout: Layout, groups: Sequence[Group], permutations: Sequence[Tensor]
) -> Tensor:
    """Where each parameter of a permuted network comes from: permute(theta) = theta[order] (P,)."""
    return permute(torch.arange(layout.size), layout, groups, permutations)


def weight_matching(
    theta_a: Tensor,
    theta_b: Tensor,
    layout: Layout,
    groups: Sequence[Group],
    *,
    starts: int,
    generator: torch.Generator,
) -> Alignment:
    """The permutations pi of b's hidden units that maximise <theta_a, pi(theta_b)>.

    Weight matching of Ainsworth, Hayase and Srinivasa 2022: with all other groups held, the best
    permutation of one is a linear assignment; groups are assigned in turn until none gains any
    more. Where this ends depends on where it begins:

    - start 0 goes forward: it begins with the group of which most is known, and assigns each by
      those of its weights that no unassigned group permutes. A permuted copy of any generic network
      is matched back exactly. The sweeps then go through the groups in their order;
    - start 1 begins with the units as they are, every sweep in a random order, as in the paper.
      With it, the objective is never lower than before;
    - further starts begin where the best so far ended, and ascend twice: first with every
      parameter's part of the objective multiplied by a random factor (log-normal, and further from
      1 with each start), then the objective itself. What a layer's weights count for is a matter
      of scale (a ReLU network can be rescaled), so that this leads to other ends of the same kind.

    All of this runs on the CPU in float64. theta_a and theta_b (P,) exchanged, with an equal
    generator, give the inverse permutations, if no two permutations are equally good: what is
    drawn does not depend on which units are called first.

    Where no parameter is permuted along two of its axes (one hidden layer), the groups do not
    depend on each other; one start is `exact`. A parameter with two axes in one group (a square
    residual weight) makes the cost quadratic in its permutation; the assignment that is best to
    first order is then taken where it raises the objective.
    """
    a, b = theta_a.detach().cpu().double(), theta_b.detach().cpu().double()
    terms = _terms(a, b, layout, groups)
    exact = not any(term.others for term in terms)
    identity = [torch.arange(group.units) for group in groups]
    plain = dict.fromkeys(layout.names, 1.0)
    noise = 1e-12 * float(a.norm() * b.norm())  # more than rounding can add to an objective
    grams: _Grams = {}

    def objective(permutations: Sequence[Tensor]) -> float:
        return float(a @ permute(b, layout, groups, permutations))

    runs = []
    seeds = torch.randint(2**62, (starts,), generator=generator).tolist()
    for start, seed in enumerate(seeds[:1] if exact else seeds):
        own = torch.Generator().manual_seed(seed) if start else None  # random orders of sweeps
        first, before = identity, 0
        if start == 0 and not exact:
            first = _forward(terms, identity, grams)
        if start > 1:
            drawn = torch.randn(len(layout.names), generator=own, dtype=torch.float64)
            spread = min(SPREAD * (start - 1), MOST_SPREAD)
            factors = dict(zip(layout.names, torch.exp(spread * drawn).tolist(), strict=True))
            least = noise * max(factors.values())
            first = max(runs, key=lambda run: run[1])[0]
            first, _, before = _ascend(terms, factors, first, grams, least, generator=own)
        found, gains, sweeps = _ascend(terms, plain, first, grams, noise, generator=own)
        ascent = objective(first) + np.cumsum([0.0, *gains])
        runs.append((found, objective(found), before + sweeps, ascent))
    objectives = np.array([run[1] for run in runs])
    best = int(objectives.argmax())
    return Alignment(
        permutations=tuple(runs[best][0]),
        objective=float(objectives[best]),
        objective_before=float(a @ b),
        objectives=objectives,
        sweeps=np.array([run[2] for run in runs]),
        ascent=runs[best][3],
        best=best,
        exact=exact,
    )


@dataclass(frozen=True, eq=False)
class _Term:
    """What one axis of a parameter adds to the cost of its group.

    Both networks' parameters have the units of this axis first, then those of the `others` that
    are permuted, each a group by its place, then the rest.
    """

    parameter: str
    group: int
    others: tuple[int, ...]
    a: Tensor  # (units, units of others..., rest)
    b: Tensor


_Grams = dict[_Term, tuple[list[Tensor], Tensor]]  # of each term: for which others, (units, units)


def _terms(a: Tensor, b: Tensor, layout: Layout, groups: Sequence[Group]) -> list[_Term]:
    parts = [unflatten(vector, layout) for vector in (a, b)]
    permuted: dict[str, list[tuple[int, Axis]]] = {}
    for place, group in enumerate(groups):
        for axis in group.axes:
            permuted.setdefault(axis.parameter, []).append((place, axis))
    terms = []
    for name, axes in permuted.items():
        lead: dict[int, int] = {}  # axis -> where its units are, once it is split from its blocks
        split: list[int] = []
        blocks = {axis.axis: axis.block for _, axis in axes}
        for axis, length in enumerate(parts[0][name].shape):
            lead[axis] = len(split)
            split += [length // blocks[axis], blocks[axis]] if axis in blocks else [length]
        for own in axes:
            others = [entry for entry in axes if entry is not own]
            front = [lead[axis.axis] for _, axis in (own, *others)]
            order = front + [dim for dim in range(len(split)) if dim not in front]
            sides = [part[name].reshape(split).permute(order).contiguous() for part in parts]
            terms.append(_Term(name, own[0], tuple(place for place, _ in others), *sides))
    return terms


def _gram(term: _Term, permutations: Sequence[Tensor], grams: _Grams) -> Tensor:
    """Inner products (units, units) of a's units with b's, the other axes of b permuted.

    `grams` has what was last computed of each term and for which permutations of its other axes;
    only the entries along an axis that have moved since are computed again. Where most have, all
    are: this is less work, and free of what rounding has left.
    """
    new = [permutations[other] for other in term.others]
    old, gram = grams.get(term, (None, None))
    moved = old and [torch.nonzero(p != q)[:, 0] for p, q in zip(old, new, strict=True)]
    if gram is None or any(2 * len(m) > len(p) for m, p in zip(moved, new, strict=True)):
        gram = term.a.flatten(1) @ _reordered(term.b, new).flatten(1).T
    else:
        for at, there in enumerate(moved):
            if len(there):
                came, went = (
                    _reordered(term.b, [*new[:at], p[there], *old[at + 1 :]])
                    for p in (new[at], old[at])
                )
                a = term.a.index_select(at + 1, there)
                gram = gram + a.flatten(1) @ (came - went).flatten(1).T
    grams[term] = (new, gram)
    return gram


def _reordered(b: Tensor, permutations: Sequence[Tensor]) -> Tensor:
    """b with its axes from the second on reordered, those of fewest entries first."""
    for dim, index in sorted(enumerate(permutations, start=1), key=lambda pair: len(pair[1])):
        b = b.index_select(dim, index)
    return b


def _ascend(
    terms: Sequence[_Term],
    factors: Mapping[str, float],
    first: Sequence[Tensor],
    grams: _Grams,
    noise: float,
    *,
    generator: torch.Generator | None,
) -> tuple[list[Tensor], list[float], int]:
    """Assign groups in turn, from the permutations `first` on, until none gains more than `noise`.

    The objective has each parameter's part multiplied by its factor. Each sweep is in the groups'
    order, or with a `generator` in a random one. A group waits while none of those that share a
    parameter with it has moved since it was last assigned. Returns the permutations, the gain of
    each assignment, and the number of sweeps.
    """
    permutations = list(first)
    stale = set(range(len(first)))
    gains: list[float] = []
    sweeps = 0
    while stale:
        sweeps += 1
        order = range(len(first))
        if generator is not None:
            order = torch.randperm(len(first), generator=generator).tolist()
        for place in order:
            if place not in stale:
                continue
            stale.remove(place)
            own = [term for term in terms if term.group == place]
            cost = sum(factors[t.parameter] * _gram(t, permutations, grams) for t in own)
            new, old = _assign(cost), permutations[place]
            if any(place in term.others for term in own):
                after = [*permutations[:place], new, *permutations[place + 1 :]]
                gain = _part(own, factors, after) - _part(own, factors, permutations)
            else:
                units = torch.arange(len(new))
                gain = float((cost[units, new] - cost[units, old]).sum())
            if gain > noise:
                permutations[place] = new
                stale |= {term.group for term in terms if place in term.others}
            gains.append(gain if gain > noise else 0.0)
    return permutations, gains, sweeps


def _part(
    own: Sequence[_Term], factors: Mapping[str, float], permutations: Sequence[Tensor]
) -> float:
    """What the parameters of these terms add to the objective."""
    once = {term.parameter: term for term in own}  # though two of its axes are in the group
    return sum(
        factors[name]
        * float(
            (
                t.a * _reordered(t.b[permutations[t.group]], [permutations[g] for g in t.others])
            ).sum()
        )
        for name, t in once.items()
    )


def _forward(terms: Sequence[_Term], identity: Sequence[Tensor], grams: _Grams) -> list[Tensor]:
    """Each group assigned by what is known of it, first the one of which the largest share is."""
    permutations = list(identity)
    waiting = list(range(len(identity)))

    def known(place: int) -> list[_Term]:
        return [t for t in terms if t.group == place and not set(t.others) & set(waiting)]

    def share(place: int) -> float:
        whole = sum(term.a.numel() for term in terms if term.group == place)
        return sum(term.a.numel() for term in known(place)) / whole

    while waiting:
        place = max(waiting, key=share)
        own = known(place)
        if own:
            permutations[place] = _assign(sum(_gram(t, permutations, grams) for t in own))
        waiting.remove(place)
    return permutations


def _assign(cost: Tensor) -> Tensor:
    """The permutation p that maximises the sum of cost[i, p[i]]."""
    return torch.from_numpy(scipy.optimize.linear_sum_assignment(cost.numpy(), maximize=True)[1])
