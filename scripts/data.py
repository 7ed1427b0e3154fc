"""Bring the files of a public data set into the data folder."""

from lossgeo import job

if __name__ == "__main__":
    job.begin(snakemake)

from pathlib import Path

from lossgeo import data


def main(snakemake) -> None:
    config = snakemake.config["data"]
    way = data.fetch(config["name"], Path(snakemake.output[0]).parent, config["source"])
    print(f"{config['name']} came by way of {way}; all checksums match")


if __name__ == "__main__":
    main(snakemake)
