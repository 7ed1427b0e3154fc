"""The figures of verdicts show what the tables of endpoints and verdicts say."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from lossgeo.plots.forest import ARM_STYLES, in_numbers
from lossgeo.plots.verdicts import VERDICTS
from lossgeo.verdicts import ENDPOINTS

from .artefacts import NAN
from .test_plots import STYLE, drawn, figure_of, saved, words

DEFAULTS = {"arm": "corrected", "contrast": "ratio", "interval": "t", "n": 5, "side": "above"}
DEFAULTS |= {"reference": 1.0, "smallest_effect": 1.25, "verdict": "inconclusive", "quantity": "x"}


def endpoint(claim: str, part: str, scaled: tuple, own: tuple, **values) -> dict:
    """A row of `endpoints`: estimate, low and high in smallest effects and on their own scale."""
    names = ("scaled", "scaled_low", "scaled_high"), ("estimate", "low", "high")
    numbers = {
        name: value
        for of_scale, found in zip(names, (scaled, own), strict=True)
        for name, value in zip(of_scale, found, strict=True)
    }
    return DEFAULTS | {"claim": claim, "part": part} | numbers | values


def tables_of(rows: list[dict], verdicts: dict[str, tuple]) -> dict[str, pd.DataFrame]:
    """Both tables; `verdicts` are claim -> (published, corrected, controls, verdict, n)."""
    columns = ["claim", "published", "corrected", "controls", "verdict", "n"]
    claims = pd.DataFrame([(claim, *of_claim) for claim, of_claim in verdicts.items()])
    claims = claims.set_axis(columns, axis=1) if len(claims) else pd.DataFrame(columns=columns)
    return {"endpoints": pd.DataFrame(rows, columns=ENDPOINTS), "verdicts": claims}


ROWS = [
    endpoint("cnn-sharp", "small", (3, 2, 5), (1.9, 1.5, 3.0), arm="published", n=10),
    endpoint("cnn-sharp", "wide", (20, 12, 30), (87, 15, 808), arm="published"),
    endpoint("cnn-sharp", "small", (-0.5, -1.5, 0.5), (0.894, 0.715, 1.118)),
    endpoint("cnn-sharp", "gone", (NAN,) * 3, (NAN,) * 3, arm="controls", n=0, interval="none"),
    endpoint("pc1-levels", "one", (1, NAN, NAN), (0.981, NAN, NAN), n=1, side="within"),
    endpoint("pc1-levels", "set", (2, 2, 2), (0.5, 0.5, 0.5), verdict="circular", side="range"),
]
CLAIMS = {
    "cnn-sharp": ("reproduced", "no effect", "inconclusive", "artefact", 5),
    "pc1-levels": (NAN, "circular", NAN, "circular", 1),
}


def forest_of(rows=ROWS, claims=CLAIMS):
    return figure_of("forest", tables_of(rows, claims), [], {}, STYLE)


def rows_of(axis) -> dict[float, dict]:
    """Height of a line -> the texts that are on it, from left to right."""
    found: dict[float, list] = {}
    for text in axis.texts:
        found.setdefault(round(text.get_position()[1], 6), []).append(text)
    return {
        y: [text.get_text() for text in sorted(texts, key=lambda text: text.get_position()[0])]
        for y, texts in found.items()
    }


def marks_of(axis, arm: str) -> tuple[np.ndarray, np.ndarray]:
    """Points (n, 2) of an arm, and the ends (n, 2) of their bars."""
    found = [c.lines for c in axis.containers if c.get_label() == arm]
    ends = [segment[:, 0] for *_, (bars,) in found for segment in bars.get_segments()]
    return np.concatenate([points.get_xydata() for points, *_ in found]), np.array(ends)


def test_estimates_stand_where_the_table_says_with_their_intervals():
    axis = forest_of().axes[0]
    points, ends = marks_of(axis, "published")
    np.testing.assert_array_equal(points[:, 0], [3, 20])
    np.testing.assert_allclose(ends, [[2, 5], [12, 30]])
    points, ends = marks_of(axis, "corrected")
    np.testing.assert_array_equal(points[:, 0], [-0.5, 1, 2])
    np.testing.assert_allclose(ends, [[-1.5, 0.5], [1, 1], [2, 2]])
    assert "controls" not in {c.get_label() for c in axis.containers}


def test_beside_each_mark_stand_its_numbers_and_n():
    axis = forest_of().axes[0]
    texts = rows_of(axis)
    for arm, expected in {
        "published": [["1.9 [1.5, 3.0]", "10"], ["87 [15, 808]", "5"]],
        "corrected": [["0.89 [0.71, 1.12]", "5"], ["0.981", "1"], ["0.5 [0.5, 0.5]", "5"]],
    }.items():
        heights = marks_of(axis, arm)[0][:, 1]
        assert [texts[round(y, 6)][-2:] for y in heights] == expected


def test_arms_of_one_part_share_its_label_side_by_side():
    axis = forest_of().axes[0]
    (small,) = (text for text in axis.texts if text.get_text() == "small")
    published, _ = marks_of(axis, "published")
    corrected, _ = marks_of(axis, "corrected")
    heights = published[0, 1], corrected[0, 1]
    assert corrected[0, 1] - published[0, 1] == pytest.approx(1)
    assert small.get_position()[1] == pytest.approx(np.mean(heights))
    colours = [c.lines[0].get_color() for c in axis.containers]
    assert colours[:2] == [ARM_STYLES[arm][0] for arm in ("published", "corrected")]


def test_what_has_no_data_says_so_in_grey_and_has_no_mark():
    axis = forest_of().axes[0]
    (none,) = (text for text in axis.texts if text.get_text() == "no data")
    assert none.get_color() == "0.6"
    y = none.get_position()[1]
    assert all(y not in marks_of(axis, arm)[0][:, 1] for arm in ("published", "corrected"))


def test_every_claim_has_its_verdict_in_words():
    found = list(rows_of(forest_of().axes[0]).values())
    assert ["CNN sharp", "! artefact"] in found
    assert ["PC1 levels", "↻ circular"] in found


def test_what_the_design_has_set_is_hollow():
    axis = forest_of().axes[0]
    hollow = [line for line in axis.lines if line.get_markerfacecolor() == "white"]
    assert [line.get_xdata()[0] for line in hollow] == [2]
    assert "Hollow: set by the design" in words(forest_of())
    assert "Hollow" not in words(forest_of(ROWS[:4], CLAIMS))


def test_the_axis_is_linear_within_the_band_and_logarithmic_beyond():
    axis = forest_of().axes[0]
    assert axis.get_xscale() == "symlog"
    low, high = axis.get_xlim()
    assert low == -high
    assert high > 30
    at = axis.transData.transform([(x, 0) for x in (0, 0.5, 1, 2, 4, 8)])[:, 0]
    steps = np.diff(at)
    assert steps[0] == pytest.approx(steps[1])
    assert steps[3] / steps[4] == pytest.approx(1, rel=0.3)
    (band,) = (p for p in axis.patches if to_hex(p.get_facecolor()) == to_hex("0.92"))
    assert (band.get_x(), band.get_width()) == (-1, 2)
    text = words(forest_of())
    assert "as claimed →" in text
    assert "← the other way" in text


@pytest.mark.parametrize(
    ("own", "printed"),
    [
        ((12.3, 10.1, 14.9), "12.3 [10.1, 14.9]"),
        ((0.98012, 0.9794, 0.98084), "0.9801 [0.9794, 0.9808]"),
        ((-0.31, -0.53, -0.12), "−0.31 [−0.53, −0.12]"),
        ((229, 179, 299), "229 [179, 299]"),
        ((0.0, 0.0, 0.52), "0.0 [0.0, 0.5]"),
        ((2.0, 2.0, 2.0), "2 [2, 2]"),
        ((0.5, NAN, NAN), "0.5"),
        ((NAN, NAN, NAN), "no data"),
    ],
)
def test_numbers_have_the_digits_that_their_interval_leaves_them(own, printed):
    assert in_numbers(dict(zip(("estimate", "low", "high"), own, strict=True))) == printed


def full_study(claims: int = 18, of_each: int = 5) -> tuple[list[dict], dict[str, tuple]]:
    rows = [
        endpoint(f"claim-{c}", f"CNN-16 : MLP-260, part {p}", (p, p - 1, p + 1), (1.2, 1.1, 1.3))
        for c in range(claims)
        for p in range(of_each)
    ]
    return rows, {f"claim-{c}": ("", "reproduced", "", "reproduced", 5) for c in range(claims)}


def test_a_full_study_fits_on_a_page_and_every_claim_is_on_it():
    """18 claims with 90 endpoints, in two columns that share their axis."""
    rows, claims = full_study()
    figure = forest_of(rows, claims)
    assert figure.get_figheight() <= 9.5
    assert figure.get_figwidth() == pytest.approx(2.1 * 3.4)
    assert len(figure.axes) == 2
    assert len({axis.get_xlim() for axis in figure.axes}) == 1
    texts = [text for axis in figure.axes for text in drawn(axis)]
    assert [text for text in texts if text.startswith("claim ")] == [
        f"claim {c}" for c in range(18)
    ]
    points = np.concatenate([marks_of(axis, "corrected")[0] for axis in figure.axes])
    assert len(points) == 90
    for axis in figure.axes:
        low, high = sorted(axis.get_ylim())
        inside = marks_of(axis, "corrected")[0][:, 1]
        assert ((low < inside) & (inside < high)).all()


def test_a_study_without_any_data_for_its_claims_still_has_its_figures():
    rows = [endpoint("a", "p", (NAN,) * 3, (NAN,) * 3, n=0, interval="none", smallest_effect=1.25)]
    claims = {"a": (NAN, "inconclusive", NAN, "inconclusive", 0)}
    for name in ("forest", "verdicts"):
        figure = figure_of(name, tables_of(rows, claims), [], {}, STYLE)
        assert "inconclusive" in words(figure)
        assert saved(figure, "png").startswith(b"\x89PNG")
    assert "no data" in words(forest_of(rows, claims))
    for name, said in (("forest", "no claim has an endpoint"), ("verdicts", "no claim")):
        figure = figure_of(name, tables_of([], {}), [], {}, STYLE)
        assert said in words(figure)
        assert saved(figure, "png").startswith(b"\x89PNG")


# Verdicts


def cells_of(figure, row: int) -> list[str]:
    """Colours of the cells of a claim, from left to right."""
    (axis,) = figure.axes
    inside = [p for p in axis.patches if 0.19 * row < p.get_y() < 0.19 * (row + 1)]
    return [to_hex(p.get_facecolor()).upper() for p in sorted(inside, key=lambda p: p.get_x())]


def test_every_verdict_is_a_cell_of_its_colour_and_the_claims_in_words():
    figure = figure_of("verdicts", tables_of(ROWS, CLAIMS), [], {}, STYLE)
    expected = ["reproduced", "no effect", "inconclusive", "artefact"]
    assert cells_of(figure, 0) == [VERDICTS[verdict][0] for verdict in expected]
    assert cells_of(figure, 1) == [VERDICTS["circular"][0]] * 2, "arms without endpoints: no cell"
    texts = rows_of(figure.axes[0])
    assert texts[round(0.19 / 2, 6)] == ["CNN sharp", "✓", "0", "?", "artefact", "5"]
    assert texts[round(1.5 * 0.19, 6)] == ["PC1 levels", "–", "↻", "–", "circular", "1"]


def test_the_verdicts_of_a_full_study_fit_into_a_printed_column():
    figure = figure_of("verdicts", tables_of(*full_study()), [], {}, STYLE)
    assert figure.get_figwidth() == pytest.approx(3.4)
    assert figure.get_figheight() <= 4.5
    assert set(VERDICTS) <= set(drawn(figure.axes[0])), "the legend has them all"


def test_marks_and_colours_of_verdicts_are_all_different():
    colours, marks, _ = zip(*VERDICTS.values(), strict=True)
    assert len(set(colours)) == len(set(marks)) == len(VERDICTS)
