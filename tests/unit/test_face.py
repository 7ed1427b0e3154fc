"""What `import lossgeo` gives: exact numbers, those of the workflow, and nothing else touched."""

import copy
import math
import random
import subprocess
import sys
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
import scipy
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lossgeo
from lossgeo import multilevel, paths, sharpness
from lossgeo.curvature import curvature
from lossgeo.directions import random_direction
from lossgeo.models import build
from lossgeo.numerics import numpy_generator, torch_generator
from lossgeo.objective import mean_and_error
from lossgeo.parameters import flatten, put, unflatten
from lossgeo.permutations import find_groups, permute
from lossgeo.results import with_error
from lossgeo.surface import centred_grid


@pytest.fixture(scope="module")
def model(mlp):
    """The network of the case at its theta, in training mode."""
    model = copy.deepcopy(mlp.model)
    put(model, mlp.theta)
    return model.train()


@pytest.fixture(scope="module")
def net(model, mlp):
    return lossgeo.Objective(model, mlp.inputs, mlp.targets)


@pytest.fixture(scope="module")
def other():
    return build({"family": "mlp", "width": 4}, (1, 6, 6), 3, seed=8).double()


@pytest.fixture(scope="module")
def results(net, other):
    return {
        "loss": net.loss(),
        "line": net.line(points=11, directions=2),
        "plane": net.plane(points=15),
        "spectrum": net.spectrum(3, steps=20),
        "trace": net.trace(),
        "sharpness": net.sharpness(),
        "barrier": net.barrier(other),
    }


RESULTS = ("loss", "line", "plane", "spectrum", "trace", "sharpness", "barrier")


# exact


def test_the_loss_is_that_of_plain_torch(net, mlp):
    found = net.loss()
    assert found.value == pytest.approx(float(mlp.loss(mlp.theta)), rel=1e-12)
    assert found.samples == 30


def test_the_trace_is_that_of_the_dense_hessian(net, mlp):
    found = net.trace()
    assert found.exact
    assert found.converged
    assert found.probe_se == 0
    assert found.value == pytest.approx(float(mlp.hessian.trace()), rel=1e-10)
    parts = [float(t) for t in torch.diagonal(mlp.hessian).split(mlp.objective.layout.sizes, 0)[0]]
    assert found.by_tensor["hidden.weight"][0] == pytest.approx(sum(parts), rel=1e-10)


def test_eigenvalues_are_those_of_the_dense_hessian(net, mlp):
    found = net.spectrum(4, bottom=2, max_steps=163, tolerance=1e-10)
    exact, vectors = torch.linalg.eigh(mlp.hessian)
    assert found.converged
    assert found.eigenvalues == pytest.approx(exact.flip(0)[:4].numpy(), rel=1e-9)
    assert found.smallest == pytest.approx(exact[:2].numpy(), rel=1e-9)
    assert abs(float(found.eigenvectors[0] @ vectors[:, -1])) == pytest.approx(1, abs=1e-8)
    assert not net.spectrum(4, steps=5, max_steps=5, tolerance=1e-10).converged


def test_a_line_bends_by_the_dense_hessian(net, mlp, generator):
    d = random_direction(mlp.theta, mlp.objective.layout, "filter", generator=generator)
    exact = float(d @ mlp.hessian @ d)
    found = net.line(d, distance=1e-3, points=3, estimator="full")
    assert found.value == pytest.approx(exact, rel=1e-10)
    low, centre, high = found.loss[0]
    assert (low - 2 * centre + high) / 1e-6 == pytest.approx(exact, rel=1e-3)
    assert found.loss[0, 2] == pytest.approx(float(mlp.loss(mlp.theta + 1e-3 * d)), rel=1e-12)


