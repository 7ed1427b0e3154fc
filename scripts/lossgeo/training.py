"""Training runs from tensors in memory: snapshots of theta and the history of the losses."""

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from lossgeo import buffers, fits
from lossgeo.losses import CROSS_ENTROPY, Loss, smoothed, total
from lossgeo.models import block_size, in_memory_format, load_factory, memory_format
from lossgeo.numerics import torch_generator
from lossgeo.objective import Objective, at, evaluate
from lossgeo.optimizers import make_optimizer, preconditioner, read_states, write_states
from lossgeo.parameters import flatten, layout_of, put, trained
from lossgeo.sam import sharpness_aware
from lossgeo.schedules import factor

HISTORY = ("step", "epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "lr")

UNKNOWN = -1  # steps: of weights from elsewhere, and of training of the user's own

NEAR, KEPT = 1.5, 20  # below so many times the target, looks are at most so many steps apart
OVERSHOOT = 0.03  # how far below its target, relatively, a matched loss is to lie at most
MORE_CHECKS = 100  # for a loss that lies so, once one lies below

# a step, and theta, the preconditioner and the running statistics after it
Passed = tuple[int, float, Tensor, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Matched:
    """The theta of a run at which a loss has fallen to a target."""

    theta: np.ndarray  # (P,) float32
    preconditioner: np.ndarray | None  # (P,) float32, as in Run
    step: int
    epoch: float
    loss: float  # in the loss's units
    loss_se: float  # its standard error over the samples
    buffers: np.ndarray | None = None  # (B,) float32, as in Run


@dataclass(frozen=True)
class Run:
    """What a training run leaves behind. A diverged run ends with the row that is not finite."""

    snapshots: np.ndarray  # (S, P) float32, theta at `snapshot_rows`
    preconditioners: np.ndarray | None  # (S, P) float32 (`optimizers.preconditioner`); None: none
    snapshot_rows: np.ndarray  # (S,) rows of history at which the snapshots were taken
    history: dict[str, np.ndarray]  # the columns HISTORY, each (rows,); row 0 is the initialisation
    diverged: bool  # theta stopped being finite
    matched: Matched | None  # None: not asked for, or never reached
    # (E, P), or (E, tensors), float32, the optimizer's states (`optimizers.read_states`) after the
    # epochs `state_epochs` (E,): each whole one but the last
    states: dict[str, np.ndarray]
    state_epochs: np.ndarray
    # (S, B) float32, running statistics where these are constants of the loss (`buffers`)
    buffers: np.ndarray | None = None


@dataclass(frozen=True)
class Start:
    """Where a run goes on that shares its beginning with another: after so many whole epochs."""

    theta: np.ndarray  # (P,) float32
    epoch: int
    states: Mapping[str, np.ndarray] = field(default_factory=dict)  # of one epoch of Run.states
    buffers: np.ndarray | None = None  # (B,) float32, as in Run


def make_backward(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    device: torch.device | str,
    loss: Loss = CROSS_ENTROPY,
    *,
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None,
) -> Callable[..., Tensor]:
    """Move model, inputs (n, ...) and targets (n,) to a device, for training in shares of a batch.

    Returns a function of a batch, indices on that device, that adds the gradient of its mean
    loss to those of the parameters, and returns the mean. The batch goes through the
    network in shares that fit the cache, in the memory format that suits the network; in one, where
    a forward pass in training mode changes buffers or normalises over what it is given. With
    `augment`, its second argument is a generator, and the batch's inputs are replaced by
    `augment(inputs, generator)`.
    """
    format_in_memory, block = memory_format(model), block_size(model, inputs)
    if buffers.changed_by_training(model, inputs[:2]) or buffers.has_batch_normalisation(model):
        block = len(inputs)
    model.to(device=device, memory_format=format_in_memory)
    inputs, targets = inputs.to(device), targets.to(device)

    def backward(batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
        mean = 0.0
        changed = augment(inputs.index_select(0, batch), generator).split(block) if augment else ()
        for number, part in enumerate(batch.split(block)):
            x = changed[number] if augment else inputs.index_select(0, part)
            if format_in_memory != torch.contiguous_format:
                x = in_memory_format(x, format_in_memory)
            y = targets.index_select(0, part)
            share = total(loss, model(x), y) / len(batch)
            share.backward()
            mean = mean + share.detach()
        return mean

    return backward


def make_descent(
    model: nn.Module,
    inputs: Tensor,
    targets: Tensor,
    device: torch.device | str,
    spec: Mapping,
    loss: Loss = CROSS_ENTROPY,
) -> tuple[torch.optim.Optimizer, Callable[[Tensor, torch.Generator], None]]:
    """The optimizer of a config entry, and a function that takes one step by a batch's gradient.

    The gradient is that of `make_backward`, with the entry's `label_smoothing` and `augment`; with
    `sam` it is the sharpness-aware one, and with `clip` it is then scaled so that its norm is at
    most that (Pascanu et al. 2013). The generator is for what changes the inputs.
    """
    backward = make_backward(
        model,
        inputs,
        targets,
        device,
        smoothed(loss, spec.get("label_smoothing", 0.0)),
        augment=load_factory(spec["augment"]) if "augment" in spec else None,
    )
    update = make_optimizer(trained(model).values(), spec)

    def descend(batch: Tensor, generator: torch.Generator) -> None:
        update.zero_grad()
        if "sam" in spec:
            state = generator.get_state()

            def gradient() -> Tensor:
                generator.set_state(state)  # both gradients are of the same inputs
                return backward(batch, generator)

            sharpness_aware(model, gradient, **spec["sam"])
        else:
            backward(batch, generator)
        if "clip" in spec:
            nn.utils.clip_grad_norm_(trained(model).values(), spec["clip"])
        update.step()

    return update, descend


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
    """Minimise the mean loss of `model`, `train_objective`'s, over inputs and targets (n, ...).

    Every epoch runs through a fresh permutation drawn from `generator`; its last batch may be
    smaller. History and snapshots are taken at initialisation and then at evenly spaced steps of
    every epoch, its end included. Training stops at the first of these at which theta is not
    finite: the run has diverged, and its last snapshot and last row of history show it.

    With an objective and a target loss as `matched`, the run keeps the first theta looked
    at whose loss on that objective is at most the target. It looks the more rarely the farther the
    loss is from the target (`steps_to_wait`), and once it is below looks back at every step since
    the last look. Where the first lies more than 3 % below the target, it goes on at each of the
    next 100 steps, and keeps the first that does not, or the closest from below. Looking changes
    nothing about the run.

    With a `start`, the run is that of its epochs from there to the last of `epochs`, with history
    and snapshots that begin at the start. `generator` skips the permutations of the epochs before:
    with the one that the run of the start had, this one goes on exactly as that did; with another,
    the two part there, as in Frankle et al. 2020.

    `optimizer` is an entry of the config: a class of torch.optim and its arguments, and how it is
    used (`schedules.factor`, `make_descent`). What changes the inputs draws from a generator of
    every epoch's own, seeded by that of `generator`. Or it is `{"train": {...}}`, a training of the
    user's own (`fits.states`): then each state that it yields is a snapshot, a row of history and
    looked at, its steps are UNKNOWN, and `batch_size`, `evaluations_per_epoch` and
    `snapshots_per_epoch` do not count. It cannot have a `start`.

    The model's dropout, if any, draws from the caller's random state. `tell` gets a line for every
    epoch that has ended.
    """
    device = train_objective.device
    inputs, targets = inputs.to(device), targets.to(device)
    fit = optimizer.get("train")
    update = None
    if fit:
        model.to(device)
    else:
        update, descend = make_descent(
            model, inputs, targets, device, optimizer, train_objective.loss
        )

    steps_per_epoch = -(-len(inputs) // batch_size)
    steps = epochs * steps_per_epoch
    first = start.epoch if start else 0
    running = train_objective.running
    if start:
        put(model, torch.from_numpy(start.theta))
        if start.buffers is not None:
            buffers.write(model, running, torch.from_numpy(start.buffers))
        buffers.count_batches(model, first * steps_per_epoch)
        states = {name: torch.from_numpy(vector) for name, vector in start.states.items()}
        write_states(update, states, model, layout_of(model))
    evaluation_steps = spread(steps_per_epoch, evaluations_per_epoch)
    snapshot_steps = spread(steps_per_epoch, snapshots_per_epoch)

    def say(epoch: float) -> None:
        loss, _, _, accuracy, _ = rows[-1][2:]
        right = "" if math.isnan(accuracy) else f", test accuracy {accuracy:.2%}"
        tell(f"epoch {epoch:g} of {epochs}: loss {loss:.4g}{train_objective.loss.suffix}{right}")

    rows: list[tuple] = []
    snapshots: list[np.ndarray] = []
    preconditioners: list[np.ndarray] = []
    statistics: list[np.ndarray] = []
    snapshot_rows: list[int] = []
    states_by_epoch: dict[int, dict[str, np.ndarray]] = {}

    def rate(step: int) -> float:
        """The learning rate of a step, one of 1..steps."""
        if fit:
            return math.nan
        schedule = optimizer.get("schedule")
        share = factor(schedule, step, steps, steps_per_epoch) if schedule else 1.0
        return optimizer["lr"] * share

    def divisor() -> Tensor | None:
        return preconditioner(update) if update else None

    def record(step: int, epoch: float, with_snapshot: bool) -> bool:
        """Add a row of history, and a snapshot if asked; return whether theta is finite."""
        theta, own = flatten(model), buffers.read(model, running)
        finite = bool(torch.isfinite(theta).all())
        if with_snapshot or not finite:
            snapshots.append(as_stored(theta))
            preconditioners.append(as_stored(divisor()))
            statistics.append(as_stored(own))
            snapshot_rows.append(len(rows))
        train_now, test_now = (
            evaluate(at(objective, own), theta) for objective in (train_objective, test_objective)
        )
        rows.append(
            (
                step,
                epoch,
                train_now.loss,
                train_now.accuracy,
                test_now.loss,
                test_now.accuracy,
                rate(max(step, 1)),
            )
        )
        return finite

    def seen(passed: Passed) -> Matched:
        """A theta of the run as its objective sees it."""
        step, epoch, theta, scale, own = passed
        now = evaluate(at(matched[0], own), theta)
        vectors = as_stored(theta), as_stored(scale)
        return Matched(*vectors, step, epoch, now.loss, now.loss_se, as_stored(own))

    def passing(step: int, epoch: float) -> Passed:
        return step, epoch, flatten(model), divisor(), buffers.read(model, running)

    skipped: list[Passed] = []  # since the last look, near the target
    best: Matched | None = None
    due, last = 0, math.inf  # step of the next look, and of the last one
    before = (0, math.inf)  # step and loss of the look before

    def look(step: int, epoch: float) -> None:
        """Keep theta if its loss is closer to the target than the best so far, from below."""
        nonlocal best, due, last, before
        target = matched[1]
        now = seen(passing(step, epoch))
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

    finite = record(first * steps_per_epoch, first, True)
    if matched:
        look(first * steps_per_epoch, first)
    if fit:
        states = fits.states(fit, model, inputs, targets, epochs=epochs, generator=generator)
        with closing(states):
            for step, epoch in enumerate(states, start=1):
                if matched and step <= last and due < math.inf:
                    look(step, epoch)
                finite = record(UNKNOWN, epoch, True)
                if tell:
                    say(epoch)
                if not finite:
                    break
        best = best and replace(best, step=UNKNOWN)
    model.train()
    for epoch in range(0 if fit else epochs):
        order = torch.randperm(len(inputs), generator=generator).to(device)
        if epoch < first:
            continue
        if not finite:
            break
        noise = torch_generator("augment", generator.initial_seed(), epoch)
        for step, batch in enumerate(order.split(batch_size), start=1):
            taken, passed = epoch * steps_per_epoch + step, epoch + step / steps_per_epoch
            update.param_groups[0]["lr"] = rate(taken)
            descend(batch, noise)
            if matched and due <= taken <= last:
                look(taken, passed)
            elif matched and best is None and before[1] < NEAR * matched[1]:
                skipped.append(passing(taken, passed))
            if step in evaluation_steps or step in snapshot_steps:
                finite = record(taken, passed, step in snapshot_steps)
            if not finite:
                break
        if tell:
            say(epoch + 1)
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
