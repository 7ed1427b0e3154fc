"""The page that says what a study found: a template's sentences, every number from a table."""

from collections.abc import Mapping
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd

from lossgeo.claims import NoDataError, Tables, cell_of, measured
from lossgeo.registry import ARMS
from lossgeo.statistics import mean_interval

DIGITS = 3  # significant ones


def render(template: Path | str, tables: Tables, registry: Mapping, run: Mapping) -> str:
    """The page of a study, as Markdown.

    The template sees `claims` (rows of the table verdicts, with their endpoints), whether it `has`
    some, `endpoint` with its numbers, how it is `judged`, and `verdict` by name, `mean` of a
    quantity, `registry`, and `run`: what was run on what. A number that the study does not have
    reads "no data".
    """
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters |= {
        "number": number,
        "shown": shown,
        "in_unit": in_unit,
        "cell": cell,
        "percent": percent,
    }
    endpoints, verdicts = tables["endpoints"], tables["verdicts"]
    verdicts = verdicts.astype(object).where(verdicts.notna(), "")
    rows = endpoints.to_dict("records")

    def of_claim(claim: str) -> list[dict]:
        return [row for row in rows if row["claim"] == claim]

    def endpoint(claim: str, arm: str, part: str) -> str:
        found = [row for row in of_claim(claim) if (row["arm"], row["part"]) == (arm, part)]
        return shown(found[0]) if found else "no data"

    def judged(claim: str, arm: str, part: str) -> str:
        found = [row for row in of_claim(claim) if (row["arm"], row["part"]) == (arm, part)]
        return found[0]["verdict"] if found else "no verdict"

    def verdict(claim: str, of: str = "verdict") -> str:
        found = verdicts.loc[verdicts["claim"] == claim, of]
        return (found.iloc[0] or "no verdict") if len(found) else "no verdict"

    def mean(quantity: str, cell: str, log: bool = True, **where) -> str:
        return mean_of(quantity, cell, where, registry, tables, log=log)

    def has(*names: str) -> bool:
        return set(names) <= set(verdicts["claim"])

    claims = [row | {"endpoints": of_claim(row["claim"])} for row in verdicts.to_dict("records")]
    return environment.from_string(Path(template).read_text()).render(
        arms=ARMS,
        claims=claims,
        has=has,
        endpoint=endpoint,
        judged=judged,
        verdict=verdict,
        mean=mean,
        registry=registry,
        run=run,
        costs=run["costs"],
    )


def mean_of(
    quantity: str, cell: str, where: Mapping, registry: Mapping, tables: Tables, *, log: bool
) -> str:
    """Mean of a quantity over seeds (with `log` geometric) and its t interval of 95 %, in words."""
    try:
        values = measured(quantity, registry["quantities"], tables, cell_of(cell) | dict(where))
    except NoDataError:
        return "no data"
    found = mean_interval(values.to_numpy(), log=log)
    return _with_interval(found.mean, found.low, found.high)


def number(value: float) -> str:
    """Three significant digits, without an exponent between 0.001 and a million."""
    if not np.isfinite(value):
        return "–"
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return np.format_float_positional(
        float(f"{value:.{DIGITS}g}"), trim="-", fractional=False, precision=DIGITS
    )


def shown(row: Mapping) -> str:
    """An endpoint's estimate with its interval and n, in its unit."""
    if not row["n"]:
        return "no data"
    values = [row[name] for name in ("estimate", "low", "high")]
    scale, unit = _unit(row)
    text = number(scale * values[0]) + unit
    of = f"n = {row['n']}" + (" models" if row.get("unit") == "models" else "")
    if not np.isfinite(values[1:]).all():
        return f"{text} [{of}]"
    return f"{text} [{number(scale * values[1])}, {number(scale * values[2])}; {of}]"


def in_unit(row: Mapping, name: str) -> str:
    """Another number of an endpoint, in the unit of its estimate."""
    scale, unit = _unit(row)
    return number(scale * row[name]) + unit


def percent(value: float) -> str:
    return f"{number(100 * value)} %"


def cell(text: str) -> str:
    """A text inside a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")


def _unit(row: Mapping) -> tuple[float, str]:
    """What an endpoint's numbers are multiplied by, and the unit that they then have.

    Accuracies, errors and shares read better in percent, and their differences in points.
    """
    if row["contrast"] == "share" or ("accuracy" in row["quantity"] and row["contrast"] == "level"):
        return 100, " %"
    if "accuracy" in row["quantity"] and row["contrast"] == "difference":
        return 100, " points"
    return 1, ""


def _with_interval(value: float, low: float, high: float, *, unit: str = "") -> str:
    if not np.isfinite([low, high]).all():
        return f"{number(value)}{unit}"
    return f"{number(value)}{unit} [{number(low)}, {number(high)}]"


def rounded(table: pd.DataFrame) -> pd.DataFrame:
    """A table with seven significant digits, as a published copy has it."""
    numbers = table.select_dtypes("float").columns
    return table.assign(**{name: table[name].map(_seven) for name in numbers})


def _seven(value: float) -> float:
    return float(f"{value:.7g}") if np.isfinite(value) else value
