"""What a stage probes, the objective of a run and theta at its points, and what it leaves."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lossgeo import store
from lossgeo.arrays import as_tensors, open_split, outputs_of, shape_of
from lossgeo.data import sha256, subset
from lossgeo.losses import Loss, make_loss
from lossgeo.models import build
from lossgeo.numerics import choose_device, kernels, numpy_generator
from lossgeo.objective import Objective, at, make_objective
from lossgeo.part import part_of, places
from lossgeo.store import Group
from lossgeo.training import find_point

CALIBRATION_SAMPLES = 256  # of a model whose statistics are recalibrated, unless it says others

IDENTITY = ("model", "parameters", "optimizer", "seed")


@dataclass(frozen=True)
class Point:
    """theta (P,) at a named point of a run; all NaN unless `status` is "ok"."""

    theta: Tensor
    status: str  # "ok", "diverged" or "not reached"
    step: int  # optimizer steps taken; -1: not reached, or not known
    preconditioner: Tensor | None  # (P,) of `optimizers`, NaN as theta; or none
    buffers: Tensor | None = None  # (B,) running statistics that are constants of the loss; or none


def config_of(snakemake) -> dict:
    """A job's section of the config; its device, by which results differ in rounding alone; and
    the memory for its graphs, GB, by which they do not differ: half of what the job may take, at
    most.
    """
    memory = min(snakemake.config["memory"], snakemake.resources.mem_mb / 2000)
    return snakemake.params.config | {"device": snakemake.config["device"], "memory": memory}


def load_split(
    files: Sequence[Path | str],
    data: Mapping,
    split: str,
    samples: int | None = None,
    *,
    seed: int | None = None,
    purpose: str = "objective",
) -> tuple[Tensor, Tensor]:
    """Inputs (n, ...) and targets (n, ...) of a split of the data set in `files`.

    `files` are as in `arrays.open_split`, and the tensors as in `arrays.as_tensors`: float32, or
    int64 classes and token ids. Of memory maps, only the samples that are chosen are read. `data`
    is what `study.get_data_spec` returns: how inputs are normalised, and which seeded subset of
    the files the study calls its split. `samples` draws a further subset of that, of at most that
    size, which belongs to `purpose` and to the run's `seed`: two purposes and two seeds draw
    independently, so that intervals over seeds contain the choice of the samples; models and
    optimizers of one seed share them, so that they can be compared in pairs.
    """
    inputs, targets = open_split(files, split)
    chosen = subset(len(inputs), data[f"{split}_samples"], generator=numpy_generator("data", split))
    if samples is not None and samples < len(chosen):
        generator = numpy_generator(purpose, split, seed)
        chosen = chosen[subset(len(chosen), samples, generator=generator)]
    if len(chosen) < len(inputs):  # all of a map is not read before it is needed
        inputs, targets = inputs[chosen], targets[chosen]
    return as_tensors(inputs, targets, data["mean"], data["std"])


def load_shape(files: Sequence[Path | str]) -> tuple[tuple[int, ...], int]:
    """Shape of one input, as (channels, height, width), and the number of outputs.

    That is of the classes in both splits, of the entries of a target that is not a class, or of
    the tokens there are (`arrays.outputs_of`).
    """
    splits = [open_split(files, split) for split in ("train", "test")]
    return shape_of(splits[0][0]), outputs_of(splits)


def load_model(files: Sequence[Path | str], config: Mapping, *, seed: int = 0) -> nn.Module:
    """A freshly initialised `model` of a job's config, for the `data` in `files`.

    A user's is tried on the first two samples (see `models.build`).
    """
    inputs, targets = open_split(files, "train")
    data = config["data"]
    example = as_tensors(inputs[:2], targets[:2], data["mean"], data["std"])
    return build(config["model"], *load_shape(files), seed=seed, example=example)


def load_objective(
    files: Sequence[Path | str],
    config: Mapping,
    split: str,
    samples: int,
    *,
    seed: int,
    purpose: str = "objective",
) -> Objective:
    """The objective of a model on a fixed subset of a split: the same one for every run of a seed.

    `config` says which `model`, on which `data` from `files`, on which `device`, and how much
    `memory` (GB) there is for its graphs.
    """
    loaded = load_split(files, config["data"], split, samples, seed=seed, purpose=purpose)
    return objective_of(files, config, *loaded, seed=seed)


def objective_of(
    files: Sequence[Path | str], config: Mapping, inputs: Tensor, targets: Tensor, *, seed: int
) -> Objective:
    """The objective of a model on samples that are loaded already: see `load_objective`.

    Running statistics are recalibrated on the `calibration_samples` of the training split that
    belong to the seed. Where they are frozen they are NaN, until they are those of a point
    (`objective.at`).
    """
    mode, calibration = config["model"].get("statistics"), None
    if mode == "recalibrated":
        count = config["model"].get("calibration_samples", CALIBRATION_SAMPLES)
        calibration, _ = load_split(
            files, config["data"], "train", count, seed=seed, purpose="calibration"
        )
    objective = make_objective(
        load_model(files, config),
        inputs,
        targets,
        device=choose_device(config["device"]),
        memory=config.get("memory", math.inf) * 1e9,
        loss=loss_of(config),
        statistics=mode,
        calibration=calibration,
    )
    return at(objective, torch.full((objective.running.size,), torch.nan))


def loss_of(config: Mapping) -> Loss:
    """The loss of a job's section, which has one where it is not the cross-entropy."""
    return make_loss(config.get("loss", "cross-entropy"))


