"""Every measurement is of whichever loss the objective has, against dense float64 derivatives."""

import copy
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lossgeo import gauss_newton, hessian, ladder, losses, multilevel, paths, surface, trace
from lossgeo.losses import cotangents, make_loss, output_hessian
from lossgeo.models import ModelError
from lossgeo.objective import Objective, evaluate, make_objective, sample_losses
from lossgeo.parameters import flatten
from lossgeo.training import make_backward, train

SAMPLES = 11


def smooth() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def affine() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


def single() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))


def tokens() -> nn.Module:
    """Integers (n, 3) to logits (n, 3, 4)."""
    return nn.Sequential(nn.Embedding(6, 3), nn.LayerNorm(3), nn.Linear(3, 4))


def log_cosh(outputs: Tensor, targets: Tensor, scale: float) -> Tensor:
    return (torch.log(torch.cosh((outputs - targets) / scale)) * outputs[:, :1].square()).sum(1)


def plain(outputs, targets):
    return -outputs.log_softmax(1).gather(1, targets[:, None])[:, 0]


def smoothed(outputs, targets):
    log_p = outputs.log_softmax(1)
    own = log_p.gather(1, targets[:, None])[:, 0]
    return -(0.9 * own + 0.1 * log_p.mean(1))


def of_tokens(outputs, targets):
    return -outputs.log_softmax(2).gather(2, targets[:, :, None]).mean((1, 2))


def squared(outputs, targets):
    return ((outputs - targets) ** 2).mean(1)


def indicators(outputs, targets):
    return ((outputs - torch.eye(3, dtype=outputs.dtype)[targets]) ** 2).mean(1)


def logistic(outputs, targets):
    signs = 2 * targets - 1
    each = -nn.functional.logsigmoid(signs * outputs)
    return each.reshape(len(each), -1).mean(1)


# name -> the loss as it is named, the network, the targets' kind, and the loss written plainly
CASES = {
    "plain": ("cross-entropy", smooth, "classes", plain),
    "smoothed": ({"name": "cross-entropy", "label_smoothing": 0.1}, smooth, "classes", smoothed),
    "smoothed-affine": (
        {"name": "cross-entropy", "label_smoothing": 0.1},
        affine,
        "classes",
        smoothed,
    ),
    "mse": ("mse", smooth, "numbers", squared),
    "mse-affine": ("mse", affine, "numbers", squared),
    "mse-classes": ("mse", smooth, "classes", indicators),
    "bce": ("binary-cross-entropy", smooth, "bits", logistic),
    "bce-single": ("binary-cross-entropy", single, "bit", logistic),
    "own": (
        {"factory": f"{__name__}:log_cosh", "arguments": {"scale": 2.0}},
        smooth,
        "numbers",
        partial(log_cosh, scale=2.0),
    ),
    "tokens": ("cross-entropy", tokens, "tokens", of_tokens),
}


