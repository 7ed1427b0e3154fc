"""The largest eigenvalues of all samples against dense matrices, from good and bad beginnings."""

import copy
import math

import numpy as np
import pytest
import torch
from hessian_eigenthings import LambdaOperator, lanczos
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from ladder import cut
from lossgeo import ladder
from lossgeo.hessian import hessian_operator
from lossgeo.ladder import davidson, disjoint_subsets, importance_sample, leading_eigenpairs
from lossgeo.models import build
from lossgeo.objective import make_objective, sample_losses

from .conftest import Case, plain_loss


def find(objective, theta, *, top=1, tolerance=1e-3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return leading_eigenpairs(objective, theta, top=top, tolerance=tolerance, generator=generator)


def true_residuals(matrix: torch.Tensor, pairs) -> np.ndarray:
    values = torch.from_numpy(pairs.values)
    return (matrix @ pairs.vectors.T - pairs.vectors.T * values).norm(dim=0).numpy()


def assert_honest(matrix: torch.Tensor, pairs, tolerance: float) -> None:
    """Orthonormal vectors, residuals that the dense matrix confirms, and flags that follow."""
    v = pairs.vectors
    torch.testing.assert_close(v @ v.T, torch.eye(len(v)).to(v), rtol=0, atol=1e-10)
    exact = true_residuals(matrix, pairs)
    scale = float(torch.linalg.matrix_norm(matrix, 2))
    np.testing.assert_allclose(pairs.residuals, exact, rtol=1e-6, atol=1e-13 * scale)
    np.testing.assert_array_equal(pairs.converged, exact < tolerance * np.abs(pairs.values))


@pytest.fixture(scope="module")
def trained() -> Case:
    """400 samples of three classes, of which a trained network is unsure of a few."""
    generator = torch.Generator().manual_seed(5)
    centres = torch.randn(3, 1, 6, 6, generator=generator, dtype=torch.float64)
    targets = torch.arange(400) % 3
    noise = torch.randn(400, 1, 6, 6, generator=generator, dtype=torch.float64)
    inputs = centres[targets] + 1.8 * noise
    model = build({"family": "mlp", "width": 4}, (1, 6, 6), 3, seed=3).double()
    theta = nn.utils.parameters_to_vector(model.parameters()).detach().clone()
    gradient = torch.func.grad(plain_loss(model, inputs, targets))
    for _ in range(300):
        theta = theta - 0.5 * gradient(theta)
    return Case("mlp", model, inputs, targets, theta.detach())


# Leading eigenpairs


@pytest.mark.parametrize(("fewest", "top"), [(8, 1), (8, 2), (16, 1), (16, 3)])
def test_leading_eigenvalues_are_the_dense_ones(case, monkeypatch, fewest, top):
    """To a relative error below 1e-8, however few samples it begins with."""
    monkeypatch.setattr(ladder, "FEWEST", fewest)
    monkeypatch.setattr(ladder, "PASSES", 50)
    exact = torch.linalg.eigvalsh(case.hessian).flip(0)[:top].numpy()
    found = find(case.objective, case.theta, top=top, tolerance=1e-6)
    assert found.coarse_samples == fewest < case.objective.samples
    assert found.pairs.converged.all()
    np.testing.assert_allclose(found.pairs.values, exact, rtol=1e-8)
    assert_honest(case.hessian, found.pairs, 1e-6)


@pytest.mark.parametrize("top", [1, 2, 4])
def test_with_all_samples_few_products_are_left_to_do(case, top):
    """The importance sample is everything then."""
    exact = torch.linalg.eigvalsh(case.hessian).flip(0)[:top].numpy()
    found = find(case.objective, case.theta, top=top, tolerance=1e-6)
    assert found.coarse_samples == case.objective.samples
    assert found.pairs.converged.all()
    np.testing.assert_allclose(found.pairs.values, exact, rtol=1e-8)
    assert found.products <= 4 * top + ladder.GUARDS


@pytest.mark.parametrize("passes", [1, 2, 5, 12])
@pytest.mark.parametrize("fewest", [1, 4, 16])
@pytest.mark.parametrize("top", [1, 3])
def test_eigenvectors_are_orthonormal_and_their_residuals_are_true(
    case, monkeypatch, passes, fewest, top
):
    """Also where the few samples say little and there is no time to correct them."""
    monkeypatch.setattr(ladder, "FEWEST", fewest)
    monkeypatch.setattr(ladder, "PASSES", passes)
    found = find(case.objective, case.theta, top=top)
    assert found.pairs.vectors.shape == (top, len(case.theta))
    assert_honest(case.hessian, found.pairs, 1e-3)
    assert passes > 1 or not found.pairs.converged.all(), "else nothing is left to be honest of"


def test_what_has_not_converged_says_so_and_errs_downwards(case, monkeypatch):
    """Cauchy: a Ritz value is at most the eigenvalue of its rank."""
    monkeypatch.setattr(ladder, "FEWEST", 4)
    monkeypatch.setattr(ladder, "PASSES", 1)
    exact = torch.linalg.eigvalsh(case.hessian).flip(0)[:3].numpy()
    for seed in range(5):
        pairs = find(case.objective, case.theta, top=3, seed=seed).pairs
        wrong = np.abs(pairs.values - exact) > 1e-3 * exact
        assert wrong.any()
        assert not pairs.converged[wrong].any()
        assert (pairs.values <= exact * (1 + 1e-12)).all()
        assert (np.diff(pairs.values) < 0).all()


def test_a_trained_network_has_its_eigenvalues_from_an_eighth_of_the_samples(trained, monkeypatch):
    monkeypatch.setattr(ladder, "FEWEST", 10)
    exact = torch.linalg.eigvalsh(trained.hessian).flip(0)[:2].numpy()
    for seed in range(5):
        found = find(trained.objective, trained.theta, top=2, seed=seed)
        assert 49 <= found.coarse_samples <= 51
        assert found.pairs.converged.all()
        assert_honest(trained.hessian, found.pairs, 1e-3)
        np.testing.assert_allclose(found.pairs.values, exact, rtol=1e-5)


def test_an_importance_sample_is_not_smaller_than_the_fewest(trained):
    """500 that are not there are all there are."""
    assert ladder.FEWEST >= 400
    assert find(trained.objective, trained.theta).coarse_samples == 400


def test_a_trained_network_takes_fewer_products_than_lanczos(trained, monkeypatch):
    """Lanczos from a random start, to the same residual on all samples."""
    monkeypatch.setattr(ladder, "FEWEST", 50)
    operator = hessian_operator(trained.objective, trained.theta)

    def steps_of_lanczos(seed: int) -> int:
        for steps in range(1, 30):
            run = lanczos(
                operator, k=1, max_iter=steps, which="LA", reorthogonalize=True, seed=seed
            )
            value, v = float(run.eigenvalues[0]), run.eigenvectors[0]
            if float((trained.hessian @ v - value * v).norm()) < 1e-3 * value:
                return steps
        raise AssertionError("Lanczos has not converged")

    found = [find(trained.objective, trained.theta, seed=seed) for seed in range(5)]
    assert all(leading.pairs.converged.all() for leading in found)
    most = max(leading.products for leading in found)
    assert most < min(steps_of_lanczos(seed) for seed in range(5))


def test_products_are_counted_on_all_samples_and_on_the_few(trained, monkeypatch):
    monkeypatch.setattr(ladder, "FEWEST", 50)
    on_all, on_few = [], []
    products, operator = ladder.hessian_products, ladder.hessian_operator

    def counted_products(objective, theta, vectors):
        on_all.extend(vectors)
        return products(objective, theta, vectors)

    def counted_operator(objective, theta, weights=None):
        inner = operator(objective, theta, weights)

        def matvec(v):
            on_few.append(v)
            return inner.matvec(v)

        return LambdaOperator(matvec, inner.size, device=inner.device, dtype=inner.dtype)

    monkeypatch.setattr(ladder, "hessian_products", counted_products)
    monkeypatch.setattr(ladder, "hessian_operator", counted_operator)
    found = find(trained.objective, trained.theta, top=2)
    assert (found.products, found.coarse_products) == (len(on_all), len(on_few))
    assert found.products > 2
    assert found.coarse_products > 16, "else nothing was corrected"


def test_the_few_are_weighted_as_they_were_drawn(trained, monkeypatch):
    """Drawn in proportion to 1 - p, p the probability of a sample's own class."""
    monkeypatch.setattr(ladder, "FEWEST", 50)
    seen, operator = [], ladder.hessian_operator

    def remembered(objective, theta, weights=None):
        seen.append((objective, weights))
        return operator(objective, theta, weights)

    monkeypatch.setattr(ladder, "hessian_operator", remembered)
    find(trained.objective, trained.theta)
    ((few, weights),) = seen
    unsure = -torch.expm1(-sample_losses(few, trained.theta)[0])
    probability = 1 / (400 * weights)
    certain = probability > 1 - 1e-9
    assert 0 < certain.sum() < len(weights) == few.samples
    ratio = probability[~certain] / unsure[~certain]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-6, atol=0)
    assert unsure[certain].min() > unsure[~certain].max()


