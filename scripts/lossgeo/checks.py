"""What is wrong with a config: one line for the first thing that is.

Plain Python, as `study`: the workflow imports it on every call. What takes torch, users' models and
CUDA, is tried in a process of its own (`trial`).
"""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import distributions
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from lossgeo import arrays, digest, memory, study
from lossgeo.arrays import ARRAYS
from lossgeo.data import DATASETS, FILES, MNIST, Contents, DataError, check_files, read_idx

MOST = 10**9  # of what is counted
LARGEST = 2**63 - 1  # of a seed, or of a number that a user's model gets
WEIGHTS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")  # files of them, by their ends
REFUSED = {"capturable", "differentiable", "foreach", "fused", "maximize"}  # of an optimizer
LIMIT, START = 60.0, 300.0  # seconds that a model may take to be tried, and torch to be imported
SAMPLES = 8  # of the data, on which models and trainings are tried
DATA_LIMIT = 1800.0  # seconds that two calls of a user's function may take that returns the data


class ConfigError(ValueError):
    """One line on what is wrong with a config: which key, what was found, what was expected."""

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class Number(float):
    """A float that is no integer to jsonschema, which takes 32.0 for one."""

    def is_integer(self) -> bool:
        return False


def complete(
    config: Mapping, schema: Path | str, experiments: Iterable[str] | None = None
) -> dict[str, Any]:
    """The config of a study: checked, with the schema's defaults and without what nothing uses.

    `experiments` are those that it keeps (see `named_experiments`); None: all. Users' models are
    not tried: `check_models` does that. Raises ConfigError.
    """
    made = validate(study.without_nulls(config), schema)
    if experiments is not None:
        kept = set(experiments)
        made["experiments"] = {n: e for n, e in made["experiments"].items() if n in kept}
    made = study.with_given(made)
    _check_references(made)
    made = study.without_idle(made)
    check(made)
    return made


def validate(found: Any, schema: Path | str, what: str = "config") -> Any:
    """A copy of what a file holds, with the defaults of a JSON schema; `what` names it in messages.

    Raises ConfigError where the schema is not met, and for what no schema can say: keys that are
    not text, dates, infinite numbers, 32.0 for a count.
    """
    from jsonschema.exceptions import ValidationError
    from snakemake.exceptions import WorkflowError
    from snakemake.utils import validate

    copy = _plain(found, what)
    try:
        validate(copy, str(schema))
    except WorkflowError as error:
        if not isinstance(error.__context__, ValidationError):
            raise
        raise ConfigError(explain(error.__context__, what)) from None
    return _with_floats(copy)


def check(config: Mapping) -> None:
    """Raise ConfigError for what a schema cannot see: names, grids, points, data."""
    if not config["experiments"]:
        raise ConfigError(
            "config key experiments: all their models have seeds: 0, expected one with seeds"
        )
    _check_seeds(config)
    _check_weights(config)
    _check_statistics(config)
    _check_optimizers(config)
    _check_loss(config)
    _check_epochs(config)
    _check_grids(config)
    _check_points(config)
    _check_data(config)


def read_yaml(path: Path | str, what: str = "config") -> Any:
    """What a YAML or JSON file holds. Raises ConfigError, also for a key that is there twice."""
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"the file {path} cannot be read: {error}") from None
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast as Python's
        _check_keys(yaml.compose(text, Loader=loader), path, what)
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        try:
            return json.loads(text)  # which may be indented with tabs
        except ValueError:
            raise ConfigError(f"the file {path} is no YAML: {error}") from None


def named_experiments(overlays: Iterable[Path | str | Mapping]) -> list[str] | None:
    """The experiments that the last of some overlays names, where one does; None: all there are.

    An overlay that only drops experiments (null) names none. Raises ConfigError as `read_yaml`.
    """
    named = None
    for overlay in overlays:
        found = overlay if isinstance(overlay, Mapping) else read_yaml(overlay)
        section = found.get("experiments") if isinstance(found, Mapping) else None
        if isinstance(section, Mapping):
            named = [name for name, entry in section.items() if entry is not None] or named
    return named


def check_target(config: Mapping, names: Mapping[str, str], stage: str | None = None) -> None:
    """Raise ConfigError unless a file that is asked for belongs to the study.

    `names` are its wildcards: an experiment; or a model and an optimizer, and a seed (perhaps the
    epoch at which a fork leaves it) or a pair of runs, a and b. `stage` is what measures it.
    """
    if "experiment" in names:
        _check_name("experiment", names["experiment"], config["experiments"])
        return
    fork = names.get("b", "") if names.get("b", "").startswith("fork") else ""
    if "a" in names:
        stage = "instability" if fork else "connectivity"
    runs, of = study.get_runs(config, stage), f" with the stage {stage}" if stage else ""
    for kind in ("model", "optimizer"):
        _check_name(kind, names[kind], dict.fromkeys(getattr(run, kind) for run in runs), of)
        runs = [run for run in runs if getattr(run, kind) == names[kind]]
        of = f" of {names[kind]}{of}"
    if "tile" in names:
        found = f"{names['tile']}-of-{names['tiles']}"
        known = [f"{tile}-of-{tiles}" for *_, tile, tiles in study.get_tiles(config)]
        _check_name("tile", found, dict.fromkeys(known))
    seeds = [names[key].removeprefix("seed") for key in ("seed", "a", "b") if key in names]
    if fork:
        seeds.pop()
    for seed in seeds:
        _check_name("seed", seed, [str(run.seed) for run in runs], of)
    epoch = fork.removeprefix("fork") or names.get("epoch")
    if epoch:
        start = (*runs[0][:2], f"seed{seeds[0]}")
        epochs = [
            fork.b.removeprefix("fork") for fork in study.get_forks(config) if fork[:3] == start
        ]
        _check_name("epoch of a fork", epoch, epochs, f" of seed {seeds[0]}{of}")


