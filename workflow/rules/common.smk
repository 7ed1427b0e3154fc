# What the rules ask of the config: sections, files, digests. Functions only.

import json
import os
import sys
from functools import partial
from pathlib import Path

from jsonschema.exceptions import ValidationError
from snakemake.exceptions import WorkflowError
from snakemake.utils import validate

sys.path.insert(0, os.path.join(workflow.basedir, "scripts"))

from lossgeo import data, digest, study


def prepare_config(config):
    """Check the config and complete it in place, or stop with one message."""
    config.update(study.without_dropped(config))
    try:
        validate(config, "workflow/schemas/config.schema.yaml")
        study.check(config)
    except study.ConfigError as error:
        raise WorkflowError(str(error)) from None
    except WorkflowError as error:
        if not isinstance(error.__context__, ValidationError):
            raise
        raise WorkflowError(study.explain(error.__context__)) from None


def get_code(script, model=None, module=None):
    """Digests of a script and of all of the project's modules that it reaches.

    So are those of a `module` that it imports by name, and with the name of a `model` that has a
    factory those of the factory's modules.
    """
    scripts = Path(workflow.basedir, "scripts")
    code = digest.code_digests(scripts / script, scripts)
    if module:
        code |= digest.module_digests(module, scripts)
    factory = config["models"][model].get("factory") if model else None
    if factory:
        code |= digest.module_digests(factory.partition(":")[0], Path.cwd())
    return code


def get_file_digest(path):
    """The digest of a file of data beside the code."""
    return {path: data.sha256(Path(workflow.basedir, "scripts", path))}


def get_section(**entries):
    """A rule's part of the config as one plain dict with sorted keys, as Snakemake compares params."""
    return json.loads(json.dumps(entries, sort_keys=True))


def get_probe_section(model, **entries):
    """What every stage needs that evaluates a model: its spec, the data, the device; and `entries`."""
    return get_section(
        model=config["models"][model],
        data=study.get_data_spec(config),
        device=config["device"],
        **entries,
    )


def get_point_section(wildcards, stage, **entries):
    """What a stage needs that measures the points of a run, under its own section; and `entries`."""
    return get_probe_section(
        wildcards.model,
        points=study.get_points(config, wildcards.model, wildcards.optimizer, stage),
        **{"objective": config["objective"], stage: config[stage]} | entries,
    )


def get_data_files():
    """The four IDX files. Their digests are among the params, so their times do not matter."""
    return [ancient(f"{study.get_data_folder(config)}/{name}") for name in data.FILES]


def get_run_files(file, stage=None):
    """`file` of every run, or of every run that `stage` measures."""
    return [
        f"{RESULTS}/runs/{run.model}/{run.optimizer}/seed{run.seed}/{file}"
        for run in study.get_runs(config, stage)
    ]


def get_pair_files():
    """The straight line of every pair of seeds that is connected."""
    return [
        f"{RESULTS}/pairs/{pair.model}/{pair.optimizer}/seed{pair.seed_a}-seed{pair.seed_b}.h5"
        for pair in study.get_pairs(config)
    ]


def get_train_section(wildcards):
    """What a training run depends on; the objective only where the run has a matched point."""
    model, optimizer = wildcards.model, wildcards.optimizer
    entries = config["training"] | {
        "optimizer": config["optimizers"][optimizer],
        "epochs": study.get_epochs(config, model, optimizer),
        "objective": config["objective"],
    }
    if not study.has_matched_point(config, model, optimizer):
        del entries["matched_loss"], entries["objective"]
    return get_probe_section(model, **entries)


def get_experiment_files(wildcards, file):
    """`file` of every run of an experiment; none for figures that read tables alone."""
    experiment = config["experiments"][wildcards.experiment]
    return [
        f"{RESULTS}/runs/{model}/{optimizer}/seed{seed}/{file}"
        for model in experiment["models"]
        for optimizer in experiment["optimizers"]
        for seed in config["seeds"]
        if file
    ]


def get_figure_section(wildcards, figure):
    """What a figure shows, and in which style."""
    return get_section(
        figure=figure,
        experiment=study.get_shown(config, wildcards.experiment),
        style=config["figures"],
    )
