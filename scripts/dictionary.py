"""Say of every column of every table what it is, and in which unit."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from pathlib import Path

import pandas as pd

from lossgeo import store, tables


def main(snakemake) -> None:
    empty = {Path(path).stem: pd.read_csv(path, nrows=0) for path in snakemake.input}
    store.write_csv(tables.dictionary(empty), snakemake.output[0])


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
