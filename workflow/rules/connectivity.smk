rule connectivity:
    input:
        unpack(get_path_files),
        data=get_data_files(),
    output:
        f"{RESULTS}/pairs/{{model}}/{{optimizer}}/{{a}}-{{b}}/connectivity.h5",
    log:
        f"{RESULTS}/logs/connectivity/{{model}}/{{optimizer}}/{{a}}-{{b}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/connectivity/{{model}}/{{optimizer}}/{{a}}-{{b}}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "connectivity"),
        runtime=partial(get_minutes, "connectivity"),
    params:
        config=partial(sections.connectivity, config),
        code=lambda wildcards: get_code("connectivity.py", wildcards.model),
    message:
        "paths from {wildcards.a} to {wildcards.b} of {wildcards.model}, {wildcards.optimizer}"
    script:
        "../../scripts/connectivity.py"


rule planes:
    input:
        unpack(get_plane_files),
        data=get_data_files(),
    output:
        f"{RESULTS}/pairs/{{model}}/{{optimizer}}/{{a}}-{{b}}/planes.h5",
    log:
        f"{RESULTS}/logs/planes/{{model}}/{{optimizer}}/{{a}}-{{b}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/planes/{{model}}/{{optimizer}}/{{a}}-{{b}}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "planes"),
        runtime=partial(get_minutes, "planes"),
    params:
        config=partial(sections.planes, config),
        code=lambda wildcards: get_code("planes.py", wildcards.model),
    message:
        "planes through {wildcards.a} and {wildcards.b} of {wildcards.model}, {wildcards.optimizer}"
    script:
        "../../scripts/planes.py"
