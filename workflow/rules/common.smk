# What the rules ask of the config: files, digests of code, memory and time.

import os
import sys
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace

from snakemake.sourcecache import LocalSourceFile
from snakemake.utils import update_config

if not isinstance(workflow.current_basedir, LocalSourceFile):
    sys.exit(
        f"module: found the snakefile {workflow.current_basedir}, expected a path, or github(...) or "
        'gitlab(...) with path="workflow/Snakefile", which brings what lies beside it'
    )
ROOT = Path(workflow.current_basedir).parents[1]  # of the clone, wherever the user's Snakefile is

# before a lossgeo that is installed: here, and in the jobs, where Snakemake puts scripts/ last. The
# modules that another workflow's config names may lie beside it, where snakedeploy brings them
PLACES = [str(ROOT / "scripts")]
if ROOT.resolve() != Path.cwd().resolve():
    PLACES.append(str(Path.cwd() / "config"))
sys.path[:0] = PLACES
os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, [*PLACES, os.environ.get("PYTHONPATH")])))

from lossgeo import checks, data, digest, kernels, limits, registry, sections, study

# Jobs of one machine do not ask for more than nine tenths of its memory together.
if workflow.resource_settings.nodes is None and "mem_mb" not in workflow.global_resources:
    _bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    workflow.register_resource("mem_mb", int(0.9 * _bytes / 1e6))

PAIR_TABLES = {
    "connectivity",
    "connectivity_path",
    "barriers",
    "similarity",
    "alignment",
    "instability",
}
ALIGNED = {"aligned", "renormalised", "aligned_curve"}  # rungs that need permutations


def get_here_or_in_clone(path):
    """A file in the working directory, or the clone's where that has none."""
    return path if Path(path).exists() else ROOT / path


# the study's own config; of `module:` the clone's, as one here would be the other workflow's
BASE = ROOT / "config.yaml" if workflow.modifier.namespace else get_here_or_in_clone("config.yaml")


def stop(message):
    """End with one line, before any job and without a traceback."""
    sys.exit(str(message))


def prepare_config(config):
    """Check the config and complete it in place, or stop with one line.

    One that another workflow gives (`module: config:`) is an overlay of the study's, as a
    `--configfile` is. The call that a user makes also tries users' models; those of its jobs need
    not do so again.
    """
    schema = ROOT / "workflow/schemas/config.schema.yaml"
    try:
        for file in workflow.configfiles:
            checks.read_yaml(file)
        found, overlays = config, workflow.overwrite_configfiles
        if workflow.modifier.skip_configfile:
            found, overlays = checks.read_yaml(BASE), [config]
            update_config(found, config)
        made = checks.complete(found, schema, checks.named_experiments(overlays))
        if workflow.is_main_process:
            checks.bring_data(made)
            code = {name: get_factory_code(made, name) for name in made["models"]}
            for name, spec in made["optimizers"].items():
                code[f"optimizers.{name}"] = get_training_code(spec)
            code["loss"] = get_function_code(study.get_loss(made).get("factory"))
            checks.check_models(made, code)
        elif "factory" in made["data"] and not checks.has_data(made):
            stop(
                f"data.factory: what {made['data']['factory']} returned is not in "
                f"{study.get_data_folder(made)}: its code was edited after snakemake planned this "
                "job, or the folder was deleted; run snakemake again"
            )
    except checks.ConfigError as error:
        stop(error)
    config.clear()
    config.update(made)
    if config["portable"]:
        os.environ.update(kernels.PORTABLE)  # of the jobs, which load torch after this


@cache
def get_own_name(rule):
    """A rule's name here, whatever another workflow calls it (`use rule ... as`)."""
    names = rule.module_globals["rules"]._rules
    return next((name for name, own in names.items() if own.rule is rule), rule.name)


def get_registry(path, tables):
    """The registry of claims in a file, here or in the clone, checked, or stop with one line."""
    schema = ROOT / "workflow/schemas/claims.schema.yaml"
    try:
        return registry.load(get_here_or_in_clone(path), schema, tables)
    except checks.ConfigError as error:
        stop(error)


