"""The published estimators do what the study did, and their faults are what we say they are."""

import copy
import math

import loss_landscapes
import numpy as np
import pytest
import torch
from torch import nn

from lossgeo import surface
from lossgeo.geometry import quadratic_r2
from lossgeo.models import build
from lossgeo.objective import make_objective
from lossgeo.parameters import put, unflatten
from lossgeo.published import (
    comb,
    noise_rises,
    pc1_line,
    peer_surfaces,
    power_eigenvalues,
    top_eigenvalue,
)

PEER = {"distance": 1.5, "steps": 6, "line_count": 3, "line_distance": 1.5, "line_steps": 5}


def symmetric(eigenvalues: list[float], generator: torch.Generator) -> torch.Tensor:
    size = len(eigenvalues)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64))
    return basis @ torch.diag(torch.tensor(eigenvalues, dtype=torch.float64)) @ basis.T


def counted(matrix: torch.Tensor):
    """The product with a matrix, and the list of vectors that it was asked for."""
    asked = []

    def product(v: torch.Tensor) -> torch.Tensor:
        asked.append(v)
        return matrix @ v

    return product, asked


def start_of(size: int, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(size, generator=generator, dtype=torch.float64)


def test_where_it_converges_power_iteration_finds_eigenvalues_by_magnitude(generator):
    matrix = symmetric([-9.0, 5.0, 2.0, 0.5, 0.1], generator)
    values, stopped = power_eigenvalues(
        matrix.mv, start_of(5, generator), count=3, steps=500, tolerance=1e-15
    )
    np.testing.assert_allclose(values, [-9.0, 5.0, 2.0], rtol=1e-10)
    assert stopped.all()


def test_power_iteration_gives_up_after_its_steps_below_the_eigenvalue(generator):
    """On a slow spectrum it is a lower bound: v'Av of a unit vector."""
    matrix = symmetric([1.0, 0.95, 0.9, *np.linspace(0.8, 0, 40)], generator)
    product, asked = counted(matrix)
    values, stopped = power_eigenvalues(
        product, start_of(43, generator), count=3, steps=20, tolerance=1e-12
    )
    assert len(asked) == 3 * 20
    assert not stopped.any()
    assert values[0] < 1 - 1e-4
    for v in asked:
        assert float(v.norm()) == pytest.approx(1)


def test_power_iteration_stops_at_the_tolerance_where_the_eigenvalue_may_still_be_wrong(generator):
    matrix = symmetric([1.0, 0.99, *np.linspace(0.5, 0, 40)], generator)
    product, asked = counted(matrix)
    values, stopped = power_eigenvalues(
        product, start_of(42, generator), count=1, steps=1000, tolerance=1e-4
    )
    assert stopped.all()
    estimates = [float(v @ matrix @ v) for v in asked]
    assert values[0] == pytest.approx(estimates[-1])
    changes = np.abs(np.diff(estimates)) / estimates[1:]
    assert changes[-1] < 1e-4 < changes[:-1].min()
    assert 1 - values[0] > 3 * 1e-4


def test_deflation_goes_on_from_the_last_vector_and_takes_out_what_was_found(generator):
    matrix = symmetric([4.0, 3.0, 2.0, 1.0], generator)
    product, asked = counted(matrix)
    steps = 7
    values, _ = power_eigenvalues(
        product, start_of(4, generator), count=2, steps=steps, tolerance=1e-12
    )
    first = matrix @ asked[steps - 1]
    first /= first.norm()
    torch.testing.assert_close(asked[steps], first)
    deflated = matrix - values[0] * torch.outer(first, first)
    second = deflated @ first
    torch.testing.assert_close(asked[steps + 1], second / second.norm())


def test_a_matrix_of_rank_one_has_one_eigenvalue(generator):
    matrix = torch.diag(torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64))
    start = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    values, stopped = power_eigenvalues(matrix.mv, start, count=3, steps=20, tolerance=1e-4)
    np.testing.assert_array_equal(values, [2.0, 0.0, 0.0])
    assert stopped.all()