def load_evaluation(
    files: Sequence[Path | str], config: Mapping, seed: int
) -> tuple[Objective, Objective]:
    """The objectives of a run's history, on train and on test: samples that nothing else draws."""
    train, test = (
        load_objective(
            files, config, split, config["evaluation_samples"], seed=seed, purpose="evaluation"
        )
        for split in ("train", "test")
    )
    return train, test


def describe(objective: Objective, split: str) -> dict:
    """What an artefact says of the objective that it was measured on."""
    return {"samples": objective.samples, "split": split, "device": objective.device.type}


def at_point(objective: Objective, point: Point, config: Mapping) -> tuple[Objective, Point]:
    """What a stage measures at a point: the loss there, as a function of the job's `parameters`.

    That is with the point's running statistics where these are constants of the loss, and with all
    other parameters at their values in theta; the point has those that are named alone.
    """
    here, patterns = at(objective, point.buffers), config.get("parameters")
    if not patterns:
        return here, point
    part, theta = part_of(here, point.theta, patterns)
    divisor = point.preconditioner
    if divisor is not None:
        divisor = divisor[places(here.layout, part.layout.names)]
    return part, replace(point, theta=theta, preconditioner=divisor)


def part_named(config: Mapping) -> dict[str, str]:
    """Which parameters alone a job measures, if not all: `part`, the patterns of their names."""
    return {"part": ", ".join(config["parameters"])} if "parameters" in config else {}


def mode_of(config: Mapping) -> dict[str, str]:
    """Which running statistics a job's model is measured with, if it has any: `statistics`."""
    mode = config.get("model", {}).get("statistics")
    return {"statistics": mode} if mode else {}


def write(
    snakemake,
    groups: Mapping[str, Group],
    packages: Collection[str] = (),
    parts: Collection[Path | str] = (),
    **identity,
) -> None:
    """Write what a stage measured to the job's output, with its provenance.

    Its inputs are the job's that are a single file with a name. Lists are left out: the digests of
    the data files are part of the config, and how what was measured is cut into `parts` (artefacts)
    changes no byte of it, unless these were computed on other kernels. `packages` and `identity`
    are as in `store.provenance`.
    """
    inputs = {role: sha256(file) for role, file in snakemake.input.items() if isinstance(file, str)}
    own = kernels(choose_device(snakemake.config["device"]))
    used = {own, *(store.attributes(file)["kernels"] for file in parts)}
    attributes = store.provenance(
        snakemake.params.config,
        snakemake.params.code,
        inputs,
        packages,
        kernels="; ".join(sorted(used)),
        **mode_of(snakemake.params.config),
        **part_named(snakemake.params.config),
        **identity,
    )
    loss = loss_of(snakemake.params.config)
    groups = store.of_loss(groups, loss.name, loss.units)
    store.write(snakemake.output[0], groups, attributes)


