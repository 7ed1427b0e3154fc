rule tile:
    input:
        snapshots=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/snapshots.h5",
        hessian=f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/hessian.h5",
        data=partial(get_data_of_run, stage="landscape"),
    output:
        f"{RESULTS}/runs/{{model}}/{{optimizer}}/seed{{seed}}/tiles/{{tile}}-of-{{tiles}}.h5",
    log:
        f"{RESULTS}/logs/tile/{{model}}/{{optimizer}}/seed{{seed}}/{{tile}}-of-{{tiles}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/tile/{{model}}/{{optimizer}}/seed{{seed}}/{{tile}}-of-{{tiles}}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "tile"),
        runtime=partial(get_minutes, "tile"),
    params:
        config=partial(sections.tile, config),
        code=lambda wildcards: get_code("tile.py", wildcards.model),
    message:
        "tile {wildcards.tile} of {wildcards.tiles} of {wildcards.model}, {wildcards.optimizer}, "
        "seed {wildcards.seed}"
    script:
        "../../scripts/tile.py"
