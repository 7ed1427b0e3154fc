"""Matching the hidden units of two networks: ours, and the loop of git-re-basin.

Theirs begins with the units as they are, in random orders drawn from the same seeds as ours. Once
as it is published, with one start: ours then has the forward start beside that very one, and cannot
end lower. And once with as many starts as ours. How the best objectives compare is said for several
draws of orders.
"""

import statistics
from functools import partial

import torch
from scipy.optimize import linear_sum_assignment

from harness import SPECS, compare, mnist, trained, write
from lossgeo.numerics import make_deterministic
from lossgeo.parameters import Layout, flatten, layout_of, unflatten
from lossgeo.permutations import Group, find_groups, permute, weight_matching

STARTS = ((2, 1), (5, 5))  # of ours, of theirs
DRAWS = 10
DEEP = {"factory": "harness:deep_mlp", "arguments": {"widths": [512, 512, 512]}}


def usual_matching(
    theta_a: torch.Tensor, theta_b: torch.Tensor, layout: Layout, groups: list[Group], seed: int
) -> list[torch.Tensor]:
    """One start of git-re-basin's weight matching: random orders, until a sweep has no progress.

    Every cost is made from whole parameters, of which b's are permuted along all other axes.
    """
    generator = torch.Generator().manual_seed(seed)
    a, b = unflatten(theta_a, layout), unflatten(theta_b, layout)
    permutations = [torch.arange(group.units) for group in groups]

    def entries(place: int, block: int) -> torch.Tensor:
        return (block * permutations[place][:, None] + torch.arange(block)).reshape(-1)

    def elsewhere(name: str, but: int) -> torch.Tensor:
        """b's parameter, permuted along all of its axes but those of one group."""
        part = b[name]
        for place, group in enumerate(groups):
            for axis in group.axes:
                if axis.parameter == name and place != but:
                    part = part.index_select(axis.axis, entries(place, axis.block))
        return part

    progress = True
    while progress:
        progress = False
        for place in torch.randperm(len(groups), generator=generator).tolist():
            units = groups[place].units
            cost = torch.zeros(units, units, dtype=theta_a.dtype)
            for axis in groups[place].axes:
                name = axis.parameter
                rows, columns = (
                    part.movedim(axis.axis, 0).reshape(units, -1)
                    for part in (a[name], elsewhere(name, place))
                )
                cost += rows @ columns.T
            chosen = torch.from_numpy(linear_sum_assignment(cost.numpy(), maximize=True)[1])
            old, new = (
                float((cost * torch.eye(units, dtype=cost.dtype)[p]).sum())
                for p in (permutations[place], chosen)
            )
            progress = progress or new > old + 1e-12
            permutations[place] = chosen
    return permutations


def main() -> None:
    inputs, targets = mnist(12800)
    rows = []
    for name, samples, spec in (
        ("MLP-128", 12800, SPECS["MLP-128"]),
        ("MLP-3x512", 12800, DEEP),
        ("CNN-16", 6400, SPECS["CNN-16"]),
        ("CNN-64", 3200, SPECS["CNN-64"]),
    ):
        models = [trained(spec, inputs[:samples], targets[:samples], seed=seed) for seed in (0, 1)]
        a, b = (flatten(model).double() for model in models)
        layout, groups = layout_of(models[0]), find_groups(models[0])

        def ours(starts, seed=0, a=a, b=b, layout=layout, groups=groups):
            generator = torch.Generator().manual_seed(seed)
            return weight_matching(a, b, layout, groups, starts=starts, generator=generator)

        def theirs(starts, seed=0, a=a, b=b, layout=layout, groups=groups):
            generator = torch.Generator().manual_seed(seed)
            seeds = torch.randint(2**62, (starts + 1,), generator=generator)[1:].tolist()
            every = [usual_matching(a, b, layout, groups, seed) for seed in seeds]
            return max(float(a @ permute(b, layout, groups, found)) for found in every)

        for own, usual in STARTS:
            rises = [
                100 * (ours(own, seed).objective / theirs(usual, seed) - 1) for seed in range(DRAWS)
            ]
            starts = f"{usual} start{'s' if usual > 1 else ''} against {own}"
            text = "the same objective"
            if max(map(abs, rises)) > 1e-10:
                text = (
                    f"our objective is {statistics.mean(rises):+.2g} % "
                    f"({min(rises):+.2g} to {max(rises):+.2g}) in {DRAWS} draws of orders"
                )
            rows.append(
                compare(
                    f"weight matching, {name}",
                    f"git-re-basin's loop, {starts}; {text}",
                    partial(ours, own),
                    partial(theirs, usual),
                    samples=samples,
                )
            )
    write("alignment", rows)


if __name__ == "__main__":
    make_deterministic(1)
    main()