def check_models(
    config: Mapping, code: Mapping[str, Mapping[str, str]], limit: float = LIMIT
) -> None:
    """Raise ConfigError for a user's model that cannot be probed, training that fails, or a device.

    Each has `limit` seconds. What was found to be good is not tried again until it, what tries it,
    or any installed package is another: `code` has the digests of the functions that the config
    names, by a model's name, or by the key of an optimizer, optimizers.NAME. One without is tried
    on every call.
    """
    _check_batches(config)
    models = {
        name: spec
        for name, spec in config["models"].items()
        if {"factory", "weights", "parameters"} & set(spec)
    }
    has_device = config["device"].startswith("cuda")
    steps: dict[str, Any] = {"device": config["device"]} if has_device else {}
    loss = {} if study.has_plain_loss(config) else {"loss": study.get_loss(config)}
    steps |= loss  # before models, which are tried with it
    steps |= {f"models.{name}": s | {"probed": _probed(config, name)} for name, s in models.items()}
    trainings = _trainings(config)
    steps |= trainings
    shape, example = ((), 0), None
    if models or trainings or loss:
        shape, example = _data_shape(config)
    named = [
        *(name for name, spec in models.items() if "factory" in spec),
        *(key for key in trainings if study.get_functions(trainings[key]["optimizer"])),
        *(key for key in loss if "factory" in loss[key]),
    ]

    def work() -> bool:
        for error in try_out(steps, *shape, limit=limit, example=example):
            if error:
                raise ConfigError(f"config key {error}")
        return True

    if has_device or not all(code.get(name) for name in named):
        work()
    elif models or trainings or loss:
        own = digest.code_digests(Path(__file__).with_name("trial.py"), Path(__file__).parents[1])
        packages = sorted(f"{found.name} {found.version}" for found in distributions())
        weights = [
            study.get_weight_digests(config, run.model, run.seed)
            for run in study.get_runs(config, "weights")
        ]
        code = {name: code.get(name) for name in (*models, *trainings, *loss)}
        seen = [memory.key_of(np.ascontiguousarray(a).tobytes()) for a in example or ()]
        known = [steps, shape, seen, code, weights, own, packages, sys.version]
        memory.recall(memory.key_of(json.dumps(known)), work)


def _probed(config: Mapping, model: str) -> dict[str, Any]:
    """What is asked of the parameters of a model: how many eigenpairs, and which directions."""
    experiments = [e for e in config["experiments"].values() if model in e["models"]]
    stages = {stage for experiment in experiments for stage in experiment["stages"]}
    hessian, random = config["hessian"], stages & {"landscape", "flatness"}
    return {
        "eigenpairs": hessian["top"] + hessian["bottom"] if "hessian" in stages else 0,
        "directions": {f"{s}.normalization": config[s]["normalization"] for s in sorted(random)},
    }


def _trainings(config: Mapping) -> dict[str, Any]:
    """What is to be tried of the optimizers: those that the schema does not know in full."""
    return {
        f"optimizers.{name}": {
            "factory": ", ".join(study.get_functions(spec)) or f"torch.optim.{spec['name']}",
            "optimizer": spec,
            "models": {
                model: config["models"][model]
                for experiment in config["experiments"].values()
                for model, optimizer in study.get_cells(config, experiment)
                if name == optimizer
            },
        }
        for name, spec in config["optimizers"].items()
        if study.get_functions(spec) or spec["name"] not in ("SGD", "Adam", "AdamW")
    }


def bring_data(config: Mapping, limit: float = DATA_LIMIT) -> None:
    """Call a user's function that returns the data, unless what it returned is there.

    See `own_data.bring`. It is called again when its code or its arguments are others. Raises
    ConfigError for what is wrong with it or with what it returns, also after `limit` seconds.
    """
    if study.get_source(config) != "factory":
        return
    data = config["data"]
    if not has_data(config):
        step = {"factory": data["factory"], "arguments": data.get("arguments", {})}
        step["folder"] = str(study.get_data_folder(config))
        (error,) = try_out({"data.factory": step}, (), 0, limit=limit)
        if error:
            raise ConfigError(f"config key {error}")
    if not digest.factory_digests(data["factory"].partition(":")[0], [Path.cwd(), *sys.path]):
        raise ConfigError(
            f"config key data.factory: found no source of {data['factory']!r}, expected a module "
            "in a .py file: a change of any other would go unseen"
        )
    _check_data(config)


def has_data(config: Mapping) -> bool:
    """Whether the files of the data are all there."""
    return all(path.is_file() for path in study.get_data_files(config))


