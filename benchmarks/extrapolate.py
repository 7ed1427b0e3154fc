"""The table of docs/scaling.md: what larger studies take by the rates of costs.csv."""

import csv
import re

from harness import HERE

PAGE = HERE.parent / "docs" / "scaling.md"
CORES = 320  # ten nodes of 32
EVALUATED = 1 / 30  # of the points of a fine plane, with levels
NETWORKS = {  # operations (multiplications and additions) of a forward pass, samples
    "ResNet-20": (0.08e9, 10_000),
    "ResNet-50": (8.2e9, 50_000),
}


def rate(rule: str) -> float:
    """Seconds per operation, of convolutional networks."""
    with open(HERE / "costs.csv") as file:
        rows = [r for r in csv.DictReader(file) if (r["rule"], r["family"]) == (rule, "cnn")]
    return float(rows[0]["seconds_per_teraop"]) / 1e12


def rounded(number: float) -> str:
    """One digit, two from ten on: the extrapolation is good to an order of magnitude."""
    return f"{float(f'{number:.{1 if number >= 10 else 0}e}'):,.0f}"


def duration(hours: float) -> str:
    if hours < 1:
        return f"{rounded(60 * hours)} min"
    return f"{rounded(hours)} hours" if hours < 48 else f"{rounded(hours / 24)} days"


def row(what: str, operations: float, seconds_per_operation: float, cores: int) -> str:
    hours = operations * seconds_per_operation / 3600
    base, _, exponent = f"{operations:.0e}".partition("e+")
    where = duration(hours / cores) if cores > 1 else f"{duration(hours)}: it is one job"
    return f"| {what} | {base} x 10^{int(exponent)} | {rounded(hours)} | {where} |"


def main() -> None:
    lines = [
        "| what | operations | core-hours | on 10 nodes of 32 cores |",
        "|---|---|---|---|",
    ]
    surface, products = rate("tile"), rate("hessian")
    for name, (operations, samples) in NETWORKS.items():
        passes = operations * samples
        for points in (51, 201):
            every = f"{name}, plane {points} x {points}, {samples:,} samples, every point"
            lines.append(row(every, points**2 * passes, surface, CORES))
        levels = "the same, `estimator: multilevel` with one point in thirty evaluated"
        lines.append(row(levels, EVALUATED * 201**2 * passes, surface, 1))
        spectrum = f"{name}, ten eigenvalues, 100 Lanczos steps, {samples:,} samples"
        lines.append(row(spectrum, 100 * passes, products, 1))
    table = "\n".join(lines)
    marked = "<!-- extrapolated: by benchmarks/extrapolate.py -->\n{}\n<!-- /extrapolated -->"
    pattern = marked.replace("{}", ".*?")
    PAGE.write_text(re.sub(pattern, lambda _: marked.format(table), PAGE.read_text(), flags=re.S))


if __name__ == "__main__":
    main()
