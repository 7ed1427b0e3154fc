"""Trained curves between the same points of two runs, as they are and with the second one aligned.

The second run's hidden units are in the order that the alignment found. Curves are trained on the
whole training split, both of a pair on the same batches and values of t.
"""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

import numpy as np
import torch

from lossgeo import curves, probe
from lossgeo.buffers import running_statistics
from lossgeo.numerics import choose_device, derive_seed, make_deterministic, torch_generator
from lossgeo.parameters import NONE
from lossgeo.store import Group, Variable


def load_ends(snakemake, point: str, rung: str) -> tuple[list[torch.Tensor], str]:
    """theta of both ends of a rung's curve, and its status: "ok", or why it has none."""
    files = snakemake.input.snapshots_a, snakemake.input.snapshots_b
    points = [probe.load_point(file, point) for file in files]
    thetas = [found.theta for found in points]
    status = probe.status_of(points)
    if status == "ok" and rung == "aligned_curve":
        order = probe.load_order(snakemake.input.alignment, point)
        if order is None:
            return thetas, "not available"
        thetas[1] = thetas[1][order]
    return thetas, status


def as_group(midpoint: curves.Midpoint, status: str, statistics: torch.Tensor | None) -> Group:
    """A trained curve as it is stored, with the midpoint's running statistics if it has any."""
    own = {}
    if statistics is not None:
        what = "running statistics at the midpoint, means over the batches of the training split"
        own["buffers"] = Variable(("buffer",), statistics.numpy(), "1", what)
    return Group(
        own
        | {
            "midpoint": Variable(
                ("parameter",),
                midpoint.theta.numpy(),
                "1",
                "theta at the curve's midpoint, m in (1 - t)^2 a + 2 t (1 - t) m + t^2 b",
            ),
            "loss": Variable(
                ("epoch",),
                midpoint.loss,
                "nats",
                "mean training loss at a random t for each batch of an epoch",
            ),
        },
        {"status": status},
    )


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, (a, b) = probe.config_of(snakemake), (snakemake.wildcards.a, snakemake.wildcards.b)
    files, device = snakemake.input.data, choose_device(config["device"])
    model = probe.load_model(files, config)
    inputs, targets = probe.load_split(files, config["data"], "train")
    mode = config["model"].get("statistics")
    running = running_statistics(model, inputs[:2], mode) if mode == "frozen" else NONE
    groups = {}
    for point in config["points"]:
        for rung in config["rungs"]:
            ends, status = load_ends(snakemake, point, rung)
            if status == "ok":
                torch.manual_seed(derive_seed("curve dropout", a, b))
                midpoint = curves.train_midpoint(
                    model,
                    inputs,
                    targets,
                    *ends,
                    **config["curve"],
                    batch_size=config["batch_size"],
                    device=device,
                    generator=torch_generator("curve", a, b),
                    loss=probe.loss_of(config),
                )
                if not torch.isfinite(midpoint.theta).all():
                    status = "diverged"
            else:
                midpoint = curves.Midpoint(
                    torch.full_like(ends[0], torch.nan), np.full(config["curve"]["epochs"], np.nan)
                )
            job.tell(f"{point}, {rung}: {status}, losses {midpoint.loss.round(4).tolist()}")
            statistics = None
            if running.names and status == "ok":
                statistics = curves.statistics_at(
                    model, inputs, midpoint.theta, running, config["batch_size"]
                )
            groups[f"{point}/{rung}"] = as_group(midpoint, status, statistics)
    probe.write(snakemake, groups, **probe.pair_identity(snakemake), device=device.type)


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
