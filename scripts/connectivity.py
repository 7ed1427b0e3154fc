"""The paths of one pair of runs, and how similar its ends are, at each point on both splits.

The samples are those of the first run's seed.
"""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lossgeo import curves, paths, probe, renormalisation, similarity, store
from lossgeo.buffers import along
from lossgeo.losses import right_classes
from lossgeo.numerics import make_deterministic
from lossgeo.objective import Objective, with_running
from lossgeo.store import Group, Variable

UNITS = {"loss": "nats", "error": "1", "tempered_loss": "nats"}
MEASURED = {
    "loss": "mean cross-entropy",
    "error": "fraction classified wrongly",
    "tempered_loss": "mean cross-entropy after dividing the logits by the best temperature",
}
SIMILARITIES = {
    "disagreement": "fraction of the samples that the two ends classify differently",
    "cka": "linear CKA of the last hidden layer",
    "debiased_cka": "the same from unbiased estimates of its three terms",
    "unit_correlation": "mean correlation of unit i of one end with unit i of the other",
}


class Path(NamedTuple):
    """theta_t = sum_k c_tk v_k at T values of t, or without coefficients the T vectors."""

    vectors: list[Tensor]  # (P,) each, the first and the last are the ends
    coefficients: np.ndarray | None  # (T, K)
    length: float  # in parameter space
    status: str


def as_group(profile: paths.Profile, path: Path, distance: float) -> Group:
    """A path's profile as it is stored; `distance` is that of its ends."""
    variables = {"t": Variable(("t",), profile.t, "1", "position on the path, 0 to 1")}
    for name, description in MEASURED.items():
        error = f"standard error of the {name} over the samples"
        variables[name] = Variable(("t",), profile.means[name], UNITS[name], description)
        variables[f"{name}_se"] = Variable(("t",), profile.errors[name], UNITS[name], error)
    variables["temperature"] = Variable(
        ("t",), profile.temperature, "1", "of the softmax, at which the loss is smallest"
    )
    attributes = {
        f"{name}_barrier{suffix}": getattr(barrier, part)
        for name, barrier in profile.barriers.items()
        for suffix, part in {"": "height", "_se": "height_se", "_t": "t"}.items()
    }
    finite = np.isfinite(profile.means["loss"]).all()
    status = "not finite" if path.status == "ok" and not finite else path.status
    attributes |= {"status": status, "length": path.length, "distance": distance}
    for name in ("error", "tempered_loss"):
        if finite and np.isnan(profile.means[name]).all():
            attributes[f"{name}_status"] = "not available"
    return Group(variables, attributes)


def get_path(
    rung: str,
    a: Tensor,
    b: Tensor,
    order: Tensor | None,
    midpoint: Tensor | None,
    t: np.ndarray,
    objective: Objective,
    status: str,
) -> Path:
    """The path of a rung between theta_a and theta_b, NaN where it is not available.

    `order` permutes b to match a; the renormalised line takes its statistics from `objective`.
    """
    if rung not in ("line", "curve"):
        available = order is not None and (
            rung != "renormalised" or renormalisation.can_renormalise(objective.model)
        )
        if status == "ok" and not available:
            status = "not available"
        b = b[order] if available else b
    if status != "ok":
        return Path([a * torch.nan, b], paths.line(t), np.nan, status)
    if rung in ("curve", "aligned_curve"):
        length = curves.length(a, midpoint, b)
        return Path([a, midpoint, b], curves.coefficients(t), length, status)
    if rung == "renormalised":
        points = renormalisation.renormalised(objective, a, b, t)
        steps = [float((q - p).norm()) for p, q in pairwise(points)]
        return Path(points, None, sum(steps), status)
    return Path([a, b], paths.line(t), float((b - a).norm()), status)


def logits_of(objective: Objective, path: Path, statistics: list[Tensor | None]) -> Tensor:
    """The network's outputs (T, classes, N) along a path.

    `statistics` are the running ones of the vectors, which are interpolated as these are.
    """
    if path.coefficients is None:
        return paths.logits_at(objective, path.vectors)
    vectors = along(objective.running, path.vectors, statistics)
    return paths.logits_on(with_running(objective), vectors, path.coefficients)


def similarities(
    objective: Objective,
    a: Tensor,
    b: Tensor,
    order: Tensor | None,
    statistics: list[Tensor | None],
) -> Group:
    """How similar the two ends are, as they are and with b aligned to a (NaN: not available)."""
    rows = []
    for end in (b, b[order] if order is not None else b * torch.nan):
        hidden = [similarity.hidden_activations(objective, theta) for theta in (a, end)]
        found = {}
        if objective.loss.right is right_classes and objective.targets.ndim == 1:
            vectors = along(objective.running, [a, end], statistics)
            logits = paths.logits_at(with_running(objective), vectors)
            found["disagreement"] = similarity.disagreement(*logits)
        if hidden[0] is not None:
            found |= {
                "cka": similarity.linear_cka(*hidden),
                "debiased_cka": similarity.debiased_cka(*hidden),
                "unit_correlation": similarity.unit_correlation(*hidden),
            }
        rows.append(found)
    nothing = (np.nan, np.nan)
    variables = {}
    for name, description in SIMILARITIES.items():
        values = np.array([row.get(name, nothing)[:2] for row in rows])
        variables[name] = Variable(("ends",), values[:, 0], "1", description)
        variables[f"{name}_se"] = Variable(
            ("ends",), values[:, 1], "1", "its standard error over the samples"
        )
    return Group(variables)


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, files = probe.config_of(snakemake), snakemake.input
    ends = [files.snapshots_a, files.snapshots_b]
    identity = probe.pair_identity(snakemake)
    seed = identity["seed_a"]
    objectives = {
        split: probe.load_objective(files.data, config, split, config["samples"], seed=seed)
        for split in ("train", "test")
    }
    t = np.linspace(0.0, 1.0, config["t"])
    groups = {}
    for point in config["points"]:
        a, b = (probe.load_point(end, point) for end in ends)
        status = probe.status_of((a, b))
        order = probe.load_order(files.alignment, point) if files.get("alignment") else None
        groups[point] = Group({}, {"status": status})
        statistics = [a.buffers, b.buffers]
        for rung in config["rungs"]:
            midpoint, found, own = None, status, statistics
            if rung in ("curve", "aligned_curve"):
                curve = store.read(files.curve, f"{point}/{rung}")
                midpoint = torch.from_numpy(curve.variables["midpoint"].values)
                found = curve.attributes["status"]
                if "buffers" in curve.variables and found == "ok":
                    middle = torch.from_numpy(curve.variables["buffers"].values)
                    own = [a.buffers, middle, b.buffers]
            path = get_path(rung, a.theta, b.theta, order, midpoint, t, objectives["train"], found)
            distance = float((path.vectors[-1] - path.vectors[0]).norm())
            for split, objective in objectives.items():
                logits = logits_of(objective, path, own)
                profile = paths.profile(t, logits, objective.targets, objective.loss)
                groups[f"{point}/{rung}/{split}"] = as_group(profile, path, distance)
                height, unit = profile.barriers["loss"].height, objective.loss.suffix
                job.tell(f"{point}, {rung}, {split} ({path.status}): barrier {height:.4g}{unit}")
        for split, objective in objectives.items():
            found = similarities(objective, a.theta, b.theta, order, statistics)
            groups[f"{point}/similarity/{split}"] = found
    probe.write(
        snakemake,
        groups,
        **identity,
        samples=objectives["train"].samples,
        test_samples=objectives["test"].samples,
        device=objectives["train"].device.type,
    )


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
