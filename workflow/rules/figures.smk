# figure -> its module of lossgeo.plots, the stages that an experiment must have, the tables and
# the run files that it reads
FIGURES = {
    "training": ("training", [], ["history"], []),
    "steps": ("speed", [], ["runs"], []),
    "lines": ("surfaces", ["landscape"], [], ["landscape.h5"]),
    "planes": ("surfaces", ["landscape"], [], ["landscape.h5"]),
    "surfaces": ("surfaces", ["landscape"], [], ["landscape.h5"]),
    "spectra": ("spectra", ["hessian"], ["spectrum", "eigenvalues"], []),
    "eigenvalues": ("spectra", ["hessian"], ["eigenvalues", "curvature"], []),
    "correlations": ("correlations", ["hessian"], ["runs", "eigenvalues", "curvature"], []),
    "curvature_by_width": ("scaling", ["hessian"], ["eigenvalues", "curvature"], []),
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
if config["hessian"]["layers"]:
    FIGURES["layer_curvature"] = ("layers", ["hessian"], ["layer_curvature"], [])

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
        resources:
            mem_mb=partial(get_memory, "figure"),
            runtime=partial(get_minutes, "figure"),
        params:
            config=partial(sections.figure, config, name=figure, stages=stages),
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
        resources:
            mem_mb=partial(get_memory, "figure"),
            runtime=partial(get_minutes, "figure"),
        params:
            config=sections.plain(figure=figure, experiment=shown, style=study.get_style(config)),
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
            for name in config["experiments"]
            for figure in FIGURES
            if is_drawn(figure, name)
            for format in ("pdf", "png")
        ],
        [
            f"{RESULTS}/figures/{figure}.{format}"
            for figure in STUDY_FIGURES
            if figure != "taxonomy" or study.get_taxonomy(config)["cells"]
            for format in ("pdf", "png")
        ],
    localrule: True
