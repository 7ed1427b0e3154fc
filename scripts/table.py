"""Make one tidy table from the files of a stage."""

from lossgeo import job, store, tables


def main(snakemake) -> None:
    make = getattr(tables, snakemake.wildcards.table)
    table = make(list(snakemake.input), **snakemake.params.config)
    store.write_csv(table, snakemake.output[0])
    print(f"{len(table)} rows from {len(snakemake.input)} files")


if __name__ == "__main__":
    job.log_to(snakemake.log[0])
    main(snakemake)
