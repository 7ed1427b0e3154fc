"""Normalised directions have theta's norms, filter by filter (Li et al. 2018)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lossgeo.directions import (
    NORMALIZATIONS,
    cosine,
    filter_scale,
    normalize,
    random_direction,
)
from lossgeo.parameters import Layout, unflatten

sides = st.integers(1, 6)
shapes = st.one_of(
    st.tuples(sides),  # a bias
    st.tuples(sides, sides),  # a linear layer
    st.tuples(sides, sides, st.just(3), st.just(3)),  # a convolution
)
layouts = st.lists(shapes, min_size=1, max_size=5).map(
    lambda found: Layout(tuple(f"p{i}" for i in range(len(found))), tuple(found))
)
seeds = st.integers(0, 2**32)


def tensors(theta: torch.Tensor, layout: Layout) -> list[np.ndarray]:
    ends = np.cumsum([math.prod(shape) for shape in layout.shapes])[:-1]
    parts = np.split(theta.double().numpy(), ends)
    return [part.reshape(shape) for part, shape in zip(parts, layout.shapes, strict=True)]


def drawn(layout: Layout, seed: int, dtype: torch.dtype, kind: str):
    generator = torch.Generator().manual_seed(seed)
    theta = torch.randn(layout.size, generator=generator, dtype=torch.float64).to(dtype)
    return theta, random_direction(theta, layout, kind, generator=generator)


@given(layouts, seeds, st.sampled_from([torch.float32, torch.float64]))
def test_every_filter_of_the_direction_has_the_norm_of_thetas_filter(layout, seed, dtype):
    theta, direction = drawn(layout, seed, dtype, "filter")
    for d, w in zip(tensors(direction, layout), tensors(theta, layout), strict=True):
        if w.ndim == 1:
            assert not d.any(), "biases and other 1-D parameters do not move"
            continue
        for d_filter, w_filter in zip(d, w, strict=True):
            assert np.linalg.norm(d_filter) == pytest.approx(np.linalg.norm(w_filter), rel=1e-6)


@given(layouts, seeds)
def test_layer_normalisation_gives_every_weight_tensor_its_norm_and_biases_zero(layout, seed):
    theta, direction = drawn(layout, seed, torch.float64, "layer")
    for d, w in zip(tensors(direction, layout), tensors(theta, layout), strict=True):
        expected = np.linalg.norm(w) if w.ndim > 1 else 0.0
        assert np.linalg.norm(d) == pytest.approx(expected, rel=1e-12)


@given(layouts, seeds)
def test_model_normalisation_gives_the_whole_vector_thetas_norm(layout, seed):
    theta, direction = drawn(layout, seed, torch.float64, "model")
    assert float(direction.norm()) == pytest.approx(float(theta.norm()), rel=1e-12)


@given(layouts, seeds, st.sampled_from(["filter", "layer", "model"]))
def test_normalisation_only_scales_it_does_not_turn(layout, seed, kind):
    """Within each filter (layer, model) the direction stays parallel to its draw."""
    generator = torch.Generator().manual_seed(seed)
    theta, draw = torch.randn(2, layout.size, generator=generator, dtype=torch.float64)
    direction = normalize(draw, theta, layout, kind)
    pairs = (
        [(direction, draw)]
        if kind == "model"
        else [
            (d, z)
            for a, b in zip(tensors(direction, layout), tensors(draw, layout), strict=True)
            if a.ndim > 1
            for d, z in (zip(a, b, strict=True) if kind == "filter" else [(a, b)])
        ]
    )
    for d, z in pairs:
        d, z = np.ravel(d), np.ravel(z)
        assert d @ z == pytest.approx(np.linalg.norm(d) * np.linalg.norm(z), rel=1e-12)


def test_an_unnormalised_direction_is_standard_normal():
    layout = Layout(("w",), ((200, 200),))
    _, d = drawn(layout, 0, torch.float64, "none")
    assert float(d.mean()) == pytest.approx(0.0, abs=4 / 200)
    assert float(d.var()) == pytest.approx(1.0, abs=4 * math.sqrt(2) / 200)


@pytest.mark.parametrize("kind", ["filter", "layer", "model"])
def test_where_theta_is_zero_so_is_the_direction(kind, generator):
    layout = Layout(("w", "b"), ((3, 4), (3,)))
    theta = torch.zeros(layout.size)
    assert not random_direction(theta, layout, kind, generator=generator).any()


def test_a_zero_filter_does_not_touch_its_neighbours(generator):
    layout = Layout(("w",), ((3, 4),))
    theta = torch.ones(12, dtype=torch.float64)
    theta[4:8] = 0.0
    norms = random_direction(theta, layout, "filter", generator=generator).view(3, 4).norm(dim=1)
    torch.testing.assert_close(norms, torch.tensor([2.0, 0.0, 2.0]).double(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_one_seed_gives_one_direction_in_float32_and_float64(case, kind):
    """The draw is the same; the normalised directions agree to float32's precision."""
    narrow, wide = (
        random_direction(
            case.theta.to(dtype), case.objective.layout, kind, generator=torch.manual_seed(4)
        )
        for dtype in (torch.float32, torch.float64)
    )
    assert narrow.dtype == torch.float32
    assert wide.dtype == torch.float64
    if kind == "none":
        assert torch.equal(narrow.double(), wide)
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("kind", NORMALIZATIONS)
def test_neither_theta_nor_the_draw_is_changed(case, kind, generator):
    theta, draw = case.theta.clone(), torch.randn(len(case.theta), generator=generator).double()
    before = draw.clone()
    normalize(draw, theta, case.objective.layout, kind)
    assert torch.equal(theta, case.theta)
    assert torch.equal(draw, before)


