"""L(theta) is the model's mean cross-entropy, and probing it changes nothing."""

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from lossgeo import directions, hessian, ladder, paths, sharpness, surface
from lossgeo.objective import (
    evaluate,
    evaluate_many,
    loss_of_block,
    make_objective,
    mean_and_error,
    sample_losses,
    score,
    summarise,
)
from lossgeo.parameters import flatten, unflatten


@pytest.fixture
def loaded(case):
    """The case's network as a user would hold it: theta written into its parameters."""
    model = copy.deepcopy(case.model).eval()
    nn.utils.vector_to_parameters(case.theta, model.parameters())
    return model


@pytest.mark.kernels
def test_the_loss_is_the_models_own(case, loaded):
    with torch.no_grad():
        logits = loaded(case.inputs)
    expected = nn.functional.cross_entropy(logits, case.targets)
    accuracy = (logits.argmax(1) == case.targets).double().mean()
    found = evaluate(case.objective, case.theta)
    assert found.loss == pytest.approx(float(expected), rel=1e-13)
    assert found.accuracy == pytest.approx(float(accuracy), rel=1e-15)


def test_the_standard_error_is_numpys_of_the_per_sample_losses(case, loaded):
    with torch.no_grad():
        log_p = torch.log_softmax(loaded(case.inputs), 1).numpy()
    losses = -log_p[np.arange(len(log_p)), case.targets.numpy()]
    expected = losses.std(ddof=1) / math.sqrt(len(losses))
    assert evaluate(case.objective, case.theta).loss_se == pytest.approx(expected, rel=1e-12)
    found, correct = sample_losses(case.objective, case.theta)
    np.testing.assert_allclose(found, losses, rtol=1e-12)
    np.testing.assert_array_equal(correct, log_p.argmax(1) == case.targets.numpy())


LEADING = st.sampled_from([(), (1,), (3,), (2, 3)])


@given(LEADING, st.integers(1, 5), st.integers(1, 6), st.data())
def test_a_sample_is_right_where_its_own_class_has_strictly_the_largest_logit(
    leading, classes, samples, data
):
    """A tie is wrong, for every sample of every leading dimension; few values make many ties."""
    values = st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, -1e300, -2e300])
    logits = data.draw(hnp.arrays(np.float64, (*leading, classes, samples), elements=values))
    targets = data.draw(hnp.arrays(np.int64, samples, elements=st.integers(0, classes - 1)))
    _, correct = score(torch.from_numpy(logits.copy()), torch.from_numpy(targets))
    expected = np.empty((*leading, samples), dtype=bool)
    for index in np.ndindex(expected.shape):
        own = targets[index[-1]]
        column = logits[(*index[:-1], slice(None), index[-1])]
        expected[index] = all(column[own] > z for j, z in enumerate(column) if j != own)
    assert correct.dtype == torch.bool
    np.testing.assert_array_equal(correct, expected)


@given(LEADING, st.integers(1, 5), st.integers(1, 6), st.data())
def test_the_cross_entropy_of_a_sample_is_torchs(leading, classes, samples, data):
    """For logits of any size, in which the probabilities round to zero and one."""
    values = st.floats(-1e3, 1e3)
    logits = data.draw(hnp.arrays(np.float64, (*leading, classes, samples), elements=values))
    targets = data.draw(hnp.arrays(np.int64, samples, elements=st.integers(0, classes - 1)))
    losses, _ = score(torch.from_numpy(logits.copy()), torch.from_numpy(targets))
    assert losses.shape == (*leading, samples)
    rows = torch.from_numpy(np.moveaxis(logits, -2, -1).reshape(-1, classes))
    repeated = torch.from_numpy(targets).expand(losses.shape).reshape(-1)
    expected = nn.functional.cross_entropy(rows, repeated, reduction="none")
    np.testing.assert_allclose(losses.reshape(-1), expected, rtol=1e-13, atol=1e-13)


def test_a_logit_that_is_nan_makes_its_sample_wrong_and_no_other():
    logits = torch.tensor([[3.0, 3.0, math.nan], [1.0, math.nan, 1.0]], dtype=torch.float64)
    losses, correct = score(logits, torch.tensor([0, 0, 0]))
    assert correct.tolist() == [True, False, False]
    assert torch.isnan(losses).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64], ids=str)
def test_targets_may_be_of_any_integer_type(dtype):
    """More samples than a byte can count."""
    logits = torch.arange(900.0).sin().view(3, 300)
    targets = torch.arange(300) % 3
    expected = nn.functional.cross_entropy(logits.T, targets, reduction="none")
    losses, _ = score(logits.clone(), targets.to(dtype))
    torch.testing.assert_close(losses, expected)


