"""The estimators of the study under audit, faults included, at the ends of one run."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from collections.abc import Mapping, Sequence

import numpy as np

from lossgeo import probe, published, store
from lossgeo.geometry import fitted_anisotropy, quadratic_r2
from lossgeo.numerics import choose_device, derive_seed, make_deterministic, torch_generator
from lossgeo.objective import Objective, evaluate, make_objective
from lossgeo.probe import Point
from lossgeo.store import Group, Variable
from lossgeo.training import find_point


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, snapshots = probe.config_of(snakemake), snakemake.input.snapshots
    settings = config["published"]
    identity = probe.run_identity(snapshots)
    seed = identity["seed"]
    train, test, batches = objectives(snakemake.input.data, config)
    groups = {}
    for name in config["points"]:
        point = probe.load_point(snapshots, name)
        groups[name] = Group({}, {"status": point.status, "step": point.step})
        if point.status == "ok":
            parts = {
                "losses": losses(train, test, point),
                "eigenvalues": eigenvalues(batches, point, settings, seed),
                "noise": noise(test, point, settings, seed),
            }
            if config["landscape"] and name in config["landscape"]:
                parts |= surfaces(batches[0], point, settings, seed)
            if name == config["last"]:
                parts |= pc1(test, snapshots, name, point, settings["pc1_points"])
            groups |= {f"{name}/{part}": group for part, group in parts.items()}
        job.tell(f"{name} ({point.status}): published estimators")
    probe.write(
        snakemake,
        groups,
        packages=("hessian-eigenthings", "loss-landscapes"),
        **identity,
        **probe.describe(batches[0], "test"),
        test_samples=test.samples,
    )


def objectives(
    files: Sequence[str], config: Mapping
) -> tuple[Objective, Objective, list[Objective]]:
    """The training and the test loss, and those of the first mini-batches of the test split."""
    settings, device = config["published"], choose_device(config["device"])
    model = probe.load_model(files, config)
    train, test = (probe.load_split(files, config["data"], split) for split in ("train", "test"))
    parts = zip(*(part.split(settings["batch_size"]) for part in test), strict=True)
    batches = [make_objective(model, *part, device=device) for part in parts]
    whole = (make_objective(model, *split, device=device) for split in (train, test))
    return *whole, batches[: settings["batches"]]


def losses(train: Objective, test: Objective, point: Point) -> Group:
    """Loss and accuracy on all samples of both splits, as they were reported."""
    found = {}
    for split, objective in (("train", train), ("test", test)):
        measured = evaluate(objective, point.theta)
        found |= {f"{split}_loss": measured.loss, f"{split}_accuracy": measured.accuracy}
    return Group({}, found)


def eigenvalues(batches: list[Objective], point: Point, settings: Mapping, seed: int) -> Group:
    """The largest eigenvalue of each mini-batch."""
    found = [
        published.top_eigenvalue(
            batch,
            point.theta,
            count=settings["eigenvalues"],
            steps=settings["power_steps"],
            tolerance=settings["power_tolerance"],
            generator=torch_generator("published power iteration", seed, number),
        )
        for number, batch in enumerate(batches)
    ]
    values, stopped = (np.array(part) for part in zip(*found, strict=True))
    return Group(
        {
            "eigenvalue": Variable(
                ("batch",), values, "nats", "largest of the batch's eigenvalues that were found"
            ),
            "stopped": Variable(
                ("batch",), stopped.astype("int8"), "1", "1: stopped by the tolerance"
            ),
        }
    )


def noise(test: Objective, point: Point, settings: Mapping, seed: int) -> Group:
    """The rise of the test loss under noise of one size on every parameter."""
    rises = published.noise_rises(
        test,
        point.theta,
        settings["noise"],
        settings["noise_draws"],
        generator=torch_generator("published noise", seed),
    )
    description = "test loss under noise minus that without"
    return Group({"rise": Variable(("draw",), rises, "nats", description)})


def surfaces(batch: Objective, point: Point, settings: Mapping, seed: int) -> dict[str, Group]:
    """The plane and the lines, over the axes that they were plotted on."""
    plane, lines = settings["plane"], settings["lines"]
    found = published.peer_surfaces(
        batch,
        point.theta,
        distance=plane["distance"],
        steps=plane["steps"],
        line_count=lines["count"],
        line_distance=lines["distance"],
        line_steps=lines["steps"],
        seed=derive_seed("published landscapes", seed),
    )
    across = np.linspace(-plane["distance"], plane["distance"], plane["steps"])
    along = np.linspace(-lines["distance"], lines["distance"], lines["steps"])
    plotted = "axis as plotted, not where the points lie"
    loss = "cross-entropy of the batch"
    return {
        "plane": Group(
            {
                "alpha": Variable(("alpha",), across, "1", f"along the first direction; {plotted}"),
                "beta": Variable(("beta",), across, "1", f"along the second; {plotted}"),
                "loss": Variable(("alpha", "beta"), found.plane, "nats", loss),
            },
            {
                "minimum": found.minimum,
                "cosine": found.plane_cosine,
                "anisotropy": fitted_anisotropy(across, across, found.plane),
                "comb": published.comb(found.plane),
            },
        ),
        "lines": Group(
            {
                "alpha": Variable(("alpha",), along, "1", plotted),
                "loss": Variable(("line", "alpha"), found.lines, "nats", loss),
                "start": Variable(("line",), found.starts, "nats", "loss where the line takes off"),
                "distance": Variable(
                    ("line",), found.distances, "1", "of that place from theta / ||theta||"
                ),
            },
            {"minimum": found.minimum, "cosine": found.line_cosine},
        ),
    }


def pc1(test: Objective, snapshots: str, name: str, point: Point, points: int) -> dict[str, Group]:
    """The test loss along the first component of the snapshots of whole epochs up to a point.

    Nothing where there are too few of these.
    """
    run = store.read(snapshots, names=("theta", "epoch")).variables
    epoch = run["epoch"].values
    until = np.arange(len(epoch)) <= find_point(name, epoch)
    whole = (epoch > 0) & (epoch == np.round(epoch)) & until
    try:
        alphas, loss = published.pc1_line(test, run["theta"].values[whole], points)
    except ValueError as error:
        job.tell(f"no PC1: {error}")
        return {}
    variables = {
        "alpha": Variable(("alpha",), alphas, "1", "offset from theta along PC1, of unit norm"),
        "loss": Variable(("alpha",), loss, "nats", "test loss"),
    }
    return {"pc1": Group(variables, {"r2": quadratic_r2(alphas, loss)})}


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
