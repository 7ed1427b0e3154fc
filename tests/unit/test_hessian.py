"""The Hessian's products and its gradient against dense matrices."""

import copy

import numpy as np
import pytest
import torch
from hessian_eigenthings import HessianOperator
from torch import nn

from lossgeo import convolution
from lossgeo.hessian import (
    gradient,
    hessian_operator,
    hessian_products,
    sample_forms,
    scaled,
)
from lossgeo.objective import make_objective

from .conftest import dense_hessian, plain_loss


def test_a_product_is_the_dense_hessian_times_the_vector(case, generator):
    operator = hessian_operator(case.objective, case.theta)
    for _ in range(3):
        v = torch.randn(len(case.theta), generator=generator, dtype=torch.float64)
        exact = case.hessian @ v
        assert float((operator @ v - exact).norm() / exact.norm()) < 1e-10


@pytest.mark.kernels
def test_the_operator_is_symmetric(case, generator):
    operator = hessian_operator(case.objective, case.theta)
    u, v = torch.randn(2, len(case.theta), generator=generator, dtype=torch.float64)
    left, right = float(u @ (operator @ v)), float(v @ (operator @ u))
    assert left == pytest.approx(right, rel=1e-12)


@pytest.mark.kernels
def test_the_gradient_is_autograds(case):
    exact = torch.func.grad(case.loss)(case.theta)
    torch.testing.assert_close(gradient(case.objective, case.theta), exact, rtol=1e-11, atol=1e-15)


def test_products_agree_with_hessian_eigenthings_own_operator(mlp, generator):
    """Given equal batches, which its average over batches needs."""
    model = copy.deepcopy(mlp.model)
    nn.utils.vector_to_parameters(mlp.theta, model.parameters())
    batches = list(zip(mlp.inputs.split(10), mlp.targets.split(10), strict=True))
    theirs = HessianOperator(
        model, batches, lambda net, batch: nn.functional.cross_entropy(net(batch[0]), batch[1])
    )
    ours = hessian_operator(mlp.objective, mlp.theta)
    v = torch.randn(len(mlp.theta), generator=generator, dtype=torch.float64)
    torch.testing.assert_close(ours @ v, theirs @ v, rtol=1e-10, atol=1e-14)


