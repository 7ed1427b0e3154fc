"""Bring weights from elsewhere in as the snapshots of a run whose training is not known."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

import json
import sys

from lossgeo import checkpoints, probe, runs
from lossgeo.buffers import running_statistics
from lossgeo.data import sha256
from lossgeo.numerics import derive_seed, make_deterministic
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
    evaluation = probe.load_evaluation(files, config, seed)
    inputs, mode = evaluation[0].blocks[0][0][:2], config["model"].get("statistics")
    running = running_statistics(model, inputs, mode)
    points = [checkpoints.load(path, model, running) for path in weights]
    run = checkpoints.as_run(points, *evaluation)
    losses = run.history["train_loss"]
    for number, (path, point, loss) in enumerate(zip(weights, points, losses, strict=True)):
        job.tell(f"{number}: {path} ({point.dtype}): training loss {loss:.4g}")
    runs.write(
        snakemake,
        run,
        layout_of(model),
        evaluation[0].running,
        weights=config["weights"],
        packages=("safetensors",),
        weights_dtypes=json.dumps([point.dtype for point in points]),
    )


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
