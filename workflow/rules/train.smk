rule train:
    input:
        data=get_data_of_run,
    output:
        snapshots=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/snapshots.h5",
        history=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/history.csv",
    log:
        f"{RESULTS}/logs/train/{{model}}/{{optimizer}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/train/{{model}}/{{optimizer}}/seed{{seed}}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "train"),
        runtime=partial(get_minutes, "train"),
    params:
        config=partial(sections.train, config),
        code=lambda wildcards: get_code("train.py", wildcards.model, optimizer=wildcards.optimizer),
    message:
        "train {wildcards.model} with {wildcards.optimizer}, seed {wildcards.seed}"
    script:
        "../../scripts/train.py"


rule runs:
    input:
        get_run_files("snapshots.h5"),
    localrule: True