@pytest.mark.kernels
def test_the_hessian_of_softmax_regression_has_its_closed_form(generator):
    """(1/N) sum (diag p - p p') kron x x', with x extended by 1 for the bias."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).double()
    x = torch.randn(11, 1, 2, 2, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (11,), generator=generator)
    theta = torch.randn(15, generator=generator, dtype=torch.float64)
    objective = make_objective(model, x, y, dtype=torch.float64, block=4)

    flat = np.concatenate([x.flatten(1).numpy(), np.ones((11, 1))], axis=1)  # (N, 5)
    weights = np.concatenate([theta[:12].view(3, 4).numpy(), theta[12:, None].numpy()], axis=1)
    p = np.exp(flat @ weights.T)
    p /= p.sum(1, keepdims=True)
    exact = sum(
        np.kron(np.diag(pi) - np.outer(pi, pi), np.outer(xi, xi))
        for pi, xi in zip(p, flat, strict=True)
    ) / len(flat)  # ordered (class, [x, 1])
    order = [5 * k + j for k in range(3) for j in range(4)] + [5 * k + 4 for k in range(3)]
    operator = hessian_operator(objective, theta)
    found = torch.stack([operator @ row for row in torch.eye(15, dtype=torch.float64)])
    np.testing.assert_allclose(found.numpy(), exact[np.ix_(order, order)], rtol=0, atol=1e-15)
    lowest = torch.linalg.eigvalsh(found)[0]
    assert float(lowest) == pytest.approx(0.0, abs=1e-14), "softmax regression is convex"


def test_parameters_that_the_loss_does_not_depend_on_have_zero_curvature():
    """A head that no sample reaches must not break the product."""

    class Spare(nn.Linear):
        def __init__(self):
            super().__init__(4, 3)
            self.spare = nn.Parameter(torch.ones(2))

        def forward(self, x):
            return super().forward(x.flatten(1))

    torch.manual_seed(0)
    objective = make_objective(
        Spare(), torch.randn(6, 1, 2, 2), torch.arange(6) % 3, dtype=torch.float64
    )
    theta = torch.randn(17, dtype=torch.float64)
    names = objective.layout.names
    at = slice(0, 2) if names[0] == "spare" else slice(15, 17)
    assert not gradient(objective, theta)[at].any()
    product = hessian_operator(objective, theta) @ torch.ones(17, dtype=torch.float64)
    assert not product[at].any()
    assert product.any()


@pytest.mark.kernels
def test_products_with_many_vectors_are_those_with_each(case, generator):
    """In one pass over the samples: the operator's, and the dense Hessian's."""
    vectors = torch.randn(4, len(case.theta), generator=generator, dtype=torch.float64)
    before = vectors.clone()
    found = hessian_products(case.objective, case.theta, vectors)
    operator = hessian_operator(case.objective, case.theta)
    one_by_one = torch.stack([operator @ v for v in vectors])
    assert float((found - one_by_one).norm() / one_by_one.norm()) < 1e-14
    exact = vectors @ case.hessian
    assert float((found - exact).norm() / exact.norm()) < 1e-10
    assert torch.equal(vectors, before)
    assert hessian_products(case.objective, case.theta, vectors[:0]).shape == (0, len(case.theta))


def test_products_with_many_vectors_go_through_the_samples_once(mlp, generator):
    model, passed = copy.deepcopy(mlp.model), []
    model.register_forward_hook(lambda _, inputs, __: passed.append(len(inputs[0])))
    objective = make_objective(model, mlp.inputs, mlp.targets, dtype=torch.float64, block=7)
    vectors = torch.randn(3, len(mlp.theta), generator=generator, dtype=torch.float64)
    hessian_products(objective, mlp.theta, vectors)
    assert passed == [7, 7, 7, 7, 2]


@pytest.mark.parametrize("block", [7, 1, 100])
def test_a_weighted_hessian_is_the_sum_of_the_samples_weighted_hessians(mlp, generator, block):
    """Each sample has its own weight, in blocks of unequal size too; some may have none."""
    weights = torch.rand(len(mlp.targets), generator=generator, dtype=torch.float64)
    weights[[3, 8]] = 0.0
    exact = sum(
        w * dense_hessian(mlp.model, x[None], y[None], mlp.theta)
        for w, x, y in zip(weights, mlp.inputs, mlp.targets, strict=True)
    )
    objective = make_objective(
        copy.deepcopy(mlp.model), mlp.inputs, mlp.targets, dtype=torch.float64, block=block
    )
    operator = hessian_operator(objective, mlp.theta, weights)
    for v in torch.randn(3, len(mlp.theta), generator=generator, dtype=torch.float64):
        assert float((operator @ v - exact @ v).norm() / (exact @ v).norm()) < 1e-10


def test_a_weighted_convolutional_hessian_is_that_of_its_weighted_loss(cnn, generator):
    weights = torch.rand(len(cnn.targets), generator=generator, dtype=torch.float64)
    v = torch.randn(len(cnn.theta), generator=generator, dtype=torch.float64)
    theta = cnn.theta.clone().requires_grad_()
    loss = sum(
        w * plain_loss(cnn.model, x[None], y[None])(theta)
        for w, x, y in zip(weights, cnn.inputs, cnn.targets, strict=True)
    )
    (first,) = torch.autograd.grad(loss, theta, create_graph=True)
    (exact,) = torch.autograd.grad(first @ v, theta)
    found = hessian_operator(cnn.objective, cnn.theta, weights) @ v
    assert float((found - exact).norm() / exact.norm()) < 1e-10


def test_equal_weights_are_the_mean(case, generator):
    """Of whatever dtype they come in."""
    v = torch.randn(len(case.theta), generator=generator, dtype=torch.float64)
    plain = hessian_operator(case.objective, case.theta) @ v
    n = len(case.targets)
    for dtype, rtol in ((torch.float64, 1e-10), (torch.float32, 1e-6)):
        weighted = hessian_operator(
            case.objective, case.theta, torch.full((n,), 1 / n, dtype=dtype)
        )
        assert float((weighted @ v - plain).norm() / plain.norm()) < rtol


@pytest.mark.parametrize("count", [29, 31])
def test_weights_of_another_number_of_samples_are_refused(mlp, count):
    with pytest.raises(RuntimeError):
        hessian_operator(mlp.objective, mlp.theta, torch.ones(count))


def test_hessian_products_use_our_convolutions(cnn, monkeypatch):
    asked = []
    original = convolution.conv2d
    monkeypatch.setattr(
        convolution, "conv2d", lambda *args: asked.append(len(args[0])) or original(*args)
    )
    hessian_operator(cnn.objective, cnn.theta)
    assert asked == [n for _, targets in cnn.objective.blocks for n in 2 * [len(targets)]]


def test_the_forms_of_samples_are_those_of_their_own_hessians(mlp, generator):
    vectors, others = torch.randn(2, 3, len(mlp.theta), generator=generator, dtype=torch.float64)
    each = torch.stack(
        [
            dense_hessian(mlp.model, x[None], y[None], mlp.theta)
            for x, y in zip(mlp.inputs, mlp.targets, strict=True)
        ]
    )  # (N, P, P)
    found = sample_forms(mlp.objective, mlp.theta, vectors)
    exact = torch.einsum("kp,npq,kq->kn", vectors, each, vectors)
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)
    found = sample_forms(mlp.objective, mlp.theta, vectors, others)
    exact = torch.einsum("kp,npq,kq->kn", others, each, vectors)
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=1e-12)


def test_the_mean_of_the_samples_forms_is_that_of_the_hessian(case, generator):
    vectors = torch.randn(2, len(case.theta), generator=generator, dtype=torch.float64)
    found = sample_forms(case.objective, case.theta, vectors).mean(1)
    exact = ((vectors @ case.hessian) * vectors).sum(1)
    torch.testing.assert_close(found, exact, rtol=1e-10, atol=0)


def test_a_scaled_operator_is_the_hessian_in_other_units(case, generator):
    scale, v = torch.rand(2, len(case.theta), generator=generator, dtype=torch.float64)
    found = scaled(hessian_operator(case.objective, case.theta), scale) @ v
    torch.testing.assert_close(found, scale * (case.hessian @ (scale * v)), rtol=1e-9, atol=1e-12)
