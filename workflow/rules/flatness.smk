rule flatness:
    input:
        snapshots=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/snapshots.h5",
        data=partial(get_data_of_run, stage="flatness"),
    output:
        f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/flatness.h5",
    log:
        f"{RESULTS}/logs/flatness/{{model}}/{{optimizer}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/flatness/{{model}}/{{optimizer}}/seed{{seed}}.tsv"
    conda:
        "../../envs/hessian.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "flatness"),
        runtime=partial(get_minutes, "flatness"),
    params:
        config=partial(sections.flatness, config),
        code=lambda wildcards: get_code("flatness.py", wildcards.model),
    message:
        "flatness of {wildcards.model}, {wildcards.optimizer}, seed {wildcards.seed}"
    script:
        "../../scripts/flatness.py"