def try_out(
    steps: Mapping[str, Any],
    input_shape: Sequence[int],
    outputs: int,
    limit: float = LIMIT,
    example: tuple[np.ndarray, np.ndarray] | None = None,
) -> list[str | None]:
    """What is wrong with each of some models (key -> spec), devices or data; None: nothing.

    Models are tried on the inputs and targets of an `example`, a few samples, or on drawn ones of a
    shape, where there is none; by `trial`, in a process of its own in a session of its own:
    whatever it starts ends with it. The list ends where that process died, or where `limit` seconds
    went by.
    """
    if not steps:
        return []
    program = "import sys; sys.path.insert(0, sys.argv[1]); from lossgeo import trial; trial.main()"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task, answers = folder / "task.json", folder / "answers"
        task.write_text(json.dumps([steps, input_shape, outputs]))
        if example is not None:
            np.savez(task.with_suffix(".npz"), inputs=example[0], targets=example[1])
        with open(folder / "printed", "w") as printed:
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", program, Path(__file__).parents[1], task, answers],
                stdin=subprocess.DEVNULL,
                stdout=printed,
                stderr=printed,
                start_new_session=True,
            )
        try:
            lines, late = _wait(process, answers, limit)
        finally:
            _kill(process)
        if not lines:
            last = (folder / "printed").read_text(errors="replace").strip().rpartition("\n")[2]
            raise ConfigError(
                f"config key {next(iter(steps))}: cannot be tried without torch ({last})"
            )
    found = lines[1:]  # the first says that torch has been imported
    if len(found) < len(steps):
        key = list(steps)[len(found)]
        made = "data" if key == "data.factory" else "model and no gradient"
        ended = _end(process.returncode, late, limit, made)
        found.append(f"{key}: {_reference(steps[key])} {ended}")
    return found


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
            f"{what} key {prefix}{unknown[0]} (value {_shown(error.instance[unknown[0]])}) is "
            f"unknown; expected one of: {', '.join(sorted(known))}"
        )
    if error.validator == "required":
        missing = [name for name in error.validator_value if name not in error.instance]
        return (
            f"{what} key {key}: found {_shown(error.instance)}, expected the key {missing[0]!r} "
            "as well"
        )
    if (
        error.parent is None
        and error.validator == "pattern"
        and "propertyNames" in error.schema_path
    ):
        key = f"{key}: a name under it"
    expected = error.schema.get("description")
    hint = _hint(error.instance) if error.validator in ("type", "anyOf") else ""
    return (
        f"{what} key {key}: found {_shown(error.instance)}"
        f"{' (text)' if isinstance(error.instance, str) and hint else ''}, "
        f"but {error.message.removeprefix(repr(error.instance)).strip()}"
        f"{f' (expected: {expected})' if expected else ''}{hint}"
    )


def _plain(value: Any, what: str, path: tuple = ()) -> Any:
    """A copy in dicts, lists, text, finite numbers, booleans and None, floats as `Number`."""
    key = f"{what} key {'.'.join(map(str, path)) or '(top level)'}"
    if isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ConfigError(
                    f"{key}: found a name that YAML does not read as text, {name!r} (an unquoted "
                    "number, date, yes, no, on, off, true or null), expected text; quote it, or "
                    "take another name"
                )
        return {name: _plain(entry, what, (*path, name)) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, what, (*path, number)) for number, entry in enumerate(value)]
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        most = LARGEST if path[:1] == ("seeds",) or "arguments" in path else MOST
        if abs(value) > most:
            raise ConfigError(f"{key}: found {_shown(value)}, expected at most {most}")
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ConfigError(f"{key}: found {value}, expected a finite number")
        return Number(value)
    raise ConfigError(
        f"{key}: found a {type(value).__name__}, {value}, expected text, a number, true, false, "
        "null, a list or a section; quote it, and it is text"
    )


def _with_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_floats(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_with_floats(entry) for entry in value]
    return float(value) if isinstance(value, float) else value


def _check_keys(node: Any, path: Path | str, what: str) -> None:
    """Raise ConfigError for a key that a section of a composed YAML file has twice."""
    waiting, seen = [(node, "")], set()
    while waiting:
        node, where = waiting.pop()
        if id(node) in seen or not isinstance(getattr(node, "value", None), list):
            continue
        seen.add(id(node))
        lines: dict[tuple[str, str], int] = {}
        for number, entry in enumerate(node.value):
            if not isinstance(entry, tuple):
                waiting.append((entry, f"{where}{number}."))
                continue
            key, value = entry
            if not isinstance(key.value, str):
                continue
            line, first = key.start_mark.line + 1, lines.get((key.tag, key.value))
            if first and key.value != "<<":
                raise ConfigError(
                    f"{what} key {where}{key.value}: found twice in {path}, in lines {first} and "
                    f"{line}, expected it once: YAML would take the last"
                )
            lines[key.tag, key.value] = line
            waiting.append((value, f"{where}{key.value}."))


def _check_name(kind: str, found: str, known: Iterable[str], of: str = "") -> None:
    if found not in known:
        expected = f"expected one of: {', '.join(known)}" if known else "but there is none"
        raise ConfigError(f"target outside the study: found the {kind} {found!r}{of}, {expected}")