def test_a_second_vector_of_the_few_that_is_the_first_of_all_is_a_guard(mlp, axes, monkeypatch):
    """Eigenvalues within a tenth of each other may have changed places."""
    matrix, few = matrix_of(axes, 10.0, 9.9), matrix_of(axes, 9.9, 10.0)
    monkeypatch.setattr(ladder, "hessian_operator", lambda *_: Counted(few).operator)
    monkeypatch.setattr(ladder, "hessian_products", lambda *parts: parts[-1] @ matrix)
    found = find(mlp.objective, mlp.theta, tolerance=1e-6)
    assert found.pairs.converged.all()
    assert found.pairs.values[0] == pytest.approx(10.0, rel=1e-10)


def test_equal_seeds_give_equal_bytes_and_another_one_another_sample(trained, monkeypatch):
    monkeypatch.setattr(ladder, "FEWEST", 50)
    a, b, other = (find(trained.objective, trained.theta, top=2, seed=s) for s in (1, 1, 2))
    for name in ("values", "residuals", "converged"):
        assert getattr(a.pairs, name).tobytes() == getattr(b.pairs, name).tobytes()
    assert torch.equal(a.pairs.vectors, b.pairs.vectors)
    assert (a.products, a.coarse_products) == (b.products, b.coarse_products)
    assert not torch.equal(a.pairs.vectors, other.pairs.vectors)


