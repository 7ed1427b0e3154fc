"""What a config asks for: its runs, points and pairs; and what is wrong with a config.

Plain Python: the workflow imports it on every call, so it must not import torch.
"""

import json
import math
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from lossgeo import stability
from lossgeo.data import DATASETS, FILES, DataError, check_files, read_idx, sha256


class ConfigError(ValueError):
    """One thing that is wrong with a config: which key, what was found, what was expected."""


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


def get_seeds(config: Mapping, model: str) -> list[int]:
    """The seeds of a model's runs: those of the study, or the first so many of them."""
    return config["seeds"][: config["models"][model].get("seeds")]


def get_runs(config: Mapping, stage: str | None = None) -> list[Run]:
    """The runs of all experiments (with `stage`: that it measures), in the order of the lists."""
    return list(
        dict.fromkeys(
            Run(model, optimizer, seed)
            for experiment in config["experiments"].values()
            if stage is None or stage in experiment["stages"]
            for model in experiment["models"]
            for optimizer in experiment["optimizers"]
            for seed in get_seeds(config, model)
        )
    )


def get_epochs(config: Mapping, model: str, optimizer: str) -> int:
    """How long a run is trained: as long as the longest of its experiments asks."""
    return max(_epochs(config, e, model) for e in _experiments(config, model, optimizer))


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
            for size, count in zip(settings["samples"], _subsets(settings), strict=True):
                at["counts"][size] = max(count, at["counts"].get(size, 0))
    return {
        point: {
            "samples": sorted(at["counts"]),
            "subsets": [at["counts"][size] for size in sorted(at["counts"])],
            "top": at["top"],
        }
        for point, at in found.items()
    }


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

    One run of each family is enough: of its first model the first, at the last point of its first
    experiment.
    """
    families: dict[str, Run] = {}
    for run in get_runs(config, "flatness"):
        families.setdefault(config["models"][run.model].get("family", run.model), run)
    if (model, optimizer, seed) not in families.values():
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
        _epochs(config, experiment, model)
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
    found = config["experiments"][experiment]
    return {
        "models": found["models"],
        "optimizers": found["optimizers"],
        "points": found["points"],
        "epochs": {model: _epochs(config, found, model) for model in found["models"]},
        "matched_loss": config["training"]["matched_loss"],
        "target_accuracy": config["training"]["target_accuracy"],
        "normalization": config["landscape"]["normalization"],
        "ceilings": get_ceilings(config, found["optimizers"], preconditioned=False),
        "preconditioned_ceilings": get_ceilings(config, found["optimizers"], preconditioned=True),
    }


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
            for model in found["models"]
            for optimizer in found["optimizers"]
            if "connectivity" in found["stages"]
            and point in get_points(config, model, optimizer, "hessian")
        ]
    return {"cells": list(dict.fromkeys(cells))}


def get_ceilings(
    config: Mapping, optimizers: Sequence[str], *, preconditioned: bool
) -> dict[str, float]:
    """Optimizer -> the largest curvature at which its full-batch update is stable, nats.

    Of the Hessian (SGD), or of the preconditioned Hessian (Adam and AdamW), as `preconditioned`
    says: see `stability.ceiling`.
    """
    specs = {name: config["optimizers"][name] for name in optimizers}
    return {
        name: stability.ceiling(spec)
        for name, spec in specs.items()
        if stability.is_preconditioned(spec) == preconditioned
    }


def get_data_folder(config: Mapping) -> Path:
    """Where the four IDX files are."""
    return Path(config["data"]["folder"]) / config["data"]["name"]


def get_data_spec(config: Mapping) -> dict[str, Any]:
    """What the content of the data depends on; for files of the user's own, their digests now."""
    data = config["data"]
    known = DATASETS.get(data["name"])
    digests = (
        dict(known.sha256)
        if known
        else {name: sha256(get_data_folder(config) / name) for name in FILES}
    )
    return {
        "name": data["name"],
        "mean": data.get("mean", known and known.mean),
        "std": data.get("std", known and known.std),
        "sha256": digests,
        "train_samples": data["train_samples"],
        "test_samples": data["test_samples"],
    }


def without_dropped(config: Mapping) -> dict[str, Any]:
    """The config without the models, optimizers and experiments that an overlay set to null.

    Also without the models that have no seeds, in experiments too: they wait for some.
    """
    kept = {
        key: {name: entry for name, entry in value.items() if entry is not None}
        if key in ("models", "optimizers", "experiments") and isinstance(value, Mapping)
        else value
        for key, value in config.items()
    }
    try:
        waiting = {name for name, spec in kept["models"].items() if spec.get("seeds") == 0}
        kept["models"] = {n: spec for n, spec in kept["models"].items() if n not in waiting}
        kept["experiments"] = {
            name: {**entry, "models": [m for m in entry["models"] if m not in waiting]}
            for name, entry in kept["experiments"].items()
        }
    except (AttributeError, KeyError, TypeError):
        pass  # not as it should be, which the schema says better
    return kept