def test_along_eigenvectors_the_quadratic_rises_by_a_tenth(net, mlp):
    found = net.plane("eigenvectors", points=3)
    assert found.curvature == pytest.approx([0.2, 0.2], rel=1e-4)  # 2 * 0.1
    assert found.cosine == pytest.approx(0, abs=1e-6)
    assert found.alpha[-1] == 4
    top = float(torch.linalg.eigvalsh(mlp.hessian)[-1])
    spectrum = net.spectrum(2, bottom=0)
    moved = mlp.theta + 4 * math.sqrt(0.2 / top) * spectrum.eigenvectors[0]
    assert net.plane(spectrum, points=3).loss[2, 1] == pytest.approx(float(mlp.loss(moved)), 1e-4)


def test_sharpness_is_the_largest_rise_of_the_quadratic(net, mlp):
    radius = 1e-3
    gradient, h = torch.func.grad(mlp.loss)(mlp.theta), mlp.hessian
    values, vectors = torch.linalg.eigh(h)
    along = vectors.T @ gradient

    def length(shift):  # of u = (shift - H)^-1 grad L
        return float((along / (shift - values)).norm())

    top = float(values[-1])
    shift = scipy.optimize.brentq(lambda s: length(s) - radius, top + 1e-6, top + 1e6, xtol=1e-12)
    u = vectors @ (along / (shift - values))
    found = net.sharpness(radius, steps=20)
    assert found.converged
    assert found.value == pytest.approx(float(gradient @ u + u @ h @ u / 2), rel=1e-3)
    assert found.first_order == pytest.approx(radius * float(gradient.norm()), rel=1e-10)
    assert not net.sharpness(2.0, steps=1).converged


def test_the_barrier_is_that_of_plain_torch(net, mlp, other):
    found = net.barrier(other, points=11)
    a, b, t = mlp.theta, flatten(other), np.linspace(0, 1, 11)
    losses = np.array([float(mlp.loss((1 - x) * a + x * b)) for x in t])
    rises = losses - ((1 - t) * losses[0] + t * losses[-1])
    assert found.loss == pytest.approx(losses, rel=1e-12)
    assert found.value == pytest.approx(max(0, rises[1:-1].max()), abs=1e-12)
    assert found.at == pytest.approx(t[1 + rises[1:-1].argmax()])


@pytest.mark.parametrize("kind", ["model", "objective", "state dict"])
def test_no_barrier_to_a_permuted_copy_once_it_is_aligned(net, model, mlp, kind):
    groups = find_groups(model)
    twin = copy.deepcopy(model)
    put(twin, permute(mlp.theta, mlp.objective.layout, groups, [torch.tensor([2, 3, 1, 0])]))
    given = {
        "model": twin,
        "objective": lossgeo.Objective(twin, mlp.inputs, mlp.targets),
        "state dict": twin.state_dict(),
    }[kind]
    assert net.barrier(given).value > 0.01
    found = net.barrier(given, aligned=True)
    assert found.value == pytest.approx(0, abs=1e-12)
    assert found.permuted == 4
    assert found.aligned


# the same numbers as the workflow's