def test_theta_and_the_global_random_state_are_left_as_they_were(trained, monkeypatch):
    monkeypatch.setattr(ladder, "FEWEST", 50)
    theta, state = trained.theta.clone(), torch.get_rng_state()
    find(trained.objective, trained.theta, top=2)
    assert torch.equal(trained.theta, theta)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("top", [1, 3])
def test_a_theta_that_is_not_finite_has_eigenvalues_of_nan(mlp, bad, top):
    theta = mlp.theta.clone()
    theta[5] = bad
    found = find(mlp.objective, theta, top=top)
    assert np.isnan(found.pairs.values).all()
    assert np.isnan(found.pairs.residuals).all()
    assert found.pairs.vectors.shape == (top, len(theta))
    assert found.pairs.vectors.isnan().all()
    assert not found.pairs.converged.any()
    assert found.pairs.converged.shape == found.pairs.values.shape == (top,)
    assert found.products == found.coarse_products == 0


def test_so_has_a_loss_that_is_not_finite(mlp):
    """A finite theta whose logits are beyond float32."""
    objective = make_objective(copy.deepcopy(mlp.model), mlp.inputs, mlp.targets)
    theta = 1e30 * mlp.theta
    assert torch.isfinite(theta.float()).all()
    assert not torch.isfinite(sample_losses(objective, theta)[0]).all()
    found = find(objective, theta)
    assert np.isnan(found.pairs.values).all()
    assert not found.pairs.converged.any()


@pytest.mark.parametrize("samples", [1, 2])
def test_one_or_two_samples_will_do(mlp, samples):
    one = Case("mlp", mlp.model, mlp.inputs[:samples], mlp.targets[:samples], mlp.theta)
    found = find(one.objective, one.theta, tolerance=1e-6)
    assert found.coarse_samples == samples
    assert found.pairs.converged.all()
    exact = float(torch.linalg.eigvalsh(one.hessian)[-1])
    assert found.pairs.values[0] == pytest.approx(exact, rel=1e-8)


def test_samples_whose_loss_is_zero_in_float32_do_no_harm(trained, monkeypatch):
    """Most of them, at a theta that is far out."""
    monkeypatch.setattr(ladder, "FEWEST", 50)
    objective = make_objective(copy.deepcopy(trained.model), trained.inputs, trained.targets)
    theta = 3 * trained.theta
    losses = sample_losses(objective, theta)[0]
    assert 0.5 < (losses == 0).double().mean() < 1
    sure = Case("mlp", trained.model, trained.inputs, trained.targets, theta)
    exact = float(torch.linalg.eigvalsh(sure.hessian)[-1])
    found = find(objective, theta)
    assert found.pairs.converged.all()
    assert found.pairs.values[0] == pytest.approx(exact, rel=1e-3)


