# figure -> its module of lossgeo.plots, the stage that an experiment must have, the tables and the
# run files that it reads
FIGURES = {
    "training": ("training", None, ["history"], None),
    "lines": ("surfaces", "landscape", [], "landscape.h5"),
    "planes": ("surfaces", "landscape", [], "landscape.h5"),
    "surfaces": ("surfaces", "landscape", [], "landscape.h5"),
    "spectra": ("spectra", "hessian", ["spectrum", "eigenvalues"], None),
    "eigenvalues": ("spectra", "hessian", ["eigenvalues", "curvature"], None),
    "ladder": ("spectra", "ladder", ["ladder"], None),
    "flatness": ("flatness", "flatness", ["flatness"], None),
    "invariance": ("flatness", "flatness", ["invariance"], None),
    "connectivity": ("paths", "connectivity", ["connectivity_path"], None),
    "barriers": ("barriers", "connectivity", ["connectivity", "barriers"], None),
    "widths": ("widths", "connectivity", ["connectivity", "barriers"], None),
    "pair_planes": ("paths", "connectivity", [], "planes.h5"),
    "instability": ("barriers", "instability", ["instability"], None),
    "trajectory": ("trajectories", "trajectory", ["trajectory"], "trajectory.h5"),
}

for figure, (family, stage, tables, run_file) in FIGURES.items():

    rule:
        name:
            f"figure_{figure}"
        input:
            tables=expand(f"{RESULTS}/tables/{{table}}.csv", table=tables),
            files=partial(get_experiment_files, file=run_file),
        output:
            pdf=f"{RESULTS}/figures/{{experiment}}/{figure}.pdf",
            png=report(
                f"{RESULTS}/figures/{{experiment}}/{figure}.png",
                category="{experiment}",
                labels={"figure": figure},
                caption=f"../report/{figure}.rst",
            ),
        log:
            f"{RESULTS}/logs/figure/{{experiment}}/{figure}.log",
        benchmark:
            f"{RESULTS}/benchmarks/figure/{{experiment}}/{figure}.tsv"
        conda:
            "../../envs/figures.yaml"
        params:
            config=partial(get_figure_section, figure=figure, stage=stage),
            family=family,
            code=get_code("figure.py", module=f"lossgeo.plots.{family}"),
        message:
            f"figure {figure} of {{wildcards.experiment}}"
        script:
            "../../scripts/figure.py"


rule figure_taxonomy:
    input:
        tables=expand(
            f"{RESULTS}/tables/{{table}}.csv", table=["eigenvalues", "barriers", "similarity"]
        ),
    output:
        pdf=f"{RESULTS}/figures/taxonomy.pdf",
        png=report(
            f"{RESULTS}/figures/taxonomy.png",
            category="study",
            labels={"figure": "taxonomy"},
            caption="../report/taxonomy.rst",
        ),
    log:
        f"{RESULTS}/logs/figure/taxonomy.log",
    benchmark:
        f"{RESULTS}/benchmarks/figure/taxonomy.tsv"
    conda:
        "../../envs/figures.yaml"
    params:
        config=get_section(
            figure="taxonomy",
            experiment=study.get_taxonomy(config),
            style=config["figures"],
        ),
        family="taxonomy",
        code=get_code("figure.py", module="lossgeo.plots.taxonomy"),
    message:
        "figure taxonomy of all experiments"
    script:
        "../../scripts/figure.py"


rule figures:
    input:
        [
            f"{RESULTS}/figures/{name}/{figure}.{format}"
            for name, experiment in config["experiments"].items()
            for figure, (_, stage, *_) in FIGURES.items()
            if stage is None or stage in experiment["stages"]
            if figure != "widths" or len(experiment["optimizers"]) == 1
            for format in ("pdf", "png")
        ],
        expand(rules.figure_taxonomy.output if study.get_taxonomy(config)["cells"] else []),