def test_numbers_are_the_workflows(net, mlp, other):
    own = mlp.objective  # with other blocks: sums are in another order
    alphas = centred_grid(1.0, 11)
    directions = [
        random_direction(
            mlp.theta, own.layout, "filter", generator=torch_generator("line", 0, index)
        )
        for index in range(2)
    ]
    lines, levels = multilevel.lines(
        own, mlp.theta, directions, alphas, estimator="multilevel",
        generator=numpy_generator("line levels", 0),
    )  # fmt: skip
    found = net.line(points=11, directions=2)
    assert found.loss == pytest.approx(lines["loss"], rel=1e-12)
    assert found.rise_se == pytest.approx(lines["rise_se"], rel=1e-6)
    assert (found.evaluated == levels.evaluated).all()

    settings = {"top": 3, "bottom": 1, "probes": 1, "steps": 20, "max_steps": 80}
    whole = curvature(
        own, mlp.theta, rest_probes=10, tolerance=1e-3,
        generator=torch_generator("spectrum", 0), **settings,
    )  # fmt: skip
    spectrum, trace = net.spectrum(3, steps=20), net.trace()
    assert spectrum.eigenvalues == pytest.approx(whole.spectrum.top.values, rel=1e-8)
    errors = whole.largest["hessian"].standard_errors
    assert spectrum.standard_errors == pytest.approx(errors, rel=1e-5)
    assert (trace.value, trace.se) == pytest.approx((whole.trace.value, whole.trace.se), rel=1e-10)
    assert trace.filter_curvature[0] == pytest.approx(whole.filter_curvature.value, rel=1e-10)

    worst = sharpness.worst_case(own, mlp.theta, [0.1], 10, scale=mlp.theta.abs())
    elementwise = net.sharpness(0.1, ball="elementwise")
    assert elementwise.rises == pytest.approx(worst.best[0], rel=1e-9)
    assert elementwise.se == pytest.approx(float(mean_and_error(worst.rises[0])[1]), rel=1e-6)

    t = np.linspace(0, 1, 25)
    logits = paths.logits_on(own, [mlp.theta, flatten(other)], paths.line(t))
    profile = paths.profile(t, logits, own.targets).barriers["loss"]
    barrier = net.barrier(other)
    assert (barrier.value, barrier.se) == pytest.approx((profile.height, profile.height_se))


def test_what_probes_add_to_the_error_of_a_trace_is_said(mlp):
    layers = nn.Sequential(nn.Flatten(), nn.Linear(36, 4), nn.GELU(), nn.Linear(4, 3))
    found = lossgeo.Objective(layers, mlp.inputs, mlp.targets, dtype=torch.float64).trace(probes=5)
    assert not found.exact
    assert found.probe_se > 0
    assert found.se == pytest.approx(math.hypot(found.sample_se, found.probe_se))
    assert "over 5 probes" in repr(found)
    assert found.converged == (found.probe_se <= found.sample_se)


# nothing is touched


def test_model_settings_and_random_state_stay_as_they_are(model, mlp, other, results):
    before = copy.deepcopy(model.state_dict())
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    settings = (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_deterministic_debug_mode(),
        dict(matplotlib.rcParams),
    )
    loader = DataLoader(TensorDataset(mlp.inputs, mlp.targets), batch_size=7, shuffle=True)
    net = lossgeo.Objective(model, loader)
    net.plane(points=15).plot(Figure().add_subplot())
    net.spectrum(2, steps=10)
    net.barrier(other, aligned=True)
    assert model.training
    assert all(torch.equal(model.state_dict()[name], before[name]) for name in before)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()  # noqa: NPY002
    assert random.getstate() == states[2]
    assert settings == (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.get_deterministic_debug_mode(),
        dict(matplotlib.rcParams),
    )


def test_training_the_model_on_does_not_move_the_objective(model, mlp):
    mine = copy.deepcopy(model)
    inputs = mlp.inputs.clone()
    net = lossgeo.Objective(mine, inputs, mlp.targets)
    before = net.loss().value
    with torch.no_grad():
        next(mine.parameters()).zero_()
        inputs.zero_()
        net.theta.zero_()
    assert net.loss().value == before


def test_one_seed_gives_one_set_of_numbers(model, mlp):
    def numbers(seed):
        net = lossgeo.Objective(model, mlp.inputs, mlp.targets, seed=seed)
        return [net.plane(points=3).value, *net.spectrum(2, steps=8, max_steps=8).nodes[0]]

    assert numbers(0) == numbers(0)
    assert numbers(0) != numbers(1)
    net = lossgeo.Objective(model, mlp.inputs, mlp.targets)
    assert net.line(seed=1).value != net.line().value == net.line(seed=0).value


def test_the_callers_modes_of_torch_do_not_count(model, mlp, net):
    def numbers():
        own = lossgeo.Objective(model, mlp.inputs, mlp.targets)
        return own.line(points=3).value, own.trace().value

    expected = numbers()
    with torch.no_grad():
        assert numbers() == expected
    with torch.inference_mode(), torch.autocast("cpu"):
        assert numbers() == expected
    torch.set_default_dtype(torch.float64)
    try:
        assert numbers() == expected
    finally:
        torch.set_default_dtype(torch.float32)


