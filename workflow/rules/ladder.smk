rule ladder:
    input:
        snapshots=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/snapshots.h5",
        data=partial(get_data_of_run, stage="ladder"),
    output:
        f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/ladder.h5",
    log:
        f"{RESULTS}/logs/ladder/{{model}}/{{optimizer}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/ladder/{{model}}/{{optimizer}}/seed{{seed}}.tsv"
    conda:
        "../../envs/hessian.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "ladder"),
        runtime=partial(get_minutes, "ladder"),
    params:
        config=partial(sections.ladder, config),
        code=lambda wildcards: get_code("ladder.py", wildcards.model),
    message:
        "eigenvalues against samples of {wildcards.model}, {wildcards.optimizer}, seed {wildcards.seed}"
    script:
        "../../scripts/ladder.py"