class Case(NamedTuple):
    model: nn.Module
    inputs: Tensor
    targets: Tensor
    theta: Tensor
    objective: Objective
    plain: object

    def at(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The losses of samples, without the library."""
        parts, at = {}, 0
        for name, p in self.model.named_parameters():
            parts[name] = theta[at : at + p.numel()].view(p.shape)
            at += p.numel()
        return self.plain(functional_call(self.model, parts, (x,)), y)

    def outputs(self, theta: Tensor, x: Tensor) -> Tensor:
        return Case.at(self._replace(plain=lambda z, _: z), theta, x, None)

    def dense(self) -> Tensor:
        """By torch.autograd: that of torch.func is another for the tokens, and wrong."""
        return torch.autograd.functional.hessian(
            lambda v: self.at(v, self.inputs, self.targets).mean(), self.theta
        )

    def gauss_newtons(self) -> Tensor:
        """(N, P, P) of every sample, from dense Jacobians."""
        found = []
        for x, y in zip(self.inputs.split(1), self.targets.split(1), strict=True):
            jacobian = torch.func.jacrev(lambda v, x=x: self.outputs(v, x))(self.theta)
            z = self.outputs(self.theta, x).detach()
            bend = torch.autograd.functional.hessian(lambda z, y=y: self.plain(z, y).sum(), z)
            jacobian = jacobian.reshape(-1, len(self.theta))
            bend = bend.reshape(len(jacobian), len(jacobian))
            found.append(jacobian.T @ bend @ jacobian)
        return torch.stack(found).detach()


def make_targets(kind: str, generator: torch.Generator) -> Tensor:
    shape = {"tokens": (SAMPLES, 3), "classes": (SAMPLES,), "bit": (SAMPLES,)}.get(
        kind, (SAMPLES, 3)
    )
    if kind in ("classes", "tokens"):
        return torch.randint(0, 3, shape, generator=generator)
    values = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (values > 0).double() if kind.startswith("bit") else values


@pytest.fixture(params=CASES, scope="module")
def problem(request) -> Case:
    spec, factory, kind, plain = CASES[request.param]
    generator = torch.Generator().manual_seed(11)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = factory().double()
    inputs = torch.randn(SAMPLES, 5, generator=generator, dtype=torch.float64)
    if kind == "tokens":
        inputs = torch.randint(0, 6, (SAMPLES, 3), generator=generator)
    targets = make_targets(kind, generator)
    objective = make_objective(model, inputs, targets, dtype=torch.float64, block=4, loss=spec)
    return Case(model, inputs, targets, flatten(model), objective, plain)


def directions(problem: Case, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(count, len(problem.theta), generator=generator, dtype=torch.float64)


def test_the_loss_is_that_of_the_samples(problem):
    expected = problem.at(problem.theta, problem.inputs, problem.targets).detach()
    found, _ = sample_losses(problem.objective, problem.theta)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


def test_products_are_with_the_dense_hessian(problem):
    expected = problem.dense()
    operator = hessian.hessian_operator(problem.objective, problem.theta)
    for v in directions(problem, 2):
        torch.testing.assert_close(operator @ v, expected @ v, rtol=1e-9, atol=1e-11)


def test_gauss_newton_products_and_forms_are_dense_ones(problem):
    dense = problem.gauss_newtons()
    vectors = directions(problem, 2)
    operator = gauss_newton.gauss_newton_operator(problem.objective, problem.theta)
    for v in vectors:
        torch.testing.assert_close(operator @ v, dense.mean(0) @ v, rtol=1e-9, atol=1e-11)
    forms = gauss_newton.sample_forms(problem.objective, problem.theta, vectors)
    expected = torch.einsum("kp,npq,kq->kn", vectors, dense, vectors)
    torch.testing.assert_close(forms, expected, rtol=1e-9, atol=1e-11)


def test_what_the_gauss_newton_matrix_leaves_is_that_of_every_sample(problem):
    """d'(H_i - G_i)d, with dense H_i by torch.autograd."""
    hessians = torch.stack(
        [
            torch.autograd.functional.hessian(
                lambda v, x=x, y=y: problem.at(v, x, y).sum(), problem.theta
            )
            for x, y in zip(problem.inputs.split(1), problem.targets.split(1), strict=True)
        ]
    )
    vectors = directions(problem, 2)
    found = trace.rest_of_samples(problem.objective, problem.theta, vectors)
    rest = hessians - problem.gauss_newtons()
    expected = torch.einsum("kp,npq,kq->kn", vectors, rest, vectors)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_exact_traces_are_those_of_the_dense_gauss_newton(problem):
    rows = gauss_newton.sample_traces(problem.objective, problem.theta)
    assert gauss_newton.is_exact(problem.objective, problem.theta)
    found = trace.of_samples(rows)
    expected = torch.diagonal(problem.gauss_newtons(), dim1=1, dim2=2)
    torch.testing.assert_close(found, expected.sum(1), rtol=1e-9, atol=1e-11)
    spread = trace.filter_spread(problem.theta, problem.objective.layout)
    found = trace.filter_curvature_of_samples(rows, problem.theta, problem.objective.layout)
    torch.testing.assert_close(found, expected @ spread.square(), rtol=1e-9, atol=1e-11)


def test_the_trace_of_a_piecewise_affine_network_is_the_hessians(problem, generator):
    found = trace.traces(problem.objective, problem.theta, rest_probes=64, generator=generator)
    expected = float(torch.trace(problem.dense()))
    assert found.exact == any(isinstance(m, nn.ReLU) for m in problem.model)
    if found.exact:
        assert found.hessian.value == pytest.approx(expected, rel=1e-9)
    else:
        assert abs(found.hessian.value - expected) < 5 * found.hessian.probe_se


def test_a_second_difference_of_a_surface_is_the_hessians_form(problem):
    (d,) = directions(problem, 1)
    found = surface.second_difference(problem.objective, problem.theta, d, 1e-4)
    assert found == pytest.approx(float(d @ problem.dense() @ d), rel=1e-4, abs=1e-5)


def test_the_ladder_finds_the_largest_eigenvalues(problem, generator, monkeypatch):
    """From an importance sample of a few of the samples."""
    monkeypatch.setattr(ladder, "FEWEST", 6)
    found = ladder.leading_eigenpairs(
        problem.objective, problem.theta, top=2, tolerance=1e-6, generator=generator
    )
    assert found.coarse_samples < SAMPLES
    expected = torch.linalg.eigvalsh(problem.dense()).flip(0)[:2]
    np.testing.assert_allclose(found.pairs.values, expected, rtol=1e-6)


def test_training_descends_the_gradient_of_the_loss(problem):
    model = copy.deepcopy(problem.model)
    backward = make_backward(model, problem.inputs, problem.targets, "cpu", problem.objective.loss)
    batch = torch.tensor([7, 2, 3])
    value = backward(batch)
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])

    def plain(theta):
        return problem.at(theta, problem.inputs[batch], problem.targets[batch]).mean()

    assert float(value) == pytest.approx(float(plain(problem.theta)), rel=1e-12)
    torch.testing.assert_close(gradient, torch.func.grad(plain)(problem.theta))


