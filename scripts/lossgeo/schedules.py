"""Learning rates that change in the course of training, step by step."""

import math
from collections.abc import Mapping


def factor(schedule: Mapping, step: int, steps: int, steps_per_epoch: int) -> float:
    """What the learning rate of a step, one of 1..steps, is multiplied by.

    `schedule` is that of a config entry, e.g. `{"name": "cosine", "warmup": 0.1}`. In the W steps
    of the warm-up, a share `warmup` of all or `warmup_epochs`, the factor is step / W. After it,
    with p = (step - 1 - W) / (steps - W), from 0 to just below 1, and f = `final` (0), it is

        cosine    f + (1 - f) (1 + cos(pi p)) / 2    (Loshchilov & Hutter 2017)
        linear    1 - (1 - f) p
        step      `factor` (0.1) to the power of how many of the shares `at` of all steps are over
        constant  1

    as torch's CosineAnnealingLR, LinearLR, MultiStepLR and ConstantLR have it, of one step each.
    """
    warm = _warmup(schedule, steps, steps_per_epoch)
    if step <= warm:
        return step / warm
    progress, final = (step - 1 - warm) / (steps - warm), schedule.get("final", 0.0)
    match schedule["name"]:
        case "cosine":
            return final + (1 - final) * (1 + math.cos(math.pi * progress)) / 2
        case "linear":
            return 1 - (1 - final) * progress
        case "step":
            over = sum(step - 1 >= round(share * steps) for share in schedule["at"])
            return schedule.get("factor", 0.1) ** over
        case "constant":
            return 1.0
    raise ValueError(f"unknown schedule {schedule['name']!r}")


def _warmup(schedule: Mapping, steps: int, steps_per_epoch: int) -> int:
    """Steps of the warm-up, fewer than all."""
    epochs = schedule.get("warmup_epochs")
    asked = schedule.get("warmup", 0.0) * steps if epochs is None else epochs * steps_per_epoch
    return min(round(asked), steps - 1)
