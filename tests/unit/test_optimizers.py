"""Every optimizer trains, remembers what a fork needs, and says what it divides gradients by."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from lossgeo import runs
from lossgeo.models import build
from lossgeo.objective import make_objective
from lossgeo.optimizers import make_optimizer, preconditioner
from lossgeo.parameters import flatten
from lossgeo.sam import sharpness_aware
from lossgeo.training import Start, train

CNN, MLP = {"family": "cnn", "width": 2}, {"family": "mlp", "width": 5}
REFUSED = ("LBFGS", "Muon", "SparseAdam")
EVERY = {
    "ASGD": {"lr": 0.05, "t0": 3.0, "alpha": 0.5},
    "Adadelta": {"lr": 1.0},
    "Adafactor": {"lr": 0.05},
    "Adagrad": {"lr": 0.05, "lr_decay": 0.1},
    "Adam": {"lr": 0.01},
    "AdamW": {"lr": 0.01, "amsgrad": True},
    "Adamax": {"lr": 0.01},
    "NAdam": {"lr": 0.01},
    "RAdam": {"lr": 0.01},
    "RMSprop": {"lr": 0.002, "momentum": 0.5, "centered": True},
    "Rprop": {"lr": 0.01},
    "SGD": {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01},
}
SPECS = [{"name": name} | arguments for name, arguments in EVERY.items()]


def data(dtype=torch.float32):
    generator = torch.Generator().manual_seed(3)
    inputs = torch.randn(60, 1, 8, 8, generator=generator, dtype=dtype)
    return inputs, (inputs[:, 0, 0, :3]).argmax(1)


def run(spec, optimizer, *, seed=0, epochs=3, dtype=torch.float32, **settings):
    inputs, targets = data(dtype)
    model = build(spec, (1, 8, 8), 3, seed=seed).to(dtype)
    objective = make_objective(copy.deepcopy(model), inputs[:20], targets[:20], dtype=dtype)
    defaults = {"batch_size": 25, "evaluations_per_epoch": 1, "snapshots_per_epoch": 1}
    found = train(
        model,
        inputs,
        targets,
        objective,
        objective,
        optimizer=optimizer,
        epochs=epochs,
        generator=torch.Generator().manual_seed(0),
        **defaults | settings,
    )
    return found, model


def by_torch(model, optimizer, *, steps, gradient=None, rate=None, clip=None, dtype=torch.float64):
    """theta after a plain loop of torch's on full batches, changed by hand."""
    inputs, targets = data(dtype)
    update = make_optimizer(model.parameters(), optimizer)
    for step in range(1, steps + 1):
        update.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        if gradient:
            gradient(model)
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        if rate:
            update.param_groups[0]["lr"] = rate(step)
        update.step()
    return flatten(model)


def test_all_of_torchs_optimizers_are_known():
    classes = [c for c in vars(torch.optim).values() if isinstance(c, type)]
    names = {c.__name__ for c in classes if issubclass(c, torch.optim.Optimizer)}
    assert names == {*EVERY, *REFUSED, "Optimizer"}


@pytest.mark.kernels
@pytest.mark.parametrize("optimizer", SPECS, ids=lambda spec: spec["name"])
@pytest.mark.parametrize("spec", [MLP, CNN], ids=lambda spec: spec["family"])
def test_a_fork_in_the_same_order_is_the_run_itself(optimizer, spec):
    parent, _ = run(spec, optimizer)
    assert parent.history["train_loss"][-1] < parent.history["train_loss"][0]
    assert set(parent.states) <= set(runs.STATES)
    states = {name: values[0] for name, values in parent.states.items()}
    fork, _ = run(spec, optimizer, seed=1, start=Start(parent.snapshots[1], 1, states))
    np.testing.assert_array_equal(fork.snapshots, parent.snapshots[1:])
    for name in parent.states:
        np.testing.assert_array_equal(fork.states[name], parent.states[name][1:])


