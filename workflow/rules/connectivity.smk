rule connectivity:
    input:
        snapshots_a=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed_a}}/snapshots.h5",
        snapshots_b=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed_b}}/snapshots.h5",
        data=get_data_files(),
    output:
        f"{RESULTS}/pairs/{{model}}/{{optimizer}}/seed{{seed_a}}-seed{{seed_b}}.h5",
    log:
        f"{RESULTS}/logs/connectivity/{{model}}/{{optimizer}}/seed{{seed_a}}-seed{{seed_b}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/connectivity/{{model}}/{{optimizer}}/seed{{seed_a}}-seed{{seed_b}}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    params:
        config=lambda wildcards: get_probe_section(
            wildcards.model,
            connectivity=config["connectivity"],
            samples=config["objective"]["samples"],
        ),
        code=lambda wildcards: get_code("connectivity.py", wildcards.model),
    message:
        "line from seed {wildcards.seed_a} to {wildcards.seed_b} of {wildcards.model}, {wildcards.optimizer}"
    script:
        "../../scripts/connectivity.py"
