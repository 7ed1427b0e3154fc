"""Draw one figure of an experiment as PDF and PNG."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from importlib import import_module
from pathlib import Path

import matplotlib
import pandas as pd

from lossgeo import store
from lossgeo.plots.panels import style_of


def main(snakemake) -> None:
    config = snakemake.params.config
    tables = {Path(path).stem: pd.read_csv(path) for path in snakemake.input.tables}
    draw = getattr(import_module(f"lossgeo.plots.{snakemake.params.family}"), config["figure"])
    with matplotlib.rc_context(style_of(config["style"])):
        files = list(snakemake.input.get("files", []))
        figure = draw(tables, files, config["experiment"], config["style"])
        for path, metadata in (
            (snakemake.output.pdf, {"CreationDate": None}),
            (snakemake.output.png, {"Software": None}),
        ):
            with store.whole_or_not(path) as beside:
                figure.savefig(beside, metadata=metadata)


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
