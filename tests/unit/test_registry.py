"""A registry of claims that is wrong is told where, in one line."""

from pathlib import Path

import pytest
import yaml

from lossgeo import registry
from lossgeo.checks import ConfigError

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "workflow" / "schemas" / "claims.schema.yaml"
TABLES = sorted(
    {
        spec["table"]
        for spec in yaml.safe_load((ROOT / "claims.yaml").read_text())["quantities"].values()
        if "table" in spec
    }
)


@pytest.fixture
def refused(tmp_path, monkeypatch):
    """What is said of a registry in a file."""
    monkeypatch.chdir(tmp_path)

    def refuse(text: str) -> str:
        Path("mine.yaml").write_text(text)
        with pytest.raises(ConfigError) as raised:
            registry.load("mine.yaml", SCHEMA, TABLES)
        assert "\n" not in str(raised.value)
        return str(raised.value)

    return refuse


def put(path: str, value):
    """A change of a registry: the key at a path gets a value."""

    def change(found: dict) -> None:
        *parents, last = path.split("/")
        for parent in parents:
            found = found[parent]
        found[last] = value

    return change


SHARPEST = "claims/sgd-sharpest/corrected"
BAD_CLAIMS = {
    "unknown key": (put("claims/sgd-sharpest/armed", []), ["claims.sgd-sharpest.armed", "needs"]),
    "no endpoint": (put(SHARPEST, []), ["claims.sgd-sharpest.corrected", "[]"]),
    "unknown contrast": (
        put(SHARPEST, [{"part": "p", "contrast": "odds", "quantity": "eigenvalue"}]),
        ["claims.sgd-sharpest.corrected.0.contrast", "'odds'", "ratio"],
    ),
    "half a ratio": (
        put(SHARPEST, [{"part": "p", "contrast": "ratio", "quantity": "eigenvalue", "of": "a/b"}]),
        ["claims.sgd-sharpest.corrected.0", "'to'"],
    ),
    "no section": (put("claims", 5), ["claims: found 5", "object"]),
    "a name that is no text": (
        lambda found: found["claims"].update({1: 5}),
        ["claims: found a name that YAML does not read as text, 1"],
    ),
    "a limit that is not a number": (
        put("smallest_effects", {"tau": float("nan")}),
        ["smallest_effects.tau: found nan", "finite"],
    ),
    "unknown table": (
        put("quantities/gap/table", "run"),
        ["quantities.gap.table", "'run'", "runs"],
    ),
}


@pytest.mark.parametrize("name", BAD_CLAIMS)
def test_a_bad_registry_is_named_with_file_and_key(refused, name):
    change, expected = BAD_CLAIMS[name]
    found = yaml.safe_load((ROOT / "claims.yaml").read_text())
    change(found)
    message = refused(yaml.safe_dump(found))
    for part in ("mine.yaml: registry key", *expected):
        assert part in message, f"{part!r} is not in: {message}"


def test_a_claim_that_is_there_twice_is_named(refused):
    message = refused("quantities: {}\nclaims: {}\nquantities: {}\n")
    assert "registry key quantities: found twice in mine.yaml, in lines 1 and 3" in message


def test_a_registry_that_is_not_there_or_no_text_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("image").write_bytes(b"\x89PNG\xff")
    for path in ("nowhere.yaml", "folder", "image"):
        with pytest.raises(ConfigError, match=f"^config key claims: found '{path}'.*read"):
            registry.load(path, SCHEMA, TABLES)


def test_our_registry_is_loaded_as_it_is_written():
    found = registry.load(str(ROOT / "claims.yaml"), SCHEMA, TABLES)
    assert found == yaml.safe_load((ROOT / "claims.yaml").read_text())
