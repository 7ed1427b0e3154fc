"""Runs repeat themselves, record what happened, and say when they diverged."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from lossgeo import training
from lossgeo.models import block_size, build
from lossgeo.objective import evaluate, make_objective
from lossgeo.optimizers import make_optimizer
from lossgeo.parameters import flatten
from lossgeo.training import (
    HISTORY,
    Start,
    find_point,
    spread,
    steps_to_wait,
    train,
)

SPEC = {"family": "mlp", "width": 6}


@pytest.fixture(scope="module")
def toy():
    """Sixty images whose class is the brightest of three pixels: separable."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(60) % 3
    inputs = 0.1 * torch.randn(60, 1, 3, 3, generator=generator)
    inputs.view(60, 9)[torch.arange(60), 4 * targets] += 2.0
    return inputs, targets


def run(toy, *, dtype=torch.float32, seed=0, spec=SPEC, **changes):
    inputs, targets = toy[0].to(dtype), toy[1]
    model = build(spec, toy[0].shape[1:], 3, seed=seed).to(dtype)
    objectives = [
        make_objective(copy.deepcopy(model), inputs[part], targets[part], dtype=dtype)
        for part in (slice(0, 40), slice(40, 60))
    ]
    settings = {
        "optimizer": {"name": "SGD", "lr": 0.1},
        "epochs": 3,
        "batch_size": 16,
        "evaluations_per_epoch": 2,
        "snapshots_per_epoch": 1,
        "generator": torch.Generator().manual_seed(seed),
    }
    start = flatten(model)
    found = train(model, inputs, targets, *objectives, **settings | changes)
    return found, start, model, objectives


@pytest.mark.kernels
def test_one_seed_gives_the_same_bytes(toy):
    (a, *_), (b, *_), (c, *_) = (run(toy, seed=seed) for seed in (1, 1, 2))
    assert a.snapshots.tobytes() == b.snapshots.tobytes()
    assert all(a.history[name].tobytes() == b.history[name].tobytes() for name in HISTORY)
    assert a.snapshots.tobytes() != c.snapshots.tobytes()


def test_the_order_of_the_data_is_the_generators(toy):
    a, b = (run(toy, generator=torch.Generator().manual_seed(seed))[0] for seed in (1, 2))
    np.testing.assert_array_equal(a.snapshots[0], b.snapshots[0])
    assert (a.snapshots[-1] != b.snapshots[-1]).any()


def test_training_draws_nothing_from_the_global_state(toy):
    state = torch.get_rng_state()
    run(toy)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.kernels
def test_row_zero_is_the_initialisation(toy):
    found, start, _, (on_train, on_test) = run(toy)
    np.testing.assert_array_equal(found.snapshots[0], start)
    assert found.snapshot_rows[0] == 0
    assert (found.history["step"][0], found.history["epoch"][0]) == (0, 0.0)
    assert found.history["train_loss"][0] == pytest.approx(evaluate(on_train, start).loss, abs=1e-6)
    assert found.history["test_accuracy"][0] == evaluate(on_test, start).accuracy


def test_steps_and_epochs_count_on_through_the_run(toy):
    """60 samples in batches of 16: 4 steps an epoch, recorded at steps 2 and 4 of each."""
    found, *_ = run(toy)
    np.testing.assert_array_equal(found.history["step"], [0, 2, 4, 6, 8, 10, 12])
    np.testing.assert_array_equal(found.history["epoch"], [0, 0.5, 1, 1.5, 2, 2.5, 3])
    assert set(found.history) == set(HISTORY)
    assert not found.diverged


def test_snapshots_are_at_the_ends_of_epochs(toy):
    found, _, model, _ = run(toy)
    np.testing.assert_array_equal(found.history["epoch"][found.snapshot_rows], [0, 1, 2, 3])
    np.testing.assert_array_equal(found.snapshots[-1], flatten(model))