@pytest.mark.kernels
def test_the_top_eigenvalue_is_that_of_the_dense_hessian_where_it_converges(mlp, generator):
    found, stopped = top_eigenvalue(
        mlp.objective, mlp.theta, count=3, steps=2000, tolerance=1e-13, generator=generator
    )
    assert stopped
    assert found == pytest.approx(float(torch.linalg.eigvalsh(mlp.hessian)[-1]), rel=1e-6)


def test_mini_batches_have_a_larger_top_eigenvalue_than_all_samples_together(mlp):
    """The largest eigenvalue is convex in the Hessian: Jensen's inequality."""

    def top(inputs: torch.Tensor, targets: torch.Tensor) -> float:
        batch = make_objective(copy.deepcopy(mlp.model), inputs, targets, dtype=torch.float64)
        generator = torch.Generator().manual_seed(1)
        return top_eigenvalue(
            batch, mlp.theta, count=1, steps=2000, tolerance=1e-12, generator=generator
        )[0]

    batches = [top(*part) for part in zip(mlp.inputs.split(5), mlp.targets.split(5), strict=True)]
    assert np.mean(batches) > 1.05 * top(mlp.inputs, mlp.targets)


def test_noise_is_the_same_on_every_parameter(mlp):
    rises = noise_rises(
        mlp.objective, mlp.theta, 0.1, 4, generator=torch.Generator().manual_seed(2)
    )
    generator = torch.Generator().manual_seed(2)
    for rise in rises:
        theta = mlp.theta + 0.1 * torch.randn(len(mlp.theta), generator=generator).double()
        expected = float(mlp.loss(theta) - mlp.loss(mlp.theta))
        assert rise == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_published_noise_sees_the_trace_and_next_to_nothing(mlp):
    """scale^2 / 2 tr H in expectation: at 1e-3 below a millionth of the trace."""
    trace = float(mlp.hessian.trace())
    generator = torch.Generator().manual_seed(3)
    rises = noise_rises(mlp.objective, mlp.theta, 1e-3, 2000, generator=generator)
    error = rises.std() / math.sqrt(len(rises))
    assert abs(rises.mean() - 5e-7 * trace) < 4 * error


@pytest.mark.kernels
def test_pc1_is_the_leading_right_singular_vector_of_the_centred_snapshots(mlp, generator):
    steps = torch.randn(6, len(mlp.theta), generator=generator).double().numpy()
    snapshots = mlp.theta.numpy() + 0.05 * steps.cumsum(0)
    alphas, losses = pc1_line(mlp.objective, snapshots, 5)
    np.testing.assert_array_equal(alphas, [-1, -0.5, 0, 0.5, 1])
    axis = np.linalg.svd(snapshots - snapshots.mean(0))[2][0]
    either = [
        [float(mlp.loss(torch.from_numpy(snapshots[-1] + a * sign * axis))) for a in alphas]
        for sign in (-1, 1)
    ]
    assert min(np.abs(losses - one).max() for one in either) < 1e-10


def test_any_direction_of_a_smooth_loss_is_a_parabola_near_enough(mlp, generator):
    """Taylor: R^2 tends to 1 along directions that have nothing to do with the training."""
    model = build({"family": "mlp", "width": 4, "activation": "gelu"}, (1, 6, 6), 3)
    objective = make_objective(model, mlp.inputs, mlp.targets, dtype=torch.float64)
    direction = torch.randn(len(mlp.theta), generator=generator).double()
    direction /= direction.norm()
    alphas = np.linspace(-0.1, 0.1, 21)
    loss = surface.line(objective, mlp.theta, direction, alphas)["loss"]
    assert quadratic_r2(alphas, loss) > 1 - 1e-5


def walked_plane(theta: torch.Tensor, model: nn.Module, steps: int) -> list[list[torch.Tensor]]:
    """Where loss-landscapes evaluates a plane, in the order in which it returns the values."""
    network = copy.deepcopy(model)
    put(network, theta)
    thetas = []

    def number_of(wrapper) -> int:
        thetas.append(nn.utils.parameters_to_vector(wrapper.modules[0].parameters()))
        return len(thetas) - 1

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        numbers = loss_landscapes.random_plane(
            network, number_of, distance=1.5, steps=steps, normalization="filter"
        )
    return [[thetas[number] for number in row] for row in numbers]


