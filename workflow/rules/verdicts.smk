REGISTRY = get_registry(config["claims"], MADE_FROM)


rule verdicts:
    input:
        [
            f"{RESULTS}/tables/{table}.csv"
            for table in registry.tables_of(REGISTRY)
            if table in TABLES
        ],
    output:
        endpoints=report(
            f"{RESULTS}/tables/endpoints.csv",
            category="Verdicts",
            labels={"table": "endpoints"},
            caption="../report/table.rst",
        ),
        verdicts=report(
            f"{RESULTS}/tables/verdicts.csv",
            category="Verdicts",
            labels={"table": "verdicts"},
            caption="../report/table.rst",
        ),
    log:
        f"{RESULTS}/logs/verdicts.log",
    benchmark:
        f"{RESULTS}/benchmarks/verdicts.tsv"
    conda:
        "../../envs/tables.yaml"
    resources:
        mem_mb=partial(get_memory, "verdicts"),
        runtime=partial(get_minutes, "verdicts"),
    params:
        config=REGISTRY,  # in its own order, which the tables keep
        code=get_code("verdicts.py"),
    message:
        "verdicts on the claims of {config[claims]}"
    script:
        "../../scripts/verdicts.py"
