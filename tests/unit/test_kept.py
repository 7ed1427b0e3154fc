import math
import weakref

import pytest
import torch

from lossgeo.gauss_newton import gauss_newton_operator
from lossgeo.hessian import hessian_operator
from lossgeo.kept import graph_bytes, keep
from lossgeo.models import build
from lossgeo.numerics import torch_generator
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten


def counted(calls: list[int]):
    return [lambda n=n: (calls.append(n), torch.ones(3))[1] for n in range(4)]


def test_without_a_limit_everything_is_built_once():
    calls = []
    graphs = keep(counted(calls))
    assert len([*graphs(), *graphs()]) == 8
    assert calls == [0, 1, 2, 3]


def test_what_does_not_fit_is_built_again_on_every_use():
    calls, x = [], torch.ones(10, requires_grad=True)
    makers = [lambda n=n: (calls.append(n), x.exp())[1] for n in range(4)]  # exp saves its result
    graphs = keep(makers, most=2.5 * 40)
    assert calls == [0, 0, 1]
    calls.clear()
    assert len(list(graphs())) == 4
    assert len(list(graphs())) == 4
    assert calls == [2, 3, 2, 3]


def test_of_no_memory_nothing_is_kept():
    calls, x = [], torch.ones(10, requires_grad=True)
    graphs = keep([lambda: (calls.append(0), x.exp())[1]], most=0)
    list(graphs())
    assert calls == [0, 0]
    assert list(keep([], most=0)()) == []


def test_what_was_measured_is_let_go():
    """Results that operations save for themselves too: a graph that holds itself is never freed."""
    x = torch.ones(1000, requires_grad=True)
    results = []

    def make() -> torch.Tensor:
        results.append(weakref.ref(made := x.exp().relu()))
        return made

    graph_bytes(make)
    assert results[0]() is None


def test_a_graph_takes_what_it_saves_and_each_storage_once():
    x = torch.ones(1000, requires_grad=True)
    assert graph_bytes(lambda: x.exp()) == 4000
    assert graph_bytes(lambda: x.exp() * x, shared=[x]) == 4000
    assert graph_bytes(lambda: x * x) == 4000
    assert graph_bytes(lambda: (x + 1).exp() * (x + 2)) == 2 * 4000  # both factors


@pytest.mark.parametrize("operator", [hessian_operator, gauss_newton_operator])
@pytest.mark.parametrize("memory", [0, 60_000, math.inf])
def test_memory_changes_no_number(operator, memory):
    """A graph that is built again is the same arithmetic, in the same order."""
    generator = torch_generator("kept")
    inputs = torch.randn(40, 1, 8, 8, generator=generator)
    targets = torch.arange(40) % 3
    model = build({"family": "cnn", "width": 2}, (1, 8, 8), 3)
    theta, v = flatten(model), torch.randn(flatten(model).shape, generator=generator)
    arguments = (model, inputs, targets)
    whole = make_objective(*arguments, block=8)
    bounded = make_objective(*arguments, block=8, memory=memory)
    torch.testing.assert_close(
        operator(bounded, theta) @ v, operator(whole, theta) @ v, rtol=0, atol=0
    )
