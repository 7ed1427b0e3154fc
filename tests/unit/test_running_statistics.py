"""Batch normalisation, frozen and recalibrated: everything that is measured is of one function."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lossgeo import buffers, checkpoints, gauss_newton, hessian, paths, probe, runs, store
from lossgeo.hessian import hessian_operator, sample_forms
from lossgeo.models import ModelError
from lossgeo.objective import (
    at,
    evaluate,
    make_objective,
    sample_logits,
    sample_losses,
    with_running,
)
from lossgeo.parameters import flatten, put, unflatten
from lossgeo.part import part_of, places
from lossgeo.piecewise_affine import is_piecewise_affine
from lossgeo.sharpness import average_rises, worst_case
from lossgeo.surface import second_difference
from lossgeo.trace import of_samples
from lossgeo.training import Start, train

CLASSES, SAMPLES = 3, 11
functional = nn.functional


class ResNet(nn.Module):
    """One residual block on few pixels, smooth so that differences of its losses have a limit."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(2)
        self.second = nn.Conv2d(2, 2, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(2, affine=False)
        self.drop = nn.Dropout(0.5)
        self.output = nn.Linear(2, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.gelu(self.norm1(self.first(x)))
        x = functional.gelu(x + self.norm2(self.second(x)))
        return self.output(self.drop(x.mean((2, 3))))


def by_hand(parts: dict[str, Tensor], inputs: Tensor, calibration: Tensor) -> Tensor:
    """What the network gives with the statistics of `calibration`, written out."""

    def normalise(x: Tensor, c: Tensor, weight, bias) -> tuple[Tensor, Tensor]:
        mean = c.mean((0, 2, 3), keepdim=True)
        biased = ((c - mean) ** 2).mean((0, 2, 3), keepdim=True)
        unbiased = biased * (c[:, 0].numel() / (c[:, 0].numel() - 1))
        weight, bias = weight.view(1, -1, 1, 1), bias.view(1, -1, 1, 1)
        return tuple(
            (z - mean) / (variance + 1e-5).sqrt() * weight + bias
            for z, variance in ((x, unbiased), (c, biased))
        )

    pair = inputs, calibration
    pair = [functional.conv2d(z, parts["first.weight"], padding=1) for z in pair]
    pair = [*map(functional.gelu, normalise(*pair, parts["norm1.weight"], parts["norm1.bias"]))]
    inner = [functional.conv2d(z, parts["second.weight"], padding=1) for z in pair]
    inner = normalise(*inner, torch.ones(2).double(), torch.zeros(2).double())
    x = functional.gelu(pair[0] + inner[0]).mean((2, 3))
    return functional.linear(x, parts["output.weight"], parts["output.bias"])


class Setting:
    """A network whose running statistics are those of a few batches, its samples and theta."""

    def __init__(self, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = ResNet().double()
        generator = torch.Generator().manual_seed(7)
        self.inputs = torch.randn(SAMPLES, 1, 4, 4, generator=generator, dtype=torch.float64) + 0.5
        self.calibration = torch.randn(6, 1, 4, 4, generator=generator, dtype=torch.float64) + 0.5
        self.targets = torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
        for batch in self.calibration.split(2):
            self.model.train()(batch)
        self.theta = flatten(self.model)

    def train(self) -> None:
        """To a low loss, on the samples themselves."""
        update = torch.optim.Adam(self.model.train().parameters(), lr=0.05)
        self.model.drop.eval()
        for _ in range(150):
            update.zero_grad()
            functional.cross_entropy(self.model(self.inputs), self.targets).backward()
            update.step()
        self.theta = flatten(self.model)

    def objective(self, statistics: str, model: nn.Module | None = None):
        return make_objective(
            model or self.model,
            self.inputs,
            self.targets,
            dtype=torch.float64,
            block=4,
            statistics=statistics,
            calibration=self.calibration if statistics == "recalibrated" else None,
        )

    def exact_logits(self, statistics: str, theta: Tensor) -> Tensor:
        """(N, K) as a function of theta that torch can differentiate as often as one likes."""
        objective = self.objective("frozen")
        parts = unflatten(theta, objective.layout)
        if statistics == "recalibrated":
            return by_hand(parts, self.inputs, self.calibration)
        return torch.func.functional_call(objective.model, parts, (self.inputs,))

    def exact_hessian(self, statistics: str) -> Tensor:
        return torch.autograd.functional.hessian(
            lambda theta: functional.cross_entropy(
                self.exact_logits(statistics, theta), self.targets
            ),
            self.theta,
        )


def plainly_recalibrated(model: nn.Module, calibration: Tensor) -> nn.Module:
    """As torch does it: statistics reset, one pass in training mode, evaluation."""
    model = copy.deepcopy(model).train()
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None
        if isinstance(layer, nn.Dropout):
            layer.eval()
    with torch.no_grad():
        model(calibration)
    return model.eval()


@pytest.fixture
def setting():
    return Setting()


both = pytest.mark.parametrize("statistics", buffers.MODES)


@both
def test_the_loss_is_torchs_with_the_same_statistics(setting, statistics):
    model = setting.model.eval()
    if statistics == "recalibrated":
        model = plainly_recalibrated(model, setting.calibration)
    with torch.no_grad():
        exact = model(setting.inputs)
    objective = setting.objective(statistics)
    found = sample_logits(objective, setting.theta).T
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13)
    assert objective.statistics == statistics
    by_torch = setting.exact_logits(statistics, setting.theta)
    torch.testing.assert_close(by_torch, exact, rtol=1e-12, atol=1e-13)


@both
def test_products_forms_and_surfaces_are_those_of_the_dense_hessian(setting, statistics):
    objective, theta = setting.objective(statistics), setting.theta
    exact = setting.exact_hessian(statistics)
    d = torch.randn(len(theta), dtype=torch.float64)
    product = hessian_operator(objective, theta) @ d
    torch.testing.assert_close(product, exact @ d, rtol=1e-9, atol=1e-12)
    forms = sample_forms(objective, theta, d.unsqueeze(0)).mean()
    torch.testing.assert_close(forms, d @ exact @ d, rtol=1e-9, atol=1e-12)
    difference = second_difference(objective, theta, d, 1e-4)
    assert difference == pytest.approx(float(d @ exact @ d), rel=1e-5)


def test_the_two_modes_differ(setting):
    curvatures = [setting.exact_hessian(statistics).trace() for statistics in buffers.MODES]
    assert abs(curvatures[0] - curvatures[1]) > 0.01 * abs(curvatures[0])


@both
def test_the_gauss_newton_matrix_is_that_of_the_dense_jacobian(setting, statistics):
    objective, theta = setting.objective(statistics), setting.theta
    jacobian = torch.autograd.functional.jacobian(
        lambda theta: setting.exact_logits(statistics, theta), theta
    )
    p = setting.exact_logits(statistics, theta).softmax(1)
    bent = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
    of_samples_exactly = torch.einsum("nkp,nkl,nlp->n", jacobian, bent, jacobian)
    found = of_samples(gauss_newton.sample_traces(objective, theta))
    torch.testing.assert_close(found, of_samples_exactly, rtol=1e-9, atol=1e-12)
    d = torch.randn(len(theta), dtype=torch.float64)
    product = gauss_newton.gauss_newton_operator(objective, theta) @ d
    exact = torch.einsum("nkp,nkl,nlq,q->p", jacobian, bent, jacobian, d) / SAMPLES
    torch.testing.assert_close(product, exact, rtol=1e-9, atol=1e-12)


@both
def test_traces_are_exact_where_frozen_statistics_leave_logits_piecewise_affine(statistics):
    """Not where they are computed from theta, nor where torch normalises by the batch itself."""
    torch.manual_seed(2)
    layers = nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, CLASSES)
    model = nn.Sequential(*layers).double()
    inputs, targets = torch.randn(SAMPLES, 1, 4, 4).double(), torch.arange(SAMPLES) % CLASSES
    model.train()(inputs)
    objective = make_objective(model, inputs, targets, dtype=torch.float64, statistics=statistics)
    theta = flatten(model)
    rows = torch.eye(len(theta), dtype=torch.float64)
    operator = hessian_operator(objective, theta)
    trace = sum(float((operator @ row) @ row) for row in rows)
    of_gauss_newton = float(of_samples(gauss_newton.sample_traces(objective, theta)).mean())
    equal = trace == pytest.approx(of_gauss_newton, rel=1e-10)
    assert is_piecewise_affine(objective, theta) == equal == (statistics == "frozen")
    objective.model.train()
    assert not is_piecewise_affine(objective, theta)


@both
def test_rises_under_noise_and_at_worst_are_of_that_loss(setting, statistics):
    objective, theta = setting.objective(statistics), setting.theta

    def loss(theta: Tensor) -> Tensor:
        return functional.cross_entropy(setting.exact_logits(statistics, theta), setting.targets)

    d = torch.randn(len(theta), dtype=torch.float64)
    exact = (loss(theta + 0.1 * d) + loss(theta - 0.1 * d)) / 2 - loss(theta)
    found = average_rises(objective, theta, d.unsqueeze(0), [0.1]).mean()
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-12)
    theta = theta.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(theta), theta)
    theta = theta.detach()
    torch.testing.assert_close(hessian.gradient(objective, theta), slope, rtol=1e-9, atol=1e-12)
    worst = worst_case(objective, theta, [1e-5], 0)
    assert float(worst.rises.mean()) == pytest.approx(1e-5 * float(slope.norm()), rel=1e-3)


