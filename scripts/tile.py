"""One tile of the lines and planes of one run: the losses at its share of their points."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from itertools import groupby

from lossgeo import probe, store, tiles, views
from lossgeo.numerics import make_deterministic


def main(snakemake) -> None:
    make_deterministic(snakemake.threads)
    config, snapshots = probe.config_of(snakemake), snakemake.input.snapshots
    identity = probe.run_identity(snapshots)
    settings, seed = config["landscape"], identity["seed"]
    objective = probe.load_objective(snakemake.input.data, config, **config["objective"], seed=seed)
    pieces = tiles.cut(config["points"], settings, config["tiles"])[config["tile"] - 1]
    groups = {}
    for (name, kind), found in groupby(pieces, key=lambda piece: (piece.point, piece.kind)):
        point = probe.load_point(snapshots, name)
        hessian = store.read(snakemake.input.hessian, name)
        here, point = probe.at_point(objective, point, config)
        surfaces = views.surfaces(kind, here, point, settings, seed, hessian)
        for piece in found:
            surface = surfaces[piece.surface]
            values = tiles.measure(here, point.theta, surface, piece.start, piece.stop)
            groups[piece.group] = tiles.group(piece, values)
            job.tell(f"{piece.group} ({point.status}): points {piece.start} to {piece.stop - 1}")
    probe.write(
        snakemake,
        groups,
        **identity,
        **probe.describe(objective, config["objective"]["split"]),
    )


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
