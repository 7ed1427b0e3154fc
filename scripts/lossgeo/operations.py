"""How much work the jobs of a study do: operations, counted from what the config asks for.

The samples that a job passes through its network times the network's operations per sample. What
that takes is in `costs`, and what a job may take in `limits`.

Plain Python: the workflow imports it on every call, so it must not import torch.
"""

import math
from collections.abc import Mapping

SIZES = {"train": 60_000, "test": 10_000}  # where the config takes all samples: those of MNIST
PIXELS, CLASSES = 784, 10
BACKWARD = 3  # forward and backward pass, in forward passes
# a rule that was never measured -> one that does the same, by whose rates its jobs go
LIKE = {"tile": "landscape", "weights": "train"}


def operations_per_sample(spec: Mapping) -> float:
    """Floating-point operations of a forward pass of one sample; NaN for a user's model.

    MLP of width w: 2 (784 w + 10 w). CNN: two convolutions of 3 x 3 on 28 x 28 and 14 x 14 pixels,
    and two dense layers. Images other than MNIST's take as many more as they have pixels: not
    counted.
    """
    w = spec.get("width", math.nan)
    if spec.get("family") == "mlp" and "factory" not in spec:
        return 2.0 * w * (PIXELS + CLASSES)
    if spec.get("family") == "cnn" and "factory" not in spec:
        quarter = PIXELS // 4
        convolutions = 9 * w * PIXELS + 9 * w * 2 * w * quarter
        return 2.0 * (convolutions + 2 * w * (quarter // 4) * 128 + 128 * CLASSES)
    return math.nan


def passes(rule: str, section: Mapping) -> float:
    """Samples that a job of a rule passes forwards, from its section of the config.

    What a rule does beside what is counted here (products of a Lanczos run, points that a surface
    needs) grows with it, and is in its rate.
    """
    data = section["data"]
    train, test = (data[f"{split}_samples"] or SIZES[split] for split in ("train", "test"))
    samples = section.get("objective", {}).get("samples", section.get("samples", 0))
    points = len(section.get("points", [None]))
    step = BACKWARD * (2 if "sam" in section.get("optimizer", {}) else 1)
    if rule == "train":
        looks = 2 * section.get("evaluations_per_epoch", 1) * section["evaluation_samples"]
        return section["epochs"] * (step * train + looks)
    if rule == "weights":
        return 2 * len(section["weights"]) * section["evaluation_samples"]
    if rule == "fork":
        return section["epochs"] * (step * train + 2 * section["evaluation_samples"])
    if rule == "curve":
        return points * len(section["rungs"]) * section["curve"]["epochs"] * BACKWARD * train
    if rule == "hessian":
        return points * samples * (section["hessian"]["top"] + section["hessian"]["steps"])
    if rule == "ladder":
        return sum(
            at["top"] * min(size, train) * count
            for at in section["ladder"]["at"].values()
            for size, count in zip(at["samples"], at["subsets"], strict=True)
        )
    if rule == "landscape":
        is_full = section.get("estimator") == "full"
        return points * samples * (_grid_points(section["landscape"]) if is_full else 100)
    if rule == "tile":
        return points * samples * _grid_points(section["landscape"]) / section["tiles"]
    if rule == "flatness":
        settings = section["flatness"]
        draws = settings["draws"] * (2 * len(settings["radii"]) + 1)
        worst = sum(len(settings["worst"][ball]) for ball in ("euclidean", "elementwise"))
        rescaled = 6 if section.get("rescaled") else 1
        return points * samples * rescaled * (draws + BACKWARD * worst * settings["worst"]["steps"])
    if rule == "trajectory":
        return samples * section["trajectory"]["plane"]["points"]
    if rule == "published":
        settings = section["published"]
        lines = settings["lines"]["count"] * settings["lines"]["steps"]
        surfaces = len(section["landscape"] or ()) * (settings["plane"]["steps"] ** 2 + lines)
        products = settings["batches"] * settings["eigenvalues"] * settings["power_steps"]
        return settings["batch_size"] * (surfaces + 2 * BACKWARD * products * points) + points * (
            settings["noise_draws"] * test + train
        )
    if rule == "connectivity":
        return points * section["t"] * 2 * section["samples"] * (len(section["rungs"]) + 1)
    if rule == "planes":
        return points * samples * 100
    return 0.0


def family(section: Mapping) -> str:
    """The family of a job's model; "own" for a user's model."""
    spec = section["model"]
    return "own" if "factory" in spec else spec["family"]


def work(rule: str, section: Mapping) -> float:
    """Operations of a job of a rule, by its section of the config; NaN for a user's model."""
    return passes(rule, section) * operations_per_sample(section["model"])


def _grid_points(landscape: Mapping) -> int:
    """Those of all lines and planes through a point."""
    lines, planes = landscape["lines"], landscape["planes"]
    points = planes["count"] * planes["points"] ** 2 + landscape["eigenplane"]["points"] ** 2
    return lines["directions"] * lines["points"] + points
