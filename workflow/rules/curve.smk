rule curve:
    input:
        unpack(get_curve_ends),
        data=get_data_files(),
    output:
        f"{RESULTS}/pairs/{{model}}/{{optimizer}}/{{a}}-{{b}}/curve.h5",
    log:
        f"{RESULTS}/logs/curve/{{model}}/{{optimizer}}/{{a}}-{{b}}.log",
    benchmark:
        f"{RESULTS}/benchmarks/curve/{{model}}/{{optimizer}}/{{a}}-{{b}}.tsv"
    conda:
        "../../envs/torch.yaml"
    threads: 1
    resources:
        mem_mb=partial(get_memory, "curve"),
        runtime=partial(get_minutes, "curve"),
    params:
        config=partial(sections.curve, config),
        code=lambda wildcards: get_code("curve.py", wildcards.model),
    message:
        "curves from {wildcards.a} to {wildcards.b} of {wildcards.model}, {wildcards.optimizer}"
    script:
        "../../scripts/curve.py"
