rule fork:
    input:
        snapshots=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/snapshots.h5",
        data=partial(get_data_of_run, stage="instability"),
    output:
        f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/fork{{epoch}}.h5",
    log:
        f"{RESULTS}/logs/fork/{{model}}/{{optimizer}}/seed{{seed}}-fork{{epoch}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/fork/{{model}}/{{optimizer}}/seed{{seed}}-fork{{epoch}}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "fork"),
        runtime=partial(get_minutes, "fork"),
    params:
        config=partial(sections.fork, config),
        code=lambda wildcards: get_code("fork.py", wildcards.model, optimizer=wildcards.optimizer),
    message:
        "{wildcards.model} with {wildcards.optimizer}, seed {wildcards.seed}, in another order from epoch {wildcards.epoch} on"
    script:
        "../../scripts/fork.py"
