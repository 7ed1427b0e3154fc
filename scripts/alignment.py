"""The order of one run's hidden units in which its weights are closest to another run's."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from collections.abc import Sequence

import numpy as np

from lossgeo import probe
from lossgeo.numerics import make_deterministic, torch_generator
from lossgeo.parameters import Layout, layout_of
from lossgeo.permutations import Alignment, find_groups, parameter_order, weight_matching
from lossgeo.permutations import Group as Units
from lossgeo.probe import Point
from lossgeo.store import Group, Variable


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config = probe.config_of(snakemake)
    ends = [snakemake.input.snapshots_a, snakemake.input.snapshots_b]
    model = probe.load_model(snakemake.input.data, config)
    units = find_groups(model, config["model"].get("permutations"))
    if config["model"].get("statistics") == "frozen":  # which the units' order is not known of
        units = None
    groups = {}
    for name in config["points"]:
        a, b = (probe.load_point(end, name) for end in ends)
        groups[name] = align(a, b, layout_of(model), units, config["alignment"]["starts"], name)
        job.tell(f"{name}: {groups[name].attributes}")
    probe.write(snakemake, groups, packages=("scipy",), **probe.pair_identity(snakemake))


def align(
    a: Point, b: Point, layout: Layout, units: Sequence[Units] | None, starts: int, name: str
) -> Group:
    """The alignment of b to a; the random numbers are those of the point's name.

    They belong to neither end, so that a pair the other way round has the inverse permutations.
    """
    status = probe.status_of((a, b))
    if status == "ok" and units is None:
        status = "not available"
    if status != "ok":
        return Group({}, {"status": status})
    found = weight_matching(
        a.theta,
        b.theta,
        layout,
        units,
        starts=starts,
        generator=torch_generator("alignment orders", name),
    )
    order = parameter_order(layout, units, found.permutations)
    before, after = (float((a.theta - b).double().norm()) for b in (b.theta, b.theta[order]))
    variables = {
        "order": Variable(
            ("parameter",),
            order.numpy().astype(np.int32),
            "1",
            "theta_b[order] is run b with its hidden units in the order of run a's",
        ),
        **describe(found, units),
    }
    return Group(
        variables,
        {
            "status": status,
            "exact": found.exact,
            "best": found.best,
            "objective_before": found.objective_before,
            "objective": found.objective,
            "distance_before": before,
            "distance": after,
        },
    )


def describe(found: Alignment, units: Sequence[Units]) -> dict[str, Variable]:
    """The permutations and how they were found."""
    permutations = {
        f"permutation_{group.name}": Variable(
            (f"unit_{group.name}",),
            permutation.numpy().astype(np.int32),
            "1",
            "which unit of run b takes the place of each unit",
        )
        for group, permutation in zip(units, found.permutations, strict=True)
    }
    return permutations | {
        "objectives": Variable(
            ("start",), found.objectives, "1", "<theta_a, theta_b[order]> where each start ended"
        ),
        "sweeps": Variable(
            ("start",), found.sweeps, "1", "passes through the groups of hidden units"
        ),
        "ascent": Variable(
            ("assignment",),
            found.ascent,
            "1",
            "the objective of the kept start, before the first and after each assignment",
        ),
    }


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