def _wait(process: subprocess.Popen, answers: Path, limit: float) -> tuple[list[str | None], bool]:
    """The answers of a process when it has ended, or when the next has taken too long."""
    lines: list[str | None] = []
    since = time.monotonic()
    while True:
        ended = process.poll() is not None
        text = answers.read_text() if answers.exists() else ""
        found = [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]
        if len(found) > len(lines):
            lines, since = found, time.monotonic()
        late = time.monotonic() - since > (limit if lines else START)
        if ended or late:
            return lines, not ended
        time.sleep(0.02)


def _kill(process: subprocess.Popen) -> None:
    """End a process that leads a session, and all that it has started there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(code: int, late: bool, limit: float, made: str) -> str:
    """How a process ended before it had an answer."""
    if late:
        return f"has given no {made} within {limit:g} s"
    if code < 0:
        return f"died of signal {-code} ({signal.Signals(-code).name}) when it was tried"
    return f"ended the process that tried it (exit code {code})"


def _reference(spec: Any) -> str:
    return spec.get("factory", "its model") if isinstance(spec, Mapping) else str(spec)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _hint(value: Any) -> str:
    """What to do about text, or 32.0, that is found where something else is expected."""
    import yaml

    if isinstance(value, float):
        return f"; write {value:.0f}" if value % 1 == 0 else ""
    if not isinstance(value, str):
        return ""
    try:
        read = yaml.safe_load(value)
    except (yaml.YAMLError, ValueError):
        return ""
    if not isinstance(read, str):
        return (
            "; it came as text: write it without quotes, and what is in lists and sections not "
            "behind --config, which makes text of it, but in a file for --configfile"
        )
    if _is_number(value):
        return (
            "; YAML reads this as text: write it as a decimal number, or with a dot and a signed "
            "exponent (1.0e-1)"
        )
    return ""


def _check_seeds(config: Mapping) -> None:
    for name, spec in config["models"].items():
        if spec.get("seeds", 0) > len(config["seeds"]):
            raise ConfigError(
                f"config key models.{name}.seeds: found {spec['seeds']}, expected at most the "
                f"{len(config['seeds'])} of the key seeds, of which it takes the first"
            )


def _check_weights(config: Mapping) -> None:
    """Files of weights are there, outside the results, for as many runs as there are seeds."""
    for name in config["models"]:
        if not study.is_given(config, name):
            continue
        key, runs = f"config key models.{name}.weights", study.get_weights(config, name)
        seeds = config["models"][name].get("seeds", len(runs))
        if len(runs) > len(config["seeds"]):
            raise ConfigError(
                f"{key}: found files of {len(runs)} runs, expected of at most "
                f"{len(config['seeds'])}: each takes one of the key seeds, by which its samples "
                "are drawn"
            )
        if seeds > len(runs):
            raise ConfigError(
                f"config key models.{name}.seeds: found {seeds}, expected at most the {len(runs)} "
                "runs of its key weights, of which it takes the first"
            )
        for file in (file for files in runs for file in files):
            path = Path(file)
            if path.suffix not in WEIGHTS:
                raise ConfigError(f"{key}: found {file!r}, expected {', '.join(WEIGHTS)}")
            if not path.is_file():
                raise ConfigError(
                    f"{key}: found no file {file} (in {Path.cwd()}), expected one of trained "
                    "weights; give its path from the folder in which snakemake runs"
                )
            if path.resolve().is_relative_to(Path(config["results"]).resolve()):
                raise ConfigError(
                    f"{key}: found {file}, expected a file outside the folder of the results, "
                    f"{config['results']}, which holds what is computed alone"
                )


def _check_statistics(config: Mapping) -> None:
    """What is recalibrated on some samples is asked for."""
    for name, spec in config["models"].items():
        if "calibration_samples" in spec and spec.get("statistics") != "recalibrated":
            raise ConfigError(
                f"config key models.{name}.calibration_samples: found it with statistics: "
                f"{spec.get('statistics', 'not given')}, expected statistics: recalibrated, which "
                "computes them on these samples; or leave the key out"
            )


def _check_references(config: Mapping) -> None:
    """Experiments name models and optimizers that there are, those that wait for seeds too."""
    if study.GIVEN in config["optimizers"]:
        raise ConfigError(
            f"config key optimizers.{study.GIVEN}: found an optimizer of that name, expected "
            "another: it stands for weights from elsewhere"
        )
    for name, experiment in config["experiments"].items():
        for kind in ("models", "optimizers"):
            for entry in experiment.get(kind, ()):
                is_given = kind == "optimizers" and entry == study.GIVEN
                if is_given and any(study.is_given(config, m) for m in experiment["models"]):
                    continue
                if entry not in config[kind]:
                    raise ConfigError(
                        f"config key experiments.{name}.{kind}: found {entry!r}, expected names "
                        f"defined under {kind}: {', '.join(config[kind])}"
                    )
        for key in ("optimizers", "epochs") if study.get_trained(config, experiment) else ():
            if key not in experiment or experiment[key] == [study.GIVEN]:
                raise ConfigError(
                    f"config key experiments.{name}: found {_shown(experiment)}, expected the key "
                    f"{key!r} as well, of {study.get_trained(config, experiment)[0]!r}"
                )
        epochs = experiment.get("epochs")
        for model in epochs if isinstance(epochs, Mapping) else ():
            if model not in config["models"]:
                raise ConfigError(
                    f"config key experiments.{name}.epochs: found {model!r}, expected names "
                    f"defined under models: {', '.join(config['models'])}"
                )


def _check_loss(config: Mapping) -> None:
    """What is of the cross-entropy alone is not asked for with another loss."""
    loss = study.get_loss(config)
    found = f"found {loss.get('name', loss.get('factory'))}"
    if loss.get("name", "cross-entropy") != "cross-entropy" and "label_smoothing" in loss:
        raise ConfigError(
            f"config key loss.label_smoothing: {found}, expected cross-entropy, whose labels can "
            "be smoothed"
        )
    if study.has_plain_loss(config):
        return
    for name, experiment in config["experiments"].items():
        if "published" in experiment["stages"]:
            raise ConfigError(
                f"config key loss: {found}, expected cross-entropy without label_smoothing for "
                f"experiments.{name}.stages: published, whose estimators are of that loss"
            )
    if loss.get("name") == "cross-entropy":
        return
    for name, spec in config["optimizers"].items():
        if spec.get("label_smoothing"):
            raise ConfigError(
                f"config key optimizers.{name}.label_smoothing: found {spec['label_smoothing']} "
                f"with loss: {loss.get('name', loss.get('factory'))}, expected cross-entropy, "
                "whose labels can be smoothed"
            )


def _check_epochs(config: Mapping) -> None:
    for name, experiment in config["experiments"].items():
        key, epochs = f"config key experiments.{name}.epochs", experiment.get("epochs")
        for model in study.get_trained(config, experiment):
            spec = config["models"][model]
            if isinstance(epochs, Mapping) and model not in epochs:
                raise ConfigError(
                    f"{key}: found {dict(epochs)}, expected a number for {model!r} too"
                )
            if epochs == "published" and "factory" in spec:
                raise ConfigError(
                    f"{key}: found 'published', but the formula is for mlp and cnn and {model!r} "
                    "has a factory; give a number, or one per model"
                )
            if study.get_experiment_epochs(config, experiment, model) < 1:
                raise ConfigError(
                    f"{key}: found 'published', whose formula gives no epochs for {model!r} of "
                    f"width {spec['width']}; give a number, or one per model"
                )


def _check_batches(config: Mapping) -> None:
    """Batch normalisation has no variance of one sample, as an epoch's last batch may be."""
    size, asked = config["training"]["batch_size"], config["data"]["train_samples"]
    for run in study.get_runs(config, "train"):
        is_own = "train" in config["optimizers"][run.optimizer]
        if is_own or "statistics" not in config["models"][run.model]:
            continue
        samples = get_contents(config).train
        samples = samples if asked is None else min(samples, asked)
        if samples % size == 1:
            raise ConfigError(
                f"config key training.batch_size: found {size}, which leaves one of {samples} "
                f"training samples for the last batch of an epoch, expected more of them for the "
                f"statistics of {run.model}: take another batch_size, or data.train_samples"
            )


