# figure -> its module of lossgeo.plots, the stages that an experiment must have, the tables and
# the run files that it reads
FIGURES = {
    "training": ("training", [], ["history"], []),
    "lines": ("surfaces", ["landscape"], [], ["landscape.h5"]),
    "planes": ("surfaces", ["landscape"], [], ["landscape.h5"]),
    "surfaces": ("surfaces", ["landscape"], [], ["landscape.h5"]),
    "spectra": ("spectra", ["hessian"], ["spectrum", "eigenvalues"], []),
    "eigenvalues": ("spectra", ["hessian"], ["eigenvalues", "curvature"], []),
    "ladder": ("spectra", ["ladder"], ["ladder"], []),
    "flatness": ("flatness", ["flatness"], ["flatness"], []),
    "invariance": ("flatness", ["flatness"], ["invariance"], []),
    "connectivity": ("paths", ["connectivity"], ["connectivity_path"], []),
    "barriers": ("barriers", ["connectivity"], ["connectivity", "barriers"], []),
    "widths": ("widths", ["connectivity"], ["connectivity", "barriers"], []),
    "pair_planes": ("paths", ["connectivity"], [], ["planes.h5"]),
    "instability": ("barriers", ["instability"], ["instability"], []),
    "trajectory": ("trajectories", ["trajectory"], ["trajectory"], ["trajectory.h5"]),
    "published": (
        "published",
        ["published", "landscape"],
        [],
        ["published.h5", "landscape.h5"],
    ),
}

for figure, (family, stages, _, run_files) in FIGURES.items():

    rule:
        name:
            f"figure_{figure}"
        input:
            tables=get_figure_tables(figure),
            files=partial(get_experiment_files, files=run_files),
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
            config=partial(get_figure_section, figure=figure, stages=stages),
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
            for figure in FIGURES
            if is_drawn(figure, experiment)
            for format in ("pdf", "png")
        ],
        expand(rules.figure_taxonomy.output if study.get_taxonomy(config)["cells"] else []),