def test_paths_have_a_barrier_and_only_classes_an_error(problem):
    end = problem.theta + directions(problem, 1)[0]
    t = np.linspace(0, 1, 5)
    outputs = paths.logits_on(problem.objective, [problem.theta, end], paths.line(t))
    loss = problem.objective.loss
    found = paths.profile(t, outputs, problem.targets, loss)
    expected = [
        float(problem.at(problem.theta.lerp(end, s), problem.inputs, problem.targets).mean())
        for s in t
    ]
    np.testing.assert_allclose(found.means["loss"], expected, rtol=1e-11)
    assert np.isfinite(found.barriers["loss"].height)
    assert np.isfinite(found.means["tempered_loss"]).all() == loss.is_tempered
    if loss.is_tempered:
        assert (found.means["tempered_loss"] <= found.means["loss"] + 1e-9).all()
    accuracy = evaluate(problem.objective, problem.theta).accuracy
    assert found.means["error"][0] == pytest.approx(1 - accuracy, nan_ok=True)
    has_classes = problem.objective.loss.name == "binary-cross-entropy" or (
        loss.right is not None and not problem.targets.is_floating_point()
    )
    assert np.isfinite(accuracy) == has_classes


def test_surfaces_from_few_points_need_no_classes(problem, rng):
    """The multilevel estimate is made of what there is, within the error that it states."""
    axis = surface.centred_grid(1.0, 25)
    pair = directions(problem, 2) / 4
    found, levels = multilevel.plane(
        problem.objective, problem.theta, *pair, axis, axis, estimator="multilevel", generator=rng
    )
    expected = surface.plane(problem.objective, problem.theta, *pair, axis, axis)["loss"]
    known = levels.evaluated.reshape(25, 25)
    np.testing.assert_allclose(found["loss"][known], expected[known], rtol=1e-11)
    rise = np.abs(expected - expected[12, 12])
    unit = np.maximum(rise, found["rise_se"])
    off = np.abs(found["loss"] - expected)[~known] / unit[~known]
    if len(off):
        assert np.quantile(off, 0.95) <= levels.interpolation_error
    if problem.objective.loss.name in ("own", "mse"):
        assert len(off)


