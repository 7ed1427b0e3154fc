"""Losses on a span are the model's own at each point, short cut or not, and leave no trace."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.func import functional_call

from lossgeo.objective import make_objective, summarise
from lossgeo.parameters import flatten
from lossgeo.span import CHUNK, ELEMENTWISE, dense_layers, spanned, summaries

CLASSES = 3
PIXELS = 12  # of inputs (1, 3, 4)


def softmax_regression() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, CLASSES))


def deep() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(PIXELS, 7),
        nn.Tanh(),
        nn.Linear(7, 6, bias=False),
        nn.GELU(),
        nn.Dropout(0.5),
        nn.Linear(6, 5),
        nn.ReLU(),
        nn.Linear(5, CLASSES),
    )


def without_a_first_bias() -> nn.Module:
    """And with two linear layers in a row, in-place activations, one of them at the end."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(PIXELS, 5, bias=False),
        nn.ELU(inplace=True),
        nn.Linear(5, 4),
        nn.Linear(4, CLASSES),
        nn.LeakyReLU(0.2, inplace=True),
    )


def twelve_layers() -> nn.Module:
    """The first linear one is called 1, the last 10."""
    hidden = [layer for _ in range(4) for layer in (nn.Linear(5, 5), nn.Tanh())]
    return nn.Sequential(
        nn.Flatten(), nn.Linear(PIXELS, 5), *hidden, nn.Linear(5, CLASSES), nn.Identity()
    )


class Subclass(nn.Sequential):
    """A Sequential that computes something else than its layers in a row."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def subclass_of_sequential() -> nn.Module:
    return Subclass(nn.Flatten(), nn.Linear(PIXELS, 4), nn.Tanh(), nn.Linear(4, CLASSES))


class Tied(nn.Module):
    """A custom network in which one matrix is used twice, the second time transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.there = nn.Linear(PIXELS, 4)
        self.back = nn.Linear(4, PIXELS, bias=False)
        self.back.weight = nn.Parameter(torch.randn(PIXELS, 4))
        self.out = nn.Linear(PIXELS, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.there(x.flatten(1)))
        return self.out(self.back(hidden) + nn.functional.linear(hidden, self.there.weight.T))


def convolutional() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(2 * PIXELS, CLASSES)
    )


def normalised() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(PIXELS, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, CLASSES)
    )


def tied_layers() -> nn.Module:
    hidden = nn.Linear(5, 5)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(PIXELS, 5),
        nn.Tanh(),
        hidden,
        nn.Sigmoid(),
        hidden,
        nn.Linear(5, CLASSES),
    )


DENSE = [softmax_regression, deep, without_a_first_bias, twelve_layers]
PLAIN = [convolutional, normalised, Tied, subclass_of_sequential, tied_layers]


def problem(factory, vectors: int, samples: int = 17, block: int = 7, dtype=torch.float64):
    """A model, the objective on some of its samples, K vectors and the samples themselves."""
    generator = torch.Generator().manual_seed(11)
    models = []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            models.append(factory().double().eval())
    model, mould = models
    inputs = torch.randn(samples, 1, 3, 4, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, CLASSES, (samples,), generator=generator)
    size = sum(p.numel() for p in model.parameters())
    span = [0.5 * torch.randn(size, generator=generator).double() for _ in range(vectors)]
    objective = make_objective(mould, inputs, targets, dtype=dtype, block=block)
    return model, objective, span, inputs, targets


def plain(model, inputs, targets, vectors, coefficients) -> tuple[np.ndarray, np.ndarray]:
    """The oracle: losses (M, N) and whether right (M, N), one theta after the other, by torch."""
    losses, correct = [], []
    for row in coefficients:
        theta = sum(float(c) * v for c, v in zip(row, vectors, strict=True))
        parameters, at = {}, 0
        for name, parameter in model.named_parameters():
            parameters[name] = theta[at : at + parameter.numel()].reshape(parameter.shape)
            at += parameter.numel()
        with torch.no_grad():
            logits = functional_call(model, parameters, (inputs,))
        losses.append(nn.functional.cross_entropy(logits, targets, reduction="none"))
        correct.append(logits.argmax(1) == targets)
    return torch.stack(losses).numpy(), torch.stack(correct).numpy()


