"""Training runs from tensors in memory: snapshots of theta and the history of the losses."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from lossgeo import buffers
from lossgeo.models import block_size, in_memory_format, memory_format
from lossgeo.numerics import root
from lossgeo.objective import Objective, at, evaluate
from lossgeo.parameters import Layout, flatten, layout_of, put, trained, unflatten

OPTIMIZERS = {"SGD": torch.optim.SGD, "Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW}

HISTORY = ("step", "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy")

UNKNOWN = -1  # steps: of weights from elsewhere

NEAR, KEPT = 1.5, 20  # below so many times the target, looks are at most so many steps apart
OVERSHOOT = 0.03  # how far below its target, relatively, a matched loss is to lie at most
MORE_CHECKS = 100  # for a loss that lies so, once one lies below

# a step, and theta, the preconditioner and the running statistics after it
Passed = tuple[int, Tensor, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Matched:
    """The theta of a run at which a loss has fallen to a target."""

    theta: np.ndarray  # (P,) float32
    preconditioner: np.ndarray | None  # (P,) float32, as in Run
    step: int
    epoch: float
    loss: float  # nats
    loss_se: float  # its standard error over the samples, nats
    buffers: np.ndarray | None = None  # (B,) float32, as in Run


@dataclass(frozen=True)
class Run:
    """What a training run leaves behind. A diverged run ends with the row that is not finite."""

    snapshots: np.ndarray  # (S, P) float32, theta at `snapshot_rows`
    preconditioners: np.ndarray | None  # (S, P) float32, Adam's (`preconditioner`); None: not Adam
    snapshot_rows: np.ndarray  # (S,) rows of history at which the snapshots were taken
    history: dict[str, np.ndarray]  # the columns HISTORY, each (rows,); row 0 is the initialisation
    diverged: bool  # theta stopped being finite
    matched: Matched | None  # None: not asked for, or never reached
    # (E, P) float32, the optimizer's states (`read_states`) after the epochs `state_epochs` (E,):
    # each whole one but the last
    states: dict[str, np.ndarray]
    state_epochs: np.ndarray
    # (S, B) float32, running statistics where these are constants of the loss (`buffers`)
    buffers: np.ndarray | None = None


@dataclass(frozen=True)
class Start:
    """Where a run goes on that shares its beginning with another: after so many whole epochs."""

    theta: np.ndarray  # (P,) float32
    epoch: int
    states: Mapping[str, np.ndarray] = field(default_factory=dict)  # (P,), as in Run.states
    buffers: np.ndarray | None = None  # (B,) float32, as in Run


def make_optimizer(parameters, spec: Mapping) -> torch.optim.Optimizer:
    """The optimizer of a config entry, e.g. `{"name": "SGD", "lr": 0.01, "momentum": 0.9}`.

    Fused: torch's one kernel per update, which for Adam on small networks halves the time.
    """
    arguments = {key: value for key, value in spec.items() if key != "name"}
    return OPTIMIZERS[spec["name"]](parameters, fused=True, **arguments)


def preconditioner(update: torch.optim.Optimizer) -> Tensor | None:
    """Adam's preconditioner P (P,), with which its last update was theta <- theta - lr m / P.

    m is the running mean of the gradients and v that of their squares (AMSGrad: its maximum so
    far), both after t updates: P = (1 - beta_1^t) (sqrt(v / (1 - beta_2^t)) + eps), as in Cohen et
    al. 2022. NaN before the first update; None for an optimizer without one. Weight decay is not a
    part of it: `Adam`'s is in the gradients, `AdamW`'s beside this update.
    """
    (group,) = update.param_groups
    if "betas" not in group:
        return None
    beta_1, beta_2 = group["betas"]
    squares = "max_exp_avg_sq" if group["amsgrad"] else "exp_avg_sq"
    parts = []
    for parameter in group["params"]:
        state = update.state.get(parameter)
        if not state:
            parts.append(torch.full_like(parameter, torch.nan).detach())
            continue
        t = float(state["step"])
        scale = root(state[squares] / (1 - beta_2**t)) + group["eps"]
        parts.append((1 - beta_1**t) * scale)
    return torch.cat([part.reshape(-1) for part in parts])


def read_states(update: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers of its past updates, beside their number: vectors (P,) by name.

    SGD with momentum has its `momentum_buffer`, Adam its `exp_avg` and `exp_avg_sq`, and with
    AMSGrad `max_exp_avg_sq`; plain SGD has nothing, nor has any before its first update. NaN for
    parameters without a gradient, which are not updated.
    """
    (group,) = update.param_groups
    states = [update.state.get(parameter, {}) for parameter in group["params"]]
    names = {name for state in states for name, value in state.items() if value is not None}
    return {
        name: torch.cat(
            [
                state.get(name, torch.full_like(parameter, torch.nan)).detach().reshape(-1)
                for parameter, state in zip(group["params"], states, strict=True)
            ]
        )
        for name in sorted(names - {"step"})
    }