class Constant(nn.Module):
    """A model that returns its parameters, whatever the input."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))

    def forward(self, x):
        return self.logits.expand(len(x), -1)


@pytest.mark.parametrize("block", [1, 3, 7])
def test_scoring_overwrites_no_logits_that_are_a_view_of_theta(block):
    """With one sample in a block as well."""
    x, y = torch.zeros(7, 1, 1, 1), torch.tensor([0, 1, 2, 2, 1, 0, 0])
    model = Constant()
    theta = flatten(model)
    before = theta.clone()
    expected = nn.functional.cross_entropy(before.expand(7, 3), y)
    objective = make_objective(model, x, y, dtype=torch.float64, block=block)
    assert evaluate(objective, theta).loss == pytest.approx(float(expected), rel=1e-13)
    assert torch.equal(theta, before)


FINITE = st.floats(-1e6, 1e6)


@given(
    hnp.arrays(np.float64, hnp.array_shapes(max_dims=1, min_side=2), elements=FINITE)
    | hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2), elements=FINITE)
)
def test_means_and_their_standard_errors_are_numpys(values):
    mean, error = mean_and_error(torch.from_numpy(values))
    expected = values.std(-1, ddof=1) / math.sqrt(values.shape[-1])
    scale = np.abs(values).max() + 1e-300
    assert mean.shape == error.shape == values.shape[:-1]
    np.testing.assert_allclose(mean, values.mean(-1), rtol=0, atol=1e-14 * scale)
    np.testing.assert_allclose(error, expected, rtol=1e-12, atol=1e-14 * scale)


@pytest.mark.kernels
def test_means_of_float32_values_are_summed_in_float64(rng):
    """A million losses and an offset: float32 sums would be off in the fifth digit."""
    values = (1000 + rng.random(1_000_000)).astype(np.float32)
    mean, error = mean_and_error(torch.from_numpy(values))
    wide = values.astype(np.float64)
    assert mean.dtype == error.dtype == np.float64
    assert float(mean) == pytest.approx(wide.mean(), rel=1e-13)
    assert float(error) == pytest.approx(wide.std(ddof=1) / 1000, rel=1e-10)


@pytest.mark.parametrize("shape", [(1,), (3, 1)])
def test_the_mean_of_one_value_is_that_value_without_an_error(rng, shape):
    values = rng.random(shape)
    mean, error = mean_and_error(torch.from_numpy(values))
    np.testing.assert_array_equal(mean, values[..., 0])
    assert error.shape == values.shape[:-1]
    assert np.isnan(error).all()


def test_points_with_nan_losses_have_no_accuracy_and_infinite_ones_keep_theirs():
    """Each point by itself: the others are numpy's mean and standard error."""
    losses = torch.tensor([[1.0, 2.0], [math.nan, 2.0], [math.inf, 2.0], [0.5, 0.5]]).double()
    correct = torch.tensor([[True, False], [True, True], [False, True], [True, True]])
    found = summarise(losses, correct)
    assert list(found) == ["loss", "loss_se", "accuracy"]
    np.testing.assert_array_equal(found["loss"], [1.5, math.nan, math.inf, 0.5])
    np.testing.assert_allclose(found["loss_se"], [0.5, math.nan, math.nan, 0.0], rtol=1e-15)
    np.testing.assert_array_equal(found["accuracy"], [0.5, math.nan, 0.5, 1.0])


@pytest.mark.kernels
@pytest.mark.parametrize("block", [1, 5, 24, 1000, None])
def test_the_loss_does_not_depend_on_the_size_of_the_blocks(case, block):
    other = make_objective(
        copy.deepcopy(case.model), case.inputs, case.targets, dtype=torch.float64, block=block
    )
    assert other.samples == len(case.targets)
    assert evaluate(other, case.theta) == pytest.approx(
        evaluate(case.objective, case.theta), abs=1e-12
    )


def test_the_blocks_shares_add_up_to_the_loss(case):
    parameters = unflatten(case.theta, case.objective.layout)
    shares = [loss_of_block(case.objective, parameters, *block) for block in case.objective.blocks]
    assert float(sum(shares)) == pytest.approx(float(case.loss(case.theta)), rel=1e-13)


def test_a_blocks_weighted_share_is_the_weighted_sum_of_its_losses(case, generator):
    """Differentiable by theta like the mean, which is the sum with weights of 1 / N."""
    leaves = {
        name: part.clone().requires_grad_()
        for name, part in unflatten(case.theta, case.objective.layout).items()
    }
    losses = sample_losses(case.objective, case.theta)[0]
    at = 0
    for inputs, targets in case.objective.blocks:
        weights = torch.rand(len(targets), generator=generator, dtype=torch.float64)
        share = loss_of_block(case.objective, leaves, inputs, targets, weights)
        exact = float(weights @ losses[at : at + len(targets)])
        assert float(share.detach()) == pytest.approx(exact, rel=1e-12)
        equal = torch.full((len(targets),), 1 / case.objective.samples, dtype=torch.float64)
        weighted = loss_of_block(case.objective, leaves, inputs, targets, equal)
        plain = loss_of_block(case.objective, leaves, inputs, targets)
        for found, expected in zip(
            torch.autograd.grad(weighted, tuple(leaves.values())),
            torch.autograd.grad(plain, tuple(leaves.values())),
            strict=True,
        ):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-15)
        at += len(targets)


