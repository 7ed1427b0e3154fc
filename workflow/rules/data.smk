if study.is_fetched(config):

    # Without params: which way the files come and which code brings them does not matter, because
    # their checksums are fixed; what reads them has these among its own params. Nor may this rule
    # rerun while the files are there: Snakemake 9.27 then drops the jobs behind ancient() inputs.
    rule data:
        output:
            [str(path) for path in study.get_data_files(config)],
        log:
            f"{study.get_data_folder(config)}/fetch.log",
        benchmark:
            f"{study.get_data_folder(config)}/fetch.tsv"
        localrule: True  # nodes of a cluster may not reach the internet
        conda:
            "../../envs/torch.yaml"
        resources:
            mem_mb=partial(get_memory, "data"),
            runtime=partial(get_minutes, "data"),
        message:
            f"fetch {config['data']['name']}"
        script:
            "../../scripts/data.py"