def test_where_all_losses_are_zero_there_is_no_curvature_to_converge_to(trained):
    """And no NaN, which would say that something was not finite."""
    theta = 100 * trained.theta
    objective = make_objective(copy.deepcopy(trained.model), trained.inputs, trained.targets)
    sure = sample_losses(objective, theta)[0] == 0
    assert sure.sum() > 300
    objective = make_objective(
        copy.deepcopy(trained.model), trained.inputs[sure], trained.targets[sure]
    )
    found = find(objective, theta)
    np.testing.assert_array_equal(found.pairs.values, 0)
    np.testing.assert_array_equal(found.pairs.residuals, 0)
    assert not found.pairs.converged.any()


# The importance sample


def drawn_from(importance, size: int, start: float) -> tuple[np.ndarray, np.ndarray]:
    """The sample that a given random number gives."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *_, **__: torch.tensor(start, dtype=torch.float64))
        return importance_sample(importance, size, generator=torch.Generator())


def over_starts(importance, size: int, starts: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each item is drawn over a grid of random numbers, and its weight, or NaN."""
    frequency = np.zeros(len(importance))
    weight = np.full(len(importance), np.nan)
    for start in (np.arange(starts) + 0.5) / starts:
        chosen, weights = drawn_from(importance, size, start)
        frequency[chosen] += 1 / starts
        before = weight[chosen]
        assert (np.isnan(before) | (before == weights)).all(), "a weight is the item's own"
        weight[chosen] = weights
    return frequency, weight


IMPORTANCES = hnp.arrays(
    np.float64, st.integers(1, 30), elements=st.sampled_from([0.05, 0.1, 0.3, 0.7, 1.0])
)


@given(IMPORTANCES, st.integers(1, 30))
def test_probabilities_sum_to_the_size_and_are_proportional_up_to_one(importance, size):
    """As the weights 1 / (N pi) have them."""
    size = min(size, len(importance))
    frequency, weight = over_starts(importance, size, 500)
    assert (frequency > 0).all()
    probability = 1 / (len(importance) * weight)
    assert probability.sum() == pytest.approx(size, rel=1e-12)
    certain = probability >= 1 - 1e-12
    ratio = probability[~certain] / importance[~certain]
    np.testing.assert_allclose(ratio, ratio[:1].repeat(len(ratio)), rtol=1e-12)
    assert (probability <= 1 + 1e-12).all()
    if certain.any() and not certain.all():
        assert importance[certain].min() * ratio[0] >= 1 - 1e-12, "certain only if it must be"


@given(IMPORTANCES, st.integers(1, 30))
def test_each_item_is_drawn_as_often_as_its_weight_says(importance, size):
    """Over a grid of M random numbers, to 1 / M: so sums are unbiased."""
    size, starts = min(size, len(importance)), 400
    frequency, weight = over_starts(importance, size, starts)
    probability = 1 / (len(importance) * weight)
    assert (np.abs(frequency - probability) <= 1 / starts + 1e-9).all()
    np.testing.assert_allclose(
        frequency * weight, 1 / len(importance), atol=(weight / starts).max() + 1e-9
    )


@given(IMPORTANCES, st.integers(1, 30), st.floats(1e-6, 1 - 1e-6))
def test_a_sample_has_its_size_and_no_item_twice(importance, size, start):
    """Probabilities that sum to n, drawn systematically, give n items whatever the number."""
    size = min(size, len(importance))
    chosen, weights = drawn_from(importance, size, start)
    assert len(chosen) == len(weights) == size
    assert (np.diff(chosen) > 0).all()
    assert (weights >= 1 / len(importance) * (1 - 1e-12)).all()


def test_the_most_important_are_always_in(rng):
    importance = rng.uniform(0, 0.01, 100)
    importance[[7, 50, 99]] = [1.0, 0.9, 0.8]
    for seed in range(50):
        generator = torch.Generator().manual_seed(seed)
        chosen, weights = importance_sample(importance, 10, generator=generator)
        for item in (7, 50, 99):
            assert weights[chosen == item] == [1 / 100]


