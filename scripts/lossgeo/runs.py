"""A training run as it is stored, and where another one takes off from it."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lossgeo import probe, store
from lossgeo.numerics import choose_device, kernels
from lossgeo.parameters import NONE, Layout
from lossgeo.probe import load_point
from lossgeo.store import Group, Variable
from lossgeo.training import UNKNOWN, Matched, Run, Start

if TYPE_CHECKING:
    import pandas as pd

UNITS = {
    "step": ("1", "optimizer steps taken; -1: not known"),
    "epoch": ("1", "epochs trained; of weights from elsewhere: index of the file"),
    "train_loss": ("nats", "mean cross-entropy on the training evaluation subset"),
    "train_accuracy": ("1", "fraction classified correctly on the training evaluation subset"),
    "test_loss": ("nats", "mean cross-entropy on the test evaluation subset"),
    "test_accuracy": ("1", "fraction classified correctly on the test evaluation subset"),
    "lr": ("1", "learning rate of the last step; of the first at initialisation"),
}
VECTORS = {
    "theta": ("1", "flat parameter vector theta"),
    "preconditioner": (
        "nats",
        "the optimizer's, P: its update is theta <- theta - lr m / P, m the mean gradient",
    ),
    "buffers": ("1", "running statistics, in the order of the attribute buffer_names"),
}
STATES = {  # of an optimizer, see optimizers.read_states
    "step": ("1", "updates taken"),
    "momentum_buffer": ("nats", "running sum of the gradients; RMSprop's is of quotients, in 1"),
    "exp_avg": ("nats", "running mean of the gradients"),
    "exp_avg_sq": ("nats^2", "running mean of the squared gradients"),
    "max_exp_avg_sq": ("nats^2", "AMSGrad's maximum so far of the running mean of the squares"),
    "exp_inf": ("nats", "Adamax's decaying maximum of the gradients' sizes"),
    "mu_product": ("1", "NAdam's product of its momenta so far"),
    "square_avg": ("nats^2", "running mean of the squared gradients"),
    "grad_avg": ("nats", "RMSprop's running mean of the gradients, where it is centered"),
    "acc_delta": ("1", "Adadelta's running mean of the squared updates"),
    "sum": ("nats^2", "Adagrad's sum of the squared gradients"),
    "row_var": ("nats^2", "Adafactor's running mean of the squared gradients of a row"),
    "col_var": ("nats^2", "Adafactor's running mean of the squared gradients of a column"),
    "variance": ("nats^2", "Adafactor's running mean of the squared gradients"),
    "prev": ("nats", "Rprop's last gradient"),
    "step_size": ("1", "Rprop's size of an update"),
    "ax": ("1", "ASGD's average of theta"),
    "eta": ("1", "ASGD's learning rate"),
    "mu": ("1", "ASGD's weight of theta in its average"),
}


def as_groups(run: Run) -> dict[str, Group]:
    """The groups of a run's file: snapshots, and where there are any, matched point and states."""
    columns = {
        name: Variable(("snapshot",), values[run.snapshot_rows], *UNITS[name])
        for name, values in run.history.items()
    }
    rows = {
        "theta": run.snapshots,
        "preconditioner": run.preconditioners,
        "buffers": run.buffers,
    }
    vectors = {
        name: Variable(("snapshot", _axis_of(name)), values, *VECTORS[name])
        for name, values in rows.items()
        if values is not None
    }
    groups = {"/": Group(vectors | columns)}
    if run.matched:
        groups["matched"] = _matched(run.matched)
    if run.states:
        epoch = {"epoch": Variable(("epoch",), run.state_epochs, *UNITS["epoch"])}
        states = {
            name: Variable(("epoch", _axis(run, values)), values, *STATES[name])
            for name, values in run.states.items()
        }
        groups["optimizer"] = Group(epoch | states)
    return groups


def _axis(run: Run, states: np.ndarray) -> str:
    return "parameter" if states.shape[1] == run.snapshots.shape[1] else "tensor"


