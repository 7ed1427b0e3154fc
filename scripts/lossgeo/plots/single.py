"""One measurement on one pair of axes: what the results of `lossgeo.Objective` draw."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from lossgeo.plots.panels import (
    COLOURS,
    colorbar,
    contours,
    labelled,
    loss_norm,
    plain_log,
    style_of,
)
from lossgeo.plots.spectra import DENSITY_WIDTH, LINEAR, draw_density, scale_of_eigenvalues
from lossgeo.store import Group

STYLE = {"font_size": 9, "dpi": 150}


@contextmanager
def axes_in_style(ax: Axes | None, height: float) -> Iterator[Axes]:
    """These axes, or those of a new figure of some inches, which pyplot shows; in our style."""
    with matplotlib.rc_context(style_of(STYLE)):
        if ax is None:
            from matplotlib import pyplot

            _, ax = pyplot.subplots(figsize=(3.6, height))
        yield ax


def lines(
    ax: Axes,
    alpha: np.ndarray,
    loss: np.ndarray,
    rise_se: np.ndarray,
    evaluated: np.ndarray,
    units: str,
) -> None:
    """Losses (D, A) with a band of two standard errors of their rise; dots where evaluated."""
    for number, (values, error, known) in enumerate(zip(loss, rise_se, evaluated, strict=True)):
        colour = COLOURS[number % len(COLOURS)]
        ax.fill_between(
            alpha, values - 2 * error, values + 2 * error, color=colour, alpha=0.25, lw=0
        )
        ax.plot(alpha, values, color=colour)
        ax.plot(alpha[known], values[known], ".", color=colour, ms=3)
    ax.set(xlabel="offset α", ylabel=labelled("loss", units))
    _log_where_wide(ax, loss)


def plane(ax: Axes, group: Group, axes: str, units: str) -> None:
    """Filled contours of the loss; a cross at the centre."""
    loss = group.variables["loss"].values
    filled = contours(ax, group, loss, loss_norm([loss]))
    ax.plot(0, 0, "+", color="white", ms=6, mew=1)
    ax.set(aspect="equal", xlabel="α", ylabel="β", title=f"loss on the plane of {axes}")
    if filled is not None:
        colorbar(ax.get_figure(), filled, [ax], units)


def density_of_states(
    ax: Axes, nodes: np.ndarray, weights: np.ndarray, eigenvalues: np.ndarray, units: str
) -> None:
    """The smoothed spectral density, and ticks at the eigenvalues that have converged."""
    present = nodes[np.isfinite(nodes)]
    ax.set(xlabel=labelled("eigenvalue λ", units), ylabel=f"density of asinh(λ / {LINEAR:g})")
    if not len(present):
        return
    ends = np.arcsinh(np.array([present.min(), present.max()]) / LINEAR)
    grid = np.linspace(ends[0] - 4 * DENSITY_WIDTH, ends[1] + 4 * DENSITY_WIDTH, 800)
    draw_density(ax, nodes, weights, grid, COLOURS[0], "")
    ax.set(yscale="log", ylim=(1e-7, 10))
    ax.plot(eigenvalues, np.full(len(eigenvalues), 2e-7), "|", color=COLOURS[1], ms=7)
    scale_of_eigenvalues(ax)


def bars(ax: Axes, values: Mapping[str, tuple[float, float]], label: str) -> None:
    """A bar for each name, with its standard error."""
    heights, errors = np.array(list(values.values())).T
    ax.barh(list(values), heights, xerr=errors, color=COLOURS[0], height=0.7)
    ax.invert_yaxis()
    ax.tick_params(axis="y", labelsize="small")
    ax.set(xlabel=label)


def ascent(ax: Axes, rises: np.ndarray, se: float, first_order: float, units: str) -> None:
    """The largest rise after each gradient, beside that of the linearised loss."""
    ax.plot(np.arange(len(rises)), rises, "o-", color=COLOURS[0], label="found")
    ax.errorbar(len(rises) - 1, rises[-1], se, color=COLOURS[0], capsize=3)
    ax.axhline(first_order, color=COLOURS[1], ls="--", label="of the linearised loss")
    ax.set(xlabel="gradients", ylabel=labelled("largest rise", units), ylim=(0, None))
    ax.legend()


def path(
    ax: Axes, t: np.ndarray, loss: np.ndarray, loss_se: np.ndarray, label: str, units: str
) -> None:
    """The loss along a path with a band of two standard errors, and the chord of its ends."""
    colour = COLOURS[len(ax.get_legend_handles_labels()[0]) % len(COLOURS)]
    ax.plot(t, loss, color=colour, label=label)
    ax.fill_between(t, loss - 2 * loss_se, loss + 2 * loss_se, color=colour, alpha=0.25, lw=0)
    ax.plot(t[[0, -1]], loss[[0, -1]], "--", color=colour, lw=0.8)
    ax.set(xlabel="t", ylabel=labelled("loss", units))
    ax.legend()


def _log_where_wide(ax: Axes, values: np.ndarray) -> None:
    """A logarithmic axis where values differ by more than ten times."""
    finite = values[np.isfinite(values)]
    if len(finite) and 0 < 10 * finite.min() < finite.max():
        ax.set_yscale("log")
        plain_log(ax.yaxis)