def test_items_become_certain_one_after_the_other():
    """Once the first is, what is left of the size makes the second certain, and so on."""
    frequency, weight = over_starts(np.array([100.0, 10.0, 1.0, 0.5, 0.5]), 3, 400)
    np.testing.assert_allclose(1 / (5 * weight), [1, 1, 0.5, 0.25, 0.25], rtol=1e-12)
    np.testing.assert_allclose(frequency, [1, 1, 0.5, 0.25, 0.25], atol=1 / 400)


def test_means_are_unbiased_over_many_generators(rng):
    """The estimates of a mean scatter about it, and less than those of a uniform sample."""
    importance = rng.uniform(size=200) ** 6
    values = importance * rng.uniform(0.5, 1.5, 200)
    estimates, uniform = np.zeros((2, 1000))
    for seed in range(1000):
        for out, q in ((estimates, importance), (uniform, np.ones(200))):
            generator = torch.Generator().manual_seed(seed)
            chosen, weights = importance_sample(q, 20, generator=generator)
            out[seed] = weights @ values[chosen]
    error = estimates.std(ddof=1) / math.sqrt(1000)
    assert abs(estimates.mean() - values.mean()) < 4 * error
    assert error < 0.02 * values.mean()
    assert estimates.std() < 0.5 * uniform.std()


@pytest.mark.parametrize("value", [0.0, 1e-12, 0.3, 1.0])
def test_equal_importances_give_a_uniform_sample(generator, value):
    """Of none too: a model that is sure of everything."""
    chosen, weights = importance_sample(np.full(40, value), 10, generator=generator)
    np.testing.assert_array_equal(np.diff(chosen), 4)
    np.testing.assert_allclose(weights, 1 / 10, rtol=1e-12)


@pytest.mark.parametrize("size", [6, 7, 1000])
def test_as_many_as_there_are_is_everything_with_its_mean(rng, generator, size):
    importance = np.append(rng.uniform(size=5), 0.0)
    chosen, weights = importance_sample(importance, size, generator=generator)
    np.testing.assert_array_equal(chosen, np.arange(6))
    np.testing.assert_allclose(weights, 1 / 6, rtol=1e-12)


def test_items_of_no_importance_may_be_drawn_too():
    """With the probability of float32's resolution: what is zero may have been rounded."""
    importance = np.array([0.5, 0.0, 0.5, 1e-20, 0.5, 0.5])
    eps = np.finfo(np.float32).eps
    rest = 2 / (2 + 2 * eps)
    cumulative = rest * np.cumsum([0.5, eps])
    chosen, weights = drawn_from(importance, 2, 1 - cumulative.mean())
    assert 1 in chosen
    np.testing.assert_allclose(weights[chosen == 1], 1 / (6 * rest * eps), rtol=1e-9)


def test_the_same_generator_draws_the_same_sample(rng):
    importance = rng.uniform(size=100)
    a, b, other = (
        importance_sample(importance, 10, generator=torch.Generator().manual_seed(seed))[0]
        for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, other)


def test_the_callers_importances_are_left_as_they_were(generator):
    importance = np.array([0.0, 0.5, 2.0])
    importance_sample(importance, 2, generator=generator)
    np.testing.assert_array_equal(importance, [0.0, 0.5, 2.0])


# Davidson's method


class Counted:
    """A matrix as products of many vectors and as an operator; it remembers what was asked."""

    def __init__(self, matrix: torch.Tensor) -> None:
        self.matrix = matrix
        self.asked: list[int] = []
        self.operator = LambdaOperator(self.product, len(matrix), dtype=matrix.dtype)

    def product(self, v: torch.Tensor) -> torch.Tensor:
        self.asked.append(1)
        return self.matrix @ v

    def products(self, vectors: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(vectors))
        return vectors @ self.matrix


SIZE = 40


@pytest.fixture(scope="module")
def axes() -> torch.Tensor:
    """Orthonormal rows, the eigenvectors of `matrix_of`."""
    generator = torch.Generator().manual_seed(7)
    q, _ = torch.linalg.qr(torch.randn(SIZE, SIZE, generator=generator, dtype=torch.float64))
    return q.T


def matrix_of(axes: torch.Tensor, *largest: float, rest=(-2.0, 5.0)) -> torch.Tensor:
    """With the largest eigenvalues along the first axes, and others between `rest`."""
    others = torch.linspace(*reversed(rest), SIZE - len(largest), dtype=torch.float64)
    return axes.T @ torch.diag(torch.cat([torch.tensor(largest).double(), others])) @ axes


