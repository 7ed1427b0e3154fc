"""Learning rates are those of the formulae, and of torch's schedulers."""

import math

import pytest
import torch
from torch.optim import lr_scheduler

from lossgeo.schedules import factor

STEPS, PER_EPOCH = 40, 8


def factors(**schedule):
    return [factor(schedule, step, STEPS, PER_EPOCH) for step in range(1, STEPS + 1)]


def by_torch(make):
    update = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, found = make(update), []
    for _ in range(STEPS):
        found.append(update.param_groups[0]["lr"])
        update.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (
            {"name": "cosine", "final": 0.1},
            lambda u: lr_scheduler.CosineAnnealingLR(u, STEPS, eta_min=0.1),
        ),
        ({"name": "linear", "final": 0.3}, lambda u: lr_scheduler.LinearLR(u, 1.0, 0.3, STEPS)),
        (
            {"name": "step", "at": [0.5, 0.75], "factor": 0.2},
            lambda u: lr_scheduler.MultiStepLR(u, [20, 30], 0.2),
        ),
        ({"name": "constant"}, lambda u: lr_scheduler.ConstantLR(u, 1.0)),
        (
            {"name": "cosine", "warmup": 0.25},
            lambda u: lr_scheduler.SequentialLR(
                u,
                [
                    lr_scheduler.LinearLR(u, 0.1, 1.0, 9),
                    lr_scheduler.CosineAnnealingLR(u, STEPS - 10),
                ],
                [10],
            ),
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_factors_are_torchs(schedule, make):
    assert factors(**schedule) == pytest.approx(by_torch(make), abs=1e-12)


def test_first_middle_and_last_step():
    cosine = factors(name="cosine", final=0.2)
    assert cosine[0] == 1.0
    assert cosine[STEPS // 2] == pytest.approx(0.6)
    assert cosine[-1] == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * 39 / 40)) / 2)
    warm = factors(name="constant", warmup_epochs=0.5)
    assert warm[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert set(warm[4:]) == {1.0}
    stepped = factors(name="step", at=[0.5])
    assert stepped[19] == 1.0
    assert stepped[20] == 0.1


def test_a_warmup_is_never_all_of_a_run():
    assert factor({"name": "cosine", "warmup_epochs": 9}, STEPS, STEPS, PER_EPOCH) == 1.0
    assert factor({"name": "linear", "warmup": 0.9}, 1, 1, 1) == 1.0
