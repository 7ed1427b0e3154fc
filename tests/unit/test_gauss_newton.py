"""The Gauss-Newton matrix against dense ones, and where its trace is the Hessian's."""

import copy

import pytest
import torch
from torch import nn
from torch.func import functional_call, jacrev
from torch.nn.attention import SDPBackend, sdpa_kernel

from lossgeo.gauss_newton import gauss_newton_operator, sample_traces
from lossgeo.hessian import hessian_operator
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten, layout_of, unflatten
from lossgeo.piecewise_affine import is_piecewise_affine

INPUT, CLASSES, SAMPLES = (2, 6, 6), 3, 11


class Residual(nn.Module):
    """Two branches that are added, and a skip over the second."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Conv2d(2, 2, 3, padding=1)
        self.outer = nn.Conv2d(2, 2, 1)

    def forward(self, x):
        x = torch.relu(x)
        return x + self.inner(x) + nn.functional.leaky_relu(self.outer(x))


class Tied(nn.Module):
    """One square layer, used twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(72, 72)
        self.output = nn.Linear(72, CLASSES)

    def forward(self, x):
        x = x.flatten(1)
        return self.output(torch.relu(self.layer(torch.relu(self.layer(x)))))


class Tokens(nn.Module):
    """Linear layers on (n, tokens, features), and one on (n tokens, features)."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(12, 4)
        self.merged = nn.Linear(4, 5, bias=False)
        self.output = nn.Linear(5, CLASSES)

    def forward(self, x):
        x = torch.relu(self.first(x.flatten(1).view(len(x), 6, 12)))
        x = self.merged(x.view(-1, 4)).view(len(x), 6, 5)
        return self.output(torch.relu(x)).mean(1)


class Overwriting(nn.Module):
    """Overwrites a layer's input after the call, and another's output."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(72, 6)
        self.second = nn.Linear(6, 6)
        self.output = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.first(x.flatten(1)).clone()
        return self.output(self.second(x).relu_() + x)


class Reused(nn.Module):
    """Reads a layer's weight outside of the layer: in a norm, or once more, transposed."""

    def __init__(self, transposed: bool):
        super().__init__()
        self.first = nn.Linear(72, 5)
        self.back = nn.Linear(72, 5)
        self.output = nn.Linear(5, CLASSES)
        self.transposed = transposed

    def forward(self, x):
        x = torch.relu(self.first(input=x.flatten(1)))
        if self.transposed:
            x = torch.relu(self.back(nn.functional.linear(x, self.first.weight.T)))
        else:
            x = x + self.back(x.new_ones(len(x), 72))
        return self.output(x) / self.output.weight.norm()


class Attention(nn.Module):
    """A transformer's layer on six tokens, each with its position."""

    def __init__(self):
        super().__init__()
        self.positions = nn.Parameter(torch.randn(6, 12))
        self.layer = nn.TransformerEncoderLayer(12, 2, 8, dropout=0.0, batch_first=True)
        self.output = nn.Linear(12, CLASSES)

    def forward(self, x):
        x = x.flatten(1).view(len(x), 6, 12) + self.positions
        return self.output(self.layer(x).mean(1))


class Recurrent(nn.Module):
    """A cell that torch cannot run for many samples at once by `vmap`."""

    def __init__(self):
        super().__init__()
        self.cell = nn.GRU(12, 3, batch_first=True)

    def forward(self, x):
        return self.cell(x.flatten(1).view(len(x), 6, 12))[0][:, -1]


def sequential(*layers) -> nn.Sequential:
    return nn.Sequential(*layers)


