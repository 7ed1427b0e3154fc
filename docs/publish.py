"""Take a study's page into the repository: to docs/study, and its answers to the README."""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MARKS = ("<!-- study: written by make publish -->\n", "<!-- /study -->\n")


def main(study: Path) -> None:
    pages = ROOT / "docs" / "study"
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(study, pages, ignore=shutil.ignore_patterns("answers.md", ".*"))
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(MARKS[0])
    after = rest.split(MARKS[1])[1]
    readme.write_text(before + MARKS[0] + (study / "answers.md").read_text() + MARKS[1] + after)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
