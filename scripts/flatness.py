"""Rise of the loss under random noise at the points of one run."""

import numpy as np

from lossgeo import job, probe
from lossgeo.numerics import make_deterministic, torch_generator
from lossgeo.sharpness import average_rise
from lossgeo.store import Group, Variable


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, snapshots = snakemake.params.config, snakemake.input.snapshots
    settings = config["flatness"]
    identity = probe.run_identity(snapshots)
    objective = probe.load_objective(
        snakemake.input.data, config, **config["objective"], seed=identity["seed"]
    )
    noises = {
        "normalized": (settings["normalization"], np.array(settings["radii"])),
        "isotropic": ("none", np.array([settings["noise"]])),
    }
    groups = {}
    for name in config["points"]:
        point = probe.load_point(snapshots, name)
        for noise, (normalization, radii) in noises.items():
            rises = average_rise(
                objective,
                point.theta,
                radii,
                normalization,
                settings["draws"],
                generator=torch_generator("noise", identity["seed"]),
            )
            groups[f"{name}/{noise}"] = Group(
                {
                    "radius": Variable(
                        ("radius",), radii, "1", "scale of the noise in units of its direction"
                    ),
                    "rise": Variable(
                        ("radius", "draw"),
                        rises,
                        "nats",
                        "mean of L(theta + r d) and L(theta - r d), minus L(theta)",
                    ),
                },
                {"status": point.status, "step": point.step, "normalization": normalization},
            )
        print(f"{name} ({point.status}): {settings['draws']} draws")
    probe.write(
        snakemake,
        groups,
        **identity,
        **probe.describe(objective, config["objective"]["split"]),
    )


if __name__ == "__main__":
    job.log_to(snakemake.log[0])
    main(snakemake)