def load_point(snapshots: Path | str, point: str) -> Point:
    """theta at `point` of the run whose snapshots these are.

    `matched` is what training kept (see `training.train`), other points are snapshots (see
    `training.find_point`). The preconditioner is None where the optimizer has none, and at
    initialisation.
    """
    attributes = store.attributes(snapshots)
    found = _read_point(snapshots, point)
    if found is None or not np.isfinite(found["theta"]).all():
        status = "diverged" if attributes["diverged"] else "not reached"
        nothing = torch.full((attributes["parameters"],), torch.nan)
        shapes = json.loads(attributes.get("buffer_shapes", "[]"))
        buffers = torch.full((sum(map(math.prod, shapes)),), torch.nan) if shapes else None
        scale = nothing if attributes["preconditioned"] else None
        return Point(nothing, status, -1, scale, buffers)
    preconditioner = found.get("preconditioner")
    if preconditioner is not None and np.isfinite(preconditioner).all():
        preconditioner = torch.from_numpy(preconditioner)
    else:
        preconditioner = None
    buffers = torch.from_numpy(found["buffers"]) if "buffers" in found else None
    theta, step = torch.from_numpy(found["theta"]), int(found["step"])
    return Point(theta, "ok", step, preconditioner, buffers)


def _read_point(snapshots: Path | str, point: str) -> dict[str, np.ndarray] | None:
    """theta, step and, if there are any, preconditioner and running statistics.

    None where there is no such point.
    """
    attributes = store.attributes(snapshots)
    vectors = ["theta"]
    if attributes["preconditioned"]:
        vectors.append("preconditioner")
    if "buffer_names" in attributes:
        vectors.append("buffers")
    if point == "matched":
        if "matched" not in store.subgroups(snapshots):
            return None
        group = store.read(snapshots, "matched", ("step", *vectors))
        return {name: variable.values for name, variable in group.variables.items()}
    columns = store.read(snapshots, names=("step", "epoch")).variables
    index = find_point(point, columns["epoch"].values)
    if index is None:
        return None
    rows = {name: store.read_row(snapshots, name, index) for name in vectors}
    return rows | {"step": columns["step"].values[index]}


def status_of(points: Sequence[Point]) -> str:
    """That of several points together: "ok", or that of the first which is not."""
    return next((point.status for point in points if point.status != "ok"), "ok")


def load_order(alignment: Path | str, point: str) -> Tensor | None:
    """The order (P,) int64 in which theta_b is aligned, or None where there is no alignment."""
    if store.read(alignment, point, ()).attributes["status"] != "ok":
        return None
    order = store.read(alignment, point, ("order",)).variables["order"]
    return torch.from_numpy(order.values).long()


def run_identity(snapshots: Path | str) -> dict:
    """Which run these snapshots are of: the root attributes IDENTITY."""
    attributes = store.attributes(snapshots)
    return {name: attributes[name] for name in IDENTITY}


def pair_identity(snakemake) -> dict:
    """Which two runs a job connects: what they have in common, names and seeds of each."""
    inputs, wildcards = snakemake.input, snakemake.wildcards
    a, b = (run_identity(file) for file in (inputs.snapshots_a, inputs.snapshots_b))
    names = {"a": wildcards.a, "b": wildcards.b, "seed_a": a.pop("seed"), "seed_b": b["seed"]}
    return a | names