def get_code(script, model=None, module=None, optimizer=None):
    """Digests of a script and of all of the project's modules that it reaches.

    So are those of a `module` that it imports by name, with the name of a `model` that has a
    factory those of the factory's modules, with any model those of a loss of the user's, and with
    that of an `optimizer` those of the functions of the user's that it names.
    """
    scripts = ROOT / "scripts"
    code = digest.code_digests(scripts / script, scripts)
    if module:
        code |= digest.module_digests(module, scripts)
    if model and "factory" in config["models"][model]:
        found = get_factory_code(config, model)
        if not found:
            factory = config["models"][model]["factory"]
            stop(
                f"models.{model}.factory: found no source of {factory!r}, expected a module in a "
                ".py file: a change of any other would go unseen"
            )
        code |= found
    loss = study.get_loss(config).get("factory")
    if model and loss:
        found = get_function_code(loss)
        if not found:
            stop(
                f"loss.factory: found no source of {loss!r}, expected a module in a .py file: a "
                "change of any other would go unseen"
            )
        code |= found
    if optimizer:
        spec = config["optimizers"][optimizer]
        found, functions = get_training_code(spec), study.get_functions(spec)
        if functions and not found:
            stop(
                f"optimizers.{optimizer}: found no source of {' or '.join(functions)}, expected "
                "modules in .py files: a change of any other would go unseen"
            )
        code |= found
    return code


def get_factory_code(config, model):
    """Digests of a model's factory and of what it imports: see `get_function_code`."""
    return get_function_code(config["models"][model].get("factory"))


def get_training_code(spec):
    """Digests of the functions of the user's that an optimizer's entry names; none unless of all."""
    found = [get_function_code(reference) for reference in study.get_functions(spec)]
    return dict(item for one in found for item in one.items()) if all(found) else {}


def get_function_code(reference):
    """Digests of a function's module and of what it imports; none where that has no source.

    Nor where that is no Python: what tries the function says so.
    """
    if reference is None:
        return {}
    try:
        return digest.factory_digests(reference.partition(":")[0], [Path.cwd(), *sys.path])
    except (SyntaxError, ValueError):
        return {}


def get_file_digest(path):
    """The digest of a file of data beside the code."""
    return {path: data.sha256(ROOT / "scripts" / path)}


@cache
def get_known(stage=None):
    """The names in the files of every run, or of every run that `stage` measures, of every tile of
    one, and of every pair."""
    runs = {(run.model, run.optimizer, str(run.seed)) for run in study.get_runs(config, stage)}
    tiles = {tuple(map(str, tile)) for tile in study.get_tiles(config)}
    return runs | tiles | {*study.get_pairs(config), *study.get_forks(config)}


def check_target(wildcards, stage=None):
    """Stop with one line unless the study has the run, pair or experiment of a file."""
    if tuple(wildcards) in get_known(stage):
        return
    try:
        checks.check_target(config, dict(wildcards.items()), stage)
    except checks.ConfigError as error:
        stop(error)


def get_data_of_run(wildcards, stage=None):
    """The files of the data, for a run of the study, or for one that `stage` measures."""
    check_target(wildcards, stage)
    return get_data_files()


def get_data_files():
    """The files of the data. Their digests are among the params, so their times do not matter."""
    return [ancient(str(path)) for path in study.get_data_files(config)]


def get_weight_files(wildcards):
    """The files of a run's weights. Their digests are among the params, not their times."""
    check_target(wildcards, "weights")
    files = study.get_weight_files(config, wildcards.model, wildcards.seed)
    return [ancient(file) for file in files]


def get_run_files(file, stage=None):
    """`file` of every run, or of every run that `stage` measures."""
    return [
        f"{RESULTS}/runs/{run.model}/{run.optimizer}/seed{run.seed}/{file}"
        for run in study.get_runs(config, stage)
    ]


def get_tile_files(wildcards):
    """The tiles of a run's surfaces, in their order; none where they are not cut."""
    folder = f"{RESULTS}/runs/{wildcards.model}/{wildcards.optimizer}/seed{wildcards.seed}/tiles"
    tiles = config["landscape"]["tiles"]
    return [f"{folder}/{tile}-of-{tiles}.h5" for tile in range(1, tiles + 1)] if tiles > 1 else []