def test_an_unknown_normalisation_is_refused_by_name(mlp):
    with pytest.raises(ValueError, match=r"'weight'.*filter.*layer.*model.*none"):
        normalize(mlp.theta, mlp.theta, mlp.objective.layout, "weight")


def test_cosine_of_the_angle_between_directions():
    a = torch.tensor([3.0, 0.0])
    assert cosine(a, torch.tensor([1.0, 1.0])) == pytest.approx(math.sqrt(0.5), rel=1e-7)
    assert cosine(a, -2 * a) == pytest.approx(-1.0, abs=1e-15)
    assert cosine(a, torch.tensor([0.0, 5.0])) == 0.0


def quadratic_form_expected(hessian, theta, layout) -> float:
    """sum_f ||w_f||^2 / n_f tr(H_ff)."""
    total, at = 0.0, 0
    for shape in layout.shapes:
        size = math.prod(shape)
        if len(shape) > 1:
            n = size // shape[0]
            for start in range(at, at + size, n):
                part = slice(start, start + n)
                total += float(theta[part] @ theta[part]) / n * float(hessian[part, part].trace())
        at += size
    return total


def test_mean_curvature_along_filter_normalised_directions(case, generator):
    """E[d'Hd] = sum_f ||w_f||^2 / n_f tr(H_ff), by Monte Carlo within 4 standard errors."""
    layout = case.objective.layout
    expected = quadratic_form_expected(case.hessian, case.theta, layout)
    draws = 4000 if case.family == "mlp" else 1500
    d = torch.stack(
        [random_direction(case.theta, layout, "filter", generator=generator) for _ in range(draws)]
    )
    forms = ((d @ case.hessian) * d).sum(1)
    error = float(forms.std()) / math.sqrt(draws)
    assert error < 0.05 * abs(expected), "the standard error must be small enough to mean something"
    assert abs(float(forms.mean()) - expected) < 4 * error


def test_directions_are_written_into_no_shared_memory(mlp, generator):
    """Changing a direction, or a part of it, leaves theta as it is."""
    d = normalize(mlp.theta, mlp.theta, mlp.objective.layout, "none")
    unflatten(d, mlp.objective.layout)["hidden.weight"].zero_()
    assert mlp.theta[:144].any()


def test_elementwise_directions_are_relative_to_every_parameter(case, generator):
    draw = torch.randn(len(case.theta), generator=generator).double()
    found = normalize(draw, case.theta, case.objective.layout, "element")
    assert torch.equal(found, case.theta.abs() * draw)


@given(layouts, seeds)
def test_the_filter_scale_is_the_norm_that_a_directions_filter_gets(layout, seed):
    """Filter by filter; 0 for biases."""
    theta, _ = drawn(layout, seed, torch.float64, "none")
    scale = filter_scale(theta, layout)
    for s, w in zip(tensors(scale, layout), tensors(theta, layout), strict=True):
        rows = np.linalg.norm(w.reshape(len(w), -1), axis=1) if w.ndim > 1 else 0 * w
        expected = np.broadcast_to(rows.reshape(-1, *[1] * (w.ndim - 1)), w.shape)
        np.testing.assert_allclose(s, expected, rtol=1e-14)
