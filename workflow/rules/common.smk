# What the rules ask of the config: sections, files, digests. Functions only.

import json
import os
import sys
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

# before a lossgeo that is installed: here, and in the jobs, where Snakemake puts scripts/ last
sys.path.insert(0, os.path.join(workflow.basedir, "scripts"))
os.environ.update(
    PYTHONPATH=os.pathsep.join(
        filter(None, [os.path.join(workflow.basedir, "scripts"), os.environ.get("PYTHONPATH")])
    )
)

from lossgeo import checks, data, digest, registry, study

PAIR_TABLES = {
    "connectivity",
    "connectivity_path",
    "barriers",
    "similarity",
    "alignment",
    "instability",
}
ALIGNED = {"aligned", "renormalised", "aligned_curve"}  # rungs that need permutations


def stop(message):
    """End with one line, before any job and without a traceback."""
    sys.exit(str(message))


def prepare_config(config):
    """Check the config and complete it in place, or stop with one line.

    The call that a user makes also tries users' models; those of its jobs need not do so again.
    """
    schema = Path(workflow.basedir, "workflow/schemas/config.schema.yaml")
    overlays = workflow.overwrite_configfiles
    try:
        for file in workflow.configfiles:
            checks.read_yaml(file)
        made = checks.complete(config, schema, checks.named_experiments(overlays))
        if workflow.is_main_process:
            checks.check_models(made)
    except checks.ConfigError as error:
        stop(error)
    config.clear()
    config.update(made)