@pytest.mark.kernels
def test_every_recorded_loss_is_the_objectives_at_its_snapshot(toy):
    found, _, _, (on_train, on_test) = run(toy)
    for theta, row in zip(found.snapshots, found.snapshot_rows, strict=True):
        theta = torch.from_numpy(theta)
        loss = evaluate(on_train, theta).loss
        assert found.history["train_loss"][row] == pytest.approx(loss, abs=1e-6)
        assert found.history["train_accuracy"][row] == evaluate(on_train, theta).accuracy
        loss = evaluate(on_test, theta).loss
        assert found.history["test_loss"][row] == pytest.approx(loss, abs=1e-6)


def test_more_snapshots_than_evaluations_are_all_recorded(toy):
    found, *_ = run(toy, snapshots_per_epoch=4, evaluations_per_epoch=1)
    np.testing.assert_array_equal(found.history["step"][found.snapshot_rows], np.arange(13))


@pytest.mark.parametrize(
    ("steps", "parts", "expected"),
    [
        (10, 1, {10}),
        (10, 2, {5, 10}),
        (469, 10, {47, 94, 141, 188, 234, 281, 328, 375, 422, 469}),
        (3, 3, {1, 2, 3}),
        (2, 5, {1, 2}),
        (1, 4, {1}),
    ],
)
def test_spread_takes_even_steps_and_the_last(steps, parts, expected):
    assert spread(steps, parts) == expected


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "SGD", "lr": 0.5},
        {"name": "SGD", "lr": 0.1, "momentum": 0.9},
        {"name": "Adam", "lr": 0.05},
        {"name": "AdamW", "lr": 0.05, "weight_decay": 0.01},
    ],
    ids=lambda spec: spec["name"],
)
def test_a_separable_problem_is_learned(toy, optimizer):
    found, *_ = run(toy, optimizer=optimizer, epochs=30)
    assert found.history["train_loss"][-1] < 0.1
    assert found.history["train_accuracy"][-1] == 1.0
    assert found.history["test_accuracy"][-1] == 1.0


def test_a_convolutional_network_trains_too(toy):
    spread_out = nn.functional.interpolate(toy[0], size=(8, 8))
    model = build({"family": "cnn", "width": 2}, (1, 8, 8), 3, seed=0)
    objective = make_objective(copy.deepcopy(model), spread_out, toy[1])
    found = train(
        model,
        spread_out,
        toy[1],
        objective,
        objective,
        optimizer={"name": "Adam", "lr": 0.01},
        epochs=15,
        batch_size=20,
        evaluations_per_epoch=1,
        snapshots_per_epoch=1,
        generator=torch.Generator().manual_seed(0),
    )
    assert found.history["train_loss"][-1] < 0.3 < found.history["train_loss"][0]


@pytest.mark.parametrize("samples", [128, 150, 65], ids="{} samples".format)
@pytest.mark.parametrize("batch", [1000, 100], ids="batches of {}".format)
def test_a_step_in_shares_is_torchs_on_the_whole_batch(samples, batch):
    """A convolutional network, batches that its blocks of 64 divide and others that they do not.

    As plain torch trains it: max-pooling, memory layout and optimizer are torch's own.
    """
    generator = torch.Generator().manual_seed(4)
    inputs = torch.randn(samples, 1, 8, 8, generator=generator)
    targets = torch.randint(0, 3, (samples,), generator=generator)
    model = build({"family": "cnn", "width": 2}, (1, 8, 8), 3, seed=0)
    assert block_size(model, inputs) < min(samples, batch)
    objective = make_objective(copy.deepcopy(model), inputs[:8], targets[:8])
    plain = copy.deepcopy(model)
    plain.pool1, plain.pool2 = nn.MaxPool2d(2), nn.MaxPool2d(2)
    start = flatten(model)
    found = train(
        model,
        inputs,
        targets,
        objective,
        objective,
        optimizer={"name": "SGD", "lr": 0.5},
        epochs=1,
        batch_size=batch,
        evaluations_per_epoch=1,
        snapshots_per_epoch=1,
        generator=torch.Generator().manual_seed(9),
    )
    update = torch.optim.SGD(plain.parameters(), lr=0.5)
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(9))
    for part in order.split(batch):
        update.zero_grad()
        nn.functional.cross_entropy(plain(inputs[part]), targets[part]).backward()
        update.step()
    np.testing.assert_allclose(found.snapshots[-1], flatten(plain), rtol=0, atol=1e-6)
    assert float((flatten(plain) - start).abs().max()) > 0.01, "a step that can be told from none"


