"""Train one run: snapshots of theta (HDF5) and the history of the losses (CSV)."""

import json

import numpy as np
import pandas as pd
import torch

from lossgeo import job, probe, store
from lossgeo.models import build, family_of
from lossgeo.numerics import (
    choose_device,
    derive_seed,
    kernels,
    make_deterministic,
    torch_generator,
)
from lossgeo.parameters import layout_of
from lossgeo.store import Group, Variable
from lossgeo.training import Matched, train

UNITS = {
    "step": ("1", "optimizer steps taken"),
    "epoch": ("1", "epochs trained"),
    "train_loss": ("nats", "mean cross-entropy on the training evaluation subset"),
    "train_accuracy": ("1", "fraction classified correctly on the training evaluation subset"),
    "test_loss": ("nats", "mean cross-entropy on the test evaluation subset"),
    "test_accuracy": ("1", "fraction classified correctly on the test evaluation subset"),
}
VECTORS = {
    "theta": ("1", "flat parameter vector theta"),
    "preconditioner": (
        "nats",
        "Adam's, P: its update is theta <- theta - lr m / P, m the mean gradient",
    ),
}


def as_group(matched: Matched) -> Group:
    """The matched point as it is stored."""
    vectors = {"theta": matched.theta, "preconditioner": matched.preconditioner}
    numbers = {
        "step": (matched.step, *UNITS["step"]),
        "epoch": (matched.epoch, *UNITS["epoch"]),
        "loss": (matched.loss, "nats", "mean cross-entropy on the objective's samples"),
        "loss_se": (matched.loss_se, "nats", "its standard error over the samples"),
    }
    return Group(
        {
            name: Variable(("parameter",), vector, *VECTORS[name])
            for name, vector in vectors.items()
            if vector is not None
        }
        | {
            name: Variable((), np.array(value), units, description)
            for name, (value, units, description) in numbers.items()
        }
    )


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, seed = snakemake.params.config, int(snakemake.wildcards.seed)
    files, data, spec = snakemake.input.data, config["data"], config["model"]
    device = choose_device(config["device"])
    model = build(spec, *probe.load_shape(files), seed=derive_seed("initialisation", seed))
    layout = layout_of(model)
    evaluation = {
        split: probe.load_objective(
            files, config, split, config["evaluation_samples"], seed=seed, purpose="evaluation"
        )
        for split in ("train", "test")
    }
    matched = None
    if "matched_loss" in config:
        objective = probe.load_objective(files, config, **config["objective"], seed=seed)
        matched = (objective, config["matched_loss"])
    torch.manual_seed(derive_seed("dropout", seed))
    run = train(
        model,
        *probe.load_split(files, data, "train"),
        evaluation["train"],
        evaluation["test"],
        optimizer=config["optimizer"],
        epochs=config["epochs"],
        batch_size=config["batch_size"],
        evaluations_per_epoch=config["evaluations_per_epoch"],
        snapshots_per_epoch=config["snapshots_per_epoch"],
        generator=torch_generator("order", seed),
        matched=matched,
    )
    identity = {
        "model": snakemake.wildcards.model,
        "family": family_of(spec, snakemake.wildcards.model),
        "width": spec.get("width", -1),
        "parameters": layout.size,
        "optimizer": snakemake.wildcards.optimizer,
        "seed": seed,
    }
    print(f"{layout.size} parameters on {device}; diverged: {run.diverged}")
    if matched:
        reached = f"at step {run.matched.step}: {run.matched.loss:.4g}" if run.matched else "never"
        print(f"a loss of at most {config['matched_loss']:.4g} nats on the objective {reached}")

    columns = {
        name: Variable(("snapshot",), values[run.snapshot_rows], *UNITS[name])
        for name, values in run.history.items()
    }
    rows = {"theta": run.snapshots, "preconditioner": run.preconditioners}
    vectors = {
        name: Variable(("snapshot", "parameter"), values, *VECTORS[name])
        for name, values in rows.items()
        if values is not None
    }
    groups = {"/": Group(vectors | columns)}
    if run.matched:
        groups["matched"] = as_group(run.matched)
    store.write(
        snakemake.output.snapshots,
        groups,
        store.provenance(
            config,
            snakemake.params.code,
            data["sha256"],
            device=device.type,
            kernels=kernels(device),
            **identity,
            diverged=run.diverged,
            preconditioned=run.preconditioners is not None,
            parameter_names=json.dumps(layout.names),
            parameter_shapes=json.dumps(layout.shapes),
        ),
    )
    history = pd.DataFrame(run.history)
    history.insert(
        0, "diverged", np.arange(len(history)) == len(history) - 1 if run.diverged else False
    )
    for name, value in reversed(identity.items()):
        history.insert(0, name, value)
    store.write_csv(history, snakemake.output.history)


if __name__ == "__main__":
    job.log_to(snakemake.log[0])
    main(snakemake)
