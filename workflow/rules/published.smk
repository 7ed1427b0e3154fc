rule published:
    input:
        snapshots=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/snapshots.h5",
        data=partial(get_data_of_run, stage="published"),
    output:
        f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/published.h5",
    log:
        f"{RESULTS}/logs/published/{{model}}/{{optimizer}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/published/{{model}}/{{optimizer}}/seed{{seed}}.tsv"
    conda:
        "../../envs/published.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "published"),
        runtime=partial(get_minutes, "published"),
    params:
        config=partial(sections.published, config),
        code=lambda wildcards: get_code("published.py", wildcards.model),
    message:
        "published estimators of {wildcards.model}, {wildcards.optimizer}, seed {wildcards.seed}"
    script:
        "../../scripts/published.py"