def test_momentum_is_the_heavy_ball(toy):
    """v <- m v + grad; theta <- theta - lr v, on full batches in float64."""
    found, theta, model, _ = run(
        toy,
        dtype=torch.float64,
        optimizer={"name": "SGD", "lr": 0.2, "momentum": 0.9},
        epochs=8,
        batch_size=60,
        evaluations_per_epoch=1,
    )
    names = [(name, p.shape, p.numel()) for name, p in model.named_parameters()]

    def loss(theta):
        parts = {
            name: part.view(shape)
            for (name, shape, _), part in zip(
                names, theta.split([n for *_, n in names]), strict=True
            )
        }
        logits = torch.func.functional_call(model, parts, (toy[0].double(),))
        return nn.functional.cross_entropy(logits, toy[1])

    velocity = torch.zeros_like(theta)
    for _ in range(8):
        velocity = 0.9 * velocity + torch.func.grad(loss)(theta)
        theta = theta - 0.2 * velocity
    torch.testing.assert_close(flatten(model), theta, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found.snapshots[-1], theta, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("spec", [SPEC, {"family": "mlp", "width": 3}])
def test_divergence_is_recorded_and_stops_the_run(toy, spec):
    found, *_ = run(toy, spec=spec, optimizer={"name": "SGD", "lr": 1e20}, epochs=50)
    assert found.diverged
    assert len(found.history["step"]) < 1 + 50 * 2, "the rest of the run is spared"
    finite = np.isfinite(found.snapshots).all(axis=1)
    assert finite[:-1].all()
    assert finite[0]
    assert not finite[-1]
    last = found.snapshot_rows[-1]
    assert last == len(found.history["step"]) - 1
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        assert math.isnan(found.history[name][last])
        assert len(found.history[name]) == len(found.history["step"])


def test_optimizers_take_the_configs_arguments():
    parameters = [nn.Parameter(torch.zeros(2))]
    adam = make_optimizer(parameters, {"name": "Adam", "lr": 0.3, "betas": [0.5, 0.6]})
    assert isinstance(adam, torch.optim.Adam)
    assert adam.defaults["lr"] == 0.3
    assert tuple(adam.defaults["betas"]) == (0.5, 0.6)
    sgd = make_optimizer(parameters, {"name": "SGD", "lr": 0.1, "momentum": 0.9, "nesterov": True})
    assert sgd.defaults["nesterov"]


@pytest.mark.parametrize(
    ("point", "expected"),
    [("init", 0), ("final", 4), ("epoch1", 2), ("epoch2", 4), ("epoch3", None)],
)
def test_points_of_a_run(point, expected):
    assert find_point(point, np.array([0.0, 0.5, 1.0, 1.5, 2.0])) == expected


def test_a_fork_has_no_initialisation_of_its_own():
    epochs = np.array([2.0, 3.0, 4.0])
    points = ("init", "epoch1", "epoch2", "epoch4", "final")
    assert [find_point(point, epochs) for point in points] == [None, None, 0, 2, 2]


# The matched point

OPTIMIZERS = [
    {"name": "SGD", "lr": 0.02},
    {"name": "SGD", "lr": 0.002, "momentum": 0.9},
    {"name": "Adam", "lr": 0.001},
]


def every_theta(toy, settings):
    """theta after every step of a run, the initialisation included."""
    found, *_ = run(toy, **settings | {"snapshots_per_epoch": 1000})
    return [torch.from_numpy(theta) for theta in found.snapshots]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=str)
