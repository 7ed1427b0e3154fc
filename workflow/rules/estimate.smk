rule estimate:
    log:
        f"{RESULTS}/logs/estimate.log",
    localrule: True
    conda:
        "../../envs/tables.yaml"
    params:
        jobs=lambda wildcards: get_jobs(),
        others={"table": len(TABLES), "figure": len(rules.figures.input) // 2, "verdicts": 1},
        results=RESULTS,
        committed=f"{ROOT}/benchmarks/costs.csv",
    message:
        "what the study will cost"
    script:
        "../../scripts/estimate.py"