def points(count: int, vectors: int, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1.5, 1.5, (count, vectors))


def assert_plain(factory, vectors: int, count: int, **kwargs) -> None:
    model, objective, span, inputs, targets = problem(factory, vectors, **kwargs)
    coefficients = points(count, vectors)
    losses, correct = spanned(objective, span)(coefficients)
    exact, right = plain(model, inputs, targets, span, coefficients)
    assert losses.dtype == objective.dtype
    np.testing.assert_allclose(losses, exact, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(correct, right)
    assert 0 < right.mean() < 1, "samples that are all right, or all wrong, would prove little"


@pytest.mark.kernels
@pytest.mark.parametrize("count", [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3])
@pytest.mark.parametrize("vectors", [1, 2, 3])
@pytest.mark.parametrize("factory", DENSE)
def test_the_short_cut_is_the_models_loss_at_every_point(factory, vectors, count):
    """For each sample and whatever number of points, in blocks of which the last is smaller."""
    assert dense_layers(factory()) is not None
    assert_plain(factory, vectors, count)


@pytest.mark.parametrize("count", [1, CHUNK + 1])
@pytest.mark.parametrize("factory", PLAIN)
def test_all_other_networks_get_the_models_loss_at_every_point_too(factory, count):
    assert dense_layers(factory()) is None
    assert_plain(factory, 3, count)


@pytest.mark.kernels
@pytest.mark.parametrize(("samples", "block"), [(17, 1), (17, 16), (17, 17), (6, 100), (2, 1)])
@pytest.mark.parametrize("factory", [softmax_regression, deep, convolutional])
def test_the_losses_do_not_depend_on_the_size_of_the_blocks(factory, samples, block):
    assert_plain(factory, 2, CHUNK + 2, samples=samples, block=block)


@pytest.mark.parametrize("vectors", [1, 2, 3])
def test_the_studys_networks_have_their_own_loss_on_a_span(case, vectors):
    rng = torch.Generator().manual_seed(4)
    span = [case.theta] + [
        0.3 * torch.randn(len(case.theta), generator=rng).double() for _ in range(vectors - 1)
    ]
    coefficients = points(CHUNK + 4, vectors)
    losses, correct = spanned(case.objective, span)(coefficients)
    exact, right = plain(case.model, case.inputs, case.targets, span, coefficients)
    assert (dense_layers(case.objective.model) is not None) == (case.family == "mlp")
    np.testing.assert_allclose(losses, exact, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(correct, right)


@given(
    st.integers(1, 3), st.integers(1, 2 * CHUNK), st.integers(1, 9), st.integers(1, 10), st.data()
)
def test_widths_points_samples_and_blocks_of_any_size_agree(vectors, count, samples, block, data):
    """The whole space of dense networks that a study may name, from their list of layers."""
    widths = data.draw(st.lists(st.integers(1, 4), max_size=3), label="widths")
    kinds = data.draw(st.lists(st.sampled_from(ELEMENTWISE), min_size=3, max_size=3), label="kinds")
    biases = data.draw(st.lists(st.booleans(), min_size=4, max_size=4), label="biases")

    def factory() -> nn.Module:
        layers, width = [nn.Flatten()], PIXELS
        for out, bias, kind in zip(widths, biases, kinds, strict=False):
            layers += [nn.Linear(width, out, bias=bias), kind()]
            width = out
        return nn.Sequential(*layers, nn.Linear(width, CLASSES, bias=biases[-1]))

    assert dense_layers(factory()) is not None
    model, objective, span, inputs, targets = problem(factory, vectors, samples, block)
    coefficients = points(count, vectors)
    losses, correct = spanned(objective, span)(coefficients)
    exact, _ = plain(model, inputs, targets, span, coefficients)
    np.testing.assert_allclose(losses, exact, rtol=1e-12, atol=1e-12)
    assert losses.shape == correct.shape == (count, samples)


@pytest.mark.kernels
@pytest.mark.parametrize("factory", [*DENSE, convolutional])
def test_float32_agrees_with_float64(factory):
    """To the rounding of a few layers."""
    model, objective, span, inputs, targets = problem(factory, 3, dtype=torch.float32)
    coefficients = points(2 * CHUNK + 3, 3)
    losses, _ = spanned(objective, span)(coefficients)
    exact, _ = plain(model, inputs, targets, span, coefficients)
    assert losses.dtype == torch.float32
    np.testing.assert_allclose(losses, exact, rtol=1e-5, atol=1e-5)


# Summaries, a chunk at a time

COUNTS = [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 3]


@pytest.mark.kernels
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("factory", [softmax_regression, deep, convolutional])
def test_summaries_are_those_of_all_points_at_once(factory, dtype, count):
    """Below, at and above the size of a chunk, and of several."""
    _, objective, span, _, _ = problem(factory, 3, dtype=dtype)
    losses, coefficients = spanned(objective, span), points(count, 3)
    found, expected = summaries(losses, coefficients), summarise(*losses(coefficients))
    assert set(found) == set(expected) == {"loss", "loss_se", "accuracy"}
    for name, values in expected.items():
        assert found[name].shape == (count,)
        assert found[name].dtype == values.dtype
        np.testing.assert_allclose(found[name], values, rtol=1e-14, atol=0)
    assert np.isfinite(found["loss"]).all()
    assert len(set(found["loss"])) == count, "else the order of the points would not matter"


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_summaries_keep_losses_that_are_not_finite_at_their_points(count, bad):
    """At a single point, and where a vector is not finite, everywhere."""
    generator = torch.Generator().manual_seed(2)
    table = torch.rand(count, 6, generator=generator, dtype=torch.float64)
    table[count // 2, 3] = bad
    right = torch.rand(count, 6, generator=generator) < 0.5
    coefficients = np.arange(float(count))[:, np.newaxis]

    def losses(c: np.ndarray) -> tuple[Tensor, Tensor]:
        rows = c[:, 0].astype(int)
        return table[rows], right[rows]

    found, expected = summaries(losses, coefficients), summarise(table, right)
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-14, atol=0)
    np.testing.assert_array_equal(np.isfinite(found["loss"]), np.arange(count) != count // 2)
    _, objective, span, _, _ = problem(deep, 2)
    span[1][0] = bad
    nowhere = summaries(spanned(objective, span), points(count, 2))
    for values in nowhere.values():
        assert values.shape == (count,)
        assert np.isnan(values).all()


def test_the_standard_error_of_a_rise_is_that_of_paired_differences():
    """Samples that all rise alike leave no error, however much their losses differ."""
    generator = torch.Generator().manual_seed(0)
    at_theta = 10 * torch.rand(40, generator=generator, dtype=torch.float64)
    rises = torch.rand(3, 40, generator=generator, dtype=torch.float64)
    rises[1] = 0.5
    table = at_theta + rises

    def losses(coefficients):
        return table, torch.zeros_like(table, dtype=torch.bool)

    found = summaries(losses, np.zeros((3, 2)), at_theta)
    exact = rises.numpy().std(1, ddof=1) / np.sqrt(40)
    np.testing.assert_allclose(found["rise_se"], exact, atol=1e-14)
    assert found["loss_se"].min() > 0.3
    assert set(summaries(losses, np.zeros((3, 2)))) == set(found) - {"rise_se"}


@pytest.mark.parametrize("count", COUNTS)
def test_summaries_never_ask_for_more_points_than_a_chunk_at_once(count):
    """Each point once, in their order: what is held in memory does not grow with the points."""
    coefficients, calls = points(count, 2), []

    def losses(c: np.ndarray) -> tuple[Tensor, Tensor]:
        calls.append(c)
        both = torch.as_tensor(c)
        return both, both > 0

    found = summaries(losses, coefficients)
    assert max(map(len, calls)) <= CHUNK
    np.testing.assert_array_equal(np.concatenate(calls), coefficients)
    np.testing.assert_allclose(found["loss"], coefficients.mean(axis=1), rtol=1e-14)


# Which networks are dense


@pytest.mark.parametrize("kind", ELEMENTWISE)
def test_a_dense_network_may_have_every_elementwise_layer(kind):
    def factory() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 4), kind(), nn.Linear(4, CLASSES))

    names = [name for name, _ in dense_layers(factory())]
    assert names == ["1", "2", "3"]
    assert_plain(factory, 2, 30)


def test_frozen_parameters_keep_a_network_dense():
    model = deep()
    model[1].bias.requires_grad_(False)
    assert dense_layers(model) is not None


class MyLinear(nn.Linear):
    pass


class MyFlatten(nn.Flatten):
    pass


def tied_weights() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[3].weight = model[1].weight
    return model


def linear(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 4), *layers)