def get_registry(path, tables):
    """The registry of claims in a file, checked, or stop with one line."""
    schema = Path(workflow.basedir, "workflow/schemas/claims.schema.yaml")
    try:
        return registry.load(path, schema, tables)
    except checks.ConfigError as error:
        stop(error)


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
    spec = config["models"][model]
    return get_section(
        model={key: value for key, value in spec.items() if key not in ("permutations", "seeds")},
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


def get_landscape_section(wildcards):
    """What lines and planes depend on; how deep a minimum counts is the table's."""
    landscape = {key: value for key, value in config["landscape"].items() if key != "persistence"}
    return get_point_section(
        wildcards, "landscape", landscape=landscape, estimator=config["estimator"]
    )


def get_ladder_section(wildcards):
    """What the ladder of a run depends on: what it measures at each point, on samples of its own."""
    return get_point_section(
        wildcards,
        "ladder",
        ladder={
            "tolerance": config["ladder"]["tolerance"],
            "at": study.get_ladder(config, wildcards.model, wildcards.optimizer),
        },
        objective={"split": config["objective"]["split"]},
    )


def get_published_section(wildcards):
    """What the published estimators of a run depend on; surfaces are those of few seeds, at points
    where there are correct ones to set beside them."""
    published, model, optimizer = config["published"], wildcards.model, wildcards.optimizer
    points = study.get_published_points(config, model, optimizer)
    drawn = [p for p in points if p in study.get_points(config, model, optimizer, "landscape")]
    return get_probe_section(
        wildcards.model,
        points=points,
        last=study.get_last_point(points),
        landscape=int(wildcards.seed) in config["seeds"][: published["landscapes"]] and drawn,
        published={key: value for key, value in published.items() if key != "landscapes"},
    )


@cache
def get_known(stage=None):
    """The names in the files of every run, or of every run that `stage` measures, and of every pair."""
    runs = {(run.model, run.optimizer, str(run.seed)) for run in study.get_runs(config, stage)}
    return runs | {*study.get_pairs(config), *study.get_forks(config)}


def check_target(wildcards, stage=None):
    """Stop with one line unless the study has the run, pair or experiment of a file."""
    if tuple(wildcards) in get_known(stage):
        return
    try:
        checks.check_target(config, dict(wildcards.items()), stage)
    except checks.ConfigError as error:
        stop(error)


def get_data_of_run(wildcards, stage=None):
    """The four IDX files, for a run of the study, or for one that `stage` measures."""
    check_target(wildcards, stage)
    return get_data_files()


def get_data_files():
    """The four IDX files. Their digests are among the params, so their times do not matter."""
    return [ancient(f"{study.get_data_folder(config)}/{name}") for name in data.FILES]


def get_run_files(file, stage=None):
    """`file` of every run, or of every run that `stage` measures."""
    return [
        f"{RESULTS}/runs/{run.model}/{run.optimizer}/seed{run.seed}/{file}"
        for run in study.get_runs(config, stage)
    ]


def get_pair_files(pairs, file):
    """`file` of each of some pairs."""
    return [f"{RESULTS}/pairs/{p.model}/{p.optimizer}/{p.a}-{p.b}/{file}" for p in pairs]


def get_aligned_pairs():
    """The pairs of seeds that are aligned, if any are."""
    return study.get_pairs(config) if ALIGNED & set(config["connectivity"]["rungs"]) else []


def get_snapshots(wildcards):
    """theta of the two runs of a pair."""
    check_target(wildcards)
    runs = f"{RESULTS}/runs/{wildcards.model}/{wildcards.optimizer}"
    is_fork = wildcards.b.startswith("fork")
    b = f"{wildcards.a}/{wildcards.b}" if is_fork else f"{wildcards.b}/snapshots"
    return {"snapshots_a": f"{runs}/{wildcards.a}/snapshots.h5", "snapshots_b": f"{runs}/{b}.h5"}


def get_path_files(wildcards):
    """What the paths of a pair are made of: two runs, and what its rungs need beside them."""
    folder = f"{RESULTS}/pairs/{wildcards.model}/{wildcards.optimizer}/{wildcards.a}-{wildcards.b}"
    rungs = set(study.get_rungs(config, wildcards.b))
    files = get_snapshots(wildcards)
    if rungs & ALIGNED:
        files["alignment"] = f"{folder}/alignment.h5"
    if rungs & {"curve", "aligned_curve"}:
        files["curve"] = f"{folder}/curve.h5"
    return files


def get_curve_ends(wildcards):
    """What the curves of a pair start from."""
    files = get_path_files(wildcards)
    files.pop("curve", None)
    if "aligned_curve" not in study.get_rungs(config, wildcards.b):
        files.pop("alignment", None)
    return files


def get_plane_files(wildcards):
    """What the planes of a pair are laid through: its paths' files, and a third run's."""
    files = get_path_files(wildcards)
    third = study.get_third_seed(config, wildcards.model)
    if third is not None:
        runs = f"{RESULTS}/runs/{wildcards.model}/{wildcards.optimizer}"
        pairs = f"{RESULTS}/pairs/{wildcards.model}/{wildcards.optimizer}"
        files["snapshots_c"] = f"{runs}/seed{third}/snapshots.h5"
        if "alignment" in files:
            files["alignment_c"] = f"{pairs}/{wildcards.a}-seed{third}/alignment.h5"
    return files


def get_pair_section(wildcards, *sections):
    """What a stage needs that connects two runs: the points, and `sections` of the config."""
    model, optimizer = wildcards.model, wildcards.optimizer
    if wildcards.b.startswith("fork"):
        shared = int(wildcards.b.removeprefix("fork"))
        points = study.get_fork_points(config, model, optimizer, shared)
    else:
        points = study.get_connected_points(config, model, optimizer, "connectivity")
    chosen = {section: config[section] for section in sections}
    return get_probe_section(model, points=points, **chosen)


def get_profile_section(wildcards):
    """What the profiles along the paths of a pair depend on."""
    return get_pair_section(wildcards) | get_section(
        rungs=study.get_rungs(config, wildcards.b),
        t=config["connectivity"]["points"],
        samples=config["objective"]["samples"],
    )


def get_curve_section(wildcards):
    """What the curves of a pair depend on."""
    rungs = [r for r in study.get_rungs(config, wildcards.b) if r in ("curve", "aligned_curve")]
    return get_pair_section(wildcards, "curve") | get_section(
        rungs=rungs, batch_size=config["training"]["batch_size"]
    )


def get_alignment_section(wildcards):
    """What the permutations of a pair depend on: also which units a user's model says they are."""
    section = get_pair_section(wildcards, "alignment")
    spec = config["models"][wildcards.model]
    return section | get_section(model={k: v for k, v in spec.items() if k != "seeds"})


def get_plane_section(wildcards):
    """What the planes of a pair depend on."""
    return get_pair_section(wildcards, "objective", "estimator") | get_section(
        points=study.get_plane_points(config, wildcards.model, wildcards.optimizer),
        plane=config["connectivity"]["plane"],
    )


def get_fork_section(wildcards):
    """What a run depends on that leaves another: what that does, but for what is matched."""
    section = get_train_section(wildcards)
    for entry in ("matched_loss", "objective", "snapshots_per_epoch", "evaluations_per_epoch"):
        section.pop(entry, None)
    epochs = study.get_fork_epochs(config, wildcards.model, wildcards.optimizer)
    return section | get_section(epochs=epochs)


def get_table_module(wildcards):
    """Where the function of a table is."""
    if wildcards.table == "published":
        return "published_tables"
    return "pair_tables" if wildcards.table in PAIR_TABLES else "tables"


def get_train_section(wildcards):
    """What a training run depends on; the objective only where the run has a matched point."""
    model, optimizer = wildcards.model, wildcards.optimizer
    entries = config["training"] | {
        "optimizer": config["optimizers"][optimizer],
        "epochs": study.get_epochs(config, model, optimizer),
        "objective": config["objective"],
    }
    del entries["target_accuracy"]
    if not study.has_matched_point(config, model, optimizer):
        del entries["matched_loss"], entries["objective"]
    return get_probe_section(model, **entries)


def get_experiment_files(wildcards, files):
    """These files of every run of an experiment; none for figures that read tables alone."""
    check_target(wildcards)
    experiment = config["experiments"][wildcards.experiment]
    if files == ["planes.h5"]:
        pairs = study.get_planes(config)
        shown = [
            pair
            for pair in pairs
            if pair.model in experiment["models"] and pair.optimizer in experiment["optimizers"]
        ]
        return get_pair_files(shown, *files)
    return [
        f"{RESULTS}/runs/{model}/{optimizer}/seed{seed}/{file}"
        for model in experiment["models"]
        for optimizer in experiment["optimizers"]
        for seed in study.get_seeds(config, model)
        for file in files
    ]


def get_figure_tables(figure):
    """The tables that a figure reads; the ladder shows what was published where that is measured."""
    tables = FIGURES[figure][2]
    if figure == "ladder" and "published" in TABLES:
        tables = [*tables, "published"]
    return expand(f"{RESULTS}/tables/{{table}}.csv", table=tables)


def is_drawn(figure, name):
    """Whether an experiment has the stages and the runs that a figure shows."""
    experiment = config["experiments"][name]
    if not set(FIGURES[figure][1]) <= set(experiment["stages"]):
        return False
    if figure == "ladder":
        return study.has_many_sizes(config, name)
    if figure == "widths":
        return len(experiment["optimizers"]) == 1
    if figure == "curvature_by_width":
        return study.is_of_widths(config, name)
    if figure == "invariance":  # one run of each family alone is compared with rescaled networks
        return any(
            study.get_rescaled_point(config, *run)
            for run in study.get_runs(config, "flatness")
            if run.model in experiment["models"] and run.optimizer in experiment["optimizers"]
        )
    if figure == "correlations":  # with what is known of the end of training
        return experiment["points"][-1] == "final"
    return True


def get_figure_section(wildcards, figure, stages):
    """What a figure shows, and in which style."""
    shown = study.get_shown(config, wildcards.experiment)
    if {"connectivity", "instability"} & set(stages):
        shown["connected_points"] = study.get_shown_points(config, wildcards.experiment)
    return get_section(figure=figure, experiment=shown, style=config["figures"])


def get_jobs():
    """Every job that the study asks for: its rule, its names, and its section of the config."""
    of_runs = {"train": None} | {
        stage: stage
        for stage in ("hessian", "ladder", "landscape", "flatness", "trajectory", "published")
    }
    jobs = [
        (name, f"{run.model}/{run.optimizer}/seed{run.seed}", run._asdict())
        for name, stage in of_runs.items()
        for run in study.get_runs(config, stage)
    ]
    jobs += [
        ("fork", f"{fork.model}/{fork.optimizer}/{fork.a}-{fork.b}", as_fork(fork))
        for fork in study.get_forks(config)
    ]
    seeds, rungs = study.get_pairs(config), set(config["connectivity"]["rungs"])
    of_pairs = {
        "alignment": get_aligned_pairs(),
        "curve": seeds if rungs & {"curve", "aligned_curve"} else [],
        "connectivity": seeds + study.get_forks(config),
        "planes": study.get_planes(config),
    }
    jobs += [
        (name, f"{pair.model}/{pair.optimizer}/{pair.a}-{pair.b}", pair._asdict())
        for name, pairs in of_pairs.items()
        for pair in pairs
    ]
    return [
        (name, names, getattr(rules, name).params.config(SimpleNamespace(**wildcards)))
        for name, names, wildcards in jobs
    ]


def as_fork(fork):
    """The wildcards of the run that a fork is."""
    seed, epoch = fork.a.removeprefix("seed"), fork.b.removeprefix("fork")
    return {"model": fork.model, "optimizer": fork.optimizer, "seed": seed, "epoch": epoch}