# inputs


def test_samples_come_in_any_way(model, mlp, net):
    pairs = list(zip(mlp.inputs.split(7), mlp.targets.split(7), strict=True))
    data = TensorDataset(mlp.inputs, mlp.targets)
    given = [
        (mlp.inputs.numpy(), mlp.targets.numpy().astype("uint8")),
        (pairs,),
        (iter(pairs),),
        (data,),
        (DataLoader(data, batch_size=4),),
    ]
    for args in given:
        assert lossgeo.Objective(model, *args).loss().value == pytest.approx(net.loss().value)
    few = lossgeo.Objective(model, DataLoader(data, batch_size=4), samples=10)
    assert few.samples == 10
    whole = lossgeo.Objective(model, mlp.inputs[:10], mlp.targets[:10])
    assert few.loss().value == pytest.approx(whole.loss().value)
    shuffled = [
        lossgeo.Objective(model, DataLoader(data, batch_size=4, shuffle=True), samples=10)
        for _ in range(2)
    ]
    assert shuffled[0].loss().value == shuffled[1].loss().value


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": 3}, "model is a int, expected a torch.nn.Module"),
        ({"model": nn.Flatten()}, "no parameters"),
        ({"targets": torch.zeros(29).long()}, r"6, 6\) and targets of shape \(29,\)"),
        ({"targets": torch.zeros(30)}, r"expected integer targets \(2,\)"),
        ({"targets": torch.full((30,), 3)}, "targets are 3 to 3, expected classes 0 to 2"),
        ({"targets": None}, "inputs were given without targets"),
        ({"inputs": torch.zeros(30, 1, 5, 5)}, r"failed on inputs of shape \(2, 1, 5, 5\)"),
        ({"inputs": [], "targets": None}, "there is no batch"),
        ({"inputs": [torch.zeros(1)], "targets": None}, "a batch is a Tensor, expected a pair"),
        ({"inputs": 3, "targets": None}, "inputs are a int without targets, expected batches"),
        ({"inputs": [object()] * 30}, "a list is no array of numbers"),
        ({"loss": "hinge"}, "the loss is {'name': 'hinge'}, expected one of cross-entropy"),
        ({"loss": lambda z, y: z.sum()}, r"of 2 samples is \(\), expected one value for each"),
        ({"parameters": "head.*"}, r"no parameter matches 'head.\*'; expected a pattern"),
        ({"statistics": "some"}, "statistics is 'some', expected one of frozen, recalibrated"),
        ({"samples": 0}, "samples are 0, expected at least 1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(model, mlp, arguments, message):
    good = {"model": model, "inputs": mlp.inputs, "targets": mlp.targets}
    with pytest.raises(ValueError, match=message):
        lossgeo.Objective(**(good | arguments))


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("line", {"points": 4}, "has no centre: take an odd number"),
        ("line", {"distance": 0}, "distance is 0, expected a positive number"),
        ("line", {"directions": 0}, "directions are 0, expected at least 1"),
        ("line", {"direction": torch.zeros(3)}, r"has shape \(3,\), expected \(163,\)"),
        ("line", {"normalization": "x"}, "normalization is 'x', expected one of"),
        ("plane", {"axes": "pca"}, "axes are 'pca', expected 'random', 'eigenvectors'"),
        ("plane", {"axes": [torch.zeros(163)]}, "1 axes were given, expected two"),
        ("plane", {"estimator": "some"}, "estimator is 'some', expected one of"),
        ("spectrum", {"top": 0}, "top is 0, bottom 1 and probes 1, expected at least"),
        ("trace", {"probes": 1}, "probes are 1, expected at least 2"),
        ("sharpness", {"ball": "round"}, "ball is 'round', expected 'euclidean' or"),
        ("sharpness", {"radius": -1}, "radius is -1, expected a positive number"),
        ("sharpness", {"steps": 0}, "steps are 0, expected at least 1"),
        ("barrier", {"other": 3}, "the other network is a int, expected"),
        ("barrier", {"other": {}}, "the state dict does not fit the model"),
        ("barrier", {"other": nn.Linear(2, 2)}, r"has none: hidden.weight of shape \(4, 36\)"),
    ],
)
def test_a_measurement_that_cannot_be_made_says_why(net, method, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(net, method)(**arguments)


def test_directions_that_move_no_parameter_are_refused(model, mlp):
    biases = lossgeo.Objective(model, mlp.inputs, mlp.targets, parameters="*.bias")
    for method in (biases.line, biases.plane):
        with pytest.raises(ValueError, match="'filter', and all parameters are vectors"):
            method()
    assert biases.line(normalization="model").curvature != 0


def test_a_network_whose_units_are_not_known_takes_a_table(mlp):
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(36, 4), nn.Linear(4, 3)

        def forward(self, x):
            return self.last(torch.relu(self.first(x.flatten(1))))

    one, two = Other(), Other()
    state = one.state_dict()
    flipped = {name: state[name].flip(0) for name in ("first.weight", "first.bias")}
    two.load_state_dict(state | flipped | {"last.weight": state["last.weight"].flip(1)})
    with pytest.raises(ValueError, match="units of Other can change places is not known"):
        lossgeo.Objective(one, mlp.inputs, mlp.targets).barrier(two, aligned=True)
    table = {"hidden": {"first.weight": 0, "first.bias": 0, "last.weight": 1}}
    net = lossgeo.Objective(one, mlp.inputs, mlp.targets, permutations=table)
    aligned = net.barrier(two, aligned=True)
    assert aligned.value < 1e-5
    assert aligned.permuted == 4
    wrong = {"hidden": {"first.weight": 0, "last.weight": 1}}
    net = lossgeo.Objective(one, mlp.inputs, mlp.targets, permutations=wrong)
    with pytest.raises(ValueError, match="in no group, and of a fitting length"):
        net.barrier(two, aligned=True)


# losses and parts


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        ("mse", "numbers"),
        (nn.MSELoss(), "classes"),
        (nn.SmoothL1Loss(), "numbers"),
        (nn.CrossEntropyLoss(label_smoothing=0.1), "classes"),
        (nn.BCEWithLogitsLoss(), "shares"),
        (lambda z, y: (z - y).square().sum(1) / 2, "numbers"),
    ],
)
def test_any_loss_is_that_of_plain_torch(model, mlp, other, loss, targets):
    numbers = torch.sin(mlp.inputs.flatten(1)[:, :3])
    y = {"numbers": numbers, "shares": numbers.sigmoid(), "classes": mlp.targets}[targets]
    net = lossgeo.Objective(model, mlp.inputs, y, loss=loss)

    def plain(theta):
        shaped = unflatten(theta, mlp.objective.layout)
        z = torch.func.functional_call(mlp.model, shaped, (mlp.inputs,))
        if isinstance(loss, nn.MSELoss):
            return (z - nn.functional.one_hot(y, 3)).square().mean()
        return nn.functional.mse_loss(z, y) if loss == "mse" else loss(z, y).mean()

    assert net.loss().value == pytest.approx(float(plain(mlp.theta)), rel=1e-10)
    hessian = torch.autograd.functional.hessian(plain, mlp.theta)
    trace = net.trace(probes=3)
    assert abs(trace.value - float(hessian.trace())) <= max(6 * trace.probe_se, 1e-9)
    top = net.spectrum(1, bottom=0, max_steps=163, tolerance=1e-8).value
    assert top == pytest.approx(float(torch.linalg.eigvalsh(hessian)[-1]), rel=1e-6)
    barrier = net.barrier(other, points=3)
    middle = float(plain((mlp.theta + flatten(other)) / 2))
    assert barrier.loss[1] == pytest.approx(middle, rel=1e-10)
    for result in (net.loss(), barrier, net.plane(points=3)):
        assert " nan" not in repr(result)
        assert ("nats" in repr(result)) == (result.units == "nats")
        result.plot(Figure().add_subplot())