NOT_DENSE = {
    "subclass of Sequential": subclass_of_sequential,
    "subclass of Linear": lambda: nn.Sequential(nn.Flatten(), MyLinear(4, 4)),
    "later subclass of Linear": lambda: linear(MyLinear(4, 4)),
    "subclass of Flatten": lambda: nn.Sequential(MyFlatten(), nn.Linear(4, 4)),
    "custom": Tied,
    "single layer": lambda: nn.Linear(4, 4),
    "tied layers": tied_layers,
    "tied weights": tied_weights,
    "tied biases": lambda: _tied_biases(),
    "flattened from the first dimension": lambda: nn.Sequential(nn.Flatten(0), nn.Linear(4, 4)),
    "flattened from the third": lambda: nn.Sequential(nn.Flatten(2), nn.Linear(4, 4)),
    "flattened in part": lambda: nn.Sequential(nn.Flatten(1, 2), nn.Linear(4, 4)),
    "flattened later": lambda: nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(4, 4)),
    "flattened never": lambda: nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)),
    "flattened twice": lambda: linear(nn.Flatten()),
    "activation first": lambda: nn.Sequential(nn.Flatten(), nn.ReLU(), nn.Linear(4, 4)),
    "nested": lambda: linear(nn.Sequential(nn.ReLU(), nn.Linear(4, 4))),
    "layer norm": lambda: linear(nn.LayerNorm(4)),
    "softmax": lambda: linear(nn.Softmax(1)),
    "parametric ReLU": lambda: linear(nn.PReLU()),
    "dropout of channels": lambda: linear(nn.Dropout1d()),
    "gated": lambda: linear(nn.GLU(1)),
    "convolution": convolutional,
    "nothing to learn": lambda: nn.Sequential(nn.Flatten()),
    "empty": nn.Sequential,
}


