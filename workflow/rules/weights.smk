ruleorder: weights > train


rule weights:
    input:
        data=partial(get_data_of_run, stage="weights"),
        weights=get_weight_files,
    output:
        snapshots=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/snapshots.h5",
        history=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/history.csv",
    log:
        f"{RESULTS}/logs/weights/{{model}}/{{optimizer}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/weights/{{model}}/{{optimizer}}/seed{{seed}}.tsv"
    wildcard_constraints:
        optimizer=study.GIVEN,
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "weights"),
        runtime=partial(get_minutes, "weights"),
    params:
        config=partial(sections.weights, config),
        code=lambda wildcards: get_code("weights.py", wildcards.model),
    message:
        "weights of {wildcards.model}, seed {wildcards.seed}"
    script:
        "../../scripts/weights.py"
