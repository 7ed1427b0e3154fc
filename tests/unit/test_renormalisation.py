"""Renormalised lines have the statistics that REPAIR asks for, measured with forward hooks."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from lossgeo.models import MaxPool, build
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten, layout_of, unflatten
from lossgeo.renormalisation import can_renormalise, hidden_moments, renormalised

T = np.array([0.0, 0.1, 0.5, 0.8, 1.0])
SHAPE = (2, 8, 8)

CHAINS = {
    "mlp": lambda: build({"family": "mlp", "width": 5}, SHAPE, 3),
    "cnn": lambda: build({"family": "cnn", "width": 2}, SHAPE, 3),
    "deep": lambda: nn.Sequential(
        nn.Flatten(),
        nn.Linear(128, 6),
        nn.GELU(),
        nn.Linear(6, 7),  # with nothing between it and the next
        nn.Linear(7, 6),
        nn.Dropout(0.5),
        nn.ReLU(inplace=True),
        nn.Linear(6, 5),
        nn.Tanh(),
        nn.Linear(5, 3, bias=False),  # its outputs are no hidden units
    ),
    "convolutions": lambda: nn.Sequential(
        MaxPool(),  # writes into the samples, if it is given them
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 5, 2, padding_mode="reflect", padding=1),
        nn.AvgPool2d(2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(45, 4),
        nn.ReLU(),
        nn.Linear(4, 3),
    ),
}


def samples(generator, count=24):
    x = torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)
    return x, torch.randint(0, 3, (count,), generator=generator)


def objective_of(model, generator, block=7):
    return make_objective(
        copy.deepcopy(model), *samples(generator), dtype=torch.float64, block=block
    )


def random_theta(model, generator):
    size = sum(p.numel() for p in model.parameters())
    return 0.5 * torch.randn(size, generator=generator, dtype=torch.float64)


def by_hooks(objective, theta) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Mean and standard deviation of what each layer but the last gives, all samples at once."""
    model = copy.deepcopy(objective.model).double()
    nn.utils.vector_to_parameters(theta, model.parameters())
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    found = []

    def note(layer, _, z):
        rows = z.detach().transpose(0, 1).flatten(1)
        found.append((rows.mean(1), rows.std(1, correction=0)))

    for layer in layers[:-1]:
        layer.register_forward_hook(note)
    with torch.enable_grad():
        model(torch.cat([x for x, _ in objective.blocks]).contiguous())
    return found


@pytest.fixture(params=CHAINS)
def model(request):
    return CHAINS[request.param]().double().eval()


@pytest.fixture
def objective(model, generator):
    return objective_of(model, generator)


@pytest.fixture
def ends(model, generator):
    return random_theta(model, generator), random_theta(model, generator)


@pytest.mark.kernels
def test_the_moments_are_those_that_hooks_measure(objective, ends):
    found, expected = hidden_moments(objective, ends[0]), by_hooks(objective, ends[0])
    for moments, (mean, deviation) in zip(found, expected, strict=True):
        torch.testing.assert_close(moments.mean, mean, rtol=1e-12, atol=1e-13)
        torch.testing.assert_close(moments.variance.sqrt(), deviation, rtol=1e-12, atol=0)


@pytest.mark.kernels
def test_every_unit_has_the_interpolated_mean_and_deviation(objective, ends):
    """In all hidden layers at once; the plain line has them in none."""
    at_a, at_b = (by_hooks(objective, end) for end in ends)
    for t, theta in zip(T, renormalised(objective, *ends, T), strict=True):
        plain = by_hooks(objective, (1 - t) * ends[0] + t * ends[1])
        layers = zip(at_a, at_b, by_hooks(objective, theta), plain, strict=True)
        for (mean_a, s_a), (mean_b, s_b), (mean, s), (_, s_plain) in layers:
            wanted = (1 - t) * s_a + t * s_b
            torch.testing.assert_close(mean, (1 - t) * mean_a + t * mean_b, rtol=0, atol=1e-10)
            torch.testing.assert_close(s, wanted, rtol=1e-10, atol=0)
            if t == 0.5:
                assert float((s_plain / wanted - 1).abs().max()) > 0.1


def test_only_scales_of_units_and_biases_change(objective, ends):
    """A unit's weights keep their direction, and the last layer stays on the line."""
    layout = objective.layout
    line = unflatten((ends[0] + ends[1]) / 2, layout)
    moved = unflatten(renormalised(objective, *ends, np.array([0.5]))[0], layout)
    weights = [name for name in layout.names if name.endswith("weight")]
    for name in weights[:-1]:
        before, after = line[name].flatten(1), moved[name].flatten(1)
        cosine = nn.functional.cosine_similarity(before, after)
        torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=0, atol=1e-12)
    last = weights[-1].removesuffix("weight")
    for name in layout.names:
        if name.startswith(last):
            assert torch.equal(line[name], moved[name])


