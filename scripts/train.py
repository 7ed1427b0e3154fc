"""Train one run: snapshots of theta (HDF5) and the history of the losses (CSV)."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

import torch

from lossgeo import buffers, probe, runs
from lossgeo.hessian import gradient
from lossgeo.numerics import (
    choose_device,
    derive_seed,
    make_deterministic,
    torch_generator,
)
from lossgeo.objective import at
from lossgeo.parameters import flatten, layout_of
from lossgeo.training import train

# of training step by step, which training of the user's own is not
OF_STEPS = ("batch_size", "evaluations_per_epoch", "snapshots_per_epoch")


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, seed = probe.config_of(snakemake), int(snakemake.wildcards.seed)
    files, data = snakemake.input.data, config["data"]
    device = choose_device(config["device"])
    model = probe.load_model(files, config, seed=derive_seed("initialisation", seed))
    layout = layout_of(model)
    matched = None
    if "matched_loss" in config:
        objective = probe.load_objective(files, config, **config["objective"], seed=seed)
        matched = (objective, config["matched_loss"])
    evaluation = probe.load_evaluation(files, config, seed)
    running = evaluation[0].running
    start = at(evaluation[0], buffers.read(model, running))
    slope = gradient(start, flatten(model)).norm().item()
    torch.manual_seed(derive_seed("dropout", seed))
    run = train(
        model,
        *probe.load_split(files, data, "train"),
        *evaluation,
        optimizer=config["optimizer"],
        epochs=config["epochs"],
        **{name: config.get(name, 1) for name in OF_STEPS},
        generator=torch_generator("order", seed),
        tell=job.tell,
        matched=matched,
    )
    job.tell(f"{layout.size} parameters on {device}; diverged: {run.diverged}")
    if matched:
        found = run.matched
        reached = f"after {found.epoch:.4g} epochs: {found.loss:.4g}" if found else "never"
        target = f"{config['matched_loss']:.4g}{objective.loss.suffix}"
        job.tell(f"a loss of at most {target} on the objective {reached}")

    runs.write(snakemake, run, layout, running, initial_gradient_norm=slope)


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
