"""Bring weights from elsewhere in as the snapshots of a run whose training is not known."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

import json
import sys

import pandas as pd

from lossgeo import checkpoints, probe, runs, store
from lossgeo.buffers import running_statistics
from lossgeo.data import sha256
from lossgeo.numerics import choose_device, derive_seed, kernels, make_deterministic
from lossgeo.parameters import layout_of


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, seed = probe.config_of(snakemake), int(snakemake.wildcards.seed)
    files, weights = snakemake.input.data, list(snakemake.input.weights)
    for path, digest in zip(weights, config["weights"], strict=True):
        if sha256(path) != digest:
            sys.exit(
                f"{path} is not the file that snakemake read when it planned this job: it was "
                "changed since. Run snakemake again"
            )
    model = probe.load_model(files, config, seed=derive_seed("initialisation", seed))
    layout = layout_of(model)
    evaluation = probe.load_evaluation(files, config, seed)
    inputs, mode = evaluation[0].blocks[0][0][:2], config["model"].get("statistics")
    running = running_statistics(model, inputs, mode)
    points = [checkpoints.load(path, model, running) for path in weights]
    run = checkpoints.as_run(points, *evaluation)
    for number, (point, path) in enumerate(zip(points, weights, strict=True)):
        loss, accuracy = (run.history[name][number] for name in ("train_loss", "test_accuracy"))
        job.tell(
            f"{number}: {path} ({point.dtype}): loss {loss:.4g} nats, test accuracy {accuracy:.2%}"
        )
    identity = {
        "model": snakemake.wildcards.model,
        "parameters": layout.size,
        "optimizer": snakemake.wildcards.optimizer,
        "seed": seed,
    }
    device = choose_device(config["device"])
    digests = {f"weights {number}": digest for number, digest in enumerate(config["weights"])}
    loss = probe.loss_of(config)
    store.write(
        snakemake.output.snapshots,
        store.of_loss(runs.as_groups(run), loss.name, loss.units),
        store.provenance(
            snakemake.params.config,
            snakemake.params.code,
            config["data"]["sha256"] | digests,
            packages=("safetensors",),
            device=device.type,
            kernels=kernels(device),
            **identity,
            **runs.describe(run, layout, evaluation[0].running),
            **probe.mode_of(config),
            weights_dtypes=json.dumps([point.dtype for point in points]),
        ),
    )
    history = pd.DataFrame(run.history).assign(step=pd.array([pd.NA] * len(points), "Int64"))
    for name, value in reversed((identity | {"diverged": False}).items()):
        history.insert(0, name, value)
    store.write_csv(history, snakemake.output.history)


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
