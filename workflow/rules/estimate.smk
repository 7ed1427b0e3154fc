rule estimate:
    log:
        f"{RESULTS}/logs/estimate.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        jobs=lambda wildcards: get_jobs(),
        others={"table": len(TABLES), "figure": len(rules.figures.input) // 2, "verdicts": 1},
        contents=lambda wildcards: list(get_contents()),
        digests=lambda wildcards: study.get_data_spec(config)["sha256"],
        results=RESULTS,
        committed=f"{ROOT}/benchmarks/costs.csv",
    message:
        "what the study will cost"
    script:
        "../../scripts/estimate.py"