def _check_optimizers(config: Mapping) -> None:
    for name, spec in config["optimizers"].items():
        if spec.get("nesterov") and (not spec.get("momentum") or spec.get("dampening")):
            raise ConfigError(
                f"config key optimizers.{name}.nesterov: found true with momentum "
                f"{spec.get('momentum', 0)} and dampening {spec.get('dampening', 0)}, expected a "
                "momentum above 0 and no dampening"
            )
        for key in REFUSED & set(spec):
            raise ConfigError(
                f"config key optimizers.{name}.{key}: found {spec[key]!r}, expected no such "
                "argument: the loss is minimised, and how an update is computed changes nothing "
                "about it"
            )
        if "schedule" in spec:
            _check_schedule(config, name, spec["schedule"])


def _check_schedule(config: Mapping, optimizer: str, schedule: Mapping) -> None:
    """What a schedule's name needs is there, and a run has one length."""
    key = f"config key optimizers.{optimizer}.schedule"
    takes = {"cosine": {"final"}, "linear": {"final"}, "step": {"at", "factor"}, "constant": set()}
    for entry in {"at", "factor", "final"} & set(schedule) - takes[schedule["name"]]:
        raise ConfigError(
            f"{key}.{entry}: found {schedule[entry]}, expected none: {schedule['name']} has no "
            f"{entry}"
        )
    at = schedule.get("at", [])
    if schedule["name"] == "step" and (not at or at != sorted(at)):
        raise ConfigError(
            f"{key}.at: found {at}, expected ascending shares of the run, [0.5, 0.75] say, after "
            "each of which the rate is multiplied by factor"
        )
    if {"warmup", "warmup_epochs"} <= set(schedule):
        raise ConfigError(
            f"{key}: found both warmup and warmup_epochs, expected one: a share of the run, or "
            "epochs"
        )
    lengths: dict[str, dict[str, int]] = {}
    for name, experiment in config["experiments"].items():
        for model in (m for m, o in study.get_cells(config, experiment) if o == optimizer):
            epochs = study.get_experiment_epochs(config, experiment, model)
            lengths.setdefault(model, {})[name] = epochs
            if schedule.get("warmup_epochs", 0) >= epochs:
                raise ConfigError(
                    f"{key}.warmup_epochs: found {schedule['warmup_epochs']}, but experiments."
                    f"{name} trains {model} for {epochs} epochs; expected fewer"
                )
    for model, found in lengths.items():
        if len(set(found.values())) > 1:
            raise ConfigError(
                f"{key}: it spans a whole run, but {model}/{optimizer} is trained for other epochs "
                f"in each experiment, {found}; expected the same, or an optimizer for each"
            )


