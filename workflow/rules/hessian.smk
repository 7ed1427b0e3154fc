rule hessian:
    input:
        snapshots=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/snapshots.h5",
        data=partial(get_data_of_run, stage="hessian"),
    output:
        f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/hessian.h5",
    log:
        f"{RESULTS}/logs/hessian/{{model}}/{{optimizer}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/hessian/{{model}}/{{optimizer}}/seed{{seed}}.tsv"
    conda:
        "../../envs/hessian.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "hessian"),
        runtime=partial(get_minutes, "hessian"),
    params:
        config=partial(sections.hessian, config),
        code=lambda wildcards: get_code("hessian.py", wildcards.model),
    message:
        "Hessian of {wildcards.model}, {wildcards.optimizer}, seed {wildcards.seed}"
    script:
        "../../scripts/hessian.py"
