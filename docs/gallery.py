"""The examples' pages, and the README's "In three lines": each is run, and shows what it printed.

    python docs/gallery.py

An example is a Python script in cells (`# %%`, `# %% [markdown]`); its page has the prose, the
code, what every cell printed, and the figures it left open. Its notebook has the cells alone.
"""

import contextlib
import io
import json
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")

import torch
from matplotlib import pyplot

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
PAGES = ("plane", "barrier", "parts")
START, END = "<!-- three lines: written by make examples -->\n", "<!-- /three lines -->"


class Cell(NamedTuple):
    """A piece of an example, what it printed, and the names of its figures."""

    source: str
    prose: bool
    output: str = ""
    figures: tuple[str, ...] = ()


def cells(source: str) -> Iterator[Cell]:
    """The cells of an example."""
    for kind, body in re.findall(r"^# %%(.*)\n((?:(?!# %%).*\n?)*)", source, flags=re.MULTILINE):
        prose = "[markdown]" in kind
        if prose:
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        yield Cell(body.strip(), prose)


def run(name: str, folder: Path) -> list[Cell]:
    """The cells of an example with what they printed; figures are written into a folder."""
    namespace: dict = {"__name__": "__main__"}
    done = []
    sys.path.insert(0, str(EXAMPLES))
    try:
        for cell in cells((EXAMPLES / f"{name}.py").read_text()):
            printed = io.StringIO()
            if not cell.prose:
                with contextlib.redirect_stdout(printed):
                    exec(compile(cell.source, f"{name}.py", "exec"), namespace)
            figures = []
            for number in pyplot.get_fignums():
                figures.append(f"{name}{len(figures) or ''}.png")
                pyplot.figure(number).savefig(folder / figures[-1], dpi=150)
            pyplot.close("all")
            done.append(cell._replace(output=printed.getvalue(), figures=tuple(figures)))
    finally:
        sys.path.remove(str(EXAMPLES))
    return done


def page(done: list[Cell], where: str = "") -> str:
    """Markdown of an example that was run; its figures lie in the folder `where`."""
    parts = []
    for cell in done:
        parts.append(cell.source if cell.prose else f"```python\n{cell.source}\n```")
        if cell.output:
            parts.append(f"```text\n{cell.output.rstrip()}\n```")
        parts += [f"![]({where}{figure})" for figure in cell.figures]
    return "\n\n".join(parts) + "\n"


def notebook(name: str) -> str:
    """The cells of an example as a Jupyter notebook (format 4.5) that has not been run."""
    made: list[dict] = []
    for cell in cells((EXAMPLES / f"{name}.py").read_text()):
        made.append(
            {"cell_type": "markdown" if cell.prose else "code", "id": f"{name}-{len(made)}"}
            | {"metadata": {}, "source": cell.source.splitlines(keepends=True)}
            | ({} if cell.prose else {"execution_count": None, "outputs": []})
        )
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": made}
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def with_three_lines(readme: str, done: list[Cell]) -> str:
    """The README with the last cell of `three_lines` and what it printed between its marks."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}{page(done[-1:], 'docs/examples/')}{END}{after}"


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    for name in PAGES:
        (EXAMPLES / f"{name}.md").write_text(page(run(name, EXAMPLES)))
        (EXAMPLES / f"{name}.ipynb").write_text(notebook(name))
    readme = ROOT / "README.md"
    done = run("three_lines", EXAMPLES)
    readme.write_text(with_three_lines(readme.read_text(), done))


if __name__ == "__main__":
    main()