@pytest.mark.parametrize("target", [0.9, 0.5, 0.25])
def test_the_matched_theta_is_an_iterate_just_below_the_target(toy, optimizer, target):
    settings = {"optimizer": optimizer, "epochs": 150}
    plain, *_ = run(toy, **settings)
    settings["generator"] = torch.Generator().manual_seed(0)
    objective = run(toy, epochs=0)[3][1]
    found, *_ = run(toy, **settings, matched=(objective, target))

    # looking changes nothing
    np.testing.assert_array_equal(found.snapshots, plain.snapshots)
    assert all(found.history[n].tobytes() == plain.history[n].tobytes() for n in HISTORY)
    assert plain.matched is None

    settings["generator"] = torch.Generator().manual_seed(0)
    thetas = every_theta(toy, settings)
    matched = found.matched
    np.testing.assert_array_equal(matched.theta, thetas[matched.step])
    assert matched.epoch == matched.step / 4
    now = evaluate(objective, thetas[matched.step])
    assert (matched.loss, matched.loss_se) == (now.loss, now.loss_se)
    assert 0.97 * target <= matched.loss <= target
    # no earlier theta that was looked at is as good: near the target, all were
    losses = np.array([evaluate(objective, theta).loss for theta in thetas])
    first = int(np.argmax(losses <= target))
    assert first <= matched.step <= first + max(4, 0.1 * first)


def test_no_theta_that_was_looked_at_earlier_had_reached_the_target(toy, monkeypatch):
    looked = []

    def watch(objective, theta):
        now = evaluate(objective, theta)
        if objective is on_test:
            looked.append(now.loss)
        return now

    on_test = run(toy, epochs=0)[3][1]
    monkeypatch.setattr(training, "evaluate", watch)
    found, *_ = run(toy, epochs=60, matched=(on_test, 0.3))
    assert looked[-1] == found.matched.loss
    assert min(looked[:-1]) > 0.3
    assert len(looked) < 25 < found.matched.step, "few looks on a long way"


def test_a_noisy_loss_that_has_passed_the_band_is_matched_there(toy):
    """Mini-batches of 4 at a high rate: what lies off the band has none of it near."""
    settings = {"optimizer": {"name": "SGD", "lr": 0.25}, "epochs": 12, "batch_size": 4}
    objective = run(toy, epochs=0)[3][1]
    settings["generator"] = torch.Generator().manual_seed(0)
    losses = np.array([evaluate(objective, t).loss for t in every_theta(toy, settings)])
    assert np.abs(np.diff(np.log(losses))).max() > 0.1, "it jumps by more than the band is wide"
    inside = 0
    for target in np.geomspace(0.08, 0.9, 25):
        settings["generator"] = torch.Generator().manual_seed(0)
        matched = run(toy, **settings, matched=(objective, target))[0].matched
        assert matched.loss <= target
        if matched.loss < 0.97 * target:
            near = losses[max(matched.step - 20, 0) : matched.step + 100]
            assert not ((near <= target) & (near >= 0.97 * target)).any()
        else:
            inside += 1
    assert 0 < inside < 25


def test_a_loss_that_jumps_over_the_target_gives_the_closest_from_below(toy):
    """At a learning rate of 1 the loss falls by more than 3 % a step and does not come back."""
    settings = {"optimizer": {"name": "SGD", "lr": 1.0}, "epochs": 40, "batch_size": 60}
    objective = run(toy, epochs=0)[3][0]
    thetas = every_theta(toy, settings)
    losses = np.array([evaluate(objective, theta).loss for theta in thetas])
    below = losses[losses < 0.9]
    target = below.max() / 0.9
    assert not ((losses <= target) & (losses >= 0.97 * target)).any()
    settings["generator"] = torch.Generator().manual_seed(0)
    found, *_ = run(toy, **settings, matched=(objective, target))
    assert found.matched.loss == below.max()


