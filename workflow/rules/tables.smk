# table -> the files that it is made from
MADE_FROM = {
    "history": get_run_files("history.csv"),
    "runs": get_run_files("history.csv") + get_run_files("snapshots.h5"),
    "eigenvalues": get_run_files("hessian.h5", "hessian"),
    "curvature": get_run_files("hessian.h5", "hessian"),
    "spectrum": get_run_files("hessian.h5", "hessian"),
    "layers": get_run_files("hessian.h5", "hessian"),
    "layer_curvature": (
        get_run_files("hessian.h5", "hessian") if config["hessian"]["layers"] else []
    ),
    "ladder": get_run_files("ladder.h5", "ladder"),
    "landscape": get_run_files("landscape.h5", "landscape"),
    "flatness": get_run_files("flatness.h5", "flatness"),
    "worst_case": get_run_files("flatness.h5", "flatness"),
    "invariance": get_run_files("flatness.h5", "flatness"),
    "trajectory": get_run_files("trajectory.h5", "trajectory"),
    "trajectory_path": get_run_files("trajectory.h5", "trajectory"),
    "parabola": get_run_files("trajectory.h5", "trajectory"),
    "published": get_run_files("published.h5", "published"),
    "connectivity": get_pair_files(study.get_pairs(config), "connectivity.h5"),
    "connectivity_path": get_pair_files(study.get_pairs(config), "connectivity.h5"),
    "barriers": get_pair_files(study.get_pairs(config), "connectivity.h5"),
    "similarity": get_pair_files(study.get_pairs(config), "connectivity.h5"),
    "alignment": get_pair_files(get_aligned_pairs(), "alignment.h5"),
    "instability": get_pair_files(study.get_forks(config), "connectivity.h5"),
}
OTHERS = [  # that no other table reads
    *(f"{RESULTS}/runs/{f.model}/{f.optimizer}/{f.a}/{f.b}.h5" for f in study.get_forks(config)),
    *(get_pair_files(study.get_planes(config), "planes.h5")),
    *(get_pair_files(get_curved_pairs(), "curve.h5")),
]
MADE_FROM["kernels"] = sorted(
    {path for files in [*MADE_FROM.values(), OTHERS] for path in files if path.endswith(".h5")}
)
# without those of stages that the study does not have
TABLES = {table: files for table, files in MADE_FROM.items() if files}
# table -> what else it depends on
TABLE_LIMITS = {
    "runs": {key: config["training"][key] for key in ("matched_loss", "target_accuracy")},
    "landscape": {key: config["landscape"][key] for key in ("rise", "persistence")},
    "barriers": {"limits": config["connectivity"]["limits"]},
    "instability": {"limits": config["connectivity"]["limits"]},
}


rule table:
    input:
        lambda wildcards: TABLES[wildcards.table],
    output:
        report(
            f"{RESULTS}/tables/{{table}}.csv",
            category="Tables",
            labels={"table": "{table}"},
            caption="../report/table.rst",
        ),
    log:
        f"{RESULTS}/logs/table/{{table}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/table/{{table}}.tsv"
    wildcard_constraints:
        table="|".join(TABLES),
    conda:
        "../../envs/tables.yaml"
    resources:
        mem_mb=partial(get_memory, "table"),
        runtime=partial(get_minutes, "table"),
    params:
        config=lambda wildcards: sections.plain(**TABLE_LIMITS.get(wildcards.table, {})),
        labels=get_labels,
        module=get_table_module,
        code=lambda wildcards: get_code("table.py", module=f"lossgeo.{get_table_module(wildcards)}"),
    message:
        "table {wildcards.table}"
    script:
        "../../scripts/table.py"


rule dictionary:
    input:
        expand(f"{RESULTS}/tables/{{table}}.csv", table=[*TABLES, "endpoints", "verdicts"]),
    output:
        report(
            f"{RESULTS}/tables/dictionary.csv",
            category="Tables",
            labels={"table": "dictionary"},
            caption="../report/dictionary.rst",
        ),
    log:
        f"{RESULTS}/logs/dictionary.log",
    benchmark:
        f"{RESULTS}/benchmarks/dictionary.tsv"
    conda:
        "../../envs/tables.yaml"
    resources:
        mem_mb=partial(get_memory, "dictionary"),
        runtime=partial(get_minutes, "dictionary"),
    params:
        code=get_code("dictionary.py") | get_file_digest("lossgeo/columns.csv"),
    message:
        "data dictionary"
    script:
        "../../scripts/dictionary.py"


rule tables:
    input:
        expand(f"{RESULTS}/tables/{{table}}.csv", table=[*TABLES, "endpoints", "verdicts"]),
        rules.dictionary.output,
    localrule: True