@pytest.mark.parametrize("optimizer", SPECS, ids=lambda spec: spec["name"])
def test_a_run_is_torchs_plain_loop(optimizer):
    found, _ = run(MLP, optimizer, dtype=torch.float64, batch_size=60)
    model = build(MLP, (1, 8, 8), 3, seed=0).double()
    expected = by_torch(model, optimizer, steps=3)
    np.testing.assert_allclose(found.snapshots[-1], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "RMSprop", "lr": 0.01},
        {"name": "RMSprop", "lr": 0.01, "alpha": 0.5, "eps": 0.1, "centered": True},
        {"name": "Adagrad", "lr": 0.1},
        {"name": "Adagrad", "lr": 0.1, "lr_decay": 0.5, "eps": 0.01},
    ],
    ids=str,
)
def test_an_update_is_the_gradient_over_the_preconditioner(spec):
    theta = torch.nn.Parameter(torch.linspace(-1, 1, 7, dtype=torch.float64))
    update = make_optimizer([theta], spec)
    assert preconditioner(update).isnan().all()
    for step in range(4):
        before = theta.detach().clone()
        theta.grad = torch.cos((step + 1) * before)
        update.step()
        moved = spec["lr"] * theta.grad / preconditioner(update)
        torch.testing.assert_close(before - theta.detach(), moved, rtol=1e-12, atol=1e-15)


def test_what_has_no_preconditioner_says_so():
    for spec in SPECS:
        found, _ = run(MLP, spec, epochs=1)
        has = spec["name"] in ("Adam", "AdamW", "RMSprop", "Adagrad")
        assert (found.preconditioners is not None) == has


def test_a_clipped_gradient_is_torchs():
    spec = {"name": "SGD", "lr": 0.5, "momentum": 0.9}
    found, _ = run(MLP, spec | {"clip": 0.3}, dtype=torch.float64, batch_size=60)
    model = build(MLP, (1, 8, 8), 3, seed=0).double()
    expected = by_torch(model, spec, steps=3, clip=0.3)
    np.testing.assert_allclose(found.snapshots[-1], expected, rtol=1e-6, atol=1e-7)
    free, _ = run(MLP, spec, dtype=torch.float64, batch_size=60)
    assert np.abs(free.snapshots[-1] - found.snapshots[-1]).max() > 1e-3


def test_labels_are_smoothed_in_training_alone():
    spec = {"name": "SGD", "lr": 0.5}
    found, _ = run(MLP, spec | {"label_smoothing": 0.3}, dtype=torch.float64, batch_size=60)
    inputs, targets = data(torch.float64)
    model = build(MLP, (1, 8, 8), 3, seed=0).double()
    plain, _ = run(MLP, spec, dtype=torch.float64, batch_size=60)
    assert found.history["train_loss"][0] == plain.history["train_loss"][0]
    smooth = 0.7 * nn.functional.one_hot(targets, 3) + 0.1
    for _ in range(3):
        model.zero_grad()
        (-smooth * model(inputs).log_softmax(1)).sum(1).mean().backward()
        nn.utils.vector_to_parameters(
            flatten(model) - 0.5 * torch.cat([p.grad.reshape(-1) for p in model.parameters()]),
            model.parameters(),
        )
    np.testing.assert_allclose(found.snapshots[-1], flatten(model), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_sharpness_aware_step_is_that_of_the_paper(adaptive):
    """theta - lr grad L(theta + epsilon), with grad L of a dense quadratic known by hand."""
    generator = torch.Generator().manual_seed(1)
    root = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    hessian = root @ root.T
    start = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False).double()
    nn.utils.vector_to_parameters(start, model.parameters())

    def gradient():
        loss = 0.5 * model.weight[0] @ hessian @ model.weight[0]
        loss.backward()
        return loss.detach()

    loss = sharpness_aware(model, gradient, rho=0.2, adaptive=adaptive)
    g = hessian @ start
    scale = start.abs() if adaptive else torch.ones(4, dtype=torch.float64)
    epsilon = 0.2 * scale**2 * g / (scale * g).norm()
    assert float((epsilon / scale).norm()) == pytest.approx(0.2)
    torch.testing.assert_close(model.weight.grad[0], hessian @ (start + epsilon))
    assert torch.equal(model.weight[0].detach(), start)
    assert float(loss) == pytest.approx(float(0.5 * start @ hessian @ start))


