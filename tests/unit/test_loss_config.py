"""Which jobs depend on the key `loss`, and what their files say of it."""

from pathlib import Path
from types import SimpleNamespace

import jinja2
import numpy as np
import pytest

from lossgeo import checks, sections, study
from lossgeo.losses import make_loss
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


@pytest.mark.parametrize(
    "loss",
    [
        "mse",
        "binary-cross-entropy",
        {"name": "cross-entropy", "label_smoothing": 0.1},
        {"factory": "torch.nn.functional:l1_loss"},
        {"factory": "torch.nn.functional:l1_loss", "units": "K"},
    ],
)
def test_figures_name_the_loss_and_its_units(loss):
    made = make_loss(loss)
    style = study.get_style({"figures": {"dpi": 100}, "loss": loss})
    assert style == {"dpi": 100, "loss": {"name": made.name, "units": made.units}}


@pytest.mark.parametrize("loss", ["cross-entropy", {"name": "cross-entropy", "label_smoothing": 0}])
def test_figures_of_the_cross_entropy_are_made_as_they_were(loss):
    assert study.get_style({"figures": {"dpi": 100}, "loss": loss}) == {"dpi": 100}


@pytest.mark.parametrize(
    ("caption", "plain", "other"),
    [
        ("barriers", "Dotted: 0.05 nats and\n2 % of error", "Dotted: 0.05{} and\n2 % of error"),
        ("steps", "is at most\n0.5 nats, and", "is at most\n0.5{}, and"),
        ("study", "Probed loss: mean cross-entropy over", "Probed loss: mean mine over"),
    ],
)
def test_captions_follow_the_loss(caption, plain, other):
    file = Path(__file__).parents[2] / "workflow" / "report" / f"{caption}.rst"
    template = jinja2.Template(file.read_text())
    config = {
        "models": {},
        "optimizers": {},
        "data": {"name": "a"},
        "seeds": [],
        "objective": {"samples": 1, "split": "train"},
        "training": {"matched_loss": 0.5, "target_accuracy": 0.9},
        "connectivity": {"limits": {"loss": 0.05, "error": 0.02}},
    }

    def rendered(loss: dict, style: dict) -> str:
        params = SimpleNamespace(config={"style": style, "experiment": {}})
        return template.render(snakemake=SimpleNamespace(config=config | loss, params=params))

    assert plain in rendered({}, {})
    assert plain in rendered({"loss": "cross-entropy"}, {})
    for units, written in (("1", ""), ("K", " K")):
        style = {"loss": {"name": "mine", "units": units}}
        assert other.format(written) in rendered({"loss": {"name": "mine"}}, style)


def test_a_job_says_a_loss_in_its_units():
    assert make_loss().suffix == " nats"
    assert make_loss("mse").suffix == ""
