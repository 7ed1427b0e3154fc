"""The study's networks, and the contract with networks of the user's own."""

import importlib
import itertools
import sys
import textwrap

import pytest
import torch
from torch import nn

from lossgeo.models import (
    MaxPool,
    ModelError,
    block_size,
    build,
    in_memory_format,
    memory_format,
)
from lossgeo.parameters import layout_of

PUBLISHED = {
    ("mlp", 32): 25_450,
    ("mlp", 64): 50_890,
    ("mlp", 128): 101_770,
    ("mlp", 260): 206_710,
    ("cnn", 16): 206_922,
    ("cnn", 32): 421_642,
    ("cnn", 64): 878_730,
}


@pytest.mark.parametrize(("spec", "parameters"), PUBLISHED.items(), ids=str)
def test_networks_have_the_published_number_of_parameters(spec, parameters):
    model = build(dict(zip(("family", "width"), spec, strict=True)), (1, 28, 28), 10)
    assert layout_of(model).size == parameters


@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_logits_have_one_column_per_class(family):
    model = build({"family": family, "width": 2}, (3, 12, 8), 7)
    assert model(torch.zeros(5, 3, 12, 8)).shape == (5, 7)


@pytest.mark.kernels
def test_pooling_before_the_relu_is_the_relu_before_pooling(cnn):
    net, x = cnn.model, cnn.inputs
    with torch.no_grad():
        y = nn.functional.max_pool2d(torch.relu(net.conv1(x)), 2)
        y = nn.functional.max_pool2d(torch.relu(net.conv2(y)), 2)
        expected = net.output(torch.relu(net.hidden(y.flatten(1))))
        torch.testing.assert_close(net(x), expected, rtol=1e-13, atol=1e-13)


FORMATS = [torch.contiguous_format, torch.channels_last]
SIDES = [2, 3, 7, 28]


@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("columns", SIDES)
@pytest.mark.parametrize("height", SIDES)
def test_max_pooling_without_a_gradient_is_torchs(layout, dtype, share, height, columns, generator):
    """Bit for bit, a `share` of the pixels being NaN, in the memory format of what is pooled."""
    x = torch.randn(3, 5, height, columns, generator=generator, dtype=dtype)
    x[torch.rand(x.shape, generator=generator) < share] = torch.nan
    x = in_memory_format(x, layout)
    expected = nn.functional.max_pool2d(x, 2)
    with torch.no_grad():
        found = MaxPool()(x)
    assert expected.isnan().any() == (share > 0)
    assert found.is_contiguous(memory_format=layout)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.kernels
@pytest.mark.parametrize("layout", FORMATS, ids=str)
@pytest.mark.parametrize("side", [6, 7])
def test_max_pooling_has_torchs_gradient(layout, side, generator):
    """Where two pixels are equally large, too."""
    x = torch.randint(0, 4, (3, 5, side, side), generator=generator, dtype=torch.float64)
    weights = torch.randn(3, 5, side // 2, side // 2, generator=generator, dtype=torch.float64)
    x = in_memory_format(x, layout).requires_grad_()
    pooled, expected = MaxPool()(x), nn.functional.max_pool2d(x, 2)
    assert torch.equal(pooled, expected)
    (found,) = torch.autograd.grad((weights * pooled).sum(), x)
    (exact,) = torch.autograd.grad((weights * expected).sum(), x)
    assert torch.equal(found, exact)
    assert found.any()


def test_max_pooling_writes_into_its_input_under_no_grad_alone(generator):
    x = torch.randn(1, 1, 4, 4, generator=generator)
    before = x.clone()
    MaxPool()(x)
    assert torch.equal(x, before)
    with torch.no_grad():
        MaxPool()(x)
    assert not torch.equal(x, before)


def test_one_seed_gives_one_initialisation_and_another_seed_another():
    spec = {"family": "cnn", "width": 2}
    a, b, c = (build(spec, (1, 8, 8), 3, seed=seed) for seed in (1, 1, 2))
    same = [torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True)]
    other = [torch.equal(p, q) for p, q in zip(a.parameters(), c.parameters(), strict=True)]
    assert all(same)
    assert not any(other)


def test_building_leaves_the_callers_random_state_as_it_was(factory):
    state = torch.get_rng_state()
    build({"family": "mlp", "width": 2}, (1, 4, 4), 3, seed=5)
    build({"factory": factory(LINEAR)}, (1, 4, 4), 3, seed=5)
    assert torch.equal(torch.get_rng_state(), state)


def test_only_convolutions_ask_for_channels_last(mlp, cnn):
    assert memory_format(mlp.model) == torch.contiguous_format
    assert memory_format(cnn.model) == torch.channels_last


def test_fewer_samples_go_through_convolutions_together_than_through_other_networks(mlp, cnn):
    images = torch.zeros(1, 1, 28, 28)
    assert block_size(mlp.model, images) == 1024
    assert block_size(nn.Conv1d(1, 1, 3), torch.zeros(1, 1, 784)) == 1024
    assert block_size(cnn.model, images) == block_size(nn.Conv2d(1, 1, 3), images) == 64


