"""The verdicts on all claims at one glance."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from lossgeo.plots.panels import Files, Tables

ARMS = ("published", "corrected", "controls")
VERDICTS = {  # colour of the cell (of Okabe and Ito), mark, and colour of the mark
    "reproduced": ("#0072B2", "✓", "white"),
    "artefact": ("#000000", "!", "white"),
    "contradicted": ("#D55E00", "✗", "white"),
    "no effect": ("#E69F00", "0", "black"),
    "circular": ("#CC79A7", "↻", "black"),
    "inconclusive": ("#DDDDDD", "?", "black"),
}
NAMES = {"mlp": "MLP", "cnn": "CNN", "sgd": "SGD", "adam": "Adam", "pc1": "PC1"}
# inches: a row, what stands above the rows and below them, the cell of an arm, and places from the
# right end: of n, of the words, of the arms
ROW, ABOVE, BELOW, CELL = 0.19, 0.42, 0.58, 0.21
N, WORDS, CELLS = 0.17, 1.12, 1.82


def verdicts(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """One row per claim: the verdict of each arm as a mark, and the claim's in words.

    As wide as one printed column, and as tall as it has claims.
    """
    claims = tables["verdicts"]
    width, size = style["column_width"], style["font_size"] - 1
    height = ROW * max(len(claims), 1)
    figure = Figure(figsize=(width, ABOVE + height + BELOW))
    figure.set_layout_engine("none")
    axis = figure.add_axes((0, 0, 1, 1))  # of inches
    axis.set(xlim=(0, width), ylim=(height + BELOW, -ABOVE))
    axis.set_axis_off()
    arms = {arm: width - CELLS + number * 1.1 * CELL for number, arm in enumerate(ARMS)}
    for arm, x in arms.items():
        axis.text(x + CELL / 2, -0.04, arm, rotation=35, fontsize=size - 1)
    axis.text(width - N / 2, -0.04, "n", ha="center", fontsize=size - 1)
    for number, claim in enumerate(claims.to_dict("records")):
        y = ROW * number
        if number % 2 == 0:
            axis.add_patch(Rectangle((0, y), width, ROW, color="0.965", lw=0, zorder=0))
        _write(axis, 0.04, y, in_words(claim["claim"]), size, ha="left")
        for arm, x in arms.items():
            _cell(axis, x, y, CELL, claim[arm], "mark", size)
        x = width - WORDS
        _cell(axis, x, y, WORDS - N - 0.05, claim["verdict"], claim["verdict"], size)
        _write(axis, width - N / 2, y, f"{claim['n']:g}", size)
    if claims.empty:
        _write(axis, width / 2, 0, "no claim", size)
    _legend(axis, width, height, size - 1)
    return figure


def in_words(claim: str) -> str:
    """A claim's id as it is read."""
    return " ".join(NAMES.get(word, word) for word in claim.split("-"))


def _cell(
    axis: Axes, x: float, y: float, width: float, verdict: str, text: str, size: float
) -> None:
    """A coloured cell with a text, or the verdict's mark; a dash where an arm has no endpoint."""
    if pd.isna(verdict) or not verdict:
        _write(axis, x + width / 2, y, "–", size, color="0.6")
        return
    colour, mark, ink = VERDICTS[verdict]
    axis.add_patch(Rectangle((x, y + 0.02), width, ROW - 0.04, color=colour, lw=0))
    _write(axis, x + width / 2, y, mark if text == "mark" else text, size, color=ink)


def _write(axis: Axes, x: float, y: float, text: str, size: float, **options) -> None:
    """A text in the middle of the row that begins at y."""
    options = {"ha": "center", "va": "center_baseline", "fontsize": size} | options
    axis.text(x, y + ROW / 2, text, **options)


def _legend(axis: Axes, width: float, height: float, size: float) -> None:
    """What the marks mean, and what an arm and n are."""
    place = width / 3
    for number, verdict in enumerate(VERDICTS):
        x, y = 0.04 + place * (number % 3), height + 0.04 + ROW * (number // 3)
        _cell(axis, x, y, CELL, verdict, "mark", size)
        _write(axis, x + CELL + 0.05, y, verdict, size, ha="left")
    note = "–: no endpoint. n: the fewest seeds, or pairs, of the corrected arm."
    _write(axis, 0.04, height + 0.04 + 2 * ROW, note, size - 0.5, ha="left", color="0.35")