def test_a_loss_that_is_never_reached_has_no_matched_point(toy):
    objective = run(toy, epochs=0)[3][0]
    found, *_ = run(toy, matched=(objective, 1e-9))
    assert found.matched is None
    wild, *_ = run(toy, optimizer={"name": "SGD", "lr": 1e20}, matched=(objective, 1e-9))
    assert wild.diverged
    assert wild.matched is None


def test_an_initialisation_below_the_target_is_the_matched_point(toy):
    objective = run(toy, epochs=0)[3][0]
    target = evaluate(objective, run(toy, epochs=0)[1]).loss * 1.01
    found, start, *_ = run(toy, matched=(objective, target))
    assert found.matched.step == 0
    np.testing.assert_array_equal(found.matched.theta, start)


@pytest.mark.parametrize(
    ("loss", "before", "expected"),
    [
        (math.e, (90, 2.0), 0.5 * 100),  # it has risen
        (math.e, (50, math.e**1.25), 0.5 * 100),
        (math.e, (50, math.e**2), 0.5 * 50),
        (math.e**0.1, (90, math.e**0.3), int(0.5 * 5)),
        (math.e**0.01, (90, 2.0), 1),
        (math.inf, (90, 2.0), 0.5 * 100),
        (math.nan, (90, 2.0), 0.5 * 100),
    ],
)
def test_looks_are_the_rarer_the_farther_and_the_slower_the_loss(loss, before, expected):
    assert steps_to_wait(100, loss, 1.0, before) == expected


# Adam's preconditioner


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "Adam", "lr": 0.01},
        {"name": "Adam", "lr": 0.01, "betas": [0.5, 0.9], "eps": 0.01},
        {"name": "Adam", "lr": 0.05, "betas": [0.8, 0.7], "amsgrad": True},
        {"name": "Adam", "lr": 0.01, "weight_decay": 0.1},
    ],
    ids=str,
)
def test_the_preconditioner_is_what_an_update_divides_the_mean_gradient_by(toy, settings):
    """By hand in float64: theta before - theta after = lr m / P."""
    found, _, model, _ = run(toy, dtype=torch.float64, optimizer=settings, batch_size=60, epochs=6)
    lr, (b1, b2) = settings["lr"], settings.get("betas", (0.9, 0.999))
    _, theta, *_ = run(toy, dtype=torch.float64, epochs=0)
    thetas = [theta]
    model = build(SPEC, (1, 3, 3), 3, seed=0).double()
    mean = squares = largest = torch.zeros_like(theta)
    for t in range(1, 7):
        nn.utils.vector_to_parameters(thetas[-1], model.parameters())
        model.zero_grad()
        nn.functional.cross_entropy(model(toy[0].double()), toy[1]).backward()
        gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
        gradient = gradient + settings.get("weight_decay", 0.0) * thetas[-1]
        mean = b1 * mean + (1 - b1) * gradient
        squares = b2 * squares + (1 - b2) * gradient**2
        largest = torch.maximum(largest, squares) if settings.get("amsgrad") else squares
        root = (largest / (1 - b2**t)).sqrt() + settings.get("eps", 1e-8)
        thetas.append(thetas[-1] - lr * (mean / (1 - b1**t)) / root)
        before, after = thetas[-2:]
        np.testing.assert_allclose(found.snapshots[t], after, rtol=1e-5, atol=1e-7)
        at = torch.from_numpy(found.preconditioners[t]).double()
        np.testing.assert_allclose(at, (1 - b1**t) * root, rtol=1e-5, atol=1e-12)
        np.testing.assert_allclose(lr * mean / at, before - after, rtol=1e-4, atol=1e-12)
    assert np.isnan(found.preconditioners[0]).all(), "no update yet"