@both
def test_products_of_a_part_of_theta_are_a_block_of_the_whole(setting, statistics):
    exact = setting.exact_hessian(statistics)
    objective = setting.objective(statistics)
    part, theta = part_of(objective, setting.theta, ["norm1.*", "second.*"])
    chosen = places(objective.layout, part.layout.names)
    d = torch.randn(len(theta), dtype=torch.float64)
    block = exact[chosen][:, chosen]
    product = hessian_operator(part, theta) @ d
    torch.testing.assert_close(product, block @ d, rtol=1e-9, atol=1e-12)
    assert evaluate(part, theta).loss == pytest.approx(
        evaluate(objective, setting.theta).loss, rel=1e-12
    )


def test_memory_changes_no_product(setting):
    """Statistics that are computed again give the same numbers."""
    objective = setting.objective("recalibrated")
    d = torch.randn(len(setting.theta), dtype=torch.float64)
    scarce = copy.copy(objective)
    object.__setattr__(scarce, "memory", 0.0)
    torch.testing.assert_close(
        hessian_operator(scarce, setting.theta) @ d, hessian_operator(objective, setting.theta) @ d
    )


def test_a_barrier_is_that_of_plain_torch(setting):
    """Statistics of the two ends interpolated as theta is, and recalibrated on the way."""
    other = Setting(1)
    for end in (setting, other):
        end.train()
    t = torch.linspace(0, 1, 5, dtype=torch.float64)
    found, exact = {}, {}
    for statistics in buffers.MODES:
        objective = setting.objective(statistics)
        vectors = buffers.along(
            objective.running,
            [setting.theta, other.theta],
            [buffers.read(end.model, objective.running) for end in (setting, other)],
        )
        logits = paths.logits_on(with_running(objective), vectors, paths.line(t.numpy()))
        profile = paths.profile(t.numpy(), logits, setting.targets)
        found[statistics] = profile.barriers["loss"].height
        losses = []
        for weight in t:
            model = copy.deepcopy(setting.model).eval()
            put(model, torch.lerp(setting.theta, other.theta, weight))
            if statistics == "recalibrated":
                model = plainly_recalibrated(model, setting.calibration)
            else:
                theirs = dict(other.model.named_buffers())
                for name, buffer in model.named_buffers():
                    if buffer.is_floating_point():
                        buffer.lerp_(theirs[name], weight)
            with torch.no_grad():
                losses.append(functional.cross_entropy(model(setting.inputs), setting.targets))
        losses = torch.stack(losses)
        exact[statistics] = float((losses - torch.lerp(losses[0], losses[-1], t)).max())
        torch.testing.assert_close(torch.from_numpy(profile.means["loss"]), losses)
    assert found == pytest.approx(exact, rel=1e-9, abs=1e-12)
    assert min(found.values()) > 0.1
    assert found["frozen"] != pytest.approx(found["recalibrated"], rel=0.01)


