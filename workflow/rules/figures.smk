# figure -> its module of lossgeo.plots, the stage that an experiment must have, the tables and the
# run files that it reads
FIGURES = {
    "training": ("training", None, ["history"], None),
    "steps": ("speed", None, ["runs"], None),
    "lines": ("surfaces", "landscape", [], "landscape.h5"),
    "planes": ("surfaces", "landscape", [], "landscape.h5"),
    "surfaces": ("surfaces", "landscape", [], "landscape.h5"),
    "spectra": ("spectra", "hessian", ["spectrum", "eigenvalues"], None),
    "eigenvalues": ("spectra", "hessian", ["eigenvalues", "curvature"], None),
    "correlations": ("correlations", "hessian", ["runs", "eigenvalues", "curvature"], None),
    "curvature_by_width": ("scaling", "hessian", ["eigenvalues", "curvature"], None),
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


# figure of the whole study -> its module of lossgeo.plots, the tables that it reads, what it shows
STUDY_FIGURES = {
    "taxonomy": ("taxonomy", ["eigenvalues", "barriers", "similarity"], study.get_taxonomy(config)),
    "verdicts": ("verdicts", ["verdicts"], {}),
    "forest": ("forest", ["endpoints", "verdicts"], {}),
}

for figure, (family, tables, shown) in STUDY_FIGURES.items():

    rule:
        name:
            f"figure_{figure}"
        input:
            tables=expand(f"{RESULTS}/tables/{{table}}.csv", table=tables),
        output:
            pdf=f"{RESULTS}/figures/{figure}.pdf",
            png=report(
                f"{RESULTS}/figures/{figure}.png",
                category="study" if figure == "taxonomy" else "Verdicts",
                labels={"figure": figure},
                caption=f"../report/{figure}.rst",
            ),
        log:
            f"{RESULTS}/logs/figure/{figure}.log",
        benchmark:
            f"{RESULTS}/benchmarks/figure/{figure}.tsv"
        conda:
            "../../envs/figures.yaml"
        params:
            config=get_section(figure=figure, experiment=shown, style=config["figures"]),
            family=family,
            code=get_code("figure.py", module=f"lossgeo.plots.{family}"),
        message:
            f"figure {figure} of the whole study"
        script:
            "../../scripts/figure.py"


rule figures:
    input:
        [
            f"{RESULTS}/figures/{name}/{figure}.{format}"
            for name, experiment in config["experiments"].items()
            for figure, (_, stage, *_) in FIGURES.items()
            if stage is None or stage in experiment["stages"]
            if is_about(figure, name)
            for format in ("pdf", "png")
        ],
        [
            f"{RESULTS}/figures/{figure}.{format}"
            for figure in STUDY_FIGURES
            if figure != "taxonomy" or study.get_taxonomy(config)["cells"]
            for format in ("pdf", "png")
        ],