def near(vectors: torch.Tensor, noise: float, seed: int = 0) -> torch.Tensor:
    """Vectors with a relative error."""
    generator = torch.Generator().manual_seed(seed)
    error = torch.randn(vectors.shape, generator=generator, dtype=torch.float64)
    return vectors + noise * error / error.norm(dim=1, keepdim=True)


def correct(whole: Counted, coarse: Counted, vectors, *, top=1, tolerance=1e-6):
    return davidson(whole.products, coarse.operator, vectors, top=top, tolerance=tolerance)


@pytest.mark.parametrize("top", [1, 2, 3])
def test_an_exact_coarse_operator_takes_few_passes(axes, top):
    matrix = matrix_of(axes, 12.0, 9.0, 7.0)
    whole, coarse = Counted(matrix), Counted(matrix)
    pairs, _, _ = correct(whole, coarse, near(axes[:top], 0.1), top=top)
    assert pairs.converged.all()
    np.testing.assert_allclose(pairs.values, [12.0, 9.0, 7.0][:top], rtol=1e-10)
    assert_honest(matrix, pairs, 1e-6)
    assert len(whole.asked) <= 6


def test_vectors_that_are_right_need_no_correction(axes):
    whole, coarse = Counted(matrix_of(axes, 12.0, 9.0)), Counted(matrix_of(axes, 1.0, 2.0))
    pairs, products, solving = correct(whole, coarse, axes[:2], top=2)
    np.testing.assert_allclose(pairs.values, [12.0, 9.0], rtol=1e-12)
    assert pairs.converged.all()
    assert (products, solving) == (2, 0)


@pytest.mark.parametrize("top", [1, 2])
def test_without_any_coarse_curvature_it_is_slower_but_right(axes, top):
    """The correction is the residual then: Lanczos' subspace."""
    matrix = matrix_of(axes, 30.0, 20.0, rest=(-2.0, 15.0))
    whole, coarse = Counted(matrix), Counted(torch.zeros_like(matrix))
    pairs, _, _ = correct(whole, coarse, near(axes[:2], 0.1), top=top, tolerance=1e-4)
    assert pairs.converged.all()
    assert_honest(matrix, pairs, 1e-4)
    np.testing.assert_allclose(pairs.values, [30.0, 20.0][:top], rtol=1e-7)
    exact = Counted(matrix)
    correct(exact, Counted(matrix), near(axes[:2], 0.1), top=top, tolerance=1e-4)
    assert len(whole.asked) > len(exact.asked)


@pytest.mark.parametrize("passes", [1, 3, 12])
@pytest.mark.parametrize("shift", [0.0, 100.0, -100.0])
def test_a_useless_coarse_operator_is_no_reason_to_lie(axes, monkeypatch, passes, shift):
    """Its eigenvalues far above and far below as well."""
    monkeypatch.setattr(ladder, "PASSES", passes)
    matrix = matrix_of(axes, 12.0, 11.9)
    coarse = Counted(shift * torch.eye(SIZE, dtype=torch.float64))
    pairs, _, _ = correct(Counted(matrix), coarse, near(axes[:1], 0.5), tolerance=1e-8)
    assert_honest(matrix, pairs, 1e-8)
    assert not pairs.converged.any()
    assert pairs.values[0] <= 12.0 + 1e-12


@pytest.mark.parametrize("seed", range(3))
def test_eigenvectors_that_have_changed_places_are_put_right_by_the_guard(axes, seed):
    """What is largest on the few samples is the second largest on all."""
    matrix, coarse = matrix_of(axes, 10.0, 9.8), Counted(matrix_of(axes, 9.8, 10.0))
    start = near(axes[[1, 0]], 0.05, seed)
    pairs, _, _ = correct(Counted(matrix), coarse, start)
    assert pairs.converged.all()
    assert pairs.values[0] == pytest.approx(10.0, rel=1e-10)
    assert abs(float(pairs.vectors[0] @ axes[0])) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("largest", [(10.0, 9.0), (10.0, 9.9)])
def test_a_larger_eigenvalue_that_the_start_hardly_has_is_found(axes, largest):
    """The equation is indefinite there, and shows it."""
    matrix = matrix_of(axes, *largest)
    start = axes[1:2] + 0.02 * axes[0]
    pairs, _, _ = correct(Counted(matrix), Counted(matrix), start)
    assert pairs.converged.all()
    assert pairs.values[0] == pytest.approx(10.0, rel=1e-10)