def test_statistics_of_a_point_take_the_place_of_the_models_own(setting):
    """And neither the caller's model nor the objective that they are put into is changed."""
    other = Setting(1)
    objective = setting.objective("frozen")
    before = evaluate(objective, setting.theta)
    statistics = buffers.read(other.model, objective.running)
    found = sample_losses(at(objective, statistics), other.theta)[0]
    with torch.no_grad():
        exact = functional.cross_entropy(
            other.model.eval()(setting.inputs), setting.targets, reduction="none"
        )
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13)
    assert evaluate(objective, setting.theta) == before


def test_without_a_mode_such_a_model_is_refused(setting):
    with pytest.raises(ModelError, match=r"norm1.running_mean.*frozen.*recalibrated"):
        make_objective(setting.model, setting.inputs, setting.targets)
    setting.model.norm1.momentum = setting.model.norm2.momentum = 0.0  # nothing runs
    for layer in (setting.model.norm1, setting.model.norm2):
        layer.num_batches_tracked = None
    make_objective(setting.model, setting.inputs, setting.targets)


def test_a_layer_without_statistics_of_its_own_is_recalibrated_alone(setting):
    setting.model.norm2 = nn.BatchNorm2d(2, affine=False, track_running_stats=False).double()
    for statistics in (None, "frozen"):
        with pytest.raises(ModelError, match=r"norm2.*expected statistics: recalibrated"):
            setting.objective(statistics)
    exact = by_hand(
        unflatten(setting.theta, setting.objective("recalibrated").layout),
        setting.inputs,
        setting.calibration,
    )
    found = sample_logits(setting.objective("recalibrated"), setting.theta).T
    torch.testing.assert_close(found, exact, rtol=1e-12, atol=1e-13)