@pytest.mark.kernels
def test_next_to_the_ends_the_correction_changes_nothing(objective, ends):
    """At t = 1e-300 the line is theta_a to the bit, but the correction runs."""
    near_a, near_b = renormalised(objective, *ends, np.array([1e-300, 1 - 2**-53]))
    torch.testing.assert_close(near_a, ends[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(near_b, ends[1], rtol=0, atol=1e-12)


def test_the_ends_are_there_bit_for_bit(objective, ends):
    ends[0][0] = -0.0
    first, *_, last = renormalised(objective, *ends, T)
    assert torch.equal(first.view(torch.int64), ends[0].view(torch.int64))
    assert torch.equal(last.view(torch.int64), ends[1].view(torch.int64))


@pytest.mark.kernels
def test_from_a_network_to_itself_every_point_is_that_network(objective, ends):
    for theta in renormalised(objective, ends[0], ends[0], T):
        torch.testing.assert_close(theta, ends[0], rtol=0, atol=1e-12)


@pytest.mark.kernels
def test_walking_the_other_way_gives_the_same_points(objective, ends):
    there = renormalised(objective, *ends, T)
    back = renormalised(objective, *ends[::-1], 1 - T)
    torch.testing.assert_close(torch.stack(there), torch.stack(back), rtol=0, atol=1e-11)


@pytest.mark.kernels
@pytest.mark.parametrize("block", [1, 24])
def test_blocks_do_not_matter(model, objective, ends, block):
    other = objective_of(model, torch.Generator().manual_seed(0), block)
    here, there = (renormalised(o, *ends, T) for o in (objective, other))
    torch.testing.assert_close(torch.stack(here), torch.stack(there), rtol=0, atol=1e-11)


def test_what_goes_in_is_left_as_it_was(objective, ends):
    blocks = [(x.clone(), y.clone()) for x, y in objective.blocks]
    parameters, before = flatten(objective.model), [end.clone() for end in ends]
    first, *_, last = renormalised(objective, *ends, T)
    first.zero_()
    last.zero_()
    assert torch.equal(flatten(objective.model), parameters)
    for kept, end in zip(before, ends, strict=True):
        assert torch.equal(kept, end)
    for (x, y), (x_now, y_now) in zip(blocks, objective.blocks, strict=True):
        assert torch.equal(x, x_now)
        assert torch.equal(y, y_now)


def test_points_are_of_the_type_of_the_ends(generator):
    model = CHAINS["cnn"]()
    objective = make_objective(model, *samples(generator))
    ends = [random_theta(model, generator) for _ in range(2)]
    exact = renormalised(objective_of(model, torch.Generator().manual_seed(0)), *ends, T)
    rounded = renormalised(objective, *(end.float() for end in ends), T)
    assert all(theta.dtype == torch.float32 for theta in rounded)
    torch.testing.assert_close(
        torch.stack(rounded).double(), torch.stack(exact), rtol=1e-3, atol=1e-4
    )


def named(model, theta):
    return unflatten(theta, layout_of(model))


@pytest.mark.parametrize("layer", ["1", "3"])
def test_a_unit_that_is_constant_at_both_ends_gets_the_mean_alone(generator, layer):
    """In the first layer and in a later one."""
    model = CHAINS["deep"]().double()
    objective = objective_of(model, generator)
    a, b = random_theta(model, generator), random_theta(model, generator)
    for theta in (a, b):
        named(model, theta)[f"{layer}.weight"][2] = 0.0
    theta = renormalised(objective, a, b, np.array([0.3]))[0]
    assert not named(model, theta)[f"{layer}.weight"][2].any()
    biases = [float(named(model, v)[f"{layer}.bias"][2]) for v in (a, b, theta)]
    assert biases[2] == pytest.approx(0.7 * biases[0] + 0.3 * biases[1], abs=1e-14)
    assert torch.isfinite(theta).all()


@pytest.mark.parametrize("layer", ["1", "3"])
def test_units_that_cancel_on_the_way_keep_their_weights(generator, layer):
    """Halfway between w and -w there is nothing to scale: the mean is reset, all else as asked."""
    model = CHAINS["deep"]().double()
    objective = objective_of(model, generator)
    a, b = random_theta(model, generator), random_theta(model, generator)
    named(model, b)[f"{layer}.weight"].copy_(-named(model, a)[f"{layer}.weight"])
    theta = renormalised(objective, a, b, np.array([0.5]))[0]
    assert not named(model, theta)[f"{layer}.weight"].any()
    at_a, at_b, found = (by_hooks(objective, v) for v in (a, b, theta))
    for (mean_a, _), (mean_b, _), (mean, _) in zip(at_a, at_b, found, strict=True):
        torch.testing.assert_close(mean, (mean_a + mean_b) / 2, rtol=0, atol=1e-12)


def test_a_unit_that_is_constant_at_one_end_varies_in_between(generator):
    model = CHAINS["deep"]().double()
    objective = objective_of(model, generator)
    a, b = random_theta(model, generator), random_theta(model, generator)
    named(model, a)["3.weight"][1] = 0.0
    at_b, found = (
        by_hooks(objective, b),
        by_hooks(objective, renormalised(objective, a, b, np.array([0.25]))[0]),
    )
    assert float(found[1][1][1]) == pytest.approx(0.25 * float(at_b[1][1][1]), rel=1e-10)


REFUSED = {
    "no chain": lambda: nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(128, 3))),
    "no hidden layer": lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, 3)),
    "no bias in 1, 5": lambda: nn.Sequential(
        nn.Flatten(),
        nn.Linear(128, 4, bias=False),
        nn.ReLU(),
        nn.Linear(4, 4),
        nn.ReLU(),
        nn.Linear(4, 4, bias=False),
        nn.ReLU(),
        nn.Linear(4, 3),
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_any_other_network_is_refused_with_the_reason(reason, generator):
    model = REFUSED[reason]().double()
    objective = objective_of(model, generator)
    theta = random_theta(model, generator)
    assert not can_renormalise(model)
    with pytest.raises(ValueError, match=reason):
        renormalised(objective, theta, theta, T)
    with pytest.raises(ValueError, match=reason):
        hidden_moments(objective, theta)


def test_chains_with_biases_can_be_renormalised(model):
    assert can_renormalise(model)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_from_an_end_that_diverged_there_is_no_line(objective, ends, bad):
    ends[1][3] = bad
    first, *between, last = renormalised(objective, *ends, T)
    assert torch.equal(first, ends[0])
    assert torch.equal(last.nan_to_num(), ends[1].nan_to_num())
    assert torch.stack(between).isnan().all()