def explain(error, what: str = "config") -> str:
    """One sentence for a jsonschema ValidationError: key, value found, what was expected.

    `what` says what the key is one of.
    """
    error = _deepest(error)
    key = ".".join(map(str, error.absolute_path)) or "(top level)"
    if error.validator == "additionalProperties" and isinstance(error.instance, Mapping):
        known = error.schema.get("properties", {})
        unknown = [name for name in error.instance if name not in known]
        prefix = f"{key}." if error.absolute_path else ""
        return (
            f"{what} key {prefix}{unknown[0]} (value {error.instance[unknown[0]]!r}) is unknown; "
            f"expected one of: {', '.join(sorted(known))}"
        )
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return (
            f"{what} key {key}: found {error.instance!r}, expected the key {missing[0]!r} as well"
        )
    if (
        error.parent is None
        and error.validator == "pattern"
        and "propertyNames" in error.schema_path
    ):
        key = f"{key}: a name under it"
    expected = error.schema.get("description")
    hint = ""
    if isinstance(error.instance, str) and _is_number(error.instance):
        hint = (
            "; YAML reads this as text: write it as a decimal number, or with a dot and a signed "
            "exponent (1.0e-1)"
        )
    return (
        f"{what} key {key}: found {error.instance!r}"
        f"{' (text)' if isinstance(error.instance, str) and hint else ''}, "
        f"but {error.message.removeprefix(repr(error.instance)).strip()}"
        f"{f' (expected: {expected})' if expected else ''}{hint}"
    )


def check(config: Mapping) -> None:
    """Raise ConfigError for what a schema cannot see: names, grids, points, data, factories."""
    _check_references(config)
    _check_seeds(config)
    _check_grids(config)
    _check_points(config)
    _check_data(config)
    _check_factories(config)


def _cells(config: Mapping, stage: str) -> list[tuple[str, str]]:
    """The (model, optimizer) of every run that `stage` measures, each once."""
    return list(dict.fromkeys((run.model, run.optimizer) for run in get_runs(config, stage)))


def _experiments(config: Mapping, model: str, optimizer: str) -> list[Mapping]:
    return [
        experiment
        for experiment in config["experiments"].values()
        if model in experiment["models"] and optimizer in experiment["optimizers"]
    ]


def _subsets(ladder: Mapping) -> list[int]:
    """How many subsets there are of each size."""
    counts = ladder["subsets"]
    return [counts] * len(ladder["samples"]) if isinstance(counts, int) else list(counts)


def _epochs(config: Mapping, experiment: Mapping, model: str) -> int:
    epochs = experiment["epochs"]
    if epochs == "published":
        return published_epochs(config["models"][model]["family"], config["models"][model]["width"])
    return epochs[model] if isinstance(epochs, Mapping) else epochs


def _check_seeds(config: Mapping) -> None:
    for name, spec in config["models"].items():
        if spec.get("seeds", 0) > len(config["seeds"]):
            raise ConfigError(
                f"config key models.{name}.seeds: found {spec['seeds']}, expected at most the "
                f"{len(config['seeds'])} of the key seeds, of which it takes the first"
            )


def _check_references(config: Mapping) -> None:
    for kind in ("models", "optimizers"):
        for name, experiment in config["experiments"].items():
            for entry in experiment[kind]:
                if entry not in config[kind]:
                    raise ConfigError(
                        f"config key experiments.{name}.{kind}: found {entry!r}, expected names "
                        f"defined under {kind}: {', '.join(config[kind])}"
                    )
        for entry in config[kind]:
            if not any(entry in e[kind] for e in config["experiments"].values()):
                raise ConfigError(
                    f"config key {kind}.{entry}: no experiment knows it; add it to an experiment's "
                    f"{kind}, or drop it ({entry}: null)"
                )
    for name, experiment in config["experiments"].items():
        for model in experiment["models"]:
            epochs, spec = experiment["epochs"], config["models"][model]
            if isinstance(epochs, Mapping) and model not in epochs:
                raise ConfigError(
                    f"config key experiments.{name}.epochs: found {dict(epochs)}, expected a "
                    f"number for {model!r} too"
                )
            if epochs == "published" and "factory" in spec:
                raise ConfigError(
                    f"config key experiments.{name}.epochs: found 'published', but the formula is "
                    f"for mlp and cnn and {model!r} has a factory; give a number, or one per model"
                )