@pytest.mark.parametrize("top", [1, 3])
def test_a_corrections_own_products_and_those_of_the_whole_are_counted(axes, top):
    whole = Counted(matrix_of(axes, 12.0, 9.0, 7.0))
    coarse = Counted(matrix_of(axes, 11.0, 9.5, 6.0))
    pairs, products, solving = correct(whole, coarse, near(axes[:3], 0.2), top=top)
    assert pairs.converged.all()
    assert products == sum(whole.asked) > 3
    assert solving == sum(coarse.asked) > 0
    assert whole.asked[0] == 3
    assert max(whole.asked[1:]) == top, "one correction for each pair that is wanted"


def test_what_has_converged_is_not_corrected_any_further(axes):
    matrix = matrix_of(axes, 12.0, 9.0)
    whole = Counted(matrix)
    start = torch.cat([axes[:1], near(axes[1:2], 0.3)])
    pairs, _, _ = correct(whole, Counted(matrix_of(axes, 12.0, 8.0)), start, top=2)
    assert pairs.converged.all()
    assert set(whole.asked[1:]) == {1}


def test_vectors_that_depend_on_each_other_count_once(axes):
    matrix = matrix_of(axes, 12.0, 9.0)
    a, b = near(axes[:2], 0.1)
    whole, again = Counted(matrix), Counted(matrix)
    some, _, _ = correct(whole, Counted(matrix), torch.stack([a, b]), top=2)
    dependent = torch.stack([a, 3 * a, b, a - 2 * b, b])
    pairs, products, _ = correct(again, Counted(matrix), dependent, top=2)
    assert again.asked[0] == 2
    assert products == sum(again.asked)
    assert pairs.converged.all()
    np.testing.assert_allclose(pairs.values, some.values, rtol=1e-12)
    assert_honest(matrix, pairs, 1e-6)


def test_vectors_that_nearly_depend_on_each_other_are_made_orthogonal_all_the_same(axes):
    """What is left of the second is small, and its rounding errors are not."""
    matrix = matrix_of(axes, 12.0, 9.0)
    start = torch.stack([axes[0], axes[0] + 1e-9 * axes[1]])
    pairs, _, _ = correct(Counted(matrix), Counted(matrix), start, top=2)
    assert pairs.converged.all()
    assert_honest(matrix, pairs, 1e-6)
    np.testing.assert_allclose(pairs.values, [12.0, 9.0], rtol=1e-10)


def test_the_length_of_the_vectors_does_not_matter(axes):
    matrix = matrix_of(axes, 12.0, 9.0)
    start = near(axes[:2], 0.1) * torch.tensor([[1e-20], [1e20]], dtype=torch.float64)
    pairs, _, _ = correct(Counted(matrix), Counted(matrix), start, top=2)
    assert pairs.converged.all()
    assert_honest(matrix, pairs, 1e-6)
    np.testing.assert_allclose(pairs.values, [12.0, 9.0], rtol=1e-10)


def test_pairs_that_no_vector_stands_for_are_nan(axes):
    """And have not converged."""
    matrix = matrix_of(axes, 12.0, 9.0)
    pairs, _, _ = correct(Counted(matrix), Counted(matrix), near(axes[:1], 0.1), top=3)
    assert list(pairs.converged) == [True, False, False]
    assert pairs.values[0] == pytest.approx(12.0, rel=1e-10)
    assert np.isnan(pairs.values[1:]).all()
    assert np.isnan(pairs.residuals[1:]).all()
    assert pairs.vectors.shape == (3, SIZE)


def test_a_negative_largest_eigenvalue_converges_as_well(axes):
    matrix = matrix_of(axes, -1.0, -2.0, rest=(-9.0, -4.0))
    pairs, _, _ = correct(Counted(matrix), Counted(matrix), near(axes[:2], 0.1))
    assert pairs.converged.all()
    assert pairs.values[0] == pytest.approx(-1.0, rel=1e-10)


def test_a_subspace_that_is_everything_ends_it():
    """Two dimensions have no room for a third vector, whatever the tolerance."""
    matrix = torch.tensor([[2.0, 1.0], [1.0, -1.0]], dtype=torch.float64)
    whole = Counted(matrix)
    pairs, products, _ = correct(whole, Counted(matrix), torch.eye(2).double(), tolerance=1e-300)
    assert products == sum(whole.asked) == 2
    assert pairs.values[0] == pytest.approx(float(torch.linalg.eigvalsh(matrix)[-1]), rel=1e-14)


