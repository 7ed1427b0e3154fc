"""Write the config of a study of your own, the module with its network and data, and its claims.

    python scripts/new.py mine    # mine.yaml, mine.py and mine.claims.yaml, here

They are config.yaml, mine.py and claims.yaml of the folder config/, under another name.
"""

import argparse
import importlib.util
import keyword
import re
import sys
from pathlib import Path

TEMPLATES = Path(__file__).parents[1] / "config"
FILES = {"config.yaml": "{}.yaml", "mine.py": "{}.py", "claims.yaml": "{}.claims.yaml"}
NEXT = """wrote {0}.yaml, {0}.py and {0}.claims.yaml. They run as they are.

    snakemake -n --configfile {0}.yaml                  # what would be done
    make estimate CONFIG="--configfile {0}.yaml"        # what it will cost
    snakemake --cores 2 --configfile {0}.yaml           # does it: results/{0}
    snakemake --configfile {0}.yaml --report {0}.html   # figures and tables on one page

snakemake is .venv/bin/snakemake where the environment is not activated."""


def write_study(name: str, folder: Path) -> None:
    """Write the three files of a study to a folder, or exit with one line."""
    if wrong := fault(name, folder):
        sys.exit(f"NAME: found {name!r}, {wrong}")
    for template, file in FILES.items():
        text = (TEMPLATES / template).read_text(encoding="utf-8")
        text = text.replace("config/claims.yaml", "mine.claims.yaml")
        text = re.sub(r"\bmine\b", name, text)
        (folder / file.format(name)).write_text(text, encoding="utf-8")


def fault(name: str, folder: Path) -> str | None:
    """What is wrong with the name of a study, if anything is."""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) or keyword.iskeyword(name):
        return "expected a letter, then letters, digits and underscores: a module has that name"
    if name.lower() in ("na", "nan", "null", "none"):
        return "which tables take for a missing value; take another name"
    for taken in (*(file.format(name) for file in FILES.values()), name):
        if (folder / taken).exists():
            return f"but {taken} is there already, and is left as it is; take another name"
    if importlib.util.find_spec(name) is not None:
        return "which is a Python module already, and would be hidden; take another name"
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="of the study, of its model and of its files")
    name = parser.parse_args().name
    write_study(name, Path.cwd())
    print(NEXT.format(name))


if __name__ == "__main__":
    main()
