"""A registry of claims as it is written: what it refers to, and what is wrong with it.

Plain Python, as `study`: the workflow reads it on every call.
"""

import csv
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from lossgeo.checks import ConfigError, read_yaml, validate

ARMS = ("published", "corrected", "controls")
EFFECTS = {  # the smallest effect of a contrast whose endpoint names none
    "ratio": "ratio",
    "slope": "ratio",
    "range": "ratio",
    "tau": "tau",
    "gain": "gain",
}
WITHOUT_EFFECT = ("share", "range")  # contrasts that are judged without a smallest effect


def load(path: str, schema: Path | str, tables: Collection[str]) -> dict[str, Any]:
    """The registry in a file, checked; `tables` are all that a study can have.

    Raises ConfigError: a line that begins with the file, or with the config's key if it is none.
    """
    try:
        found = read_yaml(path, "registry")
    except ConfigError as error:
        raise ConfigError(f"config key claims: found {path!r}, but {error}") from None
    try:
        registry = validate(found, schema, "registry")
        check(registry, tables, known_columns())
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return registry


def endpoints(registry: Mapping) -> Iterator[tuple[str, Mapping]]:
    """Every endpoint, with the key under which it stands."""
    for name, claim in registry["claims"].items():
        for arm in ARMS:
            for number, endpoint in enumerate(claim.get(arm, [])):
                yield f"claims.{name}.{arm}.{number}", endpoint


def tables_of(registry: Mapping) -> list[str]:
    """The tables that the quantities are columns of; `runs` always, which knows widths."""
    found = [spec["table"] for spec in registry["quantities"].values() if "table" in spec]
    return list(dict.fromkeys([*found, "runs"]))


def quantities_of(endpoint: Mapping) -> list[str]:
    """The quantities that an endpoint names."""
    return [
        endpoint["quantity"],
        *([endpoint["with"]] if "with" in endpoint else []),
        *endpoint.get("from", []),
        *endpoint.get("beyond", []),
    ]


def check(registry: Mapping, tables: Collection[str], columns: Collection[str]) -> None:
    """Raise ConfigError for a name that leads nowhere; `tables` are all that a study can have."""
    quantities = registry["quantities"]
    for name, spec in quantities.items():
        key = f"registry key quantities.{name}"
        for part in spec.get("over", []):
            if "over" in quantities.get(part, {"over": part}):
                raise ConfigError(
                    f"{key}.over: found {part!r}, expected a quantity that is a column of a table"
                )
        if "table" not in spec:
            continue
        if spec["table"] not in tables:
            raise ConfigError(
                f"{key}.table: found {spec['table']!r}, expected one of: {', '.join(tables)}"
            )
        for entry in (spec["column"], *([spec["minus"]] if "minus" in spec else ())):
            if entry not in columns:
                raise ConfigError(
                    f"{key}: found the column {entry!r}, which no table has; dictionary.csv "
                    "lists them"
                )
    for key, endpoint in endpoints(registry):
        for name in quantities_of(endpoint):
            if name not in quantities:
                raise ConfigError(
                    f"registry key {key}: found the quantity {name!r}, expected one of: "
                    f"{', '.join(quantities)}"
                )
        contrast = endpoint["contrast"]
        named = endpoint.get("smallest_effect", EFFECTS.get(contrast))
        if contrast in WITHOUT_EFFECT or isinstance(named, int | float):
            continue
        if named not in registry["smallest_effects"]:
            raise ConfigError(
                f"registry key {key}.smallest_effect: found {named!r}, expected a number, or one "
                f"of: {', '.join(registry['smallest_effects'])}"
            )


def known_columns() -> list[str]:
    """Every column that a table can have."""
    with open(Path(__file__).with_name("columns.csv"), newline="") as file:
        return [row["column"] for row in csv.DictReader(file)]
