"""Which jobs depend on the key `parameters` of a model, and what a stage gets of it."""

from types import SimpleNamespace

import pytest
import torch

from lossgeo import checks, probe, sections, study
from lossgeo.probe import Point


@pytest.mark.parametrize("stage", ["hessian", "flatness", "trajectory"])
def test_stages_that_measure_a_point_depend_on_the_part(stage, monkeypatch):
    monkeypatch.setattr(study, "get_data_spec", lambda config: {})
    monkeypatch.setattr(study, "get_points", lambda *arguments: ["final"])
    monkeypatch.setattr(study, "get_rescaled_point", lambda *arguments: None)
    config = {
        "models": {"a": {"family": "mlp", "width": 4, "parameters": ["output.*"]}},
        **{name: {} for name in ("objective", "hessian", "flatness", "trajectory")},
        "estimator": "full",
    }
    names = SimpleNamespace(model="a", optimizer="sgd", seed="0")
    section = getattr(sections, stage)(config, names)
    assert section.get("parameters") == (None if stage == "trajectory" else ["output.*"])
    assert "parameters" not in section["model"]


def test_a_stage_gets_the_part_of_theta_and_of_the_preconditioner(mlp):
    scale = torch.arange(len(mlp.theta), dtype=torch.float64)
    point = Point(mlp.theta, "ok", 3, scale)
    assert probe.at_point(mlp.objective, point, {}) == (mlp.objective, point)
    config = {"parameters": ["output.*"]}
    objective, part = probe.at_point(mlp.objective, point, config)
    assert objective.layout.names == ("output.weight", "output.bias")
    assert torch.equal(part.theta, mlp.theta[-15:])
    assert torch.equal(part.preconditioner, scale[-15:])
    assert (part.status, part.step) == ("ok", 3)
    assert probe.part_named(config) == {"part": "output.*"}
    assert probe.part_named({}) == {}


def test_a_pattern_of_no_parameter_is_refused_before_any_job():
    mlp = {"family": "mlp", "width": 4}
    for patterns, words in (
        (["output.*"], None),
        (["output.*", "blocks.*"], "models.a.parameters: no parameter matches 'blocks.*'"),
    ):
        (found,) = checks.try_out({"models.a": mlp | {"parameters": patterns}}, (1, 3, 3), 3)
        assert found is words is None or found.startswith(words)


def test_a_part_that_is_too_small_or_never_moves_is_refused_before_any_job():
    biases = {"family": "mlp", "width": 4, "parameters": ["*.bias"]}
    for probed, words in (
        ({"eigenpairs": 7, "directions": {"flatness.normalization": "model"}}, None),
        ({"eigenpairs": 8}, "models.a.parameters: found 7 parameters to probe (hidden.bias, "),
        (
            {"directions": {"flatness.normalization": "filter"}},
            "models.a.parameters: found 1-D parameters alone (hidden.bias, output.bias), which "
            "flatness.normalization: filter never moves; expected",
        ),
    ):
        (found,) = checks.try_out({"models.a": biases | {"probed": probed}}, (1, 3, 3), 3)
        assert found is words is None or found.startswith(words)
