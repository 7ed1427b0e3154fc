"""Rescaled networks compute the same function; what cannot be rescaled is said to be so."""

from collections import OrderedDict

import pytest
import torch
from torch import nn
from torch.func import functional_call

from lossgeo.chain import find_chain
from lossgeo.models import MaxPool, build
from lossgeo.parameters import flatten, layout_of, unflatten
from lossgeo.rescaling import (
    find_rescalable,
    layer_factors,
    node_factors,
    rescale,
)

SHAPE = (2, 8, 8)

RESCALABLE = {
    "mlp": lambda: build({"family": "mlp", "width": 5}, SHAPE, 3),
    "cnn": lambda: build({"family": "cnn", "width": 3}, SHAPE, 3),
    "deep": lambda: nn.Sequential(
        nn.Flatten(),
        nn.Linear(128, 6, bias=False),
        nn.LeakyReLU(0.1),
        nn.Dropout(0.5),
        nn.Linear(6, 4),
        nn.Identity(),
        nn.Linear(4, 3),
    ),
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2),
        nn.ReLU(),
        nn.AvgPool2d(2, padding=1),
        nn.Conv2d(4, 5, 2, padding_mode="reflect", padding=1),
        nn.MaxPool2d(2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(20, 3),
    ),
}


def logits(model, theta, x):
    return functional_call(model, unflatten(theta, layout_of(model)), (x,))


@pytest.mark.kernels
@pytest.mark.parametrize("kind", ["layer", "node"])
@pytest.mark.parametrize("name", RESCALABLE)
def test_a_rescaled_network_computes_the_same_function(name, kind, generator):
    model = RESCALABLE[name]().double().eval()
    links = find_rescalable(model)
    theta, layout = flatten(model), layout_of(model)
    factors = (
        layer_factors(links, 3.0)
        if kind == "layer"
        else node_factors(links, 3.0, generator=generator)
    )
    moved = rescale(theta, layout, links, factors)
    x = torch.randn(7, *SHAPE, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            logits(model, moved, x), logits(model, theta, x), rtol=0, atol=1e-12
        )
    for link, c in zip(links, factors, strict=True):
        assert len(c) == link.units
        assert (c > 0).all()
    first = f"{links[0].first}.weight"
    before, after = (unflatten(v, layout)[first] for v in (theta, moved))
    norms = after.flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
    torch.testing.assert_close(norms, factors[0], rtol=1e-12, atol=0)


def test_a_chain_names_its_layers_units_and_the_block_of_a_flatten():
    links = find_chain(build({"family": "cnn", "width": 3}, SHAPE, 3))
    assert [(k.first, k.second, k.units, k.block) for k in links] == [
        ("conv1", "conv2", 3, 1),
        ("conv2", "hidden", 6, 4),
        ("hidden", "output", 128, 1),
    ]
    assert links[1].between == (MaxPool, nn.ReLU, nn.Flatten)


def test_a_smooth_network_is_a_chain_that_cannot_be_rescaled():
    model = build({"family": "mlp", "width": 5, "activation": "gelu"}, SHAPE, 3)
    assert len(find_chain(model)) == 1
    assert find_rescalable(model) is None


def shared() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer)


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[1].register_forward_hook(lambda *_: None)
    return model


OTHERS = {
    "a module": lambda: nn.Linear(4, 3),
    "shared parameters": shared,
    "hooks": hooked,
    "a subclass": lambda: type("Residual", (nn.Sequential,), {})(nn.Flatten(), nn.Linear(4, 3)),
    "groups": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2)),
    "normalisation": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Conv2d(4, 4, 3)
    ),
    "a part of the dimensions": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.Flatten(2), nn.Linear(36, 3)
    ),
    "a linear layer on columns": lambda: nn.Sequential(nn.Conv2d(2, 4, 3), nn.Linear(6, 3)),
    "pooling over features": lambda: nn.Sequential(
        OrderedDict(flatten=nn.Flatten(), a=nn.Linear(8, 8), pool=MaxPool(), b=nn.Linear(8, 3))
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_network_has_no_chain(name):
    assert find_chain(OTHERS[name]()) is None
    assert find_rescalable(OTHERS[name]()) is None


def test_without_a_hidden_layer_there_is_nothing_to_rescale():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    assert find_chain(model) == []
    assert find_rescalable(model) is None
