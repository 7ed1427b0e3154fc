# figure -> the stage that an experiment must have, the tables and the run files that it reads
FIGURES = {
    "training": (None, ["history"], None),
    "lines": ("landscape", [], "landscape.h5"),
    "planes": ("landscape", [], "landscape.h5"),
    "surfaces": ("landscape", [], "landscape.h5"),
    "spectra": ("hessian", ["spectrum", "eigenvalues"], None),
    "eigenvalues": ("hessian", ["eigenvalues", "curvature"], None),
    "ladder": ("ladder", ["ladder"], None),
    "flatness": ("flatness", ["flatness"], None),
    "connectivity": ("connectivity", ["connectivity_path"], None),
    "trajectory": ("trajectory", ["trajectory"], "trajectory.h5"),
}

for figure, (stage, tables, run_file) in FIGURES.items():

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
            config=partial(get_figure_section, figure=figure),
            code=get_code("figure.py"),
        message:
            f"figure {figure} of {{wildcards.experiment}}"
        script:
            "../../scripts/figure.py"


rule figures:
    input:
        [
            f"{RESULTS}/figures/{name}/{figure}.{format}"
            for name, experiment in config["experiments"].items()
            for figure, (stage, *_) in FIGURES.items()
            if stage is None or stage in experiment["stages"]
            for format in ("pdf", "png")
        ],
