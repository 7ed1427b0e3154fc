"""How much work the jobs of a study do: operations, counted from what the config asks for.

The samples that a job passes through its network times the network's operations per sample, and
the inputs that it holds in memory: both by what the data hold (`data.Contents`). What that takes is
in `costs`, and what a job may take in `limits`.

Plain Python: the workflow imports it on every call, so it must not import torch.
"""

import math
from collections.abc import Mapping

from lossgeo.data import MNIST, Contents

BACKWARD = 3  # forward and backward pass, in forward passes
WHOLE = {"train", "fork", "curve", "ladder", "published"}  # rules whose jobs load whole splits


def operations_per_sample(spec: Mapping, contents: Contents = MNIST) -> float:
    """Floating-point operations of a forward pass of one sample; NaN for a user's model.

    Of d inputs and k outputs, an MLP of width w: 2 (d w + w k). CNN: two convolutions of 3 x 3, on
    all pixels and on a quarter, and two dense layers.
    """
    w, outputs = spec.get("width", math.nan), contents.outputs
    if spec.get("family") == "mlp" and "factory" not in spec:
        return 2.0 * w * (math.prod(contents.input_shape) + outputs)
    if spec.get("family") == "cnn" and "factory" not in spec:
        channels, height, columns = contents.input_shape
        first, second, last = ((height // n) * (columns // n) for n in (1, 2, 4))
        convolutions = 9 * channels * w * first + 9 * w * 2 * w * second
        return 2.0 * (convolutions + 2 * w * last * 128 + 128 * outputs)
    return math.nan


def passes(rule: str, section: Mapping, contents: Contents = MNIST) -> float:
    """Samples that a job of a rule passes forwards, from its section of the config.

    What a rule does beside what is counted here (products of a Lanczos run, points that a surface
    needs) grows with it, and is in its rate.
    """
    train, test = _sizes(section, contents)
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


def work(rule: str, section: Mapping, contents: Contents | None = MNIST) -> float:
    """Operations of a job of a rule, by its section of the config and what its data hold.

    NaN for a user's model, and where it is not known what the data hold.
    """
    if contents is None:
        return math.nan
    each = operations_per_sample(section["model"], contents)
    return passes(rule, section, contents) * each


def more_mb(rule: str, section: Mapping, contents: Contents) -> float:
    """Megabytes by which the inputs that a job holds outweigh those that it would hold of MNIST.

    They are held twice, as they are loaded and as the network takes them.
    """
    more = inputs_held(rule, section, contents) - inputs_held(rule, section, MNIST)
    return max(0.0, 2 * more / 1e6)


def inputs_held(rule: str, section: Mapping, contents: Contents) -> float:
    """Bytes of the inputs that a job of a rule holds, each once: all of them, or a sample."""
    sizes = zip(_sizes(section, contents), (contents.train, contents.test), strict=True)
    train, test = map(min, sizes)
    found = section.get("objective", section)
    asked = found.get("samples", section.get("evaluation_samples", 0))
    count = train + test if rule in WHOLE else min(asked, train) + min(asked, test)
    return float(count) * math.prod(contents.input_shape) * contents.entry_bytes


def _sizes(section: Mapping, contents: Contents) -> tuple[int, int]:
    """How many samples the splits train and test of a study have."""
    data = section["data"]
    return data["train_samples"] or contents.train, data["test_samples"] or contents.test


def _grid_points(landscape: Mapping) -> int:
    """Those of all lines and planes through a point."""
    lines, planes = landscape["lines"], landscape["planes"]
    points = planes["count"] * planes["points"] ** 2 + landscape["eigenplane"]["points"] ** 2
    return lines["directions"] * lines["points"] + points
