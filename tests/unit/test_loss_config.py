"""Which jobs depend on the key `loss`, and what their files say of it."""

from types import SimpleNamespace

import numpy as np
import pytest

from lossgeo import checks, sections, study
from lossgeo.store import Group, Variable, of_loss

MSE = {"factory": "my:loss", "arguments": {"power": 2}}


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("cross-entropy", None),
        ({"name": "cross-entropy", "label_smoothing": 0}, None),
        ("mse", {"name": "mse"}),
        (MSE, MSE),
    ],
)
def test_a_job_depends_on_a_loss_that_is_not_the_cross_entropy(loss, expected, monkeypatch):
    monkeypatch.setattr(study, "get_data_spec", lambda config: {})
    config = {"models": {"a": {"family": "mlp", "width": 4}}, "loss": loss}
    assert sections.of_model(config, "a").get("loss") == expected


def test_an_alignment_does_not_depend_on_the_loss(monkeypatch):
    monkeypatch.setattr(study, "get_data_spec", lambda config: {})
    monkeypatch.setattr(study, "get_connected_points", lambda *arguments: ["final"])
    config = {
        "models": {"a": {"family": "mlp", "width": 4}},
        "loss": "mse",
        "alignment": {"starts": 2},
    }
    names = SimpleNamespace(model="a", optimizer="sgd", b="seed1")
    assert "loss" not in sections.alignment(config, names)


def test_files_are_in_the_units_of_the_loss():
    values = np.zeros(2)
    groups = {
        "final": Group(
            {
                "loss": Variable(("x",), values, "nats", "mean cross-entropy of the samples"),
                "squares": Variable(("x",), values, "nats^2", "squared gradients"),
                "t": Variable(("x",), values, "1", "place"),
            },
            {"status": "ok"},
        )
    }
    found = of_loss(groups, "mse", "K")["final"]
    assert found.attributes == {"status": "ok"}
    assert [v.units for v in found.variables.values()] == ["K", "K^2", "1"]
    assert found.variables["loss"].description == "mean mse of the samples"
    assert of_loss(groups, "mse", "1")["final"].variables["squares"].units == "1"
    assert of_loss(groups, "cross-entropy", "nats") == groups


def test_a_loss_is_tried_on_the_data_before_any_job():
    classes = np.zeros((2, 1, 3, 3), np.uint8), np.array([0, 2], np.uint8)
    torch_s = {"factory": "torch.nn.functional:cross_entropy"}
    each = torch_s | {"arguments": {"reduction": "none"}}
    for loss, words in (
        ({"name": "mse"}, None),
        (each, None),
        (torch_s, "loss: the loss cross_entropy of 2 samples is (), expected one value for each"),
        ({"factory": "torch.nn:nothing"}, "loss: the factory torch.nn:nothing cannot be imported"),
    ):
        (found,) = checks.try_out({"loss": loss}, (1, 3, 3), 3, example=classes)
        assert found is words is None or found.startswith(words)