def _check_grids(config: Mapping) -> None:
    landscape = config["landscape"]
    for key, points in {
        "landscape.lines.points": landscape["lines"]["points"],
        "landscape.planes.points": landscape["planes"]["points"],
        "landscape.eigenplane.points": landscape["eigenplane"]["points"],
        "trajectory.parabola.points": config["trajectory"]["parabola"]["points"],
        "trajectory.plane.points": config["trajectory"]["plane"]["points"],
    }.items():
        if points % 2 == 0:
            raise ConfigError(
                f"config key {key}: found {points}, expected an odd number, so that the grid "
                f"contains its centre (try {points + 1})"
            )
    flatness = config["flatness"]
    for key, radii in {
        "radii": flatness["radii"],
        **{f"worst.{ball}": flatness["worst"][ball] for ball in ("euclidean", "elementwise")},
    }.items():
        if any(low >= high for low, high in pairwise(radii)):
            raise ConfigError(
                f"config key flatness.{key}: found {list(radii)}, expected ascending radii: each "
                "ball's search begins with what was found in the one before"
            )
    ladders = {"ladder": config["ladder"]} | {
        f"experiments.{name}.ladder": experiment["ladder"]
        for name, experiment in config["experiments"].items()
        if "ladder" in experiment
    }
    for key, ladder in ladders.items():
        if len(_subsets(ladder)) != len(ladder["samples"]):
            raise ConfigError(
                f"config key {key}.subsets: found {ladder['subsets']}, expected one number, or one "
                f"for each of the {len(ladder['samples'])} sizes of {key}.samples"
            )
    rungs = config["connectivity"]["rungs"]
    if "renormalised" in rungs and "aligned" not in rungs:
        raise ConfigError(
            f"config key connectivity.rungs: found {list(rungs)}, expected aligned beside "
            "renormalised, which is the aligned line with other activations"
        )
    hessian = config["hessian"]
    if hessian["top"] + hessian["bottom"] > hessian["steps"]:
        raise ConfigError(
            f"config key hessian.steps: found {hessian['steps']}, expected at least top + bottom = "
            f"{hessian['top'] + hessian['bottom']}"
        )
    if hessian["eigenvectors"] > hessian["top"]:
        raise ConfigError(
            f"config key hessian.eigenvectors: found {hessian['eigenvectors']}, expected at most "
            f"top = {hessian['top']}"
        )


def _check_points(config: Mapping) -> None:
    for name, experiment in config["experiments"].items():
        for model in experiment["models"]:
            for optimizer in experiment["optimizers"]:
                epochs = get_epochs(config, model, optimizer)
                points = [(f"experiments.{name}.points", p) for p in experiment["points"]]
                at = config["connectivity"]["at"]
                if at != "last" and {"connectivity", "instability"} & set(experiment["stages"]):
                    points += [("connectivity.at", point) for point in at]
                own = _epochs(config, experiment, model)
                for key, point in points:
                    if point == "final" and own < epochs:
                        raise ConfigError(
                            f"config key {key}: found 'final', but another experiment trains "
                            f"{model}/{optimizer} for {epochs} epochs and experiments.{name} for "
                            f"{own}; expected 'epoch{own}', which is the same for both"
                        )
                    if point.startswith("epoch") and int(point.removeprefix("epoch")) > epochs:
                        raise ConfigError(
                            f"config key {key}: found {point!r}, but {model}/{optimizer} is "
                            f"trained for {epochs} epochs; expected a point that it reaches"
                        )
                snapshots = 1 + epochs * config["training"]["snapshots_per_epoch"]
                needed = config["trajectory"]["components"] + 1
                if "trajectory" in experiment["stages"] and snapshots < needed:
                    raise ConfigError(
                        f"config key trajectory.components: found {needed - 1}, but "
                        f"{model}/{optimizer} has {snapshots} snapshots, which span "
                        f"{snapshots - 1} dimensions; ask for fewer components, more epochs or "
                        "training.snapshots_per_epoch"
                    )
        if "landscape" in experiment["stages"] and "hessian" not in experiment["stages"]:
            raise ConfigError(
                f"config key experiments.{name}.stages: found landscape without hessian, expected "
                "both: the eigenplane is spanned by Hessian eigenvectors"
            )
        if "published" in experiment["stages"] and set(experiment["points"]) == {"matched"}:
            raise ConfigError(
                f"config key experiments.{name}.points: found {experiment['points']}, expected "
                "init, final or epochN too: the published estimators (stage published) measure the "
                "ends of training and never `matched`"
            )
        if "instability" in experiment["stages"]:
            _check_forks(config, name, experiment)
        for model in experiment["models"]:
            seeds = get_seeds(config, model)
            if "connectivity" in experiment["stages"] and len(seeds) < 2:
                key = "seeds" if len(config["seeds"]) < 2 else f"models.{model}.seeds"
                raise ConfigError(
                    f"config key {key}: {model} has the seeds {seeds}, expected at least two for "
                    f"experiments.{name}.stages: connectivity, which connects pairs of seeds"
                )


