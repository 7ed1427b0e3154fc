"""A forest plot of every endpoint of every claim."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from lossgeo.plots.panels import COLOURS, Files, Tables, in_order, with_note
from lossgeo.plots.rungs import nothing
from lossgeo.plots.verdicts import VERDICTS, in_words

ARM_STYLES = {  # arm -> colour and marker
    "published": (COLOURS[1], "s"),
    "corrected": (COLOURS[0], "o"),
    "controls": (COLOURS[2], "D"),
}
NUMBERS, N = 1.3, 0.16  # inches of a column: the estimate with its interval, and n
LINE = 1.18  # height of a line, in font sizes
HEADING, GAP = 1.2, 0.35  # of a claim, in lines
ABOVE, BELOW = 0.36, 0.2  # inches: legend and header; axis
LONGEST = 60  # lines of a single column


class Row(NamedTuple):
    """One endpoint's place."""

    y: float  # lines from the top of its column
    endpoint: dict


class Block(NamedTuple):
    """A claim's place: where its heading is, its rows, and the labels that rows share."""

    claim: str
    verdict: str
    top: float
    rows: list[Row]
    labels: list[tuple[float, list[str]]]  # middle, lines of text
    bottom: float


def forest(tables: Tables, files: Files, experiment: Mapping, style: Mapping) -> Figure:
    """Estimates in smallest effects towards the claimed side, with their numbers, claim by claim.

    Parts that several arms have are told once, and the arms are side by side. Columns `scaled`,
    `scaled_low` and `scaled_high` of the table `endpoints` are drawn, `estimate`, `low` and `high`
    printed.
    """
    endpoints, claims = tables["endpoints"], tables["verdicts"]
    if endpoints.empty:
        return nothing(style, "no claim has an endpoint")
    size = style["font_size"] - 2
    width = 2.1 * style["column_width"]
    count = 1 if len(endpoints) + 1.8 * len(claims) <= LONGEST else 2
    column = (width - 0.2 * (count - 1) - 0.04) / count
    plot = 0.42 * (column - NUMBERS - N)
    label = column - NUMBERS - N - plot - 0.08
    letters = int(label * 72 / (0.52 * size))
    columns = _columns(_blocks(endpoints, claims, letters), count)
    lines = max(blocks[-1].bottom for blocks in columns)
    height = lines * LINE * size / 72
    note = _note(endpoints)
    small = (style["font_size"] - 1.5) / 72  # of the note, inches
    below = BELOW + 1.35 * small * math.ceil(len(note) * 0.56 * small / width + 0.3)
    total = ABOVE + height + below
    figure = Figure(figsize=(width, total))
    figure.set_layout_engine("none")
    reach = _reach(endpoints)
    for number, blocks in enumerate(columns):
        left = 0.02 + number * (column + 0.2) + label
        axis = figure.add_axes((left / width, below / total, plot / width, height / total))
        axis.set_ylim(lines, 0)
        _scale(axis, reach, size)
        for block in blocks:
            _draw(axis, block, (-label / plot, 1 + 0.06 / plot, 1 + (NUMBERS + N) / plot), size)
        axis.annotate("n", (1 + (NUMBERS + N) / plot, 1), **_header(axis.transAxes, 0, size))
    handles = [
        Line2D([], [], color=colour, marker=marker, lw=0.9, ms=3.5)
        for colour, marker in ARM_STYLES.values()
    ]
    figure.legend(handles, ARM_STYLES, loc="upper center", ncols=len(handles), borderaxespad=0.1)
    return with_note(figure, style, note)


def _blocks(endpoints: pd.DataFrame, claims: pd.DataFrame, letters: int) -> list[Block]:
    """Every claim, from the top of its own; labels are at most so many letters wide."""
    verdicts = dict(zip(claims["claim"], claims["verdict"], strict=True))
    blocks = []
    for claim, rows in endpoints.groupby("claim", sort=False):
        placed, labels, y = [], [], HEADING
        for part in in_order(rows["part"]):
            of_part = rows[rows["part"] == part].to_dict("records")
            text = textwrap.wrap(part, letters)
            taken = max(len(of_part), 0.9 * len(text) + 0.15)
            first = y + (taken - len(of_part) + 1) / 2
            placed += [Row(first + number, endpoint) for number, endpoint in enumerate(of_part)]
            labels.append((y + taken / 2, text))
            y += taken
        blocks.append(Block(claim, verdicts.get(claim, ""), 0, placed, labels, y + GAP))
    return blocks