def _tied_biases() -> nn.Module:
    model = linear(nn.Linear(4, 4))
    model[2].bias = model[1].bias
    return model


@pytest.mark.parametrize("factory", NOT_DENSE.values(), ids=NOT_DENSE.keys())
def test_a_network_with_anything_else_in_it_is_not_dense(factory):
    assert dense_layers(factory()) is None


def test_an_activation_that_is_used_twice_acts_twice():
    """One module without parameters may stand at several places of a Sequential."""

    def factory() -> nn.Module:
        act = nn.Tanh()
        return nn.Sequential(
            nn.Flatten(), nn.Linear(PIXELS, 5), act, nn.Linear(5, 5), act, nn.Linear(5, CLASSES)
        )

    assert_plain(factory, 2, 30)


def doubled(model: nn.Module, layer: nn.Module) -> nn.Module:
    layer.register_forward_hook(lambda module, args, output: 2 * output)
    return model


def weight_normalised(model: nn.Module, layer: nn.Module) -> nn.Module:
    nn.utils.parametrizations.weight_norm(layer)
    return model


def weight_normalised_by_a_hook(model: nn.Module, layer: nn.Module) -> nn.Module:
    nn.utils.weight_norm(layer)
    return model


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
@pytest.mark.parametrize(
    ("change", "index"),
    [
        (doubled, 1),
        (doubled, 2),
        (doubled, 3),
        (weight_normalised, 1),
        (weight_normalised, 3),
        (weight_normalised_by_a_hook, 1),
        (weight_normalised_by_a_hook, 3),
    ],
)
def test_a_layer_that_was_changed_from_outside_stays_changed(change, index):
    """By a hook or another parametrisation: the model's loss is what its call returns."""

    def factory() -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(PIXELS, 5), nn.Tanh(), nn.Linear(5, CLASSES))
        return change(model, model[index])

    assert_plain(factory, 2, 30)


def test_a_network_that_was_changed_from_outside_stays_changed():
    """The same for a hook of the whole network."""

    def factory() -> nn.Module:
        model = deep()
        return doubled(model, model)

    assert_plain(factory, 2, 30)


