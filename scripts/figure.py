"""Draw one figure of an experiment as PDF and PNG."""

from pathlib import Path

import matplotlib
import pandas as pd

from lossgeo import job, plots, store


def main(snakemake) -> None:
    config = snakemake.params.config
    tables = {Path(path).stem: pd.read_csv(path) for path in snakemake.input.tables}
    figure = plots.draw(
        config["figure"],
        tables,
        list(snakemake.input.files),
        config["experiment"],
        config["style"],
    )
    with matplotlib.rc_context(plots.style_of(config["style"])):
        for path, metadata in (
            (snakemake.output.pdf, {"CreationDate": None}),
            (snakemake.output.png, {"Software": None}),
        ):
            with store.whole_or_not(path) as beside:
                figure.savefig(beside, metadata=metadata)


if __name__ == "__main__":
    job.log_to(snakemake.log[0])
    main(snakemake)