def test_a_model_whose_hooks_keep_computed_tensors_has_statistics_too(setting):
    """As torch's first weight normalisation does, which cannot be copied as it is."""
    with pytest.warns(FutureWarning):
        nn.utils.weight_norm(setting.model.second)
    for statistics in buffers.MODES:
        objective = setting.objective(statistics)
        before = evaluate(Setting().objective(statistics), setting.theta).loss
        assert evaluate(objective, flatten(setting.model)).loss == pytest.approx(before, rel=1e-10)


class Counting(nn.Module):
    """Constants, and state that no mode can keep."""

    def __init__(self, changed: str) -> None:
        super().__init__()
        self.layer = nn.Linear(16, CLASSES)
        self.register_buffer("positions", torch.arange(16) / 16)
        self.register_buffer("mask", torch.ones(16, dtype=torch.bool))
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("scale", torch.tensor(1.0))
        self.changed = changed

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.changed:
            getattr(self, self.changed).add_(1)
        return self.layer((x.flatten(1) + self.positions) * self.mask)


def test_constant_and_integer_buffers_need_no_mode(setting):
    objective = make_objective(Counting(""), setting.inputs, setting.targets)
    assert objective.statistics is None
    assert not objective.running.names


@pytest.mark.parametrize(
    ("changed", "statistics", "words"),
    [
        ("calls", "frozen", "calls .*int64.*floating point"),
        ("scale", "recalibrated", "scale, which is not of batch normalisation.*frozen"),
        ("scale", "thawed", "'thawed', expected one of frozen, recalibrated"),
    ],
)
def test_state_that_a_mode_cannot_keep_is_refused(setting, changed, statistics, words):
    with pytest.raises(ModelError, match=words):
        make_objective(Counting(changed), setting.inputs, setting.targets, statistics=statistics)


def test_a_layer_that_is_called_twice_is_not_recalibrated(setting):
    layer = nn.BatchNorm1d(16)
    model = nn.Sequential(nn.Flatten(), layer, nn.Tanh(), layer, nn.Linear(16, CLASSES))
    objective = make_objective(model, setting.inputs, setting.targets, statistics="recalibrated")
    with pytest.raises(ModelError, match="called twice"):
        evaluate(objective, flatten(model))


def trained_run(setting: Setting, statistics: str, **settings):
    """Three epochs in batches of 4 with momentum, by `training.train`; norm2 keeps plain means."""
    torch.manual_seed(1)
    model = ResNet().double()
    model.drop.p = 0.0
    model.norm2.momentum = None
    objective = setting.objective(statistics, model)
    arguments = {
        "optimizer": {"name": "SGD", "lr": 0.1, "momentum": 0.5},
        "epochs": 3,
        "batch_size": 4,
        "evaluations_per_epoch": 1,
        "snapshots_per_epoch": 1,
        "generator": torch.Generator().manual_seed(3),
    }
    run = train(
        model, setting.inputs, setting.targets, objective, objective, **arguments | settings
    )
    return run, objective