def test_the_matched_point_has_its_own_preconditioner(toy):
    objective = run(toy, epochs=0)[3][0]
    settings = {"optimizer": {"name": "Adam", "lr": 0.01}, "epochs": 40}
    found, *_ = run(toy, **settings, matched=(objective, 0.5))
    settings |= {"snapshots_per_epoch": 4, "generator": torch.Generator().manual_seed(0)}
    every, *_ = run(toy, **settings)
    step = found.matched.step
    np.testing.assert_array_equal(found.matched.preconditioner, every.preconditioners[step])


def test_sgd_has_no_preconditioner(toy):
    objective = run(toy, epochs=0)[3][0]
    found, *_ = run(toy, optimizer={"name": "SGD", "lr": 0.5}, matched=(objective, 0.9))
    assert found.preconditioners is None
    assert found.matched.preconditioner is None


# Forks


@pytest.fixture(scope="module")
def wide(toy):
    """The same images, large enough for a convolutional network."""
    return nn.functional.interpolate(toy[0], size=(8, 8)), toy[1]


def fork_of(parent, k):
    """Where the parent was after k epochs; it has one snapshot an epoch."""
    at = np.flatnonzero(parent.state_epochs == k)
    states = {name: values[row] for name, values in parent.states.items() for row in at}
    return Start(parent.snapshots[k], k, states)


@pytest.mark.kernels
@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("spec", [SPEC, {"family": "cnn", "width": 2}], ids=("mlp", "cnn"))
@pytest.mark.parametrize(
    ("optimizer", "states"),
    [
        ({"name": "SGD", "lr": 0.1}, []),
        ({"name": "SGD", "lr": 0.05, "momentum": 0.9}, ["momentum_buffer"]),
        (
            {"name": "SGD", "lr": 0.05, "momentum": 0.8, "dampening": 0.3, "weight_decay": 0.01},
            ["momentum_buffer"],
        ),
        ({"name": "Adam", "lr": 0.01}, ["exp_avg", "exp_avg_sq", "step"]),
        (
            {"name": "AdamW", "lr": 0.01, "betas": [0.5, 0.7], "amsgrad": True},
            ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "step"],
        ),
    ],
    ids=("sgd", "momentum", "dampened", "adam", "amsgrad"),
)
def test_a_fork_in_the_same_order_is_the_run_itself(wide, optimizer, states, spec, k):
    settings = {"optimizer": optimizer, "spec": spec, "epochs": 5, "evaluations_per_epoch": 1}
    parent, *_ = run(wide, **settings)
    assert sorted(parent.states) == states
    np.testing.assert_array_equal(parent.state_epochs, [1, 2, 3, 4] if states else [])
    # the fork's network starts elsewhere, and all that it has of the parent is the start
    order = torch.Generator().manual_seed(0)
    fork, *_ = run(wide, seed=1, generator=order, start=fork_of(parent, k), **settings)
    np.testing.assert_array_equal(fork.snapshots, parent.snapshots[k:])
    np.testing.assert_array_equal(fork.snapshot_rows, np.arange(6 - k))
    for name in HISTORY:
        np.testing.assert_array_equal(fork.history[name], parent.history[name][k:])
    if parent.preconditioners is not None:
        np.testing.assert_array_equal(fork.preconditioners, parent.preconditioners[k:])
    for name in states:
        np.testing.assert_array_equal(fork.states[name], parent.states[name][-(4 - k) :])


@pytest.mark.kernels
def test_momentum_is_part_of_where_a_fork_starts(wide):
    settings = {"optimizer": {"name": "SGD", "lr": 0.05, "momentum": 0.9}, "epochs": 4}
    parent, *_ = run(wide, **settings)
    still = Start(parent.snapshots[2], 2)
    fork, *_ = run(wide, start=still, **settings)
    assert (fork.snapshots[1] != parent.snapshots[3]).any()


