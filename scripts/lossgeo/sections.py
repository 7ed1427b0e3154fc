"""What each job depends on: its section of the config, by which it is made again or not.

The function of a rule's name takes the config and the names of a job's files (`wildcards`: model,
optimizer, seed; or a, b of a pair; or experiment), and returns one plain dict. What a job does not
depend on is left out: then a change of it makes nothing again.

Plain Python: the workflow imports it on every call, so it must not import torch.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lossgeo import study

Section = dict[str, Any]


def plain(**entries: Any) -> Section:
    """Entries as one plain dict with sorted keys, as they are compared and recorded."""
    return json.loads(json.dumps(entries, sort_keys=True))


def of_model(config: Mapping, model: str, **entries: Any) -> Section:
    """What every stage needs that evaluates a model: what it is, the data; and `entries`.

    Whether kernels are portable only where they are, and the loss only where it is not the
    cross-entropy, so that others are made as they were.
    """
    spec = config["models"][model]
    kernels = {"portable": True} if config.get("portable") else {}
    parts = (
        ("factory", "arguments", "statistics", "calibration_samples")
        if "factory" in spec
        else ("family", "width", "activation")
    )
    return plain(
        model={key: value for key, value in spec.items() if key in parts},
        data=study.get_data_spec(config),
        **kernels,
        **({} if study.has_plain_loss(config) else {"loss": study.get_loss(config)}),
        **entries,
    )


def train(config: Mapping, wildcards) -> Section:
    """Of a training run; the objective only where the run has a matched point."""
    model, optimizer = wildcards.model, wildcards.optimizer
    entries = config["training"] | {
        "optimizer": config["optimizers"][optimizer],
        "epochs": study.get_epochs(config, model, optimizer),
        "objective": config["objective"],
    }
    del entries["target_accuracy"]
    if not study.has_matched_point(config, model, optimizer):
        del entries["matched_loss"], entries["objective"]
    if "train" in entries["optimizer"]:
        of_steps = ("batch_size", "evaluations_per_epoch", "snapshots_per_epoch")
        entries = _without(entries, *of_steps)
    return of_model(config, model, **entries)


def weights(config: Mapping, wildcards) -> Section:
    """Of weights from elsewhere: the digests of their files, wherever these are."""
    return of_model(
        config,
        wildcards.model,
        weights=study.get_weight_digests(config, wildcards.model, wildcards.seed),
        evaluation_samples=config["training"]["evaluation_samples"],
    )


def fork(config: Mapping, wildcards) -> Section:
    """Of a run that leaves another: what that depends on, but for what is matched."""
    section = train(config, wildcards)
    for entry in ("matched_loss", "objective", "snapshots_per_epoch", "evaluations_per_epoch"):
        section.pop(entry, None)
    epochs = study.get_fork_epochs(config, wildcards.model, wildcards.optimizer)
    return section | plain(epochs=epochs)


def of_points(config: Mapping, wildcards, stage: str, **entries: Any) -> Section:
    """Of a stage that measures the points of a run, under its own section; and `entries`.

    It measures the model's `parameters`, where these are not all.
    """
    spec = config["models"][wildcards.model]
    part = {"parameters": spec["parameters"]} if "parameters" in spec else {}
    return of_model(
        config,
        wildcards.model,
        points=study.get_points(config, wildcards.model, wildcards.optimizer, stage),
        **part,
        **{"objective": config["objective"], stage: config[stage]} | entries,
    )


def hessian(config: Mapping, wildcards) -> Section:
    """Of the spectrum of a run's Hessians; whether of single layers only where it is asked."""
    settings = config["hessian"]
    if not settings.get("layers"):
        settings = _without(settings, "layers")
    return of_points(config, wildcards, "hessian", hessian=settings)


def landscape(config: Mapping, wildcards) -> Section:
    """Of a run's lines and planes; how deep a minimum counts is the table's.

    Into how many tiles they are cut changes no number.
    """
    settings = _without(config["landscape"], "persistence", "tiles")
    return of_points(
        config, wildcards, "landscape", landscape=settings, estimator=config["estimator"]
    )


