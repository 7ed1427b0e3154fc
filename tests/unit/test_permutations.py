"""Permuted networks compute the same function; matching undoes permutations and never descends."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from lossgeo.chain import find_chain
from lossgeo.models import ModelError, build
from lossgeo.parameters import Layout, layout_of, unflatten
from lossgeo.permutations import (
    Axis,
    Group,
    check_table,
    find_groups,
    parameter_order,
    permute,
    weight_matching,
)

SHAPE, CLASSES = (2, 8, 8), 3


class Residual(nn.Module):
    """x + W tanh(scale x) between two layers: every one of its axes of 6 is one stream of units."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(128, 6)
        self.norm = nn.LayerNorm(6)
        self.square = nn.Linear(6, 6)
        self.up = nn.Linear(6, 4)
        self.down = nn.Linear(4, 6, bias=False)
        self.head = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = self.embed(x.flatten(1))
        x = x + torch.tanh(self.square(self.norm(x)))
        return self.head(x + self.down(torch.relu(self.up(x))))


STREAM = {
    "embed.weight": 0,
    "embed.bias": 0,
    "norm.weight": 0,
    "norm.bias": 0,
    "square.weight": [0, 1],
    "square.bias": 0,
    "up.weight": 1,
    "down.weight": 0,
    "head.weight": 1,
}
INNER = {"up.weight": 0, "up.bias": 0, "down.weight": 1}
TABLE = {"inner": INNER, "stream": STREAM}  # not in the order of the layers

NETWORKS = {
    "mlp": lambda: build({"family": "mlp", "width": 5}, SHAPE, CLASSES),
    "cnn": lambda: build({"family": "cnn", "width": 3}, SHAPE, CLASSES),
    "deep": lambda: nn.Sequential(
        nn.Flatten(),
        nn.Linear(128, 9),
        nn.GELU(),
        nn.Linear(9, 7, bias=False),
        nn.ReLU(),
        nn.Linear(7, 8),
        nn.Tanh(),
        nn.Linear(8, CLASSES),
    ),
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, bias=False),
        nn.ReLU(),
        nn.AvgPool2d(2, padding=1),
        nn.Conv2d(4, 5, 2, padding=1, bias=False),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(45, CLASSES, bias=False),
    ),
    "residual": Residual,
}
TABLES = {"residual": TABLE}


@pytest.fixture(params=NETWORKS)
def network(request):
    """A network in float64, its groups, and a theta in which no two numbers are equal."""
    model = NETWORKS[request.param]().double().eval()
    groups = find_groups(model, TABLES.get(request.param))
    return model, layout_of(model), groups, generic(layout_of(model), 1)


def generic(layout: Layout, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(layout.size, generator=generator, dtype=torch.float64) / 4


def shuffled(groups, generator) -> list[torch.Tensor]:
    return [torch.randperm(group.units, generator=generator) for group in groups]


def outputs(model, theta, x):
    with torch.no_grad():
        return functional_call(model, unflatten(theta, layout_of(model)), (x,))


def dense(*widths: int) -> tuple[Layout, list[Group]]:
    """A network of linear layers of these widths."""
    layers = itertools.pairwise(widths)
    model = nn.Sequential(nn.Flatten(), *(nn.Linear(*pair) for pair in layers))
    return layout_of(model), find_groups(model)


def every_objective(a, b, layout, groups) -> dict[tuple, float]:
    """The objective of all joint permutations of all groups."""
    every = [list(itertools.permutations(range(group.units))) for group in groups]
    return {
        joint: float(a @ permute(b, layout, groups, [torch.tensor(p) for p in joint]))
        for joint in itertools.product(*every)
    }


# Groups


def test_units_of_a_chain_are_rows_of_one_layer_and_columns_of_the_next():
    model = NETWORKS["cnn"]()
    assert find_groups(model) == [
        Group(
            "conv1", 3, (Axis("conv1.weight", 0), Axis("conv1.bias", 0), Axis("conv2.weight", 1))
        ),
        Group(
            "conv2",
            6,
            (Axis("conv2.weight", 0), Axis("conv2.bias", 0), Axis("hidden.weight", 1, 4)),
        ),
        Group(
            "hidden",
            128,
            (Axis("hidden.weight", 0), Axis("hidden.bias", 0), Axis("output.weight", 1)),
        ),
    ]
    axes = [
        axis.parameter for group in find_groups(NETWORKS["convolutions"]()) for axis in group.axes
    ]
    assert axes == ["0.weight", "3.weight", "3.weight", "6.weight"]


def test_groups_are_never_guessed():
    assert find_groups(Residual()) is None
    assert find_groups(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 3))) is None
    assert find_groups(nn.Sequential(nn.Flatten(), nn.Linear(4, 3))) == []


