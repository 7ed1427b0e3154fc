"""Each measure of sharpness against its own definition, and which rescalings it does not see."""

import pytest
import torch

from lossgeo.directions import filter_scale
from lossgeo.invariance import MEASURES, measures, rescaled_thetas
from lossgeo.rescaling import find_rescalable

SETTINGS = {
    "radii": [0.1, 0.3],
    "draws": 3,
    "worst": {"euclidean": [0.05], "elementwise": [0.3], "steps": 4},
}

# what a rescaling of every hidden layer by one factor, and of every unit by its own, leaves alone
LAYER = {"loss", "filter_eigenvalue", "filter_curvature", "filter_rise"}
NODE = {"loss", "element_rise", "worst_asam"}


@pytest.fixture(scope="module")
def measured(mlp, cnn) -> dict:
    """Family -> network -> measure -> mean over the samples."""
    found = {}
    for case in (mlp, cnn):
        thetas = rescaled_thetas(
            case.theta, case.objective, find_rescalable(case.model), 3.0, seed=1
        )
        found[case.family] = {
            network: {
                name: float(samples.mean())
                for name, samples in measures(case.objective, theta, SETTINGS, 1)[0].items()
            }
            for network, theta in thetas.items()
        }
    return found


@pytest.mark.parametrize("name", MEASURES)
def test_a_measure_sees_a_rescaling_or_does_not(measured, case, name):
    """Filter-normalised: not the layer-wise. Element-wise: neither. Euclidean: both."""
    found = {network: values[name] for network, values in measured[case.family].items()}
    for network, blind in (("layer", LAYER | NODE), ("node", NODE)):
        ratio = found[network] / found["original"]
        if name in blind:
            assert ratio == pytest.approx(1.0, abs=1e-8)
        else:
            assert abs(ratio - 1) > 0.02


def test_the_measures_are_what_they_say(case):
    """Against dense linear algebra, each mean over the samples."""
    contributions, converged = measures(case.objective, case.theta, SETTINGS, 1)
    assert set(contributions) == set(converged) == set(MEASURES)
    assert all(converged.values())
    assert {v.shape for v in contributions.values()} == {(len(case.targets),)}
    assert {v.dtype for v in contributions.values()} == {torch.float64}
    found = {name: float(samples.mean()) for name, samples in contributions.items()}
    h, layout = case.hessian, case.objective.layout
    scale = filter_scale(case.theta, layout)
    scaled = scale[:, None] * h * scale
    assert found["loss"] == pytest.approx(float(case.loss(case.theta)), rel=1e-12)
    assert found["eigenvalue"] == pytest.approx(float(torch.linalg.eigvalsh(h)[-1]), rel=1e-3)
    assert found["trace"] == pytest.approx(float(h.trace()), rel=1e-9)
    assert found["filter_eigenvalue"] == pytest.approx(
        float(torch.linalg.eigvalsh(scaled)[-1]), rel=1e-3
    )
    per_filter = torch.cat(
        [
            torch.full((size,), shape[0] / size if len(shape) > 1 else 0.0, dtype=torch.float64)
            for size, shape in zip(layout.sizes, layout.shapes, strict=True)
        ]
    )
    assert found["filter_curvature"] == pytest.approx(
        float((scaled.diagonal() * per_filter).sum()), rel=1e-9
    )


def test_the_same_noise_is_drawn_at_every_theta(mlp):
    """So that an invariant average does not move by the luck of its draws."""
    found, _ = measures(mlp.objective, mlp.theta, SETTINGS, 4)
    again, _ = measures(mlp.objective, mlp.theta, SETTINGS, 4)
    other, _ = measures(mlp.objective, mlp.theta, SETTINGS, 5)
    assert torch.equal(found["element_rise"], again["element_rise"])
    assert not torch.equal(found["element_rise"], other["element_rise"])


def test_node_factors_belong_to_the_seed(mlp):
    links = find_rescalable(mlp.model)
    a, b, c = (
        rescaled_thetas(mlp.theta, mlp.objective, links, 3.0, seed)["node"] for seed in (1, 1, 2)
    )
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