def tile(config: Mapping, wildcards) -> Section:
    """Of one of the tiles of a run's lines and planes, which are evaluated at all their points."""
    settings = _without(config["landscape"], "persistence", "tiles", "stencils")
    return of_points(config, wildcards, "landscape", landscape=settings) | plain(
        tile=int(wildcards.tile), tiles=int(wildcards.tiles)
    )


def flatness(config: Mapping, wildcards) -> Section:
    """Of a run's sharpness, and of the one run that is rescaled."""
    names = (wildcards.model, wildcards.optimizer, int(wildcards.seed))
    return of_points(
        config, wildcards, "flatness", rescaled=study.get_rescaled_point(config, *names)
    )


def ladder(config: Mapping, wildcards) -> Section:
    """Of a run's ladder: what it measures at each point, on samples of its own."""
    return of_points(
        config,
        wildcards,
        "ladder",
        ladder={
            "tolerance": config["ladder"]["tolerance"],
            "at": study.get_ladder(config, wildcards.model, wildcards.optimizer),
        },
        objective={"split": config["objective"]["split"]},
    )


def trajectory(config: Mapping, wildcards) -> Section:
    """Of the PCA of a run's snapshots, of which it takes all."""
    names = ("objective", "estimator", "trajectory")
    return of_model(config, wildcards.model, **{name: config[name] for name in names})


def published(config: Mapping, wildcards) -> Section:
    """Of the published estimators of a run; surfaces are those of few seeds, at points where there
    are correct ones to set beside them."""
    settings, model, optimizer = config["published"], wildcards.model, wildcards.optimizer
    points = study.get_published_points(config, model, optimizer)
    drawn = [p for p in points if p in study.get_points(config, model, optimizer, "landscape")]
    return of_model(
        config,
        model,
        points=points,
        last=study.get_last_point(points),
        landscape=int(wildcards.seed) in config["seeds"][: settings["landscapes"]] and drawn,
        published={key: value for key, value in settings.items() if key != "landscapes"},
    )


def of_pair(config: Mapping, wildcards, *names: str) -> Section:
    """Of a stage that connects two runs: the points, and the sections of these names."""
    model, optimizer = wildcards.model, wildcards.optimizer
    if wildcards.b.startswith("fork"):
        shared = int(wildcards.b.removeprefix("fork"))
        points = study.get_fork_points(config, model, optimizer, shared)
    else:
        points = study.get_connected_points(config, model, optimizer, "connectivity")
    return of_model(config, model, points=points, **{name: config[name] for name in names})


def alignment(config: Mapping, wildcards) -> Section:
    """Of the permutations of a pair: also which units a user's model says they are."""
    section = of_pair(config, wildcards, "alignment")
    section.pop("loss", None)
    table = config["models"][wildcards.model].get("permutations")
    model = section["model"] | ({"permutations": table} if table else {})
    return section | plain(model=model)


def curve(config: Mapping, wildcards) -> Section:
    """Of the curves between a pair."""
    rungs = [r for r in study.get_rungs(config, wildcards.b) if r in ("curve", "aligned_curve")]
    return of_pair(config, wildcards, "curve") | plain(
        rungs=rungs, batch_size=config["training"]["batch_size"]
    )


def connectivity(config: Mapping, wildcards) -> Section:
    """Of the profiles along the paths of a pair."""
    return of_pair(config, wildcards) | plain(
        rungs=study.get_rungs(config, wildcards.b),
        t=config["connectivity"]["points"],
        samples=config["objective"]["samples"],
    )


def planes(config: Mapping, wildcards) -> Section:
    """Of the planes of a pair."""
    return of_pair(config, wildcards, "objective", "estimator") | plain(
        points=study.get_plane_points(config, wildcards.model, wildcards.optimizer),
        plane=config["connectivity"]["plane"],
    )


def figure(config: Mapping, wildcards, name: str, stages: Sequence[str]) -> Section:
    """What a figure shows of an experiment, and in which style."""
    shown = study.get_shown(config, wildcards.experiment)
    if name in ("training", "steps"):
        shown = study.only_trained(shown)
    if {"connectivity", "instability"} & set(stages):
        shown["connected_points"] = study.get_shown_points(config, wildcards.experiment)
    return plain(figure=name, experiment=shown, style=study.get_style(config))


def _without(section: Mapping, *names: str) -> Section:
    """A section of the config but for some of its entries."""
    return {key: value for key, value in section.items() if key not in names}