# The losses themselves


def test_the_cotangents_sum_to_the_second_derivative(problem):
    loss, z = problem.objective.loss, problem.outputs(problem.theta, problem.inputs).detach()
    flat = [
        (a.reshape(SAMPLES, -1), b.reshape(SAMPLES, -1))
        for a, b in cotangents(loss, z, problem.targets, generator=torch.Generator())
    ]
    total = sum(torch.einsum("nk,nl->nkl", a, b) for a, b in flat)
    for i in range(SAMPLES):
        y = problem.targets[i : i + 1]
        bend = torch.autograd.functional.hessian(
            lambda z, y=y: problem.plain(z, y).sum(), z[i : i + 1]
        )
        expected = bend.reshape(total[i].shape)
        torch.testing.assert_close(total[i], expected, rtol=1e-9, atol=1e-12)


def test_the_plain_cross_entropys_second_derivative_is_autograds(generator):
    z = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    y, u = torch.arange(6) % 4, torch.randn(6, 4, generator=generator, dtype=torch.float64)
    plain = make_loss()
    by_autograd = losses.Loss("other", plain.of_samples)
    expected = output_hessian(by_autograd, z, y)(u)
    torch.testing.assert_close(output_hessian(plain, z, y)(u), expected)


def test_of_too_many_outputs_the_trace_is_estimated_and_says_so(problem, monkeypatch):
    """All but that of the plain cross-entropy, which is always exact."""
    exact = trace.of_samples(gauss_newton.sample_traces(problem.objective, problem.theta))
    monkeypatch.setattr(losses, "MOST_OUTPUTS", 0)
    monkeypatch.setattr(losses, "PROBES", 100)
    is_plain = problem.objective.loss.is_plain(problem.targets)
    assert gauss_newton.is_exact(problem.objective, problem.theta) == is_plain
    found = trace.of_samples(gauss_newton.sample_traces(problem.objective, problem.theta))
    assert float(found.mean()) == pytest.approx(float(exact.mean()), rel=0.2)


@pytest.mark.parametrize("is_known", [True, False])
def test_estimates_of_two_samples_have_independent_errors(is_known, monkeypatch):
    monkeypatch.setattr(losses, "MOST_OUTPUTS", 2)
    model = nn.Linear(5, 3, dtype=torch.float64)
    if not is_known:
        monkeypatch.setattr(gauss_newton, "_known_layers", lambda *arguments: {})
    x = torch.ones(2 * gauss_newton.CHUNK, 5, dtype=torch.float64)
    mixed = make_loss(lambda outputs, targets: outputs.sum(1).square())
    objective = make_objective(
        model, x, torch.zeros(len(x)), dtype=torch.float64, loss=mixed, block=gauss_newton.CHUNK
    )
    rows = gauss_newton.sample_traces(objective, flatten(model))
    first, second = sum(part.sum(1) for part in rows.values()).split(gauss_newton.CHUNK)
    assert (first != second).any()
    assert (first - first.mean()).abs().max() > 0


@pytest.mark.parametrize("loss", ["cross-entropy", "mse"])
def test_the_model_may_be_one_layer(loss, generator):
    model = nn.Linear(4, 3, dtype=torch.float64)
    x = torch.randn(7, 4, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (7,), generator=generator)
    objective = make_objective(model, x, y, dtype=torch.float64, loss=loss)
    theta = flatten(model)

    def plain(v: Tensor) -> Tensor:
        z = functional_call(model, {"weight": v[:12].view(3, 4), "bias": v[12:]}, (x,))
        one_hot = nn.functional.one_hot(y, 3)
        return squared(z, one_hot).mean() if loss == "mse" else nn.functional.cross_entropy(z, y)

    found = trace.traces(objective, theta, rest_probes=2, generator=generator)
    expected = torch.autograd.functional.hessian(plain, theta).trace()
    assert found.exact
    assert found.hessian.value == pytest.approx(float(expected), rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.bool])