def _check_grids(config: Mapping) -> None:
    landscape = config["landscape"]
    if landscape["tiles"] > 1 and config["estimator"] != "full":
        raise ConfigError(
            f"config key landscape.tiles: found {landscape['tiles']} with estimator: "
            f"{config['estimator']}, expected 1: which points are evaluated is one decision for a "
            "whole surface; set estimator: full to cut surfaces into tiles"
        )
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
        if len(study.get_subsets(ladder)) != len(ladder["samples"]):
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
    if hessian["max_steps"] < hessian["steps"]:
        raise ConfigError(
            f"config key hessian.max_steps: found {hessian['max_steps']}, expected at least steps "
            f"= {hessian['steps']}"
        )
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
            if study.is_given(config, model):
                _check_given(config, name, model)
        for model in study.get_trained(config, experiment):
            for optimizer in (o for o in experiment["optimizers"] if o != study.GIVEN):
                epochs = study.get_epochs(config, model, optimizer)
                points = [(f"experiments.{name}.points", p) for p in experiment["points"]]
                at = config["connectivity"]["at"]
                if at != "last" and {"connectivity", "instability"} & set(experiment["stages"]):
                    points += [("connectivity.at", point) for point in at]
                own = study.get_experiment_epochs(config, experiment, model)
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
                is_own = "train" in config["optimizers"][optimizer]  # which yields what it will
                if "trajectory" in experiment["stages"] and snapshots < needed and not is_own:
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
            seeds = study.get_seeds(config, model)
            if "connectivity" in experiment["stages"] and len(seeds) < 2:
                key = "seeds" if len(config["seeds"]) < 2 else f"models.{model}.seeds"
                if study.is_given(config, model) and len(study.get_weights(config, model)) < 2:
                    key = f"models.{model}.weights"
                raise ConfigError(
                    f"config key {key}: {model} has the seeds {seeds}, expected at least two for "
                    f"experiments.{name}.stages: connectivity, which connects pairs of seeds"
                )


def _check_given(config: Mapping, name: str, model: str) -> None:
    """An experiment asks of given weights nothing that only their training could tell."""
    experiment = config["experiments"][name]
    given = f"but {model} has weights from elsewhere"
    if "instability" in experiment["stages"]:
        raise ConfigError(
            f"config key experiments.{name}.stages: found instability, {given}, whose training "
            "cannot be gone on with; expected other stages"
        )
    points = [(f"experiments.{name}.points", point) for point in experiment["points"]]
    at = config["connectivity"]["at"]
    if at != "last" and "connectivity" in experiment["stages"]:
        points += [("connectivity.at", point) for point in at]
    last = study.get_experiment_epochs(config, experiment, model)
    for key, point in points:
        if point == "matched":
            raise ConfigError(
                f"config key {key}: found 'matched', {given}, whose training is not known; "
                "expected init (the first file), epochN (the N-th after it) or final (the last)"
            )
        if point.startswith("epoch") and int(point.removeprefix("epoch")) > last:
            raise ConfigError(
                f"config key {key}: found {point!r}, {given}, of which {last} files follow the "
                "first; expected init (the first file), epochN (the N-th after it) or final (the "
                "last)"
            )
    needed = config["trajectory"]["components"] + 1
    if "trajectory" in experiment["stages"] and last + 1 < needed:
        raise ConfigError(
            f"config key trajectory.components: found {needed - 1}, {given} of {last + 1} files in "
            f"a run, which span {last} dimensions; expected "
            + (
                f"3 files or more for experiments.{name}.stages: trajectory"
                if last < 2
                else f"at most {last}, or more files"
            )
        )


def _check_forks(config: Mapping, name: str, experiment: Mapping) -> None:
    """A fork has something left to train, and is connected somewhere."""
    for model, optimizer in study.get_cells(config, experiment):
        if "train" in config["optimizers"].get(optimizer, {}):
            raise ConfigError(
                f"config key experiments.{name}.stages: found instability with the optimizer "
                f"{optimizer!r}, whose training is your own (optimizers.{optimizer}.train) and "
                "cannot be taken up after an epoch; expected optimizers of torch.optim there"
            )
        epochs = study.get_fork_epochs(config, model, optimizer)
        latest = max(config["instability"]["epochs"])
        if latest >= epochs:
            raise ConfigError(
                f"config key instability.epochs: found {latest}, but {model}/{optimizer} of "
                f"experiments.{name} is trained for {epochs} epochs; expected fewer, so that a "
                "fork has some left to train"
            )
        if not study.get_fork_points(config, model, optimizer, latest):
            at = config["connectivity"]["at"]
            key = f"experiments.{name}.points" if at == "last" else "connectivity.at"
            found = study.get_connected_points(config, model, optimizer, "instability")
            raise ConfigError(
                f"config key {key}: found {found}, but a fork of {model}/{optimizer} that "
                f"leaves it after {latest} epochs (instability.epochs) and is trained to "
                f"{epochs} passes none of them; expected 'final' or an epochN in between"
            )


