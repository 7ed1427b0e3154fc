def get_jobs():
    """Every job that the study asks for: its rule, its names, and its section of the config."""
    of_runs = {"train": None} | {
        stage: stage
        for stage in ("hessian", "ladder", "landscape", "flatness", "trajectory", "published")
    }
    jobs = [
        (name, f"{run.model}/{run.optimizer}/seed{run.seed}", run._asdict())
        for name, stage in of_runs.items()
        for run in study.get_runs(config, stage)
    ]
    jobs += [
        ("fork", f"{fork.model}/{fork.optimizer}/{fork.a}-{fork.b}", as_fork(fork))
        for fork in study.get_forks(config)
    ]
    seeds, rungs = study.get_pairs(config), set(config["connectivity"]["rungs"])
    of_pairs = {
        "alignment": get_aligned_pairs(),
        "curve": seeds if rungs & {"curve", "aligned_curve"} else [],
        "connectivity": seeds + study.get_forks(config),
        "planes": study.get_planes(config),
    }
    jobs += [
        (name, f"{pair.model}/{pair.optimizer}/{pair.a}-{pair.b}", pair._asdict())
        for name, pairs in of_pairs.items()
        for pair in pairs
    ]
    return [
        (name, names, getattr(rules, name).params.config(SimpleNamespace(**wildcards)))
        for name, names, wildcards in jobs
    ]


def as_fork(fork):
    """The wildcards of the run that a fork is."""
    seed, epoch = fork.a.removeprefix("seed"), fork.b.removeprefix("fork")
    return {"model": fork.model, "optimizer": fork.optimizer, "seed": seed, "epoch": epoch}


rule estimate:
    localrule: True
    log:
        f"{RESULTS}/logs/estimate.log",
    conda:
        "../../envs/tables.yaml"
    params:
        jobs=lambda wildcards: get_jobs(),
        others={"table": len(TABLES), "figure": len(rules.figures.input) // 2, "verdicts": 1},
        results=RESULTS,
        committed=f"{workflow.basedir}/benchmarks/costs.csv",
    message:
        "what the study will cost"
    script:
        "../../scripts/estimate.py"