def test_a_matrix_of_zeros_has_an_eigenvalue_of_zero_that_no_tolerance_reaches(axes):
    zeros = torch.zeros(SIZE, SIZE, dtype=torch.float64)
    pairs, _, _ = correct(Counted(zeros), Counted(zeros), axes[:2])
    np.testing.assert_array_equal(pairs.values, [0.0])
    np.testing.assert_array_equal(pairs.residuals, [0.0])
    assert not pairs.converged.any()


# Subsets


@given(
    st.integers(1, 60),
    st.lists(st.integers(2, 80), min_size=1, max_size=6, unique=True),
    st.integers(1, 5),
)
def test_subsets_are_disjoint_and_as_many_as_there_is_room_for(count, sizes, subsets):
    order = np.random.default_rng(count).permutation(count)
    found = disjoint_subsets(order, sizes, subsets)
    assert list(found) == sorted({min(size, count) for size in sizes})
    for size, parts in found.items():
        assert len(parts) == max(1, min(subsets, count // size))
        assert {len(part) for part in parts} == {size}
        together = np.concatenate(parts)
        assert len(np.unique(together)) == len(together)
        np.testing.assert_array_equal(together, order[: len(together)])


def test_each_size_can_have_a_number_of_subsets_of_its_own():
    found = disjoint_subsets(np.arange(20), [3, 10, 50, 40], [4, 1, 1, 2])
    assert {size: len(parts) for size, parts in found.items()} == {3: 4, 10: 1, 20: 1}


def test_the_first_subsets_are_nested_and_sizes_beyond_the_data_come_once():
    order = np.array([4, 1, 6, 0, 3, 5, 2])
    found = disjoint_subsets(order, [20, 2, 3, 10], 3)
    assert {size: [list(part) for part in parts] for size, parts in found.items()} == {
        2: [[4, 1], [6, 0], [3, 5]],
        3: [[4, 1, 6], [0, 3, 5]],
        7: [list(order)],
    }


def test_a_seeds_subsets_are_cut_from_the_split_the_same_way_every_time():
    """And in another order for the other split, and for another seed."""
    settings = {"samples": [20, 500], "subsets": 3}
    asked = (("train", 0), ("train", 0), ("test", 0), ("train", 1))
    a, b, *others = (cut(50, settings, split, seed) for split, seed in asked)
    assert [(rung.size, rung.number) for rung in a] == [(20, 0), (20, 1), (50, 0)]
    for rung in a:
        assert len(set(rung.chosen)) == rung.size
    assert not set(a[0].chosen) & set(a[1].chosen)
    assert all(np.array_equal(s.chosen, t.chosen) for s, t in zip(a, b, strict=True))
    for other in others:
        assert not np.array_equal(a[0].chosen, other[0].chosen)


def test_a_hessian_that_is_not_finite_outside_the_few_is_nan(monkeypatch):
    """The norm of a zero vector has no second derivative; its sample is not always drawn."""

    class Norm(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 3, bias=False)

        def forward(self, x):
            h = self.linear(x.flatten(1))
            return h * h.norm(dim=1, keepdim=True)

    monkeypatch.setattr(ladder, "FEWEST", 20)
    torch.manual_seed(0)
    inputs, targets = torch.randn(200, 1, 2, 2), torch.arange(200) % 3
    inputs[7] = 0
    objective = make_objective(Norm(), inputs, targets)
    drawn = []
    for seed in range(6):
        found = find(objective, torch.randn(12), top=4, seed=seed)
        drawn.append(found.products == 0)
        assert np.isnan(found.pairs.values).all()
        assert not found.pairs.converged.any()
    assert not all(drawn), "in some draw the sample must be outside"


def test_a_guard_that_could_still_be_the_largest_is_corrected_too(axes):
    """10 and 9.99, taken for each other by the few: the wrong one alone converges at once."""
    matrix = matrix_of(axes, 10.0, 9.99)
    swapped = matrix_of(axes, 9.99, 10.0)
    start = torch.stack([axes[1], (axes[0] + 0.3 * axes[2]) / 1.09**0.5])
    pairs, _, _ = correct(Counted(matrix), Counted(swapped), start, tolerance=1e-6)
    assert pairs.converged.all()
    assert pairs.values[0] == pytest.approx(10.0, rel=1e-9)