def test_running_statistics_are_those_of_the_first_gradient():
    """As after one forward pass at theta; the second, elsewhere, leaves no trace."""
    inputs, targets = data()
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    once = copy.deepcopy(model)
    nn.functional.cross_entropy(once(inputs), targets).backward()

    def gradient():
        loss = nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        return loss.detach()

    sharpness_aware(model, gradient, rho=0.5)
    for name, buffer in once.named_buffers():
        torch.testing.assert_close(dict(model.named_buffers())[name], buffer, msg=name)
    assert (model[1].weight.grad - once[1].weight.grad).abs().max() > 1e-4


def test_a_run_with_sam_is_a_loop_with_two_gradients():
    def gradient(model):
        inputs, targets = data(torch.float64)
        theta = flatten(model)
        g = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
        nn.utils.vector_to_parameters(theta + 0.3 * g / g.norm(), model.parameters())
        model.zero_grad()
        nn.functional.cross_entropy(model(inputs), targets).backward()
        with torch.no_grad():
            nn.utils.vector_to_parameters(theta, model.parameters())

    spec = {"name": "SGD", "lr": 0.5, "momentum": 0.5}
    sam = spec | {"sam": {"rho": 0.3}}
    found, _ = run(MLP, sam, dtype=torch.float64, batch_size=60)
    model = build(MLP, (1, 8, 8), 3, seed=0).double()
    expected = by_torch(model, spec, steps=3, gradient=gradient)
    np.testing.assert_allclose(found.snapshots[-1], expected, rtol=1e-6, atol=1e-7)
    plain, _ = run(MLP, spec, dtype=torch.float64, batch_size=60)
    assert np.abs(plain.snapshots[-1] - found.snapshots[-1]).max() > 1e-3


def shifted(inputs, generator):
    """Inputs moved by one pixel, each its own way."""
    ways = torch.randint(-1, 2, (len(inputs),), generator=generator)
    return torch.stack([x.roll(int(way), -1) for x, way in zip(inputs, ways, strict=True)])


@pytest.mark.kernels
@pytest.mark.parametrize("sam", [{}, {"sam": {"rho": 0.1}}], ids=["plain", "sam"])
def test_changed_inputs_are_drawn_anew_each_step_and_again_in_a_fork(sam):
    spec = {"name": "SGD", "lr": 0.1, "augment": f"{__name__}:shifted"} | sam
    parent, _ = run(CNN, spec)
    again, _ = run(CNN, spec)
    np.testing.assert_array_equal(parent.snapshots, again.snapshots)
    plain, _ = run(CNN, {"name": "SGD", "lr": 0.1} | sam)
    assert (plain.snapshots[1] != parent.snapshots[1]).any()
    fork, _ = run(CNN, spec, seed=1, start=Start(parent.snapshots[2], 2))
    np.testing.assert_array_equal(fork.snapshots, parent.snapshots[2:])


def test_a_scheduled_run_is_torchs_loop_at_those_rates_and_its_history_has_them():
    spec = {"name": "SGD", "lr": 0.5, "momentum": 0.9}
    schedule = {"name": "linear", "warmup": 0.25, "final": 0.2}
    scheduled = spec | {"schedule": schedule}
    found, _ = run(MLP, scheduled, dtype=torch.float64, batch_size=60, epochs=4)
    rates = [0.5, 0.5, 0.5 * (1 - 0.8 / 3), 0.5 * (1 - 1.6 / 3)]
    np.testing.assert_allclose(found.history["lr"], [rates[0], *rates])
    model = build(MLP, (1, 8, 8), 3, seed=0).double()
    expected = by_torch(model, spec, steps=4, rate=lambda step: rates[step - 1])
    np.testing.assert_allclose(found.snapshots[-1], expected, rtol=1e-6, atol=1e-7)