def test_fewer_samples_go_through_together_where_they_are_large(mlp, cnn):
    """2^20 numbers at most, or 2^14 token ids; one sample at least."""
    assert block_size(mlp.model, torch.zeros(1, 4096, 16)) == 16
    assert block_size(cnn.model, torch.zeros(1, 2, 256, 256)) == 8
    assert block_size(mlp.model, torch.zeros(1, 512, dtype=torch.int64)) == 32
    assert block_size(mlp.model, torch.zeros(1, 16, dtype=torch.int64)) == 1024
    assert block_size(mlp.model, torch.zeros(1, 2**21)) == 1


def test_a_single_channel_gets_the_strides_that_were_asked_for():
    x = torch.randn(2, 1, 4, 4)
    y = in_memory_format(x, torch.channels_last)
    assert torch.equal(x, y)
    assert y.stride() == torch.empty(2, 1, 4, 4, memory_format=torch.channels_last).stride()


LINEAR = """
    from torch import nn

    def make(input_shape, classes, bias=True):
        pixels = input_shape[0] * input_shape[1] * input_shape[2]
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes, bias=bias))
"""

names = itertools.count()


@pytest.fixture
def factory(tmp_path, monkeypatch):
    """Write a module into an empty working directory; return its reference."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(source: str, function: str = "make") -> str:
        name = f"my_network_{next(names)}"
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(source))
        importlib.invalidate_caches()
        monkeypatch.delitem(sys.modules, name, raising=False)
        return f"{name}:{function}"

    return write


def test_a_factory_in_the_working_directory_is_called_with_its_arguments(factory):
    reference = factory(LINEAR)
    model = build({"factory": reference, "arguments": {"bias": False}}, (1, 4, 4), 3)
    assert layout_of(model).size == 16 * 3
    assert layout_of(build({"factory": reference}, (1, 4, 4), 3)).size == 17 * 3


def test_a_factorys_network_is_seeded_too(factory):
    spec = {"factory": factory(LINEAR)}
    a, b, c = (build(spec, (1, 4, 4), 3, seed=s)[1].weight for s in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def refused(reference: str, *words: str, arguments: dict | None = None) -> None:
    with pytest.raises(ModelError) as raised:
        build({"factory": reference, "arguments": arguments or {}}, (1, 4, 4), 3)
    for word in (reference, *words):
        assert word in str(raised.value)


def test_a_factory_that_cannot_be_imported_is_named(factory):
    factory(LINEAR)
    refused("no_such_module:make", "cannot be imported", "package.module:function")


def test_a_function_that_the_module_lacks_is_named(factory):
    refused(factory(LINEAR, "build_it"), "cannot be imported", "build_it")


def test_what_is_not_a_function_is_refused(factory):
    refused(factory("make = 3"), "int", "not a function")


def test_a_factory_that_raises_is_quoted_with_what_it_was_called_with(factory):
    source = "def make(input_shape, classes):\n    raise KeyError('depth')"
    refused(factory(source), "(1, 4, 4)", "KeyError('depth')")


def test_an_argument_that_the_factory_does_not_take_is_named(factory):
    refused(factory(LINEAR), "depht", arguments={"depht": 2})


def test_what_is_not_a_module_is_refused(factory):
    refused(factory("def make(input_shape, classes):\n    return 'mlp'"), "str", "torch.nn.Module")


def test_a_network_without_parameters_is_refused(factory):
    source = """
        from torch import nn

        def make(input_shape, classes):
            return nn.Flatten()
    """
    refused(factory(source), "needs parameters")


def test_outputs_of_another_shape_are_refused_with_both_shapes(factory):
    source = """
        from torch import nn

        def make(input_shape, classes):
            return nn.Sequential(nn.Flatten(), nn.Linear(16, classes + 1))
    """
    refused(factory(source), "(2, 4)", "(2, 3)")


@pytest.mark.parametrize(
    "body",
    [
        "nn.Sequential(nn.Flatten(), nn.Linear(15, classes))",  # the shapes do not fit
        "TwoHeads(16, classes)",  # returns a tuple
    ],
)
def test_a_network_that_cannot_take_the_inputs_is_a_model_error(factory, body):
    """The commonest mistake of all must name the factory, not end in torch's traceback."""
    source = f"""
        from torch import nn

        class TwoHeads(nn.Linear):
            def forward(self, x):
                return super().forward(x.flatten(1)), x

        def make(input_shape, classes):
            return {body}
    """
    refused(factory(source))


@pytest.mark.parametrize("family", ["mlp", "cnn"])
def test_a_gelu_twin_differs_in_its_activation_alone(family, generator):
    """Same parameters from the same seed, and all of its ReLUs are GELUs."""
    spec = {"family": family, "width": 3}
    plain, twin = (build({**spec, **a}, (1, 8, 8), 4) for a in ({}, {"activation": "gelu"}))
    assert all(map(torch.equal, plain.parameters(), twin.parameters()))
    types = [nn.GELU if isinstance(layer, nn.ReLU) else type(layer) for layer in plain.children()]
    assert [type(layer) for layer in twin.children()] == types
    assert nn.GELU in types
