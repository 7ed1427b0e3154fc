"""Print what a study will cost by rule, before it runs, and how well the last one was foreseen."""

from pathlib import Path

import pandas as pd

from lossgeo import costs
from lossgeo.data import Contents

FORMATS = {
    "core_hours": "{:.3f}".format,
    "longest_s": "{:.0f}".format,
    "peak_mb": "{:.0f}".format,
    "measured_core_hours": "{:.3f}".format,
    "ratio": "{:.2f}".format,
}


def main(snakemake) -> None:
    params = snakemake.params
    contents = Contents(*params.contents)
    asked = [costs.job(rule, name, section, contents) for rule, name, section in params.jobs]
    asked += [
        costs.without_model(rule, f"{number}")
        for rule, count in params.others.items()
        for number in range(count)
    ]
    results = Path(params.results)
    # of other studies on this machine; the study's own jobs are what the estimate is held against
    own = (params.digests, contents)
    past = [costs.measured(folder, own) for folder in other_studies(results)]
    rates = costs.read_rates(params.committed)
    past = [jobs for jobs in past if len(jobs)]
    if past:
        rates = costs.updated(rates, costs.fit(pd.concat(past)))
    expected = costs.expect(pd.DataFrame(asked), rates)
    table = costs.summary(expected, costs.measured(results))
    total = table.iloc[-1]["core_hours"]
    cores = ", ".join(f"{total / n:.1f} h on {n}" for n in (1, 2, 8))
    text = (
        f"{table.to_string(index=False, formatters=FORMATS, na_rep='-')}\n\n"
        f"expected: {total:.2f} core-hours, {cores} cores at best\n"
        "done: jobs that are there; ratio: what these took, over what was expected of them\n"
    )
    print(text)
    Path(snakemake.log[0]).write_text(text)


def other_studies(results: Path) -> list[Path]:
    """Folders of results beside this one, or in it, that have benchmark files."""
    places = {
        path.parent for root in (results, results.parent) for path in root.glob("*/benchmarks")
    }
    return sorted(places - {results})


if __name__ == "__main__":
    main(snakemake)