def _matched(matched: Matched) -> Group:
    vectors = {
        "theta": matched.theta,
        "preconditioner": matched.preconditioner,
        "buffers": matched.buffers,
    }
    numbers = {
        "step": (matched.step, *UNITS["step"]),
        "epoch": (matched.epoch, *UNITS["epoch"]),
        "loss": (matched.loss, "nats", "mean cross-entropy on the objective's samples"),
        "loss_se": (matched.loss_se, "nats", "its standard error over the samples"),
    }
    return Group(
        {
            name: Variable((_axis_of(name),), vector, *VECTORS[name])
            for name, vector in vectors.items()
            if vector is not None
        }
        | {
            name: Variable((), np.array(value), units, description)
            for name, (value, units, description) in numbers.items()
        }
    )


def _axis_of(vector: str) -> str:
    return "buffer" if vector == "buffers" else "parameter"


def describe(run: Run, layout: Layout, running: Layout = NONE) -> dict[str, str | bool]:
    """What the root attributes of a run's file say beside which run it is.

    `running` is the layout of the running statistics, where snapshots have them.
    """
    buffers = {
        "buffer_names": json.dumps(running.names),
        "buffer_shapes": json.dumps(running.shapes),
    }
    return {
        "diverged": run.diverged,
        "preconditioned": run.preconditioners is not None,
        "parameter_names": json.dumps(layout.names),
        "parameter_shapes": json.dumps(layout.shapes),
        **(buffers if running.names else {}),
    }


def write(
    snakemake,
    run: Run,
    layout: Layout,
    running: Layout = NONE,
    weights: Sequence[str] = (),
    packages: Collection[str] = (),
    **attributes,
) -> None:
    """Write a run to its job's outputs: `snapshots` with their provenance, and the `history`.

    `weights` are the digests of files that it was read from; `packages` and `attributes` are as in
    `store.provenance`.
    """
    config = probe.config_of(snakemake)
    identity = {
        "model": snakemake.wildcards.model,
        "parameters": layout.size,
        "optimizer": snakemake.wildcards.optimizer,
        "seed": int(snakemake.wildcards.seed),
    }
    device, loss = choose_device(config["device"]), probe.loss_of(config)
    digests = {f"weights {number}": digest for number, digest in enumerate(weights)}
    store.write(
        snakemake.output.snapshots,
        store.of_loss(as_groups(run), loss.name, loss.units),
        store.provenance(
            snakemake.params.config,
            snakemake.params.code,
            config["data"]["sha256"] | digests,
            packages,
            device=device.type,
            kernels=kernels(device),
            **identity,
            **describe(run, layout, running),
            **probe.mode_of(config),
            **attributes,
        ),
    )
    store.write_csv(as_history(run, identity), snakemake.output.history)


def as_history(run: Run, identity: Mapping) -> "pd.DataFrame":
    """A row for each evaluation of a run, after who it is; steps are empty where not known."""
    import pandas as pd  # which forks do without

    history = pd.DataFrame(run.history)
    history["step"] = history["step"].astype("Int64").mask(history["step"] == UNKNOWN)
    ended = np.arange(len(history)) == len(history) - 1
    for name, value in reversed((identity | {"diverged": ended & run.diverged}).items()):
        history.insert(0, name, value)
    return history


def load_start(snapshots: Path | str, epoch: int) -> Start:
    """Where a run goes on from another one, whose file this is, after so many epochs of that.

    theta is NaN where that run has none there: it had diverged, or it was not trained so long.
    """
    point = load_point(snapshots, f"epoch{epoch}" if epoch else "init")
    states = {}
    if "optimizer" in store.subgroups(snapshots):
        kept = store.read(snapshots, "optimizer").variables
        for row in np.flatnonzero(kept["epoch"].values == epoch):
            states = {name: kept[name].values[row] for name in STATES if name in kept}
    buffers = None if point.buffers is None else point.buffers.numpy()
    return Start(point.theta.numpy(), epoch, states, buffers)
