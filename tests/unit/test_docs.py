"""The pages that are made from the library say what it says; the examples print what pages show."""

import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS))

import api  # noqa: E402
import gallery  # noqa: E402
import yaml  # noqa: E402

import lossgeo  # noqa: E402

NUMBER = re.compile(r"-?\d[\d,]*\.?\d*(?:e[-+]\d+)?")


def test_the_api_page_is_current():
    assert api.PAGE.read_text() == api.markdown(), "make examples writes it again"


@pytest.mark.parametrize("name", [*gallery.PAGES, "three_lines"])
def test_an_example_prints_what_its_page_shows(name, tmp_path):
    done = gallery.run(name, tmp_path)
    if name == "three_lines":
        readme = (gallery.ROOT / "README.md").read_text()
        written, made = readme, gallery.with_three_lines(readme, done)
    else:
        written, made = (gallery.EXAMPLES / f"{name}.md").read_text(), gallery.page(done)
    assert NUMBER.sub("#", made) == NUMBER.sub("#", written), "make examples writes it again"
    for cell in done:
        for figure in cell.figures:
            assert (tmp_path / figure).stat().st_size > 5000
            assert (gallery.EXAMPLES / figure).exists()


@pytest.mark.parametrize("name", gallery.PAGES)
def test_a_notebook_has_the_cells_of_its_example(name):
    written = (gallery.EXAMPLES / f"{name}.ipynb").read_text()
    assert written == gallery.notebook(name), "make examples writes it again"


def test_the_citation_has_the_librarys_version():
    cited = yaml.safe_load((gallery.ROOT / "CITATION.cff").read_text())["version"]
    assert cited == lossgeo.__version__