def _check_data(config: Mapping) -> None:
    _check_source(config)
    data = config["data"]
    if not has_data(config) and study.get_source(config) not in ("files", "npz", "npy"):
        return  # the rule `data` brings them, or `bring_data`
    splits = _open_data(config)
    for split, (_, targets) in splits.items():
        if (data[f"{split}_samples"] or 0) > len(targets):
            raise ConfigError(
                f"config key data.{split}_samples: found {data[f'{split}_samples']}, but the files "
                f"hold {len(targets)}; expected at most that, or null for all"
            )
    _check_normalisation(config, splits["train"][0])
    _check_targets(config, splits["train"][1])
    _check_families(config, splits["train"][0])


def _check_source(config: Mapping) -> None:
    """Keys of the section that do not go together."""
    data, source = config["data"], study.get_source(config)
    known = DATASETS.get(data["name"])
    for key, of in (("factory", "factory"), ("file", "npz")):
        if key in data and source != of:
            raise ConfigError(
                f"config key data.{key}: found it with source: {source}, expected source: auto"
                f"{' or npz' if of == 'npz' else ''}, without another place that data come from"
            )
    if source == "npz" and "file" not in data:
        raise ConfigError("config key data.file: not found, expected for source: npz the .npz file")
    if "arguments" in data and source != "factory":
        raise ConfigError("config key data.arguments: found without data.factory, which takes them")
    if known and source in ("factory", "npz", "npy"):
        raise ConfigError(
            f"config key data.name: found {data['name']!r} for data of your own, expected a name "
            f"of your own, not one of {', '.join(DATASETS)}"
        )
    if known is None and study.is_fetched(config):
        raise ConfigError(
            f"config key data.name: found {data['name']!r} with source: {source}, expected "
            f"one of {', '.join(DATASETS)}, or source: files, npz or npy, or a factory, for data "
            "of your own"
        )


def _check_normalisation(config: Mapping, inputs: np.ndarray) -> None:
    """Images need a mean and a standard deviation, ids have none."""
    kind, shape, spec = arrays.kind_of(inputs), arrays.shape_of(inputs), study.get_data_spec(config)
    for key in ("mean", "std"):
        found = spec[key]
        other = spec["std" if key == "mean" else "mean"]
        if found is None and (kind == "images" or other is not None):
            raise ConfigError(
                f"config key data.{key}: not found, expected for {config['data']['name']!r}"
                f"{', whose inputs are images of unsigned bytes' if kind == 'images' else ''}"
            )
        if found is not None and kind in ("classes", "tokens"):
            raise ConfigError(
                f"config key data.{key}: found {found}, but the inputs are {inputs.dtype}; "
                "expected it for images and floating-point inputs alone"
            )
        if isinstance(found, list | tuple) and (not shape or len(found) != shape[0]):
            raise ConfigError(
                f"config key data.{key}: found {list(found)}, expected a number, or one for each "
                f"of the {shape[0] if shape else 'channels, of which inputs have no'} channels"
            )


def _check_targets(config: Mapping, targets: np.ndarray) -> None:
    """Cross-entropy is of classes or tokens; the other losses that have a name of no tokens."""
    kind, name = arrays.kind_of(targets), study.get_loss(config).get("name")
    if name == "cross-entropy" and kind == "numbers":
        raise ConfigError(
            f"config key loss: found cross-entropy, but the targets are {targets.dtype}, expected "
            "integers: its targets are classes, or tokens; set loss: mse for numbers"
        )
    if name in ("mse", "binary-cross-entropy") and kind == "tokens":
        raise ConfigError(
            f"config key loss: found {name}, but the targets are {targets.dtype} "
            f"{('n', *targets.shape[1:])}, which are tokens, expected cross-entropy, or classes "
            "(n,) or floating-point numbers as targets"
        )
    for key, experiment in config["experiments"].items():
        if "published" in experiment["stages"] and kind == "tokens":
            raise ConfigError(
                f"config key experiments.{key}.stages: found published, but the targets are "
                f"{targets.dtype} {('n', *targets.shape[1:])}, which are tokens, expected other "
                "stages: the published estimators are of one class for each sample"
            )
    if name == "binary-cross-entropy" and kind == "numbers" and _is_outside(targets, 0, 1):
        raise ConfigError(
            f"config key loss: found {name}, but targets lie outside [0, 1], in which it takes them"
        )


def _is_outside(values: np.ndarray, low: float, high: float) -> bool:
    return bool(values.min() < low or values.max() > high)