@pytest.mark.kernels
def test_every_other_column_of_the_peers_plane_is_one_step_off(case):
    """And the plane ends at a third of ||theta|| on each side, not at three halves."""
    steps = 6
    thetas = walked_plane(case.theta, case.model, steps)
    second = thetas[0][1] - thetas[0][0]
    first = thetas[2][0] - thetas[0][0]
    first /= 2
    for i, row in enumerate(thetas):
        for j, theta in enumerate(row):
            shift = 1 if i % 2 == 0 else 0
            expected = case.theta + (i - steps / 2) * first + (j + shift - steps / 2) * second
            torch.testing.assert_close(theta, expected, rtol=0, atol=1e-12)
    for direction in (first, second):
        reach = steps / 2 * direction.norm() / case.theta.norm()
        assert float(reach) == pytest.approx(1 / (2 * 1.5))


@pytest.mark.kernels
def test_the_first_direction_of_the_peer_grows_every_weight_and_moves_biases_by_their_size(case):
    thetas = walked_plane(case.theta, case.model, 4)
    layout = case.objective.layout
    step, theta = (
        unflatten(vector, layout) for vector in ((thetas[2][0] - thetas[0][0]) / 2, case.theta)
    )
    ratios = []  # of the norms of a filter's step and of the filter
    for name in layout.names:
        assert (step[name] > 0).all()
        if step[name].ndim == 1:
            ratios.append(step[name] / theta[name].abs())
        else:
            ratios.append(step[name].flatten(1).norm(dim=1) / theta[name].flatten(1).norm(dim=1))
    ratios = torch.cat(ratios)
    torch.testing.assert_close(ratios, ratios.mean().expand_as(ratios), rtol=1e-9, atol=0)


@pytest.mark.kernels
@pytest.mark.parametrize("which", ["mlp", "cnn"])
def test_lines_of_the_peer_point_the_same_way_and_start_ever_further_from_the_minimum(
    which, request
):
    case = request.getfixturevalue(which)
    found = peer_surfaces(case.objective, case.theta, **PEER, seed=0)
    assert found.line_cosine == pytest.approx(0.75, abs=0.05)  # E[u]^2 / E[u^2] = (1/4) / (1/3)
    assert abs(found.plane_cosine) < 0.1
    # half a side along the first direction, and back along the second: a corner of the plane
    corner = math.sqrt(2 - 2 * found.plane_cosine) / (2 * 1.5)
    assert found.distances[0] == pytest.approx(corner, rel=1e-6)
    assert (np.diff(found.distances) > 0.1).all()  # the minimum is on none of them
    assert found.starts[1:] == pytest.approx(found.lines[:-1, -1])  # each where the last ended
    assert found.minimum == pytest.approx(float(case.loss(case.theta)))
    assert found.plane.shape == (6, 6)
    assert found.lines.shape == (3, 5)


def test_the_peer_leaves_our_model_and_torchs_generator_as_they_were(cnn):
    template = [p.detach().clone() for p in cnn.objective.model.parameters()]
    theta, state = cnn.theta.clone(), torch.get_rng_state()
    once, again = (peer_surfaces(cnn.objective, cnn.theta, **PEER, seed=5) for _ in range(2))
    assert once.plane.tobytes() == again.plane.tobytes()
    assert once.lines.tobytes() == again.lines.tobytes()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(cnn.theta, theta)
    for before, now in zip(template, cnn.objective.model.parameters(), strict=True):
        assert torch.equal(before, now)
        assert now.requires_grad
    other = peer_surfaces(cnn.objective, cnn.theta, **PEER, seed=6)
    assert not np.allclose(other.plane, once.plane)


def test_a_comb_is_what_the_shift_adds():
    """Of a x^2 + c y with c > a: columns are c apart, second differences 2 c, not 2 a."""
    x, y = np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij")
    shift = (np.arange(8) % 2 == 0)[:, None]
    assert comb(0.5 * x**2 + 4 * (y + shift)) == pytest.approx(4 / 0.5)
    assert comb(0.5 * x**2 + 0 * y) == pytest.approx(1)
    assert math.isnan(comb(np.full((8, 8), np.inf)))
    assert math.isnan(comb(np.zeros((8, 8))))