@both
def test_training_is_torchs_and_history_of_the_mode(setting, statistics):
    run, objective = trained_run(setting, statistics)
    torch.manual_seed(1)
    model = ResNet().double()
    model.drop.p = 0.0
    model.norm2.momentum = None
    update = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    generator = torch.Generator().manual_seed(3)
    for epoch in range(4):
        if epoch:
            model.train()
            for batch in torch.randperm(SAMPLES, generator=generator).split(4):
                update.zero_grad()
                functional.cross_entropy(
                    model(setting.inputs[batch]), setting.targets[batch]
                ).backward()
                update.step()
        evaluated = model.eval()
        if statistics == "recalibrated":
            evaluated = plainly_recalibrated(model, setting.calibration)
        with torch.no_grad():
            exact = functional.cross_entropy(evaluated(setting.inputs), setting.targets)
        assert run.history["train_loss"][epoch] == pytest.approx(float(exact), rel=1e-10)
        if statistics == "frozen":
            own = buffers.read(model, objective.running).float().numpy()
            np.testing.assert_allclose(run.buffers[epoch], own, rtol=1e-6, atol=1e-7)
    assert (run.buffers is None) == (statistics == "recalibrated")


@both
def test_a_run_that_goes_on_is_the_run(setting, statistics):
    """Its running statistics and their counters too."""
    run, _ = trained_run(setting, statistics)
    states = {name: values[0] for name, values in run.states.items()}
    own = None if run.buffers is None else run.buffers[1]
    start = Start(run.snapshots[1], 1, states, own)
    rest, _ = trained_run(setting, statistics, start=start)
    np.testing.assert_allclose(rest.snapshots, run.snapshots[1:], rtol=1e-4, atol=1e-6)
    for name in ("train_loss", "test_loss"):
        np.testing.assert_allclose(rest.history[name], run.history[name][1:], rtol=1e-5)


def test_a_matched_point_has_its_own_statistics(setting):
    run, objective = trained_run(setting, "frozen")
    target = float(np.sort(run.history["train_loss"])[1])
    run, objective = trained_run(setting, "frozen", matched=(objective, target))
    found = evaluate(
        at(objective, torch.from_numpy(run.matched.buffers)), torch.from_numpy(run.matched.theta)
    )
    assert found.loss == pytest.approx(run.matched.loss, rel=1e-5)
    assert found.loss <= target * (1 + 1e-5)


def test_snapshots_keep_the_statistics_of_their_points(setting, tmp_path):
    run, objective = trained_run(setting, "frozen")
    path = tmp_path / "snapshots.h5"
    described = runs.describe(run, objective.layout, objective.running)
    store.write(path, runs.as_groups(run), {"parameters": objective.layout.size} | described)
    for name, row in (("init", 0), ("epoch2", 2), ("final", 3)):
        point = probe.load_point(path, name)
        np.testing.assert_array_equal(point.buffers, run.buffers[row])
        found = evaluate(at(objective, point.buffers), point.theta)
        assert found.loss == pytest.approx(run.history["train_loss"][row], rel=1e-5)
    missing = probe.load_point(path, "epoch7").buffers
    assert missing.shape == run.buffers[0].shape
    assert missing.isnan().all()
    np.testing.assert_array_equal(runs.load_start(path, 1).buffers, run.buffers[1])
    names = json.loads(store.attributes(path)["buffer_names"])
    assert names == [f"norm{k}.running_{which}" for k in (1, 2) for which in ("mean", "var")]


@both
def test_weights_from_elsewhere_bring_their_statistics(setting, statistics, tmp_path):
    """Which are those of the point where they are frozen, and nothing where they are not."""
    setting.model.float()
    path = tmp_path / "weights.pt"
    torch.save(setting.model.state_dict(), path)
    fresh = ResNet()
    running = buffers.running_statistics(fresh, setting.inputs[:2].float(), statistics)
    point = checkpoints.load(path, fresh, running)
    objective = make_objective(
        fresh,
        setting.inputs,
        setting.targets,
        statistics=statistics,
        calibration=setting.calibration if statistics == "recalibrated" else None,
    )
    run = checkpoints.as_run([point], objective, objective)
    assert (run.buffers is None) == (statistics == "recalibrated")
    exact = functional.cross_entropy(
        setting.exact_logits(statistics, setting.theta), setting.targets
    )
    assert run.history["train_loss"][0] == pytest.approx(float(exact), rel=1e-5)