def get_pair_files(pairs, file):
    """`file` of each of some pairs."""
    return [f"{RESULTS}/pairs/{p.model}/{p.optimizer}/{p.a}-{p.b}/{file}" for p in pairs]


def get_aligned_pairs():
    """The pairs of seeds that are aligned, if any are."""
    return study.get_pairs(config) if ALIGNED & set(config["connectivity"]["rungs"]) else []


def get_curved_pairs():
    """The pairs of seeds that are connected by curves, if any are."""
    is_curved = {"curve", "aligned_curve"} & set(config["connectivity"]["rungs"])
    return study.get_pairs(config) if is_curved else []


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


def get_labels(wildcards):
    """Family and width of the models of a table."""
    models = {Path(file).parts[-4] for file in TABLES[wildcards.table]}
    labels = study.get_labels(config)
    return sections.plain(**{model: labels[model] for model in models})


def get_table_module(wildcards):
    """Where the function of a table is."""
    if wildcards.table == "published":
        return "published_tables"
    return "pair_tables" if wildcards.table in PAIR_TABLES else "tables"


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
        for model, optimizer in study.get_cells(config, experiment)
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
    if figure == "training":
        return bool(study.get_trained(config, experiment))
    if figure == "steps":
        return study.counts_steps(config, experiment)
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


RATES = limits.read_rates(ROOT / "benchmarks/costs.csv")


@cache
def get_job_section(rule, names):
    """The section of a job of a rule by the names in its files; None where it has no model."""
    wildcards = SimpleNamespace(**dict(names))
    return getattr(sections, rule)(config, wildcards) if "model" in dict(names) else None


@cache
def get_contents():
    """What the data hold."""
    return checks.get_contents(config)


def get_memory(rule, wildcards, attempt):
    """Megabytes for a job of a rule: on a retry more, but not more than there is."""
    section = get_job_section(rule, tuple(wildcards.items()))
    first, asked = (limits.memory(RATES, rule, section, n, get_contents()) for n in (1, attempt))
    given = workflow.global_resources.get("mem_mb")
    most = given.value if given is not None else None
    return asked if most is None else max(first, min(asked, most))


def get_minutes(rule, wildcards, attempt):
    """Minutes for a job of a rule."""
    section = get_job_section(rule, tuple(wildcards.items()))
    return limits.minutes(RATES, rule, section, attempt, get_contents())


def get_jobs():
    """Every job that the study asks for: its rule, its names, and its section of the config."""
    stages = ("hessian", "ladder", "landscape", "flatness", "trajectory", "published")
    jobs = [
        (stage, f"{run.model}/{run.optimizer}/seed{run.seed}", run._asdict())
        for stage in ("train", "weights", *stages)
        for run in study.get_runs(config, stage)
    ]
    jobs += [
        (
            "tile",
            f"{tile.model}/{tile.optimizer}/seed{tile.seed}/{tile.tile}-of-{tile.tiles}",
            tile._asdict(),
        )
        for tile in study.get_tiles(config)
    ]
    jobs += [
        ("fork", f"{fork.model}/{fork.optimizer}/{fork.a}-{fork.b}", as_fork(fork))
        for fork in study.get_forks(config)
    ]
    seeds = study.get_pairs(config)
    of_pairs = {
        "alignment": get_aligned_pairs(),
        "curve": get_curved_pairs(),
        "connectivity": seeds + study.get_forks(config),
        "planes": study.get_planes(config),
    }
    jobs += [
        (name, f"{pair.model}/{pair.optimizer}/{pair.a}-{pair.b}", pair._asdict())
        for name, pairs in of_pairs.items()
        for pair in pairs
    ]
    return [
        (name, names, getattr(sections, name)(config, SimpleNamespace(**wildcards)))
        for name, names, wildcards in jobs
    ]


def as_fork(fork):
    """The wildcards of the run that a fork is."""
    seed, epoch = fork.a.removeprefix("seed"), fork.b.removeprefix("fork")
    return {"model": fork.model, "optimizer": fork.optimizer, "seed": seed, "epoch": epoch}
