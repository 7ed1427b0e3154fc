"""The three tables of figures as benchmarks/results.md and as a section of the README."""

import csv
import re

from harness import HERE

HEAD = (
    "| work | against | times as fast | ours | theirs | samples | runs |\n"
    "|---|---|---|---|---|---|---|\n"
)
MARKS = ("<!-- benchmarks: written by make bench -->\n", "<!-- /benchmarks -->\n")


def table(rows: list[dict]) -> str:
    return HEAD + "".join(
        f"| {r['work']} | {r['against']} | {r['ratio']} ({r['ratio_min']}-{r['ratio_max']}) "
        f"| {r['ours_s']} s | {r['theirs_s']} s | {r['samples']} | {r['repeats']} |\n"
        for r in rows
    )


def kind(row: dict) -> str:
    """The work without the model that it is done on."""
    return re.sub(r", [A-Z]\w*-[\dx]+$", "", row["work"])


def machines(rows: list[dict]) -> str:
    """Where the rows were measured: on one machine, or which work on which."""
    works: dict[str, dict] = {}
    for row in rows:
        works.setdefault(row["machine"], {})[kind(row)] = None
    first, *others = works
    return "; ".join([first, *(f"{', '.join(works[other])}: {other}" for other in others)])


def agreement(rows: list[dict]) -> str:
    """The largest disagreement of each kind of work with what it was compared with."""
    worst: dict[str, float] = {}
    for row in rows:
        if row["agreement"]:
            worst[kind(row)] = max(worst.get(kind(row), 0.0), float(row["agreement"]))
    parts = [f"{work}: {value:.0e}" for work, value in worst.items()]
    return "Largest relative difference from the peer's result, " + "; ".join(parts) + ".\n"


def refused(rows: list[dict]) -> str:
    """What other packages do not do at all, by what they raise."""
    if not rows:
        return ""
    raised: dict[str, list[dict]] = {}
    for row in rows:
        raised.setdefault(row["raised"], []).append(row)
    parts = []
    for message, of_it in raised.items():
        packages, works = (
            ", ".join(dict.fromkeys(found))
            for found in (
                (row["against"].split(",")[0].split()[0] for row in of_it),
                (row["work"] for row in of_it),
            )
        )
        parts.append(f"{packages} ({works}: {message})")
    return f"What does not run as it is: {'; '.join(parts)}.\n"


def memory(rows: list[dict]) -> str:
    """What a job takes at most, under the config's budget for its graphs."""
    parts = [
        f"{int(row['peak_mb']):,} MB with {row['network']} ({int(row['parameters']):,} parameters)"
        for row in rows
    ]
    first = rows[0]
    return (
        f"Hessian-vector products on {first['samples']} samples, with {first['budget_mb']} MB for "
        f"graphs (`memory`), take {' and '.join(parts)} at most.\n"
    )


def read(file: str) -> list[dict]:
    """The rows of a table in benchmarks/."""
    with open(HERE / file, newline="") as table:
        return list(csv.DictReader(table))


def precision(rows: list[dict]) -> str:
    """How far the multilevel surfaces are from the full ones."""

    def total(column: str) -> int:
        return sum(int(row[column]) for row in rows)

    shares = []
    for kind in ("planes", "lines"):
        chosen = [r for r in rows if (r["surface"] == "lines") == (kind == "lines")]
        evaluated = sum(float(r["evaluated"]) * int(r["points"]) for r in chosen)
        shares.append(f"{100 * evaluated / sum(int(r['points']) for r in chosen):.0f} %")
    worst = {name: 100 * max(float(r[name]) for r in rows) for name in ("error_95", "error_max")}
    return (
        f"Of the {total('points'):,} points of all lines and planes of `make quick`, {shares[0]} "
        f"of those on planes and {shares[1]} of those on lines were evaluated. Of the "
        f"{total('interpolated'):,} others, {100 * total('beyond') / total('interpolated'):.2g} % "
        f"are off by more than `interpolation_error` states for 95 % of them, and on "
        f"{total('exceeded')} of {total('surfaces')} surfaces these are more than 5 %. By model, "
        f"optimizer and kind of surface, 95 % of them are within {worst['error_95']:.2g} % of "
        f"their rise (or its standard error, where that is larger) or better, all within "
        f"{worst['error_max']:.2g} %; accuracies are coarser, off by up to "
        f"{max(float(r['accuracy_max']) for r in rows)}.\n"
    )


def main() -> None:
    rows, large = read("results.csv"), read("scaling.csv")[-1]
    text = (
        f"Medians of alternating runs, range in brackets; {machines(rows)}.\n\n"
        f"{table(rows)}\n{agreement(rows)}"
        f"A multilevel plane of {large['points']} points of CNN-64 on {large['samples']} samples "
        f"takes {float(large['seconds']):.0f} s and {large['peak_mb']} MB at most.\n\n"
        f"{memory(read('memory.csv'))}{refused(read('refused.csv'))}\n"
        f"{precision(read('surfaces.csv'))}"
    )
    (HERE / "results.md").write_text("# Measured side by side\n\n" + text)
    readme = HERE.parent / "README.md"
    before, rest = readme.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    readme.write_text(before + MARKS[0] + text + MARKS[1] + after)


if __name__ == "__main__":
    main()
