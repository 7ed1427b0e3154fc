"""The straight line between the same point of two seeds, on both splits.

The samples are those of the first seed.
"""

import numpy as np

from lossgeo import job, paths, probe
from lossgeo.numerics import make_deterministic
from lossgeo.store import Group, Variable


def as_group(profile: paths.Profile) -> Group:
    """A path's profile as it is stored."""
    variables = {"t": Variable(("t",), profile.t, "1", "position on the path, 0 to 1")}
    for name, units, description in (
        ("loss", "nats", "mean cross-entropy"),
        ("loss_se", "nats", "standard error of the loss over the samples"),
        ("error", "1", "fraction classified wrongly"),
        ("error_se", "1", "standard error of the error over the samples"),
    ):
        variables[name] = Variable(("t",), getattr(profile, name), units, description)
    barriers = {"loss": profile.loss_barrier, "error": profile.error_barrier}
    return Group(
        variables,
        {
            f"{name}_barrier{suffix}": getattr(barrier, part)
            for name, barrier in barriers.items()
            for suffix, part in {"": "height", "_se": "height_se", "_t": "t"}.items()
        },
    )


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config = snakemake.params.config
    ends = [snakemake.input.snapshots_a, snakemake.input.snapshots_b]
    a, b = (probe.load_point(end, config["connectivity"]["point"]) for end in ends)
    identities = [probe.run_identity(end) for end in ends]
    t = np.linspace(0.0, 1.0, config["connectivity"]["points"])
    groups = {}
    for split in ("train", "test"):
        objective = probe.load_objective(
            snakemake.input.data, config, split, config["samples"], seed=identities[0]["seed"]
        )
        profile = paths.profile(objective, paths.straight_line(a.theta, b.theta), t)
        print(f"{split}: loss barrier {profile.loss_barrier.height:.4g} nats")
        groups[split] = as_group(profile)
    identity = {name: value for name, value in identities[0].items() if name != "seed"}
    status = next((p.status for p in (a, b) if p.status != "ok"), "ok")
    probe.write(
        snakemake,
        groups,
        **identity,
        seed_a=identities[0]["seed"],
        seed_b=identities[1]["seed"],
        point=config["connectivity"]["point"],
        status=status,
        samples=objective.samples,
        device=objective.device.type,
    )


if __name__ == "__main__":
    job.log_to(snakemake.log[0])
    main(snakemake)
