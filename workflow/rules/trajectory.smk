rule trajectory:
    input:
        snapshots=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/snapshots.h5",
        data=partial(get_data_of_run, stage="trajectory"),
    output:
        f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/trajectory.h5",
    log:
        f"{RESULTS}/logs/trajectory/{{model}}/{{optimizer}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/trajectory/{{model}}/{{optimizer}}/seed{{seed}}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "trajectory"),
        runtime=partial(get_minutes, "trajectory"),
    params:
        config=partial(sections.trajectory, config),
        code=lambda wildcards: get_code("trajectory.py", wildcards.model),
    message:
        "trajectory of {wildcards.model}, {wildcards.optimizer}, seed {wildcards.seed}"
    script:
        "../../scripts/trajectory.py"
