"""Train a fork of a run: it shares so many epochs with it, then sees the data in another order.

After Frankle et al. 2020. Forks of one run see the same order, whenever they parted from it.
"""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

import torch

from lossgeo import probe, runs
from lossgeo.numerics import choose_device, derive_seed, make_deterministic, torch_generator
from lossgeo.parameters import layout_of
from lossgeo.training import train


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, seed = probe.config_of(snakemake), int(snakemake.wildcards.seed)
    files, shared = snakemake.input.data, int(snakemake.wildcards.epoch)
    model = probe.load_model(files, config)
    torch.manual_seed(derive_seed("fork dropout", seed))
    evaluation = probe.load_evaluation(files, config, seed)
    run = train(
        model,
        *probe.load_split(files, config["data"], "train"),
        *evaluation,
        optimizer=config["optimizer"],
        epochs=config["epochs"],
        batch_size=config["batch_size"],
        evaluations_per_epoch=1,
        snapshots_per_epoch=1,
        generator=torch_generator("fork order", seed),
        start=runs.load_start(snakemake.input.snapshots, shared),
        tell=job.tell,
    )
    job.tell(f"{shared} epochs shared; diverged: {run.diverged}")
    probe.write(
        snakemake,
        {"/": runs.as_groups(run)["/"]},
        **probe.run_identity(snakemake.input.snapshots),
        shared_epochs=shared,
        device=choose_device(config["device"]).type,
        **runs.describe(run, layout_of(model), evaluation[0].running),
    )


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
