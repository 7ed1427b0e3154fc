"""Write config/README.md: every key of the config, as the schema describes it.

python docs/keys.py
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"
PAGE = ROOT / "config" / "README.md"
HEAD = """# The config

`config.yaml` beside the `Snakefile` is the study. `config/config.yaml` and `config/mine.py` are a
small study of one model on data of its own, commented: `make new NAME=mine` writes both under a
name of yours, and `snakedeploy deploy-workflow` brings them. A file given by `--configfile`, or the
`config` of a `module:`, is an overlay of the study's config: it replaces single keys, and where it
lists experiments keeps those alone.

These are all keys, with their defaults where they are left out; `*` is a name of yours. Whatever is
wrong with one is said in one line before any job starts. This page is written by
`python docs/keys.py` from `workflow/schemas/config.schema.yaml`.
"""


def page(schema: Mapping) -> str:
    """The whole page: a section for each key of the top level."""
    text = HEAD
    for name, spec in schema["properties"].items():
        text += f"\n## `{name}`\n\n{describe(spec, schema)}\n"
        rows = list(below(spec, schema))
        if rows:
            text += "\n| key | meaning | default |\n|---|---|---|\n"
            text += "".join(f"| `{key}` | {what} | {default} |\n" for key, what, default in rows)
    return text


def describe(spec: Mapping, schema: Mapping) -> str:
    """A key's description as a sentence, with its default where that is a plain value."""
    spec = resolved(spec, schema)
    text = " ".join(spec.get("description", "").split())
    default = default_of(spec)
    return f"{text[:1].upper()}{text[1:]}." + (f" Default: {default}." if default else "")


def below(spec: Mapping, schema: Mapping, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Key, meaning and default of what is under a key; `*` is a name of the user's."""
    spec = resolved(spec, schema)
    entries = [item for part in parts_of(spec) for item in part.get("properties", {}).items()]
    named = {name: entry for name, entry in entries if entry}  # {}: described by another part
    if isinstance(spec.get("additionalProperties"), Mapping):
        yield from below(spec["additionalProperties"], schema, f"{prefix}*.")
    for name, entry in named.items():
        entry = resolved(entry, schema)
        what = entry.get("description", ", ".join(map(str, entry.get("enum", ()))))
        what = " ".join(what.split()).replace("|", "\\|")
        yield f"{prefix}{name}", what, default_of(entry)
        if "properties" in entry:
            yield from below(entry, schema, f"{prefix}{name}.")


def parts_of(spec: Mapping) -> Iterator[Mapping]:
    """A part of the schema, and what it is under each of its conditions."""
    yield spec
    for branch in (spec.get("then", {}), spec.get("else", {}), *spec.get("anyOf", ())):
        yield from parts_of(branch) if branch else ()


def resolved(spec: Mapping, schema: Mapping) -> dict:
    """A part of the schema with what it refers to; its own keys count."""
    if "$ref" not in spec:
        return dict(spec)
    return resolved(schema["$defs"][spec["$ref"].rpartition("/")[2]], schema) | dict(spec)


def default_of(spec: Mapping) -> str:
    """A default as JSON in code; none for a section, whose keys have their own."""
    if "default" not in spec or spec["default"] == {}:
        return ""
    return f"`{json.dumps(spec['default'])}`"


def main() -> None:
    PAGE.write_text(page(yaml.safe_load(SCHEMA.read_text())))


if __name__ == "__main__":
    main()
