"""What a job may take: memory and time, from what jobs of its kind took.

Schedulers set aside what a job asks for, and end it where it takes more. So it asks for more than
is expected (MEMORY, TIME: other machines, other libraries), and for as much again on every retry.

Plain Python: the workflow imports it on every call, so it must not import torch.
"""

import csv
import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from lossgeo import operations
from lossgeo.data import MNIST, Contents

MEMORY, TIME = 1.5, 4.0  # times what is expected
LEAST_MB, LEAST_MINUTES = 1000, 10


class Rate(NamedTuple):
    """What jobs of a rule took, for one family of models: see `costs.fit`."""

    overhead_s: float
    seconds_per_teraop: float
    peak_mb: float
    operations: float  # of the largest job that was measured


Rates = dict[str, dict[str, Rate]]  # rule -> family ("": of no model) -> rate


def read_rates(path: Path | str) -> Rates:
    """The rates in a CSV file, as `benchmarks/costs.py` writes them."""
    rates: Rates = {}
    with open(path, newline="") as file:
        for row in csv.DictReader(file):
            numbers = (float(row[name] or "nan") for name in Rate._fields)
            rates.setdefault(row["rule"], {})[row["family"]] = Rate(*numbers)
    return rates


def memory(
    rates: Rates, rule: str, section: Mapping | None, attempt: int, contents: Contents = MNIST
) -> int:
    """Megabytes that a job may take at its first, second, ... attempt.

    `section` is its section of the config, None for rules without a model, and `contents` what its
    data hold: larger inputs are added to what was measured on MNIST. A family that was not
    measured, and a user's model, count as the largest that was; and so does a job that is larger
    than any that was: a retry (`retries` of a profile) gets it more.
    """
    peak = max((rate.peak_mb for rate in _rates(rates, rule, section)), default=0.0)
    peak += operations.more_mb(rule, section, contents) if section else 0.0
    return _up(max(LEAST_MB, MEMORY * peak) * attempt, 100)


def minutes(
    rates: Rates, rule: str, section: Mapping | None, attempt: int, contents: Contents = MNIST
) -> int:
    """Minutes that a job may take: see `memory`."""
    expected = seconds(rates, rule, section, contents)
    return _up(max(LEAST_MINUTES, TIME * expected / 60) * attempt, 5)


def seconds(rates: Rates, rule: str, section: Mapping | None, contents: Contents = MNIST) -> float:
    """Core-seconds that are expected of a job: see `memory`; of a rule without rates one."""
    work = operations.work(rule, section, contents) if section else 0.0
    return max(
        (
            rate.overhead_s
            + rate.seconds_per_teraop * (rate.operations if math.isnan(work) else work) / 1e12
            for rate in _rates(rates, rule, section)
        ),
        default=1.0,
    )


def _rates(rates: Rates, rule: str, section: Mapping | None) -> list[Rate]:
    """That of the job's family, or all of its rule."""
    name = "figure" if rule.startswith("figure_") else rule
    of_rule = rates.get(name, {})
    family = operations.family(section) if section else ""
    return [of_rule[family]] if family in of_rule else list(of_rule.values())


def _up(number: float, step: int) -> int:
    """A number rounded up to a multiple."""
    return step * math.ceil(number / step)
