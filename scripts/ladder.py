"""Largest Hessian eigenvalues at the points of one run against the number of samples."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from typing import NamedTuple

import numpy as np

from lossgeo import probe
from lossgeo.hessian import sample_forms
from lossgeo.ladder import Leading, disjoint_subsets, leading_eigenpairs
from lossgeo.numerics import make_deterministic, numpy_generator, torch_generator
from lossgeo.objective import mean_and_error, with_samples
from lossgeo.store import Group, Variable


class Rung(NamedTuple):
    """A subset of the split's samples: `size` of them, the `number`-th of that size."""

    size: int
    number: int
    chosen: np.ndarray


def cut(samples: int, settings: dict, split: str, seed: int) -> list[Rung]:
    """Every subset, of that many samples of a split: the same for all runs of a seed."""
    order = numpy_generator("ladder", split, seed).permutation(samples)
    subsets = disjoint_subsets(order, settings["samples"], settings["subsets"])
    return [
        Rung(size, number, chosen)
        for size, parts in subsets.items()
        for number, chosen in enumerate(parts)
    ]


IMPORTANCE = {  # by which samples are drawn, see `ladder.importance`; not said of 1 - p
    True: {},
    False: {"importance": "norms of the first and second derivative of the loss by the outputs"},
}


def as_group(
    rungs: list[Rung],
    found: list[Leading],
    errors: list[np.ndarray],
    point: probe.Point,
    is_plain: bool,
) -> Group:
    """The largest eigenvalues on every subset, with their errors over samples, as stored."""
    pairs = [leading.pairs for leading in found]
    each, by_rank = ("subset",), ("subset", "rank")
    variables = {
        "samples": (each, [rung.size for rung in rungs], "1", "samples of the subset"),
        "number": (each, [rung.number for rung in rungs], "1", "index among its size"),
        "eigenvalues": (by_rank, [p.values for p in pairs], "nats", "largest eigenvalues of H"),
        "eigenvalue_se": (by_rank, errors, "nats", "standard errors over the subset's samples"),
        "residuals": (by_rank, [p.residuals for p in pairs], "nats", "||H v - lambda v||"),
        "converged": (
            by_rank,
            [p.converged.astype("int8") for p in pairs],
            "1",
            "1: residual below tolerance",
        ),
        "products": (each, [f.products for f in found], "1", "products with H"),
        "coarse_samples": (
            each,
            [f.coarse_samples for f in found],
            "1",
            "samples drawn by importance to begin with",
        ),
        "coarse_products": (each, [f.coarse_products for f in found], "1", "products on these"),
    }
    return Group(
        {
            name: Variable(dims, np.array(values), units, description)
            for name, (dims, values, units, description) in variables.items()
        },
        {"status": point.status, "step": point.step} | IMPORTANCE[is_plain],
    )


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, snapshots = probe.config_of(snakemake), snakemake.input.snapshots
    settings, split = config["ladder"], config["objective"]["split"]
    identity = probe.run_identity(snapshots)
    files = snakemake.input.data
    inputs, targets = probe.load_split(files, config["data"], split)
    few = probe.objective_of(files, config, inputs[:2], targets[:2], seed=identity["seed"])
    groups = {}
    for name in config["points"]:
        asked = settings["at"][name]
        rungs = cut(len(targets), asked, split, identity["seed"])
        point = probe.load_point(snapshots, name)
        here, point = probe.at_point(few, point, config)
        found, errors = [], []
        for size, number, chosen in rungs:
            objective = with_samples(here, inputs[chosen], targets[chosen])
            leading = leading_eigenpairs(
                objective,
                point.theta,
                top=asked["top"],
                tolerance=settings["tolerance"],
                generator=torch_generator("ladder", identity["seed"], size, number),
            )
            found.append(leading)
            forms = sample_forms(objective, point.theta, leading.pairs.vectors)
            errors.append(mean_and_error(forms)[1])
            job.tell(
                f"{name} ({point.status}), {size} samples, subset {number}: largest eigenvalue "
                f"{leading.pairs.values[0]:.4g} +- {errors[-1][0]:.2g}, "
                f"{leading.products} Hessian-vector products and "
                f"{leading.coarse_products} on {leading.coarse_samples} samples"
            )
        groups[name] = as_group(rungs, found, errors, point, objective.loss.is_plain(targets))
    probe.write(
        snakemake,
        groups,
        packages=("hessian-eigenthings",),
        **identity,
        split=split,
        device=few.device.type,
    )


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