def test_a_table_gives_what_a_chain_is_found_to_have():
    """The shortest axis counts the units; longer ones hold blocks."""
    model = NETWORKS["cnn"]()
    table = {
        link.first: {
            f"{link.second}.weight": [1],
            f"{link.first}.weight": 0,
            f"{link.first}.bias": 0,
        }
        for link in find_chain(model)
    }
    for found, expected in zip(find_groups(model, table), find_groups(model), strict=True):
        assert (found.name, found.units) == (expected.name, expected.units)
        assert set(found.axes) == set(expected.axes)
    check_table(model, table, SHAPE)
    check_table(Residual(), TABLE, SHAPE)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"upp.weight": 0}, ["inner", "'upp.weight'", "embed.weight, embed.bias"]),
        ({"up.weight": 2}, ["inner", "up.weight", "(4, 6)", "no axis 2", "0 to 1"]),
        ({"up.weight": -1}, ["no axis -1"]),
        ({"head.weight": [0]}, ["up.weight has length 4", "multiple of 3", "of head.weight"]),
        ({"up.weight": [0, 0]}, ["axis 0 of up.weight", "in group inner already"]),
        (dict.fromkeys(INNER, ()), ["inner", "no axis"]),
    ],
)
def test_a_table_that_does_not_fit_is_refused(changed, words):
    with pytest.raises(ModelError) as raised:
        find_groups(Residual(), {"inner": INNER | changed, "stream": STREAM})
    for word in words:
        assert word in str(raised.value)


def test_an_axis_in_two_groups_is_refused():
    with pytest.raises(ModelError, match=r"group again: axis 0 of up\.bias is in group inner"):
        find_groups(Residual(), {"inner": INNER, "again": {"up.bias": 0}})


@pytest.mark.parametrize("forgotten", STREAM)
def test_a_table_that_forgets_an_axis_is_refused_with_that_axis(forgotten):
    """At initialisation, the normalisation's scales of 1 and shifts of 0 would not show it."""
    stream = {name: axes for name, axes in STREAM.items() if name != forgotten}
    with pytest.raises(ModelError, match="group stream: a permutation of its 6 units") as raised:
        check_table(Residual(), {"inner": INNER, "stream": stream}, SHAPE)
    assert f"of {forgotten}" in str(raised.value)
    assert "up.bias" not in str(raised.value)


def test_a_table_that_permutes_one_axis_of_two_is_refused():
    with pytest.raises(ModelError, match=r"group stream.*axis 1 of square\.weight"):
        check_table(Residual(), {"inner": INNER, "stream": STREAM | {"square.weight": 0}}, SHAPE)


def test_checking_a_table_leaves_the_model_as_it_was():
    model = Residual()
    before = [p.clone() for p in model.parameters()]
    check_table(model, TABLE, SHAPE)
    assert model.training
    assert all(map(torch.equal, before, model.parameters()))


# Permutations


@pytest.mark.kernels
def test_a_permuted_network_computes_the_same_function(network, generator):
    model, layout, groups, theta = network
    x = torch.randn(7, *SHAPE, generator=generator, dtype=torch.float64)
    expected = outputs(model, theta, x)
    moved = permute(theta, layout, groups, shuffled(groups, generator))
    assert (moved != theta).sum() > layout.size / 3
    torch.testing.assert_close(outputs(model, moved, x), expected, rtol=0, atol=1e-12)


def test_the_order_of_the_parameters_is_the_permutation(network, generator):
    _, layout, groups, theta = network
    permutations = shuffled(groups, generator)
    order = parameter_order(layout, groups, permutations)
    assert torch.equal(theta[order], permute(theta, layout, groups, permutations))
    assert torch.equal(order.sort().values, torch.arange(layout.size))


def test_unit_i_is_the_unit_that_p_names():
    layout, groups = dense(2, 3, 1)
    theta = torch.arange(layout.size)
    parts = unflatten(permute(theta, layout, groups, [torch.tensor([2, 0, 1])]), layout)
    assert parts["1.weight"].tolist() == [[4, 5], [0, 1], [2, 3]]
    assert parts["1.bias"].tolist() == [8, 6, 7]
    assert parts["2.weight"].tolist() == [[11, 9, 10]]


# Matching


@pytest.mark.parametrize("starts", [1, 2, 5])
def test_a_permuted_copy_is_matched_back_exactly(network, starts, generator):
    _, layout, groups, theta = network
    moved = permute(theta, layout, groups, shuffled(groups, generator))
    found = weight_matching(theta, moved, layout, groups, starts=starts, generator=generator)
    assert torch.equal(permute(moved, layout, groups, found.permutations), theta)
    assert found.objective == pytest.approx(float(theta @ theta), rel=1e-14)
    assert found.objective_before < 0.9 * found.objective