def _columns(blocks: Sequence[Block], count: int) -> list[list[Block]]:
    """The blocks one below the other; in two columns, which are as short as they can be."""
    heights = np.array([block.bottom for block in blocks])
    if count == 1 or len(blocks) == 1:
        return [_stacked(blocks)]
    split = min(range(1, len(blocks)), key=lambda at: max(heights[:at].sum(), heights[at:].sum()))
    return [_stacked(blocks[:split]), _stacked(blocks[split:])]


def _stacked(blocks: Sequence[Block]) -> list[Block]:
    found, top = [], 0.0
    for block in blocks:
        rows = [Row(top + row.y, row.endpoint) for row in block.rows]
        labels = [(top + y, text) for y, text in block.labels]
        bottom = top + block.bottom
        found.append(block._replace(top=top, rows=rows, labels=labels, bottom=bottom))
        top = bottom
    return found


def _reach(endpoints: pd.DataFrame) -> float:
    """How far the axis goes to both sides, in smallest effects."""
    values = endpoints[["scaled", "scaled_low", "scaled_high"]].to_numpy(float)
    return max(3.0, 1.3 * np.max(np.abs(values[np.isfinite(values)]), initial=0))


def _scale(axis: Axes, reach: float, size: float) -> None:
    """The axis of smallest effects, with its band and what its ends mean."""
    axis.set_xscale("symlog", linthresh=1, linscale=0.7)
    axis.set_xlim(-reach, reach)
    decades = 10.0 ** np.arange(0, math.floor(math.log10(reach)) + 1)
    axis.xaxis.set_major_locator(FixedLocator([*-decades[::-1], 0, *decades]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}".replace("-", "−")))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.tick_params("x", labelsize=size, pad=1, length=2)
    axis.set_yticks([])
    axis.spines[["left", "top"]].set_visible(False)
    axis.axvspan(-1, 1, color="0.92", lw=0, zorder=0)
    axis.axvline(0, color="0.5", lw=0.6, zorder=0.5)
    at_zero = axis.get_xaxis_transform()
    axis.annotate("← the other way", (0, 1), **_header(at_zero, -4, size))
    axis.annotate("as claimed →", (0, 1), **_header(at_zero, 4, size) | {"ha": "left"})


def _header(coordinates, shift: float, size: float) -> dict:
    """How a column's head is written: so many points beside a place on the panel's upper edge."""
    return {
        "xycoords": coordinates,
        "xytext": (shift, 2),
        "textcoords": "offset points",
        "ha": "right",
        "fontsize": size,
        "color": "0.35",
    }


def _draw(axis: Axes, block: Block, places: tuple[float, float, float], size: float) -> None:
    """A claim's heading, labels, marks and numbers; `places`: left end, numbers, right end."""
    left, numbers, right = places
    beside = axis.get_yaxis_transform()  # x as a share of the panel, y in lines
    colour, mark, _ = VERDICTS.get(block.verdict, ("0.5", "", ""))
    if block.verdict == "inconclusive":
        colour = "0.45"
    middle = block.top + HEADING / 2
    options = {"transform": beside, "va": "center_baseline", "fontsize": size}
    axis.text(left, middle, in_words(block.claim), weight="bold", **options)
    words = f"{mark} {block.verdict}".strip()
    axis.text(right, middle, words, weight="bold", color=colour, ha="right", **options)
    line = block.top + HEADING - 0.15
    axis.plot([left, right], [line] * 2, transform=beside, color="0.75", lw=0.4, clip_on=False)
    for y, text in block.labels:
        axis.text(left, y, "\n".join(text), **options | {"va": "center", "linespacing": 0.92})
    for arm in ARM_STYLES:
        _marks(axis, [row for row in block.rows if row.endpoint["arm"] == arm], arm)
    for y, endpoint in block.rows:
        known = np.isfinite(endpoint["estimate"])
        axis.text(numbers, y, in_numbers(endpoint), color="black" if known else "0.6", **options)
        if known:
            axis.text(right, y, f"{endpoint['n']:g}", ha="right", **options)
            _target(axis, y, endpoint["side"])


def _marks(axis: Axes, rows: Sequence[Row], arm: str) -> None:
    """One arm's estimates and intervals; hollow where the design has set them."""
    rows = [row for row in rows if np.isfinite(row.endpoint["scaled"])]
    if not rows:
        return
    colour, marker = ARM_STYLES[arm]
    found = pd.DataFrame([row.endpoint for row in rows])
    bars = np.stack([found["scaled"] - found["scaled_low"], found["scaled_high"] - found["scaled"]])
    axis.errorbar(
        found["scaled"],
        [row.y for row in rows],
        xerr=np.nan_to_num(bars),
        fmt=marker,
        color=colour,
        ms=2.8,
        elinewidth=0.9,
        label=arm,
    )
    for y, endpoint in rows:
        if endpoint["verdict"] == "circular":
            axis.plot(endpoint["scaled"], y, marker, color=colour, mfc="white", ms=2.8, zorder=3)


def _target(axis: Axes, y: float, side: str) -> None:
    """Where an endpoint is claimed to lie that is not claimed to lie to one side."""
    if side == "within":
        axis.add_patch(Rectangle((-1, y - 0.5), 2, 1, color="0.8", lw=0, aa=False, zorder=0.2))
    if side == "range":
        axis.plot([0, 0], [y - 0.5, y + 0.5], color="black", lw=1.4, zorder=0.6)


def in_numbers(endpoint: Mapping) -> str:
    """The estimate with its interval, to as many digits as that leaves it."""
    estimate, low, high = (endpoint[name] for name in ("estimate", "low", "high"))
    if not np.isfinite(estimate):
        return "no data"
    sides = [side for side in (estimate - low, high - estimate) if side > 0]
    text = "{:.3g}"
    if sides:
        digits = -math.floor(math.log10(min(sides)))
        digits += min(sides) * 10**digits < 3  # as 12.3 [10.1, 14.9], and 1.25 [1.20, 1.31]
        text = f"{{:.{min(max(digits, 0), 4)}f}}"
    shown = text.format(estimate)
    if np.isfinite(low):
        shown += f" [{text.format(low)}, {text.format(high)}]"
    return shown.replace("-", "−")


def _note(endpoints: pd.DataFrame) -> str:
    """What the axis, the intervals and the marks are."""
    sizes: dict[str, list[str]] = {}
    judged = endpoints[endpoints["smallest_effect"] > 0]
    for contrast, rows in judged.groupby("contrast", sort=False):
        values = " or ".join(
            f"{value:g}" for value in sorted(set(rows["smallest_effect"].round(9)))
        )
        sizes.setdefault(values, []).append(contrast)
    smallest = "; ".join(f"{', '.join(names)} {values}" for values, names in sizes.items())
    note = "Distance from no effect, in smallest effects, towards the claimed side"
    note += f" ({smallest})" if smallest else ""
    note += "; linear within the grey band, where an effect is too small to count. "
    if (endpoints["contrast"] == "share").any():
        note += "Shares of pairs have no band: 0 is the share that was claimed, 1 all of them. "
    if (endpoints["side"] == "within").any():
        note += "Dark grey: an endpoint that is claimed to lie within the band. "
    if (endpoints["side"] == "range").any():
        note += "Black line: a value that is claimed to lie in the range of the seeds. "
    if (endpoints["verdict"] == "circular").any():
        note += "Hollow: set by the design, the same for all seeds. "
    kinds = [kind for kind in in_order(endpoints["interval"]) if kind != "none"]
    intervals = ", ".join("range of the seeds" if kind == "range" else kind for kind in kinds)
    if kinds:
        note += f"Bars: 95 % intervals ({intervals}). "
    return note + "n: independent values: seeds, disjoint pairs of seeds, or models."