def test_a_part_of_the_parameters_has_its_block_of_the_hessian(model, mlp, other):
    net = lossgeo.Objective(model, mlp.inputs, mlp.targets, parameters="output.*")
    assert net.parameters == 15
    block = mlp.hessian[-15:, -15:]
    assert net.trace().value == pytest.approx(float(block.trace()), rel=1e-10)
    top = net.spectrum(2, bottom=0, max_steps=15).value
    assert top == pytest.approx(float(torch.linalg.eigvalsh(block)[-1]), rel=1e-6)
    moved = torch.cat([mlp.theta[:-15], flatten(other)[-15:]])
    assert net.barrier(other, points=3).loss[2] == pytest.approx(float(mlp.loss(moved)), rel=1e-10)
    assert all(p.requires_grad for p in model.parameters())


# batch normalisation


def normalised(seed):
    """A network with batch normalisation after two batches in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [nn.Flatten(), nn.Linear(36, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)]
        model = nn.Sequential(*layers).double()
        for _ in range(2):
            model(torch.randn(10, 1, 6, 6, dtype=torch.float64))
    return model


def test_frozen_statistics_are_interpolated_and_recalibrated_ones_are_of_the_batch(mlp):
    a, b = normalised(0), normalised(1)

    @torch.no_grad()
    def loss(model):
        return float(nn.functional.cross_entropy(model(mlp.inputs), mlp.targets))

    with pytest.raises(ValueError, match="say which are meant, by statistics: frozen"):
        lossgeo.Objective(a, mlp.inputs, mlp.targets)
    net = lossgeo.Objective(a, mlp.inputs, mlp.targets, statistics="frozen")
    middle = copy.deepcopy(a).eval()
    state = {k: (v + b.state_dict()[k]) / 2 for k, v in a.state_dict().items()}
    middle.load_state_dict(state)
    found = net.barrier(b, points=3)
    ends = [loss(copy.deepcopy(model).eval()) for model in (a, b)]
    assert found.loss == pytest.approx([ends[0], loss(middle), ends[1]], rel=1e-12)
    assert net.barrier(b.state_dict(), points=3).loss == pytest.approx(found.loss)
    with pytest.raises(ValueError, match="give Objective statistics='recalibrated'"):
        net.barrier(b, aligned=True)
    assert found.to_xarray().attrs["statistics"] == "frozen"
    plain = lossgeo.Objective(mlp.model, mlp.inputs, mlp.targets)
    assert "statistics" not in plain.loss().to_xarray().attrs
    again = lossgeo.Objective(a, mlp.inputs, mlp.targets, statistics="recalibrated")
    a[2].reset_running_stats()
    a[2].momentum = None
    a.train()(mlp.inputs)
    assert again.loss().value == pytest.approx(loss(a.eval()), rel=1e-9)
    with pytest.raises(ValueError, match=r"has no running statistics 2\.running_mean"):
        net.barrier(nn.Sequential(*a[:2], nn.BatchNorm1d(4, track_running_stats=False), *a[3:]))


# results


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_says_its_number_with_its_error(results, name):
    said = repr(results[name])
    assert with_error(results[name].value, results[name].se) in said or name == "plane"
    assert "standard error" in said
    assert len(said.splitlines()) <= 3


@pytest.mark.parametrize(
    ("value", "se", "said"),
    [
        (12.345, 0.421, "12.35 ± 0.42"),
        (12345.6, 432, "12346 ± 432"),
        (0.00123, 0.00001, "0.001230 ± 0.000010"),
        (1.23e-9, 4.2e-11, "(1.230 ± 0.042)e-09"),
        (1e9, 3e7, "(1.000 ± 0.030)e+09"),
        (1.0, 1e-12, "1 ± 1.0e-12"),
        (0.0, 0.0, "0 ± 0"),
        (math.nan, math.nan, "nan ± nan"),
        (-0.5, 0.25, "-0.50 ± 0.25"),
    ],
)
def test_numbers_are_rounded_to_their_error(value, se, said):
    assert with_error(value, se) == said


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_draws_itself_on_given_axes(results, name):
    axes = Figure().add_subplot()
    assert results[name].plot(ax=axes) is axes
    assert axes.get_ylabel() or axes.get_xlabel()
    assert axes.has_data()


def test_a_result_makes_its_own_figure(results):
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    axes = results["plane"].plot()
    (number,) = set(pyplot.get_fignums()) - set(before)
    assert pyplot.figure(number) is axes.figure
    pyplot.close(number)


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_a_data_set(results, name):
    found = results[name].to_xarray()
    numbers = [v for v in found.attrs.values() if v == results[name].value]
    assert numbers
    assert found.attrs["samples"] == 30
    assert all(v.attrs["units"] for v in found.variables.values())


def test_data_sets_have_named_dimensions(results):
    assert dict(results["plane"].to_xarray().sizes) == {"alpha": 15, "beta": 15, "axis": 2}
    line = results["line"].to_xarray()
    assert dict(line.sizes) == {"direction": 2, "alpha": 11}
    assert float(line.loss.sel(alpha=0)[0]) == results["line"].loss[0, 5]
    assert dict(results["spectrum"].to_xarray().sizes)["parameter"] == 163
    assert next(iter(results["trace"].to_xarray().tensor)) == "hidden.weight"


def test_without_xarray_one_line_says_what_to_install(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "xarray", None)
    with pytest.raises(ImportError, match=r"pip install lossgeo\[xarray\]"):
        results["plane"].to_xarray()


def test_a_surface_for_paraview_reads_back(results, tmp_path):
    plane = results["plane"]
    path = plane.to_vtk(tmp_path / "plane.vts", log=True)
    piece = ET.parse(path).getroot().find("StructuredGrid/Piece")
    assert piece.get("Extent") == "0 14 0 14 0 0"

    def numbers(array):
        return np.array(array.text.split(), dtype=float)

    points = numbers(piece.find("Points/DataArray")).reshape(15, 15, 3)  # beta, alpha
    assert (points[3, :, 0] == plane.alpha).all()
    assert (points[:, 3, 1] == plane.beta).all()
    assert (points[..., 2] == np.log10(plane.loss).T).all()
    found = {array.get("Name"): numbers(array) for array in piece.find("PointData")}
    assert set(found) == {"loss", "loss_se", "rise_se", "accuracy", "evaluated"}
    assert (plane.loss == found["loss"].reshape(15, 15).T).all()
    assert (plane.evaluated == found["evaluated"].reshape(15, 15).T).all()
    with pytest.raises(ValueError, match=r"expected a name that ends in .vts"):
        plane.to_vtk(tmp_path / "plane.vtk")


def test_where_the_loss_is_not_finite_results_say_so(mlp, model, tmp_path):
    wild = copy.deepcopy(model)
    put(wild, mlp.theta * 1e200)
    net = lossgeo.Objective(wild, mlp.inputs, mlp.targets)
    plane, spectrum = net.plane(points=3), net.spectrum(2)
    assert not plane.converged
    assert "not finite" in repr(plane)
    assert not spectrum.converged
    assert "not converged" in repr(spectrum)
    assert "nan" not in plane.to_vtk(tmp_path / "wild.vts").read_text().split("<Points>")[1]
    for result in (plane, spectrum, net.line(points=3), net.sharpness(), net.trace()):
        result.plot(Figure().add_subplot())
        assert not result.converged


# the package


def test_the_package_is_imported_without_torch():
    code = (
        "import sys, lossgeo, lossgeo.sections\n"
        "assert lossgeo.__version__ and 'Objective' in dir(lossgeo)\n"
        "assert not {'torch', 'h5py', 'matplotlib'} & set(sys.modules), 'heavy'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": "scripts"})
    with pytest.raises(AttributeError, match="no attribute 'landscape'"):
        _ = lossgeo.landscape
