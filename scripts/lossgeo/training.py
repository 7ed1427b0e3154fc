"""Training runs from tensors in memory: snapshots of theta and the history of the losses."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from lossgeo.models import block_size, in_memory_format, memory_format
from lossgeo.objective import Objective, evaluate
from lossgeo.parameters import flatten

OPTIMIZERS = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}

HISTORY = ("step", "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy")


@dataclass(frozen=True)
class Run:
    """What a training run leaves behind. A diverged run ends with the row that is not finite."""

    snapshots: np.ndarray  # (S, P) float32, theta at `snapshot_rows`
    snapshot_rows: np.ndarray  # (S,) rows of history at which the snapshots were taken
    history: dict[str, np.ndarray]  # the columns HISTORY, each (rows,); row 0 is the initialisation
    diverged: bool  # theta stopped being finite


def make_optimizer(parameters, spec: Mapping) -> torch.optim.Optimizer:
    """The optimizer of a config entry, e.g. `{"name": "SGD", "lr": 0.01, "momentum": 0.9}`.

    Fused: torch's one kernel per update, which for Adam on small networks halves the time.
    """
    arguments = {key: value for key, value in spec.items() if key != "name"}
    return OPTIMIZERS[spec["name"]](parameters, fused=True, **arguments)


def train(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    train_objective: Objective,
    test_objective: Objective,
    *,
    optimizer: Mapping,
    epochs: int,
    batch_size: int,
    evaluations_per_epoch: int,
    snapshots_per_epoch: int,
    generator: torch.Generator,
) -> Run:
    """Minimise the mean cross-entropy of `model` over inputs (n, ...) and targets (n,).

    Every epoch runs through a fresh permutation drawn from `generator`; its last batch may be
    smaller. History and snapshots are taken at initialisation and then at evenly spaced steps of
    every epoch, its end included. Training stops at the first of these at which theta is not
    finite: the run has diverged, and its last snapshot and last row of history show it.

    The model's dropout, if any, draws from the caller's random state.
    """
    device = train_objective.device
    format_in_memory, block = memory_format(model), block_size(model)
    model.to(device=device, memory_format=format_in_memory)
    inputs, targets = inputs.to(device), targets.to(device)
    update = make_optimizer(model.parameters(), optimizer)

    steps_per_epoch = -(-len(inputs) // batch_size)
    evaluation_steps = spread(steps_per_epoch, evaluations_per_epoch)
    snapshot_steps = spread(steps_per_epoch, snapshots_per_epoch)

    rows: list[tuple] = []
    snapshots: list[np.ndarray] = []
    snapshot_rows: list[int] = []

    def record(epoch: int, step_in_epoch: int, with_snapshot: bool) -> bool:
        """Add a row of history, and a snapshot if asked; return whether theta is finite."""
        theta = flatten(model)
        finite = bool(torch.isfinite(theta).all())
        if with_snapshot or not finite:
            snapshots.append(theta.float().cpu().numpy())
            snapshot_rows.append(len(rows))
        train_now, test_now = evaluate(train_objective, theta), evaluate(test_objective, theta)
        rows.append(
            (
                epoch * steps_per_epoch + step_in_epoch,
                epoch + step_in_epoch / steps_per_epoch,
                train_now.loss,
                train_now.accuracy,
                test_now.loss,
                test_now.accuracy,
            )
        )
        return finite

    finite = record(0, 0, True)
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(inputs), generator=generator).to(device)
        for step, batch in enumerate(order.split(batch_size), start=1):
            update.zero_grad()
            for part in batch.split(block):  # shares of the batch's mean that fit the cache
                x = inputs.index_select(0, part)
                if format_in_memory != torch.contiguous_format:
                    x = in_memory_format(x, format_in_memory)
                y = targets.index_select(0, part)
                loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / len(batch)
                loss.backward()
            update.step()
            if step in evaluation_steps or step in snapshot_steps:
                finite = record(epoch, step, step in snapshot_steps)
            if not finite:
                break
        if not finite:
            break

    history = {
        name: np.array(column)
        for name, column in zip(HISTORY, zip(*rows, strict=True), strict=True)
    }
    return Run(np.stack(snapshots), np.array(snapshot_rows), history, diverged=not finite)


def spread(steps: int, parts: int) -> frozenset[int]:
    """`parts` evenly spaced steps of 1..`steps`, the last included; fewer where there are fewer."""
    return frozenset(round((part + 1) * steps / parts) or 1 for part in range(parts))


def find_point(
    point: str, epochs: np.ndarray, train_losses: np.ndarray, matched_loss: float
) -> int | None:
    """The snapshot that a point of a run names, or None where the run never got there.

    `init` is the first snapshot, `final` the last, `epochN` the one after N epochs, and `matched`
    the first whose training loss is at most `matched_loss` (nats). `epochs` and `train_losses`
    are (S,), one entry per snapshot.
    """
    if point == "init":
        return 0
    if point == "final":
        return len(epochs) - 1
    if point == "matched":
        reached = np.flatnonzero(np.asarray(train_losses) <= matched_loss)
    else:
        reached = np.flatnonzero(np.asarray(epochs) == int(point.removeprefix("epoch")))
    return int(reached[0]) if len(reached) else None
