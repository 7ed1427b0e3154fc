"""Convolutions whose gradients are differentiated by hand: torch's numbers, to every order."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from lossgeo import convolution
from lossgeo.convolution import FastDoubleBackward, conv2d
from lossgeo.hessian import hessian_operator
from lossgeo.objective import make_objective

from .conftest import CLASSES, dense_hessian

GEOMETRIES = {
    "plain": {},
    "padding": {"padding": 1},
    "padding_of_each_axis": {"padding": (2, 0)},
    "stride": {"stride": 2, "padding": 1},
    "stride_that_leaves_a_rest": {"stride": (2, 3)},
    "dilation": {"dilation": 2, "padding": (1, 2)},
    "groups": {"groups": 2, "padding": 1},
    "depthwise_with_everything": {"groups": 4, "stride": 2, "padding": 1, "dilation": (1, 2)},
}


@pytest.fixture(params=GEOMETRIES)
def options(request):
    return GEOMETRIES[request.param]


@pytest.fixture
def operands(options, generator):
    """Input (2, 4, 7, 6), weight (4, 4 / groups, 3, 2) and bias (4,), to differentiate by."""
    shapes = ((2, 4, 7, 6), (4, 4 // options.get("groups", 1), 3, 2), (4,))
    return [
        torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in shapes
    ]


@pytest.mark.kernels
@pytest.mark.parametrize("biased", [True, False])
def test_values_and_gradients_are_torchs(operands, options, generator, biased):
    operands = operands if biased else operands[:2]
    ours, theirs = conv2d(*operands, **options), functional.conv2d(*operands, **options)
    assert torch.equal(ours, theirs)
    g = torch.randn(ours.shape, generator=generator, dtype=torch.float64)
    gradients = (torch.autograd.grad(y, operands, g) for y in (ours, theirs))
    for found, expected in zip(*gradients, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("biased", [True, False])
def test_derivatives_are_those_of_finite_differences(operands, options, biased):
    operands = operands if biased else operands[:2]
    assert gradcheck(lambda *o: conv2d(*o, **options), operands)
    assert gradgradcheck(lambda *o: conv2d(*o, **options), operands)


@pytest.mark.parametrize("constant", [0, 1, 2])
def test_second_derivatives_where_one_operand_is_constant(operands, options, constant):
    operands[constant].requires_grad_(False)
    assert gradcheck(lambda *o: conv2d(*o, **options), operands)
    assert gradgradcheck(lambda *o: conv2d(*o, **options), operands)


def test_the_bias_has_a_gradient_where_nothing_else_has(operands, options):
    for operand in operands[:2]:
        operand.requires_grad_(False)
    assert gradcheck(lambda *o: conv2d(*o, **options), operands)


def test_mixed_derivatives_of_a_function_that_is_linear_in_the_output(operands, options):
    """By weight, then by input: what comes down from the output does not depend on either."""
    x, w, b = operands

    def mixed(convolve):
        y = convolve(x, w, b, **options)
        g = torch.linspace(-1, 1, y.numel(), dtype=torch.float64).view_as(y)
        (by_weight,) = torch.autograd.grad((g * y).sum(), w, create_graph=True)
        return torch.autograd.grad(by_weight.pow(2).sum(), x)[0]

    torch.testing.assert_close(mixed(conv2d), mixed(functional.conv2d), rtol=1e-11, atol=1e-11)
    assert mixed(conv2d).any()


def test_third_derivatives_are_torchs(operands, options, generator):
    """Of a function that is not linear in the convolution; none of them is zero."""
    directions = [torch.randn(o.shape, generator=generator, dtype=torch.float64) for o in operands]

    def third(convolve):
        value = torch.tanh(convolve(*operands, **options)).sum()
        for _ in range(3):
            parts = torch.autograd.grad(value, operands, create_graph=True)
            value = sum((part * d).sum() for part, d in zip(parts, directions, strict=True))
        return value.item()

    assert third(conv2d) == pytest.approx(third(functional.conv2d), rel=1e-10)
    assert abs(third(conv2d)) > 1e-3


def in_bfloat16(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = functional.conv2d(x, w)
    assert y.dtype == torch.bfloat16
    return y.double()


@pytest.mark.parametrize(
    "call",
    [
        lambda x, w: functional.conv2d(x, w, padding="same"),
        lambda x, w: functional.conv2d(x, w, None, 1, "valid"),
        lambda x, w: functional.conv2d(x[0], w, padding=1),
        lambda x, w: functional.conv2d(x, weight=w, bias=None, stride=2),
        lambda x, w: torch.conv2d(x, w, padding=[1, 0]),
        lambda x, w: functional.conv2d(x, w, None, np.int64(2), padding=(1,)),
        lambda x, w: torch.func.vmap(lambda image: functional.conv2d(image[None], w))(x),
        lambda x, w: torch.func.grad(lambda v: functional.conv2d(x, v).pow(3).sum())(w),
        pytest.param(
            lambda x, w: torch.func.jvp(lambda y: functional.conv2d(y, w).tanh(), (x,), (x,))[1],
            marks=pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning"),
        ),
        lambda x, w: functional.conv2d(x * 1j, w.to(torch.complex128)).abs(),
        lambda x, w: in_bfloat16(x.float(), w.float()),
    ],
)
def test_every_way_of_calling_it_gives_torchs_hessian_products(call, generator):
    x = torch.randn(2, 2, 5, 5, generator=generator, dtype=torch.float64).requires_grad_()
    w = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64).requires_grad_()
    directions = [torch.randn(o.shape, generator=generator, dtype=torch.float64) for o in (x, w)]

    def product():
        loss = torch.tanh(call(x, w)).pow(2).sum()
        first = torch.autograd.grad(loss, (x, w), create_graph=True)
        return torch.autograd.grad(first, (x, w), directions)

    expected = product()
    with FastDoubleBackward():
        found = product()
    for f, e in zip(found, expected, strict=True):
        torch.testing.assert_close(f, e, rtol=1e-12, atol=1e-12)


@pytest.mark.kernels
def test_the_context_replaces_convolutions_and_nothing_else(monkeypatch):
    asked = []
    original = convolution.conv2d

    def spy(*args, **kwargs):
        asked.append(args[1].shape)
        return original(*args, **kwargs)

    monkeypatch.setattr(convolution, "conv2d", spy)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(2, 2, 3),
        nn.Flatten(2),
        nn.Conv1d(2, 1, 3),
    )
    x = torch.randn(1, 1, 4, 4)
    plain = model(x)
    assert not asked
    with FastDoubleBackward():
        inside = model(x)
    assert asked == [(2, 1, 3, 3)]
    assert torch.equal(model(x), inside)
    assert torch.equal(plain, inside)
    assert len(asked) == 1  # the context has ended


def test_what_torch_refuses_is_refused_in_torchs_words():
    x, w = torch.zeros(1, 3, 5, 5), torch.zeros(2, 4, 3, 3)
    for bad in ((x, w), (x, torch.zeros(2, 3, 7, 7))):
        with pytest.raises(RuntimeError) as theirs:
            functional.conv2d(*bad)
        with pytest.raises(RuntimeError) as ours:
            conv2d(*bad)
        assert str(ours.value) == str(theirs.value)


class Zoo(nn.Module):
    """Convolutions of every kind that a user's network may have, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding="same", bias=False)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.strided = nn.Conv2d(4, 3, (3, 2), stride=2, dilation=(1, 2), padding=(1, 1))
        self.pointwise = nn.Conv2d(3, CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.first(x))
        x = torch.tanh(self.depthwise(torch.tanh(self.depthwise(x))))
        return self.pointwise(torch.tanh(self.strided(x))).mean((2, 3))


def test_the_hessian_of_a_network_with_all_kinds_is_the_dense_one(generator):
    torch.manual_seed(0)
    model = Zoo().double()
    inputs = torch.randn(9, 1, 6, 6, generator=generator, dtype=torch.float64)
    targets = torch.arange(9) % CLASSES
    theta = torch.cat([p.detach().flatten() for p in model.parameters()])
    exact = dense_hessian(model, inputs, targets, theta)
    objective = make_objective(copy.deepcopy(model), inputs, targets, dtype=torch.float64, block=4)
    operator = hessian_operator(objective, theta)
    found = torch.stack([operator @ v for v in torch.eye(len(theta), dtype=torch.float64)])
    assert float((found - exact).norm() / exact.norm()) < 1e-10
    assert exact.norm() > 1e-3