def write_states(
    update: torch.optim.Optimizer, states: Mapping[str, Tensor], layout: Layout, steps: int
) -> None:
    """Put states from `read_states` into an optimizer, as if it had taken so many steps."""
    (group,) = update.param_groups
    for name, vector in states.items():
        parts = unflatten(vector, layout).values()
        for parameter, part in zip(group["params"], parts, strict=True):
            # strides as the parameter's: fused kernels walk through both as they lie in memory
            update.state[parameter][name] = torch.empty_like(parameter).copy_(part)
            if "betas" in group:
                taken = torch.tensor(float(steps), device=parameter.device)
                update.state[parameter]["step"] = taken


def make_backward(
    model: nn.Module, inputs: Tensor, targets: Tensor, device: torch.device | str
) -> Callable[[Tensor], Tensor]:
    """Move model, inputs (n, ...) and targets (n,) to a device, for training in shares of a batch.

    Returns a function of a batch, indices on that device, that adds the gradient of its mean
    cross-entropy to those of the parameters, and returns the mean. The batch goes through the
    network in shares that fit the cache, in the memory format that suits the network; in one, where
    a forward pass in training mode changes buffers or normalises over what it is given.
    """
    format_in_memory, block = memory_format(model), block_size(model)
    if buffers.changed_by_training(model, inputs[:2]) or buffers.has_batch_normalisation(model):
        block = len(inputs)
    model.to(device=device, memory_format=format_in_memory)
    inputs, targets = inputs.to(device), targets.to(device)

    def backward(batch: Tensor) -> Tensor:
        total = 0.0
        for part in batch.split(block):
            x = inputs.index_select(0, part)
            if format_in_memory != torch.contiguous_format:
                x = in_memory_format(x, format_in_memory)
            y = targets.index_select(0, part)
            loss = nn.functional.cross_entropy(model(x), y, reduction="sum") / len(batch)
            loss.backward()
            total = total + loss.detach()
        return total

    return backward


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
    matched: tuple[Objective, float] | None = None,
    start: Start | None = None,
    tell: Callable[[str], None] | None = None,
) -> Run:
    """Minimise the mean cross-entropy of `model` over inputs (n, ...) and targets (n,).

    Every epoch runs through a fresh permutation drawn from `generator`; its last batch may be
    smaller. History and snapshots are taken at initialisation and then at evenly spaced steps of
    every epoch, its end included. Training stops at the first of these at which theta is not
    finite: the run has diverged, and its last snapshot and last row of history show it.

    With an objective and a target loss (nats) as `matched`, the run keeps the first theta looked
    at whose loss on that objective is at most the target. It looks the more rarely the farther the
    loss is from the target (`steps_to_wait`), and once it is below looks back at every step since
    the last look. Where the first lies more than 3 % below the target, it goes on at each of the
    next 100 steps, and keeps the first that does not, or the closest from below. Looking changes
    nothing about the run.

    With a `start`, the run is that of its epochs from there to the last of `epochs`, with history
    and snapshots that begin at the start. `generator` skips the permutations of the epochs before:
    with the one that the run of the start had, this one goes on exactly as that did; with another,
    the two part there, as in Frankle et al. 2020.

    The model's dropout, if any, draws from the caller's random state. `tell` gets a line for every
    epoch that has ended.
    """
    device = train_objective.device
    backward = make_backward(model, inputs, targets, device)
    update = make_optimizer(trained(model).values(), optimizer)

    steps_per_epoch = -(-len(inputs) // batch_size)
    first = start.epoch if start else 0
    running = train_objective.running
    if start:
        put(model, torch.from_numpy(start.theta))
        if start.buffers is not None:
            buffers.write(model, running, torch.from_numpy(start.buffers))
        buffers.count_batches(model, first * steps_per_epoch)
        states = {name: torch.from_numpy(vector) for name, vector in start.states.items()}
        write_states(update, states, layout_of(model), first * steps_per_epoch)
    evaluation_steps = spread(steps_per_epoch, evaluations_per_epoch)
    snapshot_steps = spread(steps_per_epoch, snapshots_per_epoch)

    rows: list[tuple] = []
    snapshots: list[np.ndarray] = []
    preconditioners: list[np.ndarray] = []
    statistics: list[np.ndarray] = []
    snapshot_rows: list[int] = []
    states_by_epoch: dict[int, dict[str, np.ndarray]] = {}

    def record(epoch: int, step_in_epoch: int, with_snapshot: bool) -> bool:
        """Add a row of history, and a snapshot if asked; return whether theta is finite."""
        theta, own = flatten(model), buffers.read(model, running)
        finite = bool(torch.isfinite(theta).all())
        if with_snapshot or not finite:
            snapshots.append(as_stored(theta))
            preconditioners.append(as_stored(preconditioner(update)))
            statistics.append(as_stored(own))
            snapshot_rows.append(len(rows))
        train_now, test_now = (
            evaluate(at(objective, own), theta) for objective in (train_objective, test_objective)
        )
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

    def seen(passed: Passed) -> Matched:
        """A theta of the run as its objective sees it."""
        step, theta, divisor, own = passed
        now = evaluate(at(matched[0], own), theta)
        epoch = step / steps_per_epoch
        vectors = as_stored(theta), as_stored(divisor)
        return Matched(*vectors, step, epoch, now.loss, now.loss_se, as_stored(own))

    def passing(step: int) -> Passed:
        return step, flatten(model), preconditioner(update), buffers.read(model, running)

    skipped: list[Passed] = []  # since the last look, near the target
    best: Matched | None = None
    due, last = 0, math.inf  # step of the next look, and of the last one
    before = (0, math.inf)  # step and loss of the look before

    def look(step: int) -> None:
        """Keep theta if its loss is closer to the target than the best so far, from below."""
        nonlocal best, due, last, before
        target = matched[1]
        now = seen(passing(step))
        if best is None and now.loss <= target:
            last = step + MORE_CHECKS
            for passed in skipped:  # the first within reach, if the loss was there before
                best = closest(best, seen(passed), target)
        skipped.clear()
        best = closest(best, now, target)
        if best is None:
            due = step + steps_to_wait(step, now.loss, target, before)
            before = (step, now.loss)
        elif best.loss < (1 - OVERSHOOT) * target:
            due = step + 1
        else:
            due = math.inf

    finite = record(first, 0, True)
    if matched:
        look(first * steps_per_epoch)
    model.train()
    for epoch in range(epochs):
        order = torch.randperm(len(inputs), generator=generator).to(device)
        if epoch < first:
            continue
        if not finite:
            break
        for step, batch in enumerate(order.split(batch_size), start=1):
            update.zero_grad()
            backward(batch)
            update.step()
            taken = epoch * steps_per_epoch + step
            if matched and due <= taken <= last:
                look(taken)
            elif matched and best is None and before[1] < NEAR * matched[1]:
                skipped.append(passing(taken))
            if step in evaluation_steps or step in snapshot_steps:
                finite = record(epoch, step, step in snapshot_steps)
            if not finite:
                break
        if tell:
            loss, _, _, accuracy = rows[-1][2:]
            tell(
                f"epoch {epoch + 1} of {epochs}: loss {loss:.4g} nats, test accuracy {accuracy:.2%}"
            )
        if finite and epoch + 1 < epochs:
            states = read_states(update)
            if states:
                states_by_epoch[epoch + 1] = {n: as_stored(v) for n, v in states.items()}

    history = {
        name: np.array(column)
        for name, column in zip(HISTORY, zip(*rows, strict=True), strict=True)
    }
    return Run(
        np.stack(snapshots),
        None if preconditioners[0] is None else np.stack(preconditioners),
        np.array(snapshot_rows),
        history,
        diverged=not finite,
        matched=best,
        states={
            name: np.stack([states[name] for states in states_by_epoch.values()])
            for name in next(iter(states_by_epoch.values()), {})
        },
        state_epochs=np.array(list(states_by_epoch), dtype=np.int64),
        buffers=np.stack(statistics) if running.names else None,
    )


def closest(best: Matched | None, now: Matched, target: float) -> Matched | None:
    """Of two matched points, the first that is at most OVERSHOOT below the target, or the closer.

    What is above the target, or not finite, is none.
    """
    if not now.loss <= target:
        return best
    if best is None or (best.loss < (1 - OVERSHOOT) * target and now.loss > best.loss):
        return now
    return best


def as_stored(vector: Tensor | None) -> np.ndarray | None:
    """float32 in the main memory, of what there is."""
    return None if vector is None else vector.float().cpu().numpy()


def steps_to_wait(step: int, loss: float, target: float, before: tuple[int, float]) -> int:
    """After how many more steps a loss that is above its target is worth another look.

    Half of what it takes to the target, at least 1, if log(loss) goes on falling as fast as since
    the look `before` (step, loss), or as that of a loss that is proportional to 1 / step, if that
    is faster; at most KEPT where the loss is below NEAR times the target. A loss that is not finite
    counts as e times the target.
    """
    if not math.isfinite(loss):
        return max(1, step // 2)
    most = KEPT if loss < NEAR * target else math.inf
    to_fall, fallen = math.log(loss / target), math.log(before[1] / loss)
    steps = min(step, (step - before[0]) / fallen) if fallen > 0 else step
    return max(1, min(most, int(0.5 * steps * to_fall)))


def spread(steps: int, parts: int) -> frozenset[int]:
    """`parts` evenly spaced steps of 1..`steps`, the last included; fewer where there are fewer."""
    return frozenset(round((part + 1) * steps / parts) or 1 for part in range(parts))


def find_point(point: str, epochs: np.ndarray) -> int | None:
    """The snapshot that a point of a run names, or None where the run never got there.

    `init` is the one before the first epoch, `final` the last and `epochN` the one after N epochs;
    `epochs` (S,) has one entry per snapshot. Those of a fork begin later than at `init`.
    """
    if point == "init":
        return None if epochs[0] else 0
    if point == "final":
        return len(epochs) - 1
    reached = np.flatnonzero(np.asarray(epochs) == int(point.removeprefix("epoch")))
    return int(reached[0]) if len(reached) else None
