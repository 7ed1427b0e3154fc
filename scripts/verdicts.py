"""Judge the claims of a registry by the study's tables."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from pathlib import Path

import pandas as pd

from lossgeo import store, verdicts


def main(snakemake) -> None:
    tables = {Path(path).stem: pd.read_csv(path) for path in snakemake.input}
    endpoints, claims = verdicts.judge(tables, snakemake.params.config)
    store.write_csv(endpoints, snakemake.output.endpoints)
    store.write_csv(claims, snakemake.output.verdicts)
    for claim, verdict in zip(claims["claim"], claims["verdict"], strict=True):
        print(f"{claim}: {verdict}")


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