def test_classes_may_be_of_any_whole_type(dtype, generator):
    model, theta = affine(), flatten(affine())
    x, y = torch.randn(9, 5, generator=generator), torch.arange(9) % 2
    values = [
        hessian.hessian_operator(make_objective(model, x, targets), theta) @ theta
        for targets in (y, y.to(dtype))
    ]
    torch.testing.assert_close(*values)


def test_whole_numbers_of_one_output_are_no_classes(generator):
    x, y = torch.randn(6, 4, generator=generator), torch.arange(6)
    model = nn.Linear(4, 1)
    found = evaluate(make_objective(model, x, y, loss="mse"), flatten(model))
    expected = (model(x)[:, 0] - y).square().mean().detach()
    assert found.loss == pytest.approx(float(expected), rel=1e-6)
    assert np.isnan(found.accuracy)


def test_a_constant_gradient_has_no_second_derivative(generator):
    x, model = torch.randn(6, 4, generator=generator), nn.Linear(4, 2)
    l1 = make_loss(lambda outputs, targets: (outputs - targets).abs().mean(1))
    objective = make_objective(model, x, torch.randn(6, 2, generator=generator), loss=l1)
    theta = flatten(model)
    assert (hessian.hessian_operator(objective, theta) @ theta == 0).all()
    assert (hessian.sample_forms(objective, theta, theta[None]) == 0).all()


def test_a_log_says_the_units_that_a_loss_has(generator):
    x = torch.randn(6, 5, generator=generator)
    for loss, y, said in (("mse", x[:, :3], ""), ("cross-entropy", torch.arange(6) % 3, " nats, ")):
        told, model = [], affine()
        objective = make_objective(model, x, y, loss=loss)
        run = train(
            *(model, x, y, objective, objective),
            optimizer={"name": "SGD", "lr": 0.1},
            epochs=1,
            batch_size=3,
            evaluations_per_epoch=1,
            snapshots_per_epoch=1,
            generator=generator,
            tell=told.append,
        )
        expected = f"epoch 1 of 1: loss {run.history['train_loss'][-1]:.4g}{said}"
        assert told[0].startswith(expected)
        assert ("accuracy" in told[0]) == (said != "")


def test_accuracy_is_of_all_tokens():
    loss, outputs = make_loss(), torch.eye(3)[torch.tensor([[0, 1], [2, 2]])]
    right = loss.right(outputs, torch.tensor([[0, 1], [2, 0]]))
    assert right.tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    "spec",
    [
        "hinge",
        {"name": "mse", "label_smoothing": 0.1},
        {"name": "cross-entropy", "label_smoothing": 1.0},
        {"factory": "lossgeo.losses:nothing"},
    ],
)
def test_an_unknown_loss_is_refused(spec):
    with pytest.raises(ModelError, match="loss"):
        make_loss(spec)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda z, y: z.mean(), "one value for each"),
        (lambda z, y: z.detach().sum(1), "detached"),
        (lambda z, y: z.sum(1) / 0, "not finite"),
        (lambda z, y: z @ torch.ones(7), "failed"),
        (lambda z, y: (z - z.mean(0)).square().sum(1), "alone is another than beside others"),
        (lambda z, y: (z + torch.randn_like(z)).square().sum(1), "two calls"),
    ],
)
def test_a_loss_that_cannot_be_probed_is_refused(function, words):
    with pytest.raises(ModelError, match=words):
        losses.check_loss(make_loss(function), torch.eye(2, 3), torch.tensor([0, 1]))


def test_targets_that_do_not_fit_are_refused():
    for loss, targets in (("mse", torch.ones(2, 4)), ("cross-entropy", torch.ones(2))):
        with pytest.raises(ModelError, match="expected"):
            make_loss(loss).of_samples(torch.ones(2, 3), targets)