def test_a_copy_is_matched_back_though_little_is_known_of_its_first_units(generator):
    """Going forward does it; from the units as they are, the later layers mislead the first."""
    layout, groups = dense(1, 40, 40, 40, 1)
    theta = generic(layout, 1)
    moved = permute(theta, layout, groups, shuffled(groups, generator))
    found = weight_matching(theta, moved, layout, groups, starts=2, generator=generator)
    assert torch.equal(permute(moved, layout, groups, found.permutations), theta)
    assert found.best == 0
    assert found.objectives[1] < 0.9 * found.objective


def test_the_objective_never_falls_and_the_distance_follows_from_it(network, generator):
    _, layout, groups, a = network
    b = generic(layout, 2)
    found = weight_matching(a, b, layout, groups, starts=6, generator=generator)
    assert (found.ascent[1:] >= found.ascent[:-1]).all()
    assert found.ascent[-1] == pytest.approx(found.objective, rel=1e-13)
    assert found.objective == found.objectives[found.best] == found.objectives.max()
    assert found.best == found.objectives.argmax()
    assert found.objective_before == pytest.approx(float(a @ b), rel=1e-14)
    assert found.objective > found.objective_before
    assert len(found.objectives) == len(found.sweeps) == (1 if found.exact else 6)
    distance = (a - permute(b, layout, groups, found.permutations)).norm()
    expected = a @ a + b @ b - 2 * found.objective
    assert float(distance**2) == pytest.approx(float(expected), rel=1e-13)


def test_what_is_matched_stays_as_it_is(network, generator):
    """No group gains when the best of the starts is matched again."""
    _, layout, groups, a = network
    b = generic(layout, 2)
    first = weight_matching(a, b, layout, groups, starts=4, generator=generator)
    b = permute(b, layout, groups, first.permutations)
    again = weight_matching(a, b, layout, groups, starts=2, generator=generator)
    assert again.objectives[-1] == pytest.approx(first.objective, rel=1e-14)
    assert again.objective >= first.objective * (1 - 1e-14)


def test_no_start_ends_lower_than_the_units_as_they_are(generator):
    """Networks that are alike already, as two runs that share their first epochs are."""
    layout, groups = dense(3, 6, 5, 6, 2)
    for seed in range(20):
        a = generic(layout, seed)
        b = a + generic(layout, seed + 100) / 2
        found = weight_matching(a, b, layout, groups, starts=2, generator=generator)
        assert found.objectives[1] >= found.objective_before * (1 - 1e-14)


@pytest.mark.parametrize("starts", [1, 3])
def test_one_hidden_layer_is_matched_exactly(starts, generator):
    layout, groups = dense(4, 5, 3)
    for seed in range(5):
        a, b = generic(layout, seed), generic(layout, seed + 50)
        found = weight_matching(a, b, layout, groups, starts=starts, generator=generator)
        every = every_objective(a, b, layout, groups)
        assert len(every) == math.factorial(5)
        assert found.exact
        assert found.sweeps.tolist() == [1]
        assert found.ascent[0] == pytest.approx(float(a @ b), rel=1e-12)
        assert found.objective == pytest.approx(max(every.values()), rel=1e-13)
        assert tuple(map(tuple, found.permutations[0][None].tolist())) == max(every, key=every.get)


def test_two_hidden_layers_are_matched_as_well_as_all_permutations_allow(generator):
    """Never better, and with enough starts as good; one start alone is not always."""
    layout, groups = dense(2, 4, 3, 2)
    first = 0
    for seed in range(12):
        a, b = generic(layout, seed), generic(layout, seed + 50)
        best = max(every_objective(a, b, layout, groups).values())
        found = weight_matching(a, b, layout, groups, starts=40, generator=generator)
        assert not found.exact
        assert (found.objectives <= best + 1e-12).all()
        assert found.objective == pytest.approx(best, rel=1e-12)
        first += found.objectives[0] >= best - 1e-12
    assert first < 12


def test_a_square_weight_is_never_matched_to_a_worse_place(generator):
    """The assignment that is best to first order can lower a quadratic objective."""
    model = Residual().double()
    layout, groups = layout_of(model), find_groups(model, {"stream": STREAM})
    for seed in range(4):
        a, b = generic(layout, seed), generic(layout, seed + 50)
        for vector in (a, b):  # little but the square weight says which unit is which
            unflatten(vector, layout)["embed.weight"].mul_(0.01)
            unflatten(vector, layout)["square.weight"].mul_(10)
        every = every_objective(a, b, layout, groups)
        assert len(every) == math.factorial(6)
        found = weight_matching(a, b, layout, groups, starts=8, generator=generator)
        assert (found.ascent[1:] >= found.ascent[:-1]).all()
        assert found.ascent[-1] == pytest.approx(found.objective, rel=1e-12)
        assert found.objectives.max() <= max(every.values()) * (1 + 1e-13)


