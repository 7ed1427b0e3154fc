if config["data"]["source"] != "files":

    rule data:
        output:
            [f"{config['data']['folder']}/{name}" for name in data.FILES],
        log:
            f"{config['data']['folder']}/fetch.log",
        benchmark:
            f"{config['data']['folder']}/fetch.tsv"
        conda:
            "../../envs/torch.yaml"
        params:
            config=get_section(
                name=config["data"]["name"],
                folder=config["data"]["folder"],
                source=config["data"]["source"],
            ),
            code=get_code("data.py"),
        message:
            f"fetch {config['data']['name']}"
        script:
            "../../scripts/data.py"
