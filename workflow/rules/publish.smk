LONG = ("spectrum", "layers", "trajectory_path", "connectivity_path")  # series, not summaries


rule publish:
    input:
        tables=[path for path in rules.tables.input if Path(path).stem not in LONG],
        figures=[path for path in rules.figures.input if path.endswith(".png")],
        run=get_run_files("snapshots.h5")[0],
        page=f"{workflow.basedir}/workflow/report/findings.md.jinja",
        answers=f"{workflow.basedir}/workflow/report/answers.md.jinja",
    output:
        directory(f"{RESULTS}/study"),
    log:
        f"{RESULTS}/logs/publish.log",
    conda:
        "../../envs/tables.yaml"
    params:
        config=get_section(**config),
        registry=REGISTRY,
        code=get_code("publish.py"),
    message:
        "the study's page"
    script:
        "../../scripts/publish.py"