MODELS = {  # name -> (model, whether tr H = tr G)
    "mlp": (lambda: sequential(nn.Flatten(), nn.Linear(72, 5), nn.ReLU(), nn.Linear(5, 3)), True),
    "leaky": (
        lambda: sequential(
            nn.Flatten(), nn.Linear(72, 5, bias=False), nn.LeakyReLU(), nn.Linear(5, 3)
        ),
        True,
    ),
    "cnn": (
        lambda: sequential(
            nn.Conv2d(2, 3, 3, padding=1, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(3, 4, 2, bias=False, dilation=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 4),
            nn.ReLU(inplace=True),
            nn.Linear(4, 3),
        ),
        True,
    ),
    "grouped": (
        lambda: sequential(
            nn.Conv2d(2, 4, 3, groups=2, padding="same", padding_mode="reflect"),
            nn.PReLU(),
            nn.AvgPool2d(3),
            nn.Flatten(),
            nn.Linear(16, 3),
        ),
        True,
    ),
    "residual": (lambda: sequential(Residual(), nn.Flatten(), nn.Linear(72, 3)), True),
    "tokens": (Tokens, True),
    "overwriting": (Overwriting, True),
    "gelu": (
        lambda: sequential(nn.Flatten(), nn.Linear(72, 5), nn.GELU(), nn.Linear(5, 3)),
        False,
    ),
    "tied": (Tied, False),
    "normalised weight": (lambda: Reused(False), False),
    "transposed weight": (lambda: Reused(True), False),
    "attention": (Attention, False),
    "recurrent": (Recurrent, False),
    "norm": (
        lambda: sequential(
            nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)
        ),
        False,
    ),
}


class Setting:
    def __init__(self, name: str, dtype: torch.dtype = torch.float64) -> None:
        factory, self.affine = MODELS[name]
        torch.manual_seed(4)
        self.model = factory().double()
        generator = torch.Generator().manual_seed(5)
        self.inputs = torch.randn(SAMPLES, *INPUT, generator=generator, dtype=torch.float64)
        self.targets = torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
        self.theta = flatten(self.model)
        self.layout = layout_of(self.model)
        self.objective = make_objective(
            copy.deepcopy(self.model), self.inputs, self.targets, dtype=dtype, block=4
        )

    def jacobians(self) -> torch.Tensor:
        """(N, K, P), by torch.func, one sample at a time."""
        with sdpa_kernel(SDPBackend.MATH):
            return self._jacobians()

    def _jacobians(self) -> torch.Tensor:
        return torch.stack(
            [
                jacrev(
                    lambda theta, x=x: functional_call(
                        self.model, unflatten(theta, self.layout), (x[None],)
                    )[0]
                )(self.theta)
                for x in self.inputs
            ]
        ).detach()

    def dense(self) -> torch.Tensor:
        """G of every sample, (N, P, P)."""
        with torch.no_grad():
            p = self.model(self.inputs).softmax(1)
        bent = torch.diag_embed(p) - p.unsqueeze(2) * p.unsqueeze(1)
        jacobians = self.jacobians()
        return torch.einsum("nkp,nkl,nlq->npq", jacobians, bent, jacobians)


@pytest.fixture(scope="module", params=MODELS)
def setting(request) -> Setting:
    return Setting(request.param)


