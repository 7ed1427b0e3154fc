rule landscape:
    input:
        snapshots=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/snapshots.h5",
        hessian=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/hessian.h5",
        tiles=get_tile_files,
        data=partial(get_data_of_run, stage="landscape"),
    output:
        f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/landscape.h5",
    log:
        f"{RESULTS}/logs/landscape/{{model}}/{{optimizer}}/seed{{seed}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/landscape/{{model}}/{{optimizer}}/seed{{seed}}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "landscape"),
        runtime=partial(get_minutes, "landscape"),
    params:
        config=partial(sections.landscape, config),
        code=lambda wildcards: get_code("landscape.py", wildcards.model),
    message:
        "lines and planes of {wildcards.model}, {wildcards.optimizer}, seed {wildcards.seed}"
    script:
        "../../scripts/landscape.py"
