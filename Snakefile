from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"


configfile: BASE


include: "workflow/rules/scheduler.smk"


prepare_config(config)
RESULTS = config["results"]


include: "workflow/rules/progress.smk"
include: "workflow/rules/records.smk"


if config["container"]:

    container: config["container"]


report: "workflow/report/study.rst"


wildcard_constraints:
    model="[^/]+",
    optimizer="[^/]+",
    seed="[0-9]+",
    epoch="[0-9]+",
    tile="[0-9]+",
    tiles="[0-9]+",
    a="seed[0-9]+",
    b="(seed|fork)[0-9]+",


include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/weights.smk"
include: "workflow/rules/hessian.smk"
include: "workflow/rules/ladder.smk"
include: "workflow/rules/tile.smk"
include: "workflow/rules/landscape.smk"
include: "workflow/rules/flatness.smk"
include: "workflow/rules/trajectory.smk"
include: "workflow/rules/published.smk"
include: "workflow/rules/fork.smk"
include: "workflow/rules/alignment.smk"
include: "workflow/rules/curve.smk"
include: "workflow/rules/connectivity.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/verdicts.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/publish.smk"
include: "workflow/rules/estimate.smk"


rule all:
    default_target: True
    input:
        rules.tables.input,
        rules.figures.input,
    localrule: True
