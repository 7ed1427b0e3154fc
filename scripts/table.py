"""Make one tidy table from the files of a stage."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from importlib import import_module

from lossgeo import store, tables


def main(snakemake) -> None:
    make = getattr(import_module(f"lossgeo.{snakemake.params.module}"), snakemake.wildcards.table)
    table = make(list(snakemake.input), **snakemake.params.config)
    table = tables.with_labels(table, snakemake.params.labels)
    store.write_csv(table, snakemake.output[0])
    print(f"{len(table)} rows from {len(snakemake.input)} files")


if __name__ == "__main__":
    main(snakemake)
    job.end(snakemake)