@pytest.mark.kernels
def test_a_product_is_the_dense_matrix_times_the_vector(setting, generator):
    operator = gauss_newton_operator(setting.objective, setting.theta)
    v = torch.randn(len(setting.theta), generator=generator, dtype=torch.float64)
    exact = setting.dense().mean(0) @ v
    torch.testing.assert_close(operator @ v, exact, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(operator @ v, exact, rtol=1e-10, atol=1e-14)  # the graph is kept


def test_traces_are_those_of_the_dense_matrices(setting):
    """Of every sample, tensor and filter."""
    found = sample_traces(setting.objective, setting.theta)
    diagonals = setting.dense().diagonal(dim1=1, dim2=2)  # (N, P)
    parts = diagonals.split(setting.layout.sizes, dim=1)
    assert tuple(found) == setting.layout.names
    for name, shape, part in zip(setting.layout.names, setting.layout.shapes, parts, strict=True):
        filters = shape[0] if len(shape) > 1 else 1
        exact = part.reshape(SAMPLES, filters, -1).sum(2)
        torch.testing.assert_close(found[name], exact, rtol=1e-10, atol=1e-15)


def test_where_a_network_is_piecewise_affine_the_hessians_diagonal_is_the_gauss_newtons(setting):
    """And elsewhere it is not: what the graph says is what the dense matrices say."""
    hessian = hessian_operator(setting.objective, setting.theta)
    eye = torch.eye(len(setting.theta), dtype=torch.float64)
    exact = torch.stack([(hessian @ row)[k] for k, row in enumerate(eye)])
    diagonal = setting.dense().mean(0).diagonal()
    alike = torch.allclose(exact, diagonal, rtol=1e-9, atol=1e-13)
    assert alike == setting.affine
    assert is_piecewise_affine(setting.objective, setting.theta) == setting.affine


@pytest.mark.kernels
def test_traces_in_single_precision_agree_with_double():
    exact = sample_traces(Setting("cnn").objective, Setting("cnn").theta)
    narrow = Setting("cnn", torch.float32)
    for name, found in sample_traces(narrow.objective, narrow.theta).items():
        torch.testing.assert_close(found, exact[name], rtol=1e-4, atol=1e-9)


def test_a_model_without_hooks_is_left_without_hooks(mlp):
    sample_traces(mlp.objective, mlp.theta)
    assert not any(module._forward_hooks for module in mlp.objective.model.modules())


def test_products_of_different_parameters_keep_the_property_and_of_the_same_do_not(generator):
    class Product(nn.Module):
        def __init__(self, same: bool):
            super().__init__()
            self.a, self.b = nn.Linear(72, 3), nn.Linear(72, 3)
            self.same = same

        def forward(self, x):
            x = x.flatten(1)
            return self.a(x) * (self.a(x) if self.same else self.b(x))

    x = torch.randn(4, *INPUT, generator=generator)
    for same in (False, True):
        objective = make_objective(Product(same), x, torch.arange(4) % 3)
        theta = torch.randn(objective.layout.size, generator=generator)
        assert is_piecewise_affine(objective, theta) != same


F = nn.functional
OPERATIONS = {  # of hidden units x (n, 6) with a parameter w (6,): (function, whether known)
    "abs": (lambda x, w: x.abs() + w, True),
    "amax": (lambda x, w: torch.maximum(x, w) + x.amax(1, keepdim=True), True),
    "cat": (lambda x, w: torch.cat([x[:, :3], -x[:, 3:]], 1).roll(1, 1), True),
    "clamp": (lambda x, w: x.clamp(-0.3, 0.4), True),
    "cumsum": (lambda x, w: 1 - x.cumsum(1), True),
    "gather": (lambda x, w: x[:, [1, 0, 2, 5, 4, 3]] / 3.0, True),
    "hardtanh": (lambda x, w: F.hardtanh(x, -0.2, 0.3) * 2.0, True),
    "mean": (lambda x, w: x - x.mean(1, keepdim=True), True),
    "multiplied": (lambda x, w: x * w, True),
    "where": (lambda x, w: torch.where(x > 0.1, x, 0.5 * w), True),
    "divided": (lambda x, w: x / (2 + w), False),
    "elu": (lambda x, w: F.elu(x), False),
    "norm": (lambda x, w: x / (1 + x.norm(dim=1, keepdim=True)), False),
    "softmax": (lambda x, w: x.softmax(1), False),
    "squared": (lambda x, w: x * x, False),
    "squared weight": (lambda x, w: x * w * w, False),
    "std": (lambda x, w: x - x.std(1, keepdim=True), False),
    "tanh": (lambda x, w: torch.tanh(x), False),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_known_to_keep_the_property_only_where_they_do(name):
    operation, known = OPERATIONS[name]

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.outer = nn.Linear(72, 6), nn.Linear(6, 3)
            self.w = nn.Parameter(torch.randn(6))

        def forward(self, x):
            return self.outer(operation(self.inner(x.flatten(1)), self.w))

    torch.manual_seed(2)
    model = Model().double()
    x = torch.randn(5, *INPUT, dtype=torch.float64)
    objective = make_objective(model, x, torch.arange(5) % 3, dtype=torch.float64)
    theta = flatten(model)
    assert is_piecewise_affine(objective, theta) == known
    eye = torch.eye(len(theta), dtype=torch.float64)
    hessian, split = (
        torch.stack([(operator @ row)[k] for k, row in enumerate(eye)])
        for operator in (
            hessian_operator(objective, theta),
            gauss_newton_operator(objective, theta),
        )
    )
    assert torch.allclose(hessian, split, rtol=1e-9, atol=1e-13) == known
    traces = torch.cat([rows.sum(1, True) for rows in sample_traces(objective, theta).values()], 1)
    assert float(traces.sum(1).mean()) == pytest.approx(float(split.sum()), rel=1e-10)