def _check_families(config: Mapping, inputs: np.ndarray) -> None:
    """The study's own networks take numbers, and convolutions images."""
    shape, own = arrays.shape_of(inputs), {"mlp": None, "cnn": None}
    for name, spec in config["models"].items():
        if "factory" not in spec:
            own[spec["family"]] = own[spec["family"]] or name
    first = own["mlp"] or own["cnn"]
    if first and arrays.kind_of(inputs) in ("classes", "tokens"):
        raise ConfigError(
            f"config key models.{first}: the inputs are {inputs.dtype} ids, expected images or "
            "floating-point numbers; use a factory of your own"
        )
    if own["cnn"] and len(shape) != 3:
        raise ConfigError(
            f"config key models.{own['cnn']}: the inputs have the shape {shape}, expected images "
            "(channels, height, width); use an mlp, or a factory of your own"
        )
    if own["cnn"] and min(shape[1:]) < 4:
        raise ConfigError(
            f"config key models.{own['cnn']}: the images are {shape[1]} x {shape[2]}, expected at "
            "least 4 x 4 for two poolings; use an mlp, or a factory of your own"
        )


def _open_data(config: Mapping) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Inputs and targets of both splits, as they are stored, and nothing wrong with them."""
    source, files = study.get_source(config), study.get_data_files(config)
    folder, known = study.get_data_folder(config), study.get_known_data(config)
    key = {"npz": "data.file", "factory": "data.factory"}.get(source, "data.folder")
    missing = next((path for path in files if not path.is_file()), None)
    if missing and source in ("npz", "npy"):
        raise ConfigError(f"config key {key}: {missing} is missing, expected the data there")
    try:
        if known or source == "files":
            check_files(folder, known.sha256 if known else {}, [path.name for path in files])
        if files[0].name == FILES[0]:
            return _read_idx_data(folder)
        splits = {split: arrays.open_split(files, split) for split in arrays.OF_SPLIT}
    except DataError as error:
        raise ConfigError(f"config key {key}: {error}") from error
    if known is None:
        _check_arrays(key, splits, study.get_data_spec(config)["sha256"])
    return splits


def _check_arrays(key: str, splits: Mapping, digests: Mapping[str, str]) -> None:
    """Raise ConfigError for a fault of the arrays; files of the same bytes are read once."""
    of_all = dict(zip(ARRAYS, (*splits["train"], *splits["test"]), strict=True))
    code = digest.code_digests(Path(arrays.__file__), Path(__file__).parents[1])
    wrong = memory.recall(
        memory.key_of(json.dumps([digests, code], sort_keys=True)), lambda: arrays.fault(of_all)
    )
    if wrong:
        raise ConfigError(f"config key {key}: {wrong}")


def _read_idx_data(folder: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images (n, height, width) and labels (n,) of both splits, of which there are as many."""
    read = [_read_array(folder / name, 3 - 2 * (n % 2)) for n, name in enumerate(FILES)]
    shown = {name: str(folder / file) for name, file in zip(ARRAYS, FILES, strict=True)}
    wrong = arrays.fault(dict(zip(ARRAYS, read, strict=True)), shown)
    if wrong:
        raise ConfigError(f"config key data.folder: {wrong}")
    return {"train": (read[0], read[1]), "test": (read[2], read[3])}


def _read_array(path: Path, axes: int) -> np.ndarray:
    kind = {3: "images (n, height, width)", 1: "labels (n,)"}[axes]
    try:
        values = read_idx(path)
    except DataError as error:
        raise ConfigError(f"config key data.folder: {error}") from error
    except ValueError as error:
        raise ConfigError(
            f"config key data.folder: the header of {path} has impossible sizes ({error}), "
            f"expected {kind}"
        ) from error
    if values.ndim != axes or not values.size:
        raise ConfigError(
            f"config key data.folder: {path} holds an array of {values.ndim} axes, "
            f"{' x '.join(map(str, values.shape))}, expected {kind}, none of them 0"
        )
    return values


def _data_shape(
    config: Mapping,
) -> tuple[tuple[tuple[int, ...], int], tuple[np.ndarray, np.ndarray] | None]:
    """Shape of an input and number of outputs; and the first few samples.

    While a public data set is not there, those of its kind, and no samples.
    """
    if not has_data(config):
        return get_contents(config)[:2], None
    splits = _open_data(config)
    inputs, targets = splits["train"]
    shape = arrays.shape_of(inputs), arrays.outputs_of(list(splits.values()))
    return shape, (inputs[:SAMPLES], targets[:SAMPLES])


def get_contents(config: Mapping) -> Contents:
    """What the data hold: what is known of a public data set, or what is in the files.

    MNIST's, while there are no files. Files of the same bytes are read once.
    """
    known = study.get_known_data(config)
    if known or not has_data(config):
        return known.contents if known else MNIST

    def work() -> tuple:
        splits = _open_data(config)
        (inputs, _), (test, _) = splits["train"], splits["test"]
        shape, outputs = arrays.shape_of(inputs), arrays.outputs_of(list(splits.values()))
        is_ids = arrays.kind_of(inputs) in ("classes", "tokens")
        return Contents(shape, outputs, len(inputs), len(test), 8 if is_ids else 4)

    code = digest.code_digests(Path(arrays.__file__), Path(__file__).parents[1])
    key = json.dumps(["contents", study.get_data_spec(config)["sha256"], code], sort_keys=True)
    shape, *others = memory.recall(memory.key_of(key), work)
    return Contents(tuple(shape), *others)


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
