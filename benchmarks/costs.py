"""What the jobs of this machine's studies took, as the rates that `make estimate` starts from.

Run after a study: results/ and every folder in it with benchmark files count. Rules that none of
them has keep the rates that they have.
"""

import sys
from pathlib import Path

import pandas as pd

from harness import cpu
from lossgeo import costs

HERE = Path(__file__).parent


def main() -> None:
    roots = [HERE.parent / "results", *sorted((HERE.parent / "results").iterdir())]
    jobs = pd.concat([costs.measured(root) for root in roots if (root / "benchmarks").is_dir()])
    if jobs.empty:
        sys.exit("results/ has no benchmark files: run a study first, as `make quick`")
    path, here = HERE / "costs.csv", costs.fit(jobs).assign(machine=cpu())
    rates = costs.updated(costs.read_rates(path), here).sort_values(["rule", "family"])
    rates.to_csv(path, index=False, float_format="%.4g", lineterminator="\n")
    print(rates.to_string(index=False))


if __name__ == "__main__":
    main()