# What a call depends on, and what it leaves behind


@pytest.mark.kernels
@pytest.mark.parametrize("factory", [*DENSE, convolutional])
@pytest.mark.parametrize("count", [5, CHUNK, CHUNK + 5])
def test_a_points_losses_do_not_depend_on_the_other_points_of_a_call(factory, count):
    """Bit for bit, in calls with as many points."""
    _, objective, span, _, _ = problem(factory, 2)
    losses = spanned(objective, span)
    coefficients = points(count, 2)
    first, right = losses(coefficients)
    kept = first.clone(), right.clone()
    for index in (0, count // 2, count - 1):
        other = points(count, 2, seed=2)
        other[index] = coefficients[index]
        found, found_right = losses(other)
        assert torch.equal(found[index], first[index])
        assert torch.equal(found_right[index], right[index])
        assert not torch.equal(found, first)
    assert torch.equal(first, kept[0]), "a later call must not overwrite what an earlier returned"
    assert torch.equal(right, kept[1])


@pytest.mark.parametrize("factory", [deep, convolutional])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_vector_that_is_not_finite_has_no_loss_anywhere(factory, bad, which):
    """Not even where its coefficient is zero."""
    _, objective, span, _, _ = problem(factory, 3)
    span[which][3] = bad
    coefficients = points(4, 3)
    coefficients[1] = 0
    losses, correct = spanned(objective, span)(coefficients)
    assert losses.shape == correct.shape == (4, 17)
    assert torch.isnan(losses).all()
    assert not correct.any()


UNCHANGED = [
    *DENSE,
    convolutional,
    normalised,
    Tied,
    subclass_of_sequential,
    pytest.param(
        tied_layers,
        marks=pytest.mark.xfail(
            strict=True,
            reason="torch's functional_call leaves theta in a module that is used twice",
        ),
    ),
]


@pytest.mark.parametrize("factory", UNCHANGED)
def test_a_span_changes_neither_its_vectors_nor_the_model_nor_the_samples(factory):
    """Bit for bit; nor the coefficients, nor the global random state."""
    _, objective, span, _, _ = problem(factory, 3)
    coefficients = points(CHUNK + 3, 3)
    torch.manual_seed(8)
    np_state = np.random.get_state()[1].copy()  # noqa: NPY002
    state = torch.get_rng_state()
    before = copy.deepcopy((span, flatten(objective.model), objective.blocks, coefficients))
    for _ in range(2):
        spanned(objective, span)(coefficients)
    assert all(torch.equal(a, b) for a, b in zip(span, before[0], strict=True))
    assert torch.equal(flatten(objective.model), before[1])
    assert all(p.grad is None for p in objective.model.parameters())
    for (x, y), (old_x, old_y) in zip(objective.blocks, before[2], strict=True):
        assert torch.equal(x, old_x)
        assert torch.equal(y, old_y)
    np.testing.assert_array_equal(coefficients, before[3])
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(np.random.get_state()[1], np_state)  # noqa: NPY002


@pytest.mark.parametrize("factory", [softmax_regression, deep, convolutional])
def test_the_models_own_parameters_play_no_part(factory):
    """The model is a mould."""
    _, objective, span, _, _ = problem(factory, 2)
    coefficients = points(3, 2)
    expected, _ = spanned(objective, span)(coefficients)
    with torch.no_grad():
        for parameter in objective.model.parameters():
            parameter.fill_(math.nan)
    assert torch.equal(spanned(objective, span)(coefficients)[0], expected)


@pytest.mark.parametrize("factory", [softmax_regression, deep, convolutional])
def test_vectors_of_another_precision_and_with_gradients_are_taken_as_they_are(factory):
    """Directions come as float32, and theta may be a tensor that is being trained."""
    model, objective, span, inputs, targets = problem(factory, 2)
    narrow = [span[0].float(), span[1].clone().requires_grad_()]
    coefficients = points(4, 2)
    losses, _ = spanned(objective, narrow)(coefficients)
    exact, _ = plain(model, inputs, targets, [span[0].float().double(), span[1]], coefficients)
    assert not losses.requires_grad
    np.testing.assert_allclose(losses, exact, rtol=1e-12, atol=1e-12)
