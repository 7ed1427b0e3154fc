rule alignment:
    input:
        unpack(get_snapshots),
        data=get_data_files(),
    output:
        f"{RESULTS}/pairs/{{model}}/{{optimizer}}/{{a}}-{{b}}/alignment.h5",
    log:
        f"{RESULTS}/logs/alignment/{{model}}/{{optimizer}}/{{a}}-{{b}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/alignment/{{model}}/{{optimizer}}/{{a}}-{{b}}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "alignment"),
        runtime=partial(get_minutes, "alignment"),
    params:
        config=partial(sections.alignment, config),
        code=lambda wildcards: get_code("alignment.py", wildcards.model),
    message:
        "align {wildcards.b} to {wildcards.a} of {wildcards.model}, {wildcards.optimizer}"
    script:
        "../../scripts/alignment.py"