def _check_forks(config: Mapping, name: str, experiment: Mapping) -> None:
    """A fork has something left to train, and is connected somewhere."""
    for model in experiment["models"]:
        for optimizer in experiment["optimizers"]:
            epochs = get_fork_epochs(config, model, optimizer)
            latest = max(config["instability"]["epochs"])
            if latest >= epochs:
                raise ConfigError(
                    f"config key instability.epochs: found {latest}, but {model}/{optimizer} of "
                    f"experiments.{name} is trained for {epochs} epochs; expected fewer, so that a "
                    "fork has some left to train"
                )
            if not get_fork_points(config, model, optimizer, latest):
                at = config["connectivity"]["at"]
                key = f"experiments.{name}.points" if at == "last" else "connectivity.at"
                found = get_connected_points(config, model, optimizer, "instability")
                raise ConfigError(
                    f"config key {key}: found {found}, but a fork of {model}/{optimizer} that "
                    f"leaves it after {latest} epochs (instability.epochs) and is trained to "
                    f"{epochs} passes none of them; expected 'final' or an epochN in between"
                )


def _check_data(config: Mapping) -> None:
    data = config["data"]
    known = DATASETS.get(data["name"])
    if known is None and data["source"] != "files":
        raise ConfigError(
            f"config key data.name: found {data['name']!r} with source: {data['source']}, expected "
            f"one of {', '.join(DATASETS)}, or source: files for data of your own"
        )
    for key in ("mean", "std"):
        if known is None and key not in data:
            raise ConfigError(f"config key data.{key}: not found, expected for {data['name']!r}")
    folder = get_data_folder(config)
    if data["source"] != "files" and not all((folder / name).is_file() for name in FILES):
        return  # the rule `data` brings them
    try:
        check_files(folder, known.sha256 if known else {})
        sizes = {"train": read_idx(folder / FILES[1]), "test": read_idx(folder / FILES[3])}
    except DataError as error:
        raise ConfigError(f"config key data.folder: {error}") from error
    for split, labels in sizes.items():
        if (data[f"{split}_samples"] or 0) > len(labels):
            raise ConfigError(
                f"config key data.{split}_samples: found {data[f'{split}_samples']}, but the files "
                f"hold {len(labels)}; expected at most that, or null for all"
            )
    (_, height, width), _ = _data_shape(config)
    small = [name for name, spec in config["models"].items() if spec.get("family") == "cnn"]
    if small and min(height, width) < 4:
        raise ConfigError(
            f"config key models.{small[0]}: the images are {height} x {width}, expected at least "
            "4 x 4 for two poolings; use an mlp, or a factory of your own"
        )


def _check_factories(config: Mapping) -> None:
    """Build each user's model once, and try its permutations, if it has a table of them.

    This is done in a process of its own: this one must stay without torch.
    """
    factories = {n: spec for n, spec in config["models"].items() if "factory" in spec}
    if not factories:
        return
    input_shape, classes = _data_shape(config)
    program = (
        "import sys, json; sys.path.insert(0, sys.argv[1]); from lossgeo import models\n"
        "shape = tuple(json.loads(sys.argv[3]))\n"
        "for name, spec in json.loads(sys.argv[2]).items():\n"
        "    key = f'models.{name}'\n"
        "    try:\n"
        "        model = models.build(spec, shape, int(sys.argv[4]))\n"
        "        if 'permutations' in spec:\n"
        "            from lossgeo import permutations\n"
        "            key += '.permutations'\n"
        "            permutations.check_table(model, spec['permutations'], shape)\n"
        "    except models.ModelError as error: sys.exit(f'config key {key}: {error}')\n"
    )
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            program,
            str(Path(__file__).parents[1]),
            json.dumps(factories),
            json.dumps(input_shape),
            str(classes),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ConfigError(done.stderr.strip().rpartition("\n")[2])


def _data_shape(config: Mapping) -> tuple[Sequence[int], int]:
    """Shape of an input and number of classes; those of MNIST while its files are not there."""
    files = [get_data_folder(config) / name for name in FILES]
    if not all(file.is_file() for file in files):
        return (1, 28, 28), 10
    try:
        images, labels, _, test_labels = map(read_idx, files)
    except DataError as error:
        raise ConfigError(f"config key data.folder: {error}") from error
    return (1, *images.shape[1:]), int(max(labels.max(), test_labels.max())) + 1


def _deepest(error):
    """Of a failed anyOf: the error deeper inside that one branch points at, or the anyOf itself."""
    while error.context:
        inside = max(error.context, key=lambda e: len(e.absolute_path))
        if len(inside.absolute_path) == len(error.absolute_path):
            break
        error = inside
    return error


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