def test_forks_part_from_the_run_and_see_one_order_after_any_start(wide):
    """Steps so small that theta barely moves: what two forks add in an epoch then is the same."""
    settings = {"optimizer": {"name": "SGD", "lr": 1e-3}, "epochs": 4, "batch_size": 7}
    parent, *_ = run(wide, **settings, snapshots_per_epoch=9)
    ends = parent.snapshots[::9]

    def last_epoch(k, seed):
        order = torch.Generator().manual_seed(seed)
        start = Start(ends[k], k)
        fork, *_ = run(wide, **settings, generator=order, start=start, snapshots_per_epoch=9)
        return np.diff(fork.snapshots[-10:], axis=0)

    own, early, late, other = (last_epoch(*f) for f in ((2, 0), (1, 5), (3, 5), (3, 6)))
    size = np.abs(late).max()
    assert np.abs(early - late).max() < 0.05 * size
    assert np.abs(other - late).max() > 0.5 * size
    assert np.abs(own - late).max() > 0.5 * size
    np.testing.assert_array_equal(own, np.diff(parent.snapshots[-10:], axis=0))


def test_a_fork_of_a_run_that_had_diverged_is_one_snapshot_without_theta(toy):
    settings = {"optimizer": {"name": "Adam", "lr": 0.1}, "batch_size": 60}
    parent, *_ = run(toy, **settings)
    nothing = Start(np.full_like(parent.snapshots[0], np.nan), 2)
    fork, *_ = run(toy, **settings, start=nothing)
    assert fork.diverged
    assert np.isnan(fork.snapshots).all()
    assert len(fork.snapshots) == len(fork.history["step"]) == 1
    assert (fork.history["step"][0], fork.history["epoch"][0]) == (2, 2)
    assert math.isnan(fork.history["train_loss"][0])
    assert np.isnan(fork.preconditioners).all()


def test_a_run_that_diverges_keeps_no_state_of_its_last_epoch(toy):
    found, *_ = run(toy, optimizer={"name": "SGD", "lr": 1e20, "momentum": 0.9}, epochs=9)
    assert found.diverged
    assert len(found.state_epochs) < 8
    assert all(np.isfinite(found.snapshots[k]).all() for k in found.state_epochs)


def test_a_parameter_without_a_gradient_stays_so_in_a_fork(toy):
    """It is not updated, decayed or given a state; the preconditioner says so."""

    class Idle(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Flatten(), nn.Linear(9, 3))
            self.idle = nn.Parameter(torch.ones(2))

    def idle_run(start=None):
        model = Idle()
        nn.utils.vector_to_parameters(torch.linspace(-0.1, 0.1, 32), model.parameters())
        objective = make_objective(copy.deepcopy(model), *toy)
        settings = {"batch_size": 16, "evaluations_per_epoch": 1, "snapshots_per_epoch": 1}
        adam = {"name": "AdamW", "lr": 0.01, "weight_decay": 0.1}
        order = torch.Generator().manual_seed(0)
        scored = objective, objective
        run = train(
            model, *toy, *scored, optimizer=adam, epochs=3, generator=order, start=start, **settings
        )
        return run, flatten(model)

    parent, theta = idle_run()
    idle = np.isnan(parent.preconditioners[-1])
    assert idle.sum() == 2
    fork, after = idle_run(fork_of(parent, 1))
    np.testing.assert_array_equal(fork.snapshots, parent.snapshots[1:])
    np.testing.assert_array_equal(fork.preconditioners, parent.preconditioners[1:])
    np.testing.assert_array_equal(np.isnan(fork.states["exp_avg"]), [idle])
    assert torch.equal(theta, after)


def test_every_epoch_that_has_ended_is_told(toy):
    told = []
    found, *_ = run(toy, epochs=3, tell=told.append)
    assert [line.partition(":")[0] for line in told] == [f"epoch {n} of 3" for n in (1, 2, 3)]
    assert f"loss {found.history['train_loss'][-1]:.4g} nats" in told[-1]
    assert f"test accuracy {found.history['test_accuracy'][-1]:.2%}" in told[-1]
