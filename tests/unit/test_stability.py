"""The ceilings are where torch's own optimizers start to diverge on a quadratic."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lossgeo.optimizers import make_optimizer
from lossgeo.stability import ceiling, companion, has_ceiling, is_preconditioned

SGD = [
    {"lr": 0.01},
    {"lr": 0.5, "weight_decay": 0.1},
    {"lr": 0.05, "momentum": 0.9},
    {"lr": 0.05, "momentum": 0.5, "weight_decay": 0.3},
    {"lr": 0.05, "momentum": 0.9, "dampening": 0.9},
    {"lr": 0.05, "momentum": 0.7, "dampening": 0.25, "weight_decay": 0.2},
    {"lr": 0.01, "momentum": 0.9, "nesterov": True},
    {"lr": 0.2, "momentum": 0.4, "nesterov": True, "weight_decay": 0.5},
    {"lr": 0.1, "dampening": 0.5},  # which without momentum torch does not look at
]
ADAM = [
    {"name": "Adam", "lr": 0.001},
    {"name": "Adam", "lr": 0.3, "betas": [0.5, 0.99], "amsgrad": True},
    {"name": "Adam", "lr": 0.1, "betas": [0.0, 0.9]},
    {"name": "Adam", "lr": 0.05, "weight_decay": 0.4},
    {"name": "AdamW", "lr": 0.01},  # with torch's own weight decay, 0.01
    {"name": "AdamW", "lr": 0.1, "betas": [0.8, 0.99], "weight_decay": 0.5},
]
SPECS = [{"name": "SGD"} | spec for spec in SGD] + ADAM


def grows(spec, curvature: float, *, steps: int = 1000) -> bool:
    """Whether torch's optimizer, from a tiny theta in float64, runs off on curvature / 2 theta^2.

    Adam's preconditioner is held at 1: eps is 1 and the gradients are far below it.
    """
    theta = torch.nn.Parameter(torch.full((1,), 1e-100, dtype=torch.float64))
    extra = {"eps": 1.0} if spec["name"] != "SGD" else {}
    update = make_optimizer([theta], spec | extra)
    path = np.empty(steps)
    for step in range(steps):
        theta.grad = curvature * theta.detach()
        update.step()
        path[step] = theta.detach()
    return abs(path[-50:]).max() > abs(path[steps // 2 : steps // 2 + 50]).max()


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_torchs_optimizers_are_stable_below_the_ceiling_and_not_above(spec):
    found = ceiling(spec)
    if spec["name"] == "Adam":  # its ceiling is that of P^-1 (H + w I)
        found -= spec.get("weight_decay", 0.0)
    assert not grows(spec, 0.99 * found)
    assert grows(spec, 1.01 * found)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_companion_matrix_has_a_spectral_radius_of_one_at_the_ceiling(spec):
    radius = np.abs(np.linalg.eigvals(companion(spec, ceiling(spec)))).max()
    assert radius == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_the_companion_matrix_is_one_update_of_torchs(spec):
    """In float64, from a momentum that is not zero; Adam's preconditioner is held at 1."""
    is_sgd, curvature = spec["name"] == "SGD", 0.7
    theta = torch.nn.Parameter(torch.tensor([0.3], dtype=torch.float64))
    scale = 1e-60  # so that Adam's mean of squares vanishes beside eps
    with torch.no_grad():
        theta.mul_(scale)
    update = make_optimizer([theta], spec | ({} if is_sgd else {"eps": 1.0}))
    name = "momentum_buffer" if is_sgd else "exp_avg"
    coupled = spec.get("weight_decay", 0.0) if spec["name"] == "Adam" else 0.0
    states = []
    for _ in range(400):  # by then Adam's bias correction has gone
        theta.grad = curvature * theta.detach()
        update.step()
        buffer = update.state[theta].get(name)
        states.append([float(theta.detach()), 0.0 if buffer is None else float(buffer)])
        if not is_sgd:
            with torch.no_grad():
                theta.add_(scale)  # kept away from its minimum
    before, after = np.array(states[-2]), np.array(states[-1])
    if not is_sgd:
        before[0] += scale
    matrix = companion(spec, curvature + coupled)
    if is_sgd and not spec.get("momentum"):
        before[1] = after[1] = matrix[1] @ before
    np.testing.assert_allclose(after, matrix @ before, rtol=1e-9, atol=1e-300)


def test_closed_forms():
    def sgd(**settings):
        return ceiling({"name": "SGD", "lr": 0.01} | settings)

    assert sgd() == pytest.approx(200, rel=1e-14)
    assert sgd(momentum=0.9) == pytest.approx(380, rel=1e-13)
    assert sgd(momentum=0.9, nesterov=True) == pytest.approx(3.8 / 0.028, rel=1e-13)
    assert sgd(momentum=0.9, nesterov=True) == pytest.approx(135.7, abs=0.05)
    assert sgd(momentum=0.9, dampening=0.9) == pytest.approx(3800, rel=1e-12)
    assert sgd(momentum=0.9, weight_decay=5.0) == pytest.approx(375, rel=1e-13)
    assert ceiling({"name": "Adam", "lr": 0.001}) == pytest.approx(38 / 0.001, rel=1e-13)
    assert ceiling({"name": "Adam", "lr": 0.01, "betas": [0.0, 0.9]}) == pytest.approx(200)


def test_where_no_positive_curvature_is_stable_and_where_all_are():
    turned = {"name": "SGD", "lr": 0.1, "momentum": 0.9}
    assert ceiling(turned | {"dampening": 1.5}) == 0.0  # it climbs
    assert ceiling(turned | {"dampening": 1.0}) == np.inf  # it stands still
    assert ceiling({"name": "SGD", "lr": 0.1, "weight_decay": 30.0}) == 0.0


def test_only_sgds_ceiling_is_one_of_the_hessian_itself():
    assert not is_preconditioned({"name": "SGD", "lr": 0.1})
    assert is_preconditioned({"name": "Adam", "lr": 0.1})
    assert is_preconditioned({"name": "AdamW", "lr": 0.1})


@given(
    lr=st.floats(1e-4, 10),
    momentum=st.floats(0, 0.99),
    dampening=st.floats(0, 0.95),
    weight_decay=st.floats(0, 0.01),
    nesterov=st.booleans(),
)
def test_the_spectral_radius_passes_one_at_the_ceiling_whatever_the_settings(
    lr, momentum, dampening, weight_decay, nesterov
):
    spec = {"name": "SGD", "lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    spec |= {"nesterov": True} if nesterov else {"dampening": dampening}
    found = ceiling(spec)

    def radius(curvature):
        return np.abs(np.linalg.eigvals(companion(spec, curvature))).max()

    assert radius(0.999 * found) < 1 < radius(1.001 * found)
    for share in (0.01, 0.3, 0.7):
        assert radius(share * found) < 1


def test_only_plain_updates_have_a_ceiling():
    assert all(has_ceiling(spec) for spec in SPECS)
    for spec in (
        {"name": "RMSprop", "lr": 0.1},
        {"train": {"factory": "mine:fit"}},
        {"name": "SGD", "lr": 0.1, "schedule": {"name": "cosine"}},
        {"name": "SGD", "lr": 0.1, "clip": 1.0},
        {"name": "Adam", "lr": 0.1, "sam": {"rho": 0.1}},
    ):
        assert not has_ceiling(spec)
