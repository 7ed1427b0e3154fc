# series, which are no summaries
LONG = ("history", "spectrum", "layers", "trajectory_path", "connectivity_path")


rule publish:
    input:
        tables=[path for path in rules.tables.input if Path(path).stem not in LONG],
        figures=[path for path in rules.figures.input if path.endswith(".png")],
        # their digests are among the params
        page=ancient(f"{ROOT}/workflow/report/findings.md.jinja"),
        answers=ancient(f"{ROOT}/workflow/report/answers.md.jinja"),
    output:
        directory(f"{RESULTS}/study"),
    log:
        f"{RESULTS}/logs/publish.log",
    conda:
        "../../envs/tables.yaml"
    resources:
        mem_mb=partial(get_memory, "publish"),
        runtime=partial(get_minutes, "publish"),
    params:
        config=sections.plain(**config),
        registry=REGISTRY,
        code=get_code("publish.py"),
        templates=get_file_digest("../workflow/report/findings.md.jinja")
        | get_file_digest("../workflow/report/answers.md.jinja"),
    message:
        "the study's page"
    script:
        "../../scripts/publish.py"
