"""What the Gauss quadratures of a spectrum say: a smoothed density, and bounds on counts.

m steps of Lanczos from a probe z give nodes and weights of an m-point Gauss quadrature of the
probe's own spectral measure, sum_i (z'v_i)^2 / ||z||^2 at the eigenvalues lambda_i. Over probes its
expectation is the spectral distribution itself, 1 / P at every eigenvalue.
"""

import math

import numpy as np


def density(nodes: np.ndarray, weights: np.ndarray, grid: np.ndarray, width: float) -> np.ndarray:
    """Spectral density (G,) at grid (G,): quadratures smoothed by a Gaussian of the given width.

    phi(t) = mean over probes of sum_k w_k N(t; node_k, width^2), of nodes and weights (probes, m)
    padded with NaN and 0 (Ghorbani et al. 2019). Integrates to 1.
    """
    present = np.isfinite(nodes)
    centres, shares = nodes[present], weights[present] / len(nodes)
    kernels = np.exp(-0.5 * ((grid[:, None] - centres) / width) ** 2) / (
        width * math.sqrt(2 * math.pi)
    )
    return kernels @ shares


def cumulative_bounds(
    nodes: np.ndarray, weights: np.ndarray, grid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Bounds (G,) and (G,) on the mass of the spectrum below each point of an ascending grid (G,).

    low(x) <= F(x-) <= F(x) <= high(x), with F(x-) the mass below x and F(x) with what lies at x.
    These are the Chebyshev-Markov-Stieltjes bounds: of all rules with the moments of the
    quadrature there is one with a node at x, and F(x-) is at least the sum of its weights before x,
    F(x) at most that with the weight at x (Szego 1939, section 3.41; Golub & Meurant 2010). No
    bounds from these 2 m - 2 moments are narrower. At the quadrature's own nodes they are its sums
    of weights.

    They hold, to rounding, for the measure of each probe. Of several, nodes and weights
    (probes, m) padded with NaN and 0, the means of the bounds are returned, which hold for the mean
    measure; how far that is from the spectrum is seen in the spread between probes. A probe with
    independent normal entries counts n eigenvalues as n +- sqrt(2 n), one with random signs as no
    less exactly. For the mass above x, negate nodes and grid.
    """
    each = [
        _bounds(n[present], w[present], grid)
        for n, w, present in zip(nodes, weights, np.isfinite(nodes) & (weights > 0), strict=True)
    ]
    low, high = np.mean(each, axis=0)
    return low, high


def _bounds(nodes: np.ndarray, weights: np.ndarray, grid: np.ndarray) -> tuple:
    """The bounds of one probe.

    The rules are the quadratures of the tridiagonal matrix T with another last diagonal element:
    T + tau e_m e_m'. In the basis of T's eigenvectors that is diag(nodes) + tau s s', where s are
    their last components and the square roots of the weights their first. x is an eigenvalue where
    tau sum_k s_k^2 / (x - node_k) = 1.
    """
    nodes, where = np.unique(nodes, return_inverse=True)
    first = np.sqrt(np.bincount(where, weights))
    last = _last_components(nodes, first)
    scale = np.abs(nodes).max() or 1.0
    with np.errstate(divide="ignore"):
        tau = 1 / (last**2 / (grid[:, None] - nodes)).sum(1)  # 0 where x is a node
    # Where the sum is 0 the rule has a node at infinity: those of the next points serve as well.
    tau = np.clip(tau, -1e3 * scale, 1e3 * scale)
    places, vectors = np.linalg.eigh(
        np.diag(nodes) + tau[:, None, None] * np.outer(last, last)
    )  # (G, m), (G, m, m)
    masses = (first @ vectors) ** 2
    at_x = np.abs(places - grid[:, None]) <= 1e-12 * scale
    places = np.where(at_x, grid[:, None], places).ravel()
    up_to = np.cumsum(masses, 1)
    # F does not decrease: what a node of any rule bounds from below it bounds for all x above it.
    low = _largest_up_to(grid, places, (up_to - masses).ravel(), 0.0)
    high = -_largest_up_to(-grid, -places, -up_to.ravel(), -(first @ first))
    return low, high


def _last_components(nodes: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Of the eigenvectors of the tridiagonal matrix whose first components are given, (m,).

    Proportional to (-1)^k / (first_k prod_j |node_k - node_j|).
    """
    gaps = np.abs(nodes[:, None] - nodes)
    np.fill_diagonal(gaps, 1.0)
    logs = -np.log(first) - np.log(gaps).sum(1)
    last = (-1.0) ** np.arange(len(nodes)) * np.exp(logs - logs.max())
    return last / np.linalg.norm(last)


def _largest_up_to(
    grid: np.ndarray, places: np.ndarray, values: np.ndarray, before: float
) -> np.ndarray:
    """The largest of the values (n,) at places (n,) up to each point of the grid (G,)."""
    order = np.argsort(places, kind="stable")
    largest = np.maximum.accumulate(np.concatenate([[before], values[order]]))
    return largest[np.searchsorted(places[order], grid, side="right")]