@pytest.mark.kernels
def test_float32_agrees_with_float64(case):
    """To the rounding of a few layers."""
    narrow = make_objective(copy.deepcopy(case.model), case.inputs, case.targets)
    assert narrow.dtype == torch.float32
    found, exact = evaluate(narrow, case.theta), evaluate(case.objective, case.theta)
    assert found.loss == pytest.approx(exact.loss, rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_theta_that_is_not_finite_scores_nan(case, bad):
    theta = case.theta.clone()
    theta[3] = bad
    assert all(math.isnan(value) for value in evaluate(case.objective, theta))


def test_a_loss_that_overflows_is_reported_as_not_finite(mlp):
    narrow = make_objective(copy.deepcopy(mlp.model), mlp.inputs, mlp.targets)
    assert not math.isfinite(evaluate(narrow, torch.full_like(mlp.theta, 1e30)).loss)


def test_one_sample_has_no_standard_error(mlp):
    one = make_objective(copy.deepcopy(mlp.model), mlp.inputs[:1], mlp.targets[:1])
    found = evaluate(one, mlp.theta)
    assert math.isfinite(found.loss)
    assert math.isnan(found.loss_se)


def test_the_model_is_in_evaluation_mode():
    """Dropout is off: the loss is a function of theta."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, 3))
    x, y = torch.randn(9, 1, 4, 4), torch.randint(0, 3, (9,))
    expected = nn.functional.cross_entropy(model[2](x.flatten(1)), y).detach()
    theta = flatten(model)
    objective = make_objective(model, x, y)
    assert evaluate(objective, theta).loss == pytest.approx(float(expected), rel=1e-6)
    assert evaluate(objective, theta) == evaluate(objective, theta)


@pytest.mark.kernels
def test_many_thetas_are_scored_one_by_one(mlp):
    thetas = [mlp.theta, 2 * mlp.theta, torch.full_like(mlp.theta, torch.nan)]
    found = evaluate_many(mlp.objective, thetas)
    assert set(found) == {"loss", "loss_se", "accuracy"}
    for i, theta in enumerate(thetas):
        row = [found[name][i] for name in ("loss", "loss_se", "accuracy")]
        np.testing.assert_array_equal(row, evaluate(mlp.objective, theta))


def test_inputs_and_targets_of_different_lengths_are_refused(mlp):
    with pytest.raises(ValueError, match=r"30 inputs and 29 targets"):
        make_objective(mlp.model, mlp.inputs, mlp.targets[:-1])
    with pytest.raises(ValueError, match=r"0 inputs and 0 targets"):
        make_objective(mlp.model, mlp.inputs[:0], mlp.targets[:0])


def probe_line(case, d, generator):
    surface.line(case.objective, case.theta, d, np.array([-1.0, 0.0, 1.0]))


def probe_plane(case, d, generator):
    alphas = np.array([-1.0, 0.0, 1.0])
    surface.plane(case.objective, case.theta, d, -d, alphas, alphas)


def probe_hessian(case, d, generator):
    hessian.hessian_operator(case.objective, case.theta) @ d
    hessian.gradient(case.objective, case.theta)


def probe_ladder(case, d, generator):
    hessian.hessian_products(case.objective, case.theta, torch.stack([d, -d]))
    ladder.leading_eigenpairs(
        case.objective, case.theta, top=2, tolerance=1e-6, generator=generator
    )


def probe_flatness(case, d, generator):
    noises = sharpness.random_directions(
        case.objective, case.theta, "filter", 2, generator=generator
    )
    sharpness.average_rises(case.objective, case.theta, noises, [0.1])
    sharpness.worst_case(case.objective, case.theta, [0.1], 2)


def probe_path(case, d, generator):
    t = np.linspace(0, 1, 3)
    logits = paths.logits_on(case.objective, [case.theta, case.theta + d], paths.line(t))
    paths.profile(t, logits, case.objective.targets)


@pytest.mark.parametrize(
    "probe",
    [probe_line, probe_plane, probe_hessian, probe_ladder, probe_flatness, probe_path],
)
def test_probing_changes_neither_theta_nor_the_model(case, probe, generator):
    """Bit for bit; nor the direction, nor the global random state."""
    theta, own = case.theta.clone(), flatten(case.objective.model)
    d = directions.random_direction(theta, case.objective.layout, "filter", generator=generator)
    before, state = d.clone(), torch.get_rng_state()
    probe(case, d, generator)
    assert torch.equal(case.theta, theta)
    assert torch.equal(flatten(case.objective.model), own)
    assert all(p.grad is None for p in case.objective.model.parameters())
    assert torch.equal(d, before)
    assert torch.equal(torch.get_rng_state(), state)