def cube(*units: int) -> tuple[Layout, list[Group]]:
    """A parameter with an axis for each of three groups, and one more of each group alone."""
    x, y, z = units
    shapes = ((2 * x, y, 2 * z, 3), (x, 7), (y, 7), (z, 7))
    groups = [
        Group("x", x, (Axis("x", 0), Axis("cube", 0, 2))),
        Group("z", z, (Axis("cube", 2, 2), Axis("z", 0))),
        Group("y", y, (Axis("cube", 1), Axis("y", 0))),
    ]
    return Layout(("cube", "x", "y", "z"), shapes), groups


def test_costs_that_are_kept_and_mended_end_where_no_group_gains_any_more(generator):
    """Groups of several sizes that move a little and again, one or two before a third is tried."""
    layout, groups = cube(12, 10, 14)
    for seed in range(5):
        a, b = generic(layout, seed), generic(layout, seed + 50)
        found = weight_matching(a, b, layout, groups, starts=8, generator=generator)
        assert found.ascent[-1] == pytest.approx(found.objective, rel=1e-12)
        b = permute(b, layout, groups, found.permutations)
        again = weight_matching(a, b, layout, groups, starts=2, generator=generator)
        assert again.objectives[1] == pytest.approx(found.objective, rel=1e-13)


def test_an_axis_with_more_than_two_groups_counts_in_all_of_them(generator):
    """A parameter of which three axes are permuted, in any order of its blocks."""
    layout, groups = cube(3, 4, 5)
    a, b = generic(layout, 1), generic(layout, 2)
    found = weight_matching(a, b, layout, groups, starts=30, generator=generator)
    assert found.ascent[-1] == pytest.approx(found.objective, rel=1e-12)
    assert found.objective == found.objectives.max()
    b = permute(b, layout, groups, found.permutations)
    for group in groups:  # none of which gains anything alone
        best = max(every_objective(a, b, layout, [group]).values())
        assert found.objective == pytest.approx(best, rel=1e-13)
    moved = permute(a, layout, groups, shuffled(groups, generator))
    found = weight_matching(a, moved, layout, groups, starts=1, generator=generator)
    assert torch.equal(permute(moved, layout, groups, found.permutations), a)


def test_exchanging_the_networks_inverts_the_permutations(network):
    _, layout, groups, a = network
    b = generic(layout, 2)
    there, back = (
        weight_matching(*ends, layout, groups, starts=6, generator=torch.Generator().manual_seed(7))
        for ends in ((a, b), (b, a))
    )
    for p, q in zip(there.permutations, back.permutations, strict=True):
        assert torch.equal(p[q], torch.arange(len(p)))
    assert there.best == back.best
    assert there.sweeps.tolist() == back.sweeps.tolist()
    assert there.objectives == pytest.approx(back.objectives, rel=1e-13)


def test_starts_differ_and_one_seed_gives_one_alignment(generator):
    layout, groups = dense(5, 20, 20, 20, 3)
    a, b = generic(layout, 1), generic(layout, 2)
    one, two, other = (
        weight_matching(
            a, b, layout, groups, starts=8, generator=torch.Generator().manual_seed(seed)
        )
        for seed in (3, 3, 4)
    )
    assert one.objectives.tolist() == two.objectives.tolist()
    assert len(set(one.objectives)) > 5
    assert one.objectives[0] == other.objectives[0]
    assert set(one.objectives[2:]) != set(other.objectives[2:])


def test_without_a_hidden_layer_the_weights_stay_as_they_are(generator):
    layout, groups = dense(4, 3)
    a, b = generic(layout, 1), generic(layout, 2)
    found = weight_matching(a, b, layout, groups, starts=5, generator=generator)
    assert found.exact
    assert found.permutations == ()
    assert found.objective == pytest.approx(float(a @ b), rel=1e-14)
    assert found.ascent.tolist() == [found.objective]
    assert found.sweeps.tolist() == [0]
    assert torch.equal(parameter_order(layout, groups, ()), torch.arange(layout.size))


def test_float32_weights_are_matched_in_float64(mlp, generator):
    layout, groups = layout_of(mlp.model), find_groups(mlp.model)
    a, b = mlp.theta.float(), generic(layout, 2).float()
    found = weight_matching(a, b, layout, groups, starts=1, generator=generator)
    moved = permute(b, layout, groups, found.permutations)
    assert moved.dtype == torch.float32
    assert found.objective == pytest.approx(float(a.double() @ moved.double()), rel=1e-14)
