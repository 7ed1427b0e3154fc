"""theta and the model's named tensors are two views of the same numbers."""

import copy

import pytest
import torch
from torch import nn

from lossgeo.models import memory_format
from lossgeo.parameters import flatten, layout_of, put, string_together, unflatten


def test_theta_strings_up_the_parameters_in_the_models_order(case):
    theta = flatten(case.model)
    assert torch.equal(theta, nn.utils.parameters_to_vector(case.model.parameters()))
    assert layout_of(case.model).size == len(theta)


def test_unflatten_undoes_flatten_bit_for_bit(case):
    parts = unflatten(flatten(case.model), layout_of(case.model))
    named = dict(case.model.named_parameters())
    assert list(parts) == list(named)
    assert all(torch.equal(parts[name], named[name]) for name in named)


def test_theta_is_a_copy_of_the_model(mlp):
    """Writing to theta does not reach the model."""
    before = [p.clone() for p in mlp.model.parameters()]
    flatten(mlp.model).fill_(7.0)
    assert all(torch.equal(p, q) for p, q in zip(mlp.model.parameters(), before, strict=True))


def test_unflattened_tensors_are_views_of_theta(mlp):
    theta = flatten(mlp.model)
    unflatten(theta, layout_of(mlp.model))["output.bias"].fill_(5.0)
    assert (theta[-3:] == 5.0).all()


def test_gradients_flow_through_unflatten(mlp):
    theta = flatten(mlp.model).requires_grad_()
    sum(part.sum() for part in unflatten(theta, layout_of(mlp.model)).values()).backward()
    assert torch.equal(theta.grad, torch.ones_like(theta))


def test_tied_parameters_count_once():
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    assert layout_of(model).size == 9
    assert flatten(model).shape == (9,)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_theta_of_another_length_is_refused_with_both_lengths(mlp, change):
    layout = layout_of(mlp.model)
    with pytest.raises(ValueError, match=rf"{layout.size + change}.*{layout.size}"):
        unflatten(torch.zeros(layout.size + change), layout)


def test_put_undoes_flatten_bit_for_bit(case):
    model = copy.deepcopy(case.model).to(memory_format=memory_format(case.model))
    places = [(p.data_ptr(), p.stride()) for p in model.parameters()]
    put(model, case.theta)
    assert torch.equal(flatten(model), case.theta)
    assert [(p.data_ptr(), p.stride()) for p in model.parameters()] == places
    with pytest.raises(ValueError, match="theta has shape"):
        put(model, case.theta[1:])


def test_a_model_that_is_strung_together_stays_the_same_function(case):
    model = copy.deepcopy(case.model).to(memory_format=memory_format(case.model))
    before, strides = flatten(model), [p.stride() for p in model.parameters()]
    vectors = string_together(model)
    assert torch.equal(flatten(model), before)
    assert [p.stride() for p in model.parameters()] == strides
    assert [p.grad.stride() for p in model.parameters()] == strides
    assert all(vector.shape == before.shape for vector in vectors)


def test_parameters_and_gradients_that_are_strung_together_are_the_two_vectors(case):
    """Backward passes add to the second; what is written to the first, the parameters are."""
    model = copy.deepcopy(case.model).to(memory_format=memory_format(case.model))
    theta, gradient = string_together(model)
    assert (gradient == 0).all()
    for _ in range(2):
        nn.functional.cross_entropy(model(case.inputs), case.targets).backward()
    there = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    assert torch.equal(there.sort().values, gradient.sort().values)
    leaf = flatten(model).requires_grad_()
    (once,) = torch.autograd.grad(case.loss(leaf), leaf)
    torch.testing.assert_close(there, 2 * once, rtol=1e-10, atol=1e-14)
    start = flatten(model)
    theta.sub_(gradient)
    assert torch.equal(flatten(model), start - there)
