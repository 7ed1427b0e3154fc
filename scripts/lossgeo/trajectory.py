"""PCA of the snapshots of a run, and what PCA would show of trajectories without structure.

Everything follows from the Gram matrix of the steps between snapshots, S x S instead of P x P:
explained variances need nothing else, and the null trajectories are drawn as Gram matrices.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import toeplitz


@dataclass(frozen=True)
class PCA:
    """The principal components of a trajectory of S snapshots in P dimensions."""

    explained: (
        np.ndarray
    )  # (C,) fraction of the variance, descending; sums to 1 over all components
    axes: np.ndarray  # (C, P) float64, orthonormal
    coordinates: np.ndarray  # (S, C) of the snapshots, relative to the last one
    residuals: np.ndarray  # (S,) distance of each snapshot from the plane of components 1 and 2


def pca(snapshots: np.ndarray, components: int) -> PCA:
    """Principal components of snapshots (S, P), centred, in float64, by the Gram trick.

    Coordinates count from the last snapshot; signs are fixed so that the first snapshot's are not
    negative. The residual distance says how far a projected snapshot is from where the plane shows
    it (tomgoldstein/loss-landscape#1). Raises ValueError for fewer than three snapshots, or if they
    do not span `components` dimensions.
    """
    if len(snapshots) < 3:
        raise ValueError(f"PCA needs at least 3 snapshots, found {len(snapshots)}")
    centred = snapshots - snapshots.mean(0, dtype=np.float64)
    values, vectors = _descending_eigh(centred @ centred.T)
    if components > len(values) or values[components - 1] <= 1e-12 * values[0]:
        raise ValueError(f"the snapshots span fewer than {components} dimensions")
    axes = (vectors[:, :components].T @ centred) / np.sqrt(values[:components, None])
    displaced = snapshots - snapshots[-1].astype(np.float64)
    coordinates = displaced @ axes.T
    signs = np.where(coordinates[0] < 0, -1.0, 1.0)
    axes, coordinates = axes * signs[:, None], coordinates * signs
    off_plane = displaced - coordinates[:, :2] @ axes[:2]
    return PCA(
        explained=(values / values.sum())[:components],
        axes=axes,
        coordinates=coordinates,
        residuals=np.linalg.norm(off_plane, axis=1),
    )


def step_gram(snapshots: np.ndarray) -> np.ndarray:
    """Inner products (S - 1, S - 1) of the steps between consecutive snapshots (S, P)."""
    steps = np.diff(snapshots.astype(np.float64), axis=0)
    return steps @ steps.T


def explained_variance(gram: np.ndarray, components: int) -> np.ndarray:
    """Fractions of variance (C,) that PCA explains, from the Gram matrix of a trajectory's steps.

    Positions are cumulative sums of the steps, centred: their Gram matrix is C A gram A' C' with A
    the summation and C the centring, and it has the eigenvalues of the covariance.
    """
    steps = len(gram)
    positions = np.tril(np.ones((steps + 1, steps)), -1)  # (S, S - 1)
    centred = positions - positions.mean(0)
    values, _ = _descending_eigh(centred @ gram @ centred.T)
    return (values / values.sum())[:components]


def random_walk_gram(
    step_norms: np.ndarray, dimensions: int, drift: float, *, generator: np.random.Generator
) -> np.ndarray:
    """The steps' Gram matrix of a random walk in `dimensions` with given step norms (T,).

    The steps are unit vectors scaled to the norms; each is the normalised sum of isotropic
    Gaussian noise of expected squared norm 1 - drift^2 and `drift` times one fixed unit vector
    (drift 0: isotropic). Needs dimensions > T.
    """
    count = len(step_norms)
    scale = np.sqrt((1 - drift**2) / dimensions)
    along = drift + scale * generator.standard_normal(count)  # component along the drift
    noise = scale * _gaussian_steps(count, dimensions - 1, generator)
    return _with_norms(np.outer(along, along) + noise @ noise.T, step_norms)


def mean_cosines(gram: np.ndarray) -> np.ndarray:
    """Mean cosine (T,) between two steps of a trajectory that are k = 0, 1, ..., T - 1 apart."""
    cosines = _with_norms(gram, np.ones(len(gram)))
    return np.array([np.diag(cosines, lag).mean() for lag in range(len(gram))])


def nearest_autocorrelation(sequence: np.ndarray) -> np.ndarray:
    """The autocorrelation (T,) of a stationary process that is close to a sequence (T,).

    That is one whose Toeplitz matrix has no negative eigenvalue, which means of cosines need not
    have. Alternating projections: negative eigenvalues to 0, then the mean of each diagonal.
    """
    found = sequence / sequence[0]
    for _ in range(200):
        values, vectors = np.linalg.eigh(toeplitz(found))
        if values[0] > -1e-9:
            break
        clipped = (vectors * np.maximum(values, 0.0)) @ vectors.T
        found = np.array([np.diag(clipped, lag).mean() for lag in range(len(found))])
        found /= found[0]
    return found


def effective_dimensions(gram: np.ndarray, autocorrelation: np.ndarray) -> float:
    """In how many dimensions a stationary Gaussian process scatters as the run's cosines do.

    The cosine of two steps of a stationary Gaussian process of autocorrelation r, independent and
    alike in d dimensions, has the variance (1 - r^2)^2 / d about its mean, and those of two pairs
    k apart, h from each other, the covariance w_k(h) / d of Bartlett's formula (1946),

        w_k(h) = r_h^2 + r_{h+k} r_{h-k} - 2 r_k r_h (r_{h-k} + r_{h+k})
                 + r_k^2 / 2 (2 r_h^2 + r_{h-k}^2 + r_{h+k}^2).

    So the squares of the cosines about the mean of their lag add up, over all lags, to a number
    that is inversely proportional to d in expectation; d is where that is the run's own.
    """
    count = len(gram)
    cosines = _with_norms(gram, np.ones(count))
    scatter, expected = 0.0, 0.0

    def r(lags: np.ndarray) -> np.ndarray:
        found = np.zeros(lags.shape)
        within = np.abs(lags) < count
        found[within] = autocorrelation[np.abs(lags[within])]
        return found

    for lag in range(1, count - 1):
        pairs = count - lag
        of_lag = np.diag(cosines, lag)
        scatter += np.sum((of_lag - of_lag.mean()) ** 2)
        apart = np.subtract.outer(np.arange(pairs), np.arange(pairs))
        same, behind, ahead, rk = r(apart), r(apart - lag), r(apart + lag), autocorrelation[lag]
        covariance = (
            same**2
            + ahead * behind
            - 2 * rk * same * (behind + ahead)
            + rk**2 / 2 * (2 * same**2 + behind**2 + ahead**2)
        )
        expected += np.trace(covariance) - covariance.sum() / pairs
    return expected / scatter if scatter > 0 else np.inf


def stationary_gram(
    step_norms: np.ndarray,
    dimensions: int,
    autocorrelation: np.ndarray,
    *,
    generator: np.random.Generator,
) -> np.ndarray:
    """The steps' Gram matrix of a stationary Gaussian process with given step norms (T,).

    Each of its `dimensions` is an independent process of that autocorrelation (T,); the steps are
    then scaled to the norms. Unscaled, the Gram matrix has the Toeplitz matrix of the
    autocorrelation as its expectation, exactly; scaled, cosines come out smaller by
    r (1 - r^2) / (2 dimensions), to leading order.
    """
    values, vectors = np.linalg.eigh(toeplitz(autocorrelation))
    root = vectors * np.sqrt(np.maximum(values, 0.0))
    steps = root @ _gaussian_steps(len(step_norms), dimensions, generator)
    return _with_norms(steps @ steps.T, step_norms)


def mean_drift(gram: np.ndarray) -> float:
    """The drift with which a random walk has this Gram matrix's mean cosine between steps.

    Two steps share drift^2 of their direction on average; a negative mean cosine gives 0.
    """
    cosines, count = _with_norms(gram, np.ones(len(gram))), len(gram)
    mean = (cosines.sum() - count) / (count * (count - 1))
    return float(np.sqrt(max(mean, 0.0)))


def null_explained(
    gram: np.ndarray,
    dimensions: int,
    components: int,
    draws: int,
    *,
    generator: np.random.Generator,
) -> dict[str, np.ndarray]:
    """Explained variances (draws, C) of four kinds of trajectory without the run's structure.

    `random_walk`: isotropic steps of the run's norms (explained variance of component k tends to
    6 / (pi k)^2 for many equal steps: Antognini & Sohl-Dickstein 2018). `drift`: the same with the
    run's mean cosine between steps. `shuffled`: the run's own steps in random order. `stationary`:
    a Gaussian process with the run's mean cosine at every lag (`mean_cosines`), and in as many
    dimensions as make its cosines scatter as the run's do (`effective_dimensions`; at most those
    of the run): what is outside its band is not stationary. Isotropic noise in 10^5 dimensions
    hardly varies, so that the bands of the first two are a hair wide.
    """
    norms = np.sqrt(np.diag(gram))

    def shuffled() -> np.ndarray:
        order = generator.permutation(len(gram))
        return gram[np.ix_(order, order)]

    drift = mean_drift(gram)
    autocorrelation = nearest_autocorrelation(mean_cosines(gram))
    effective = min(effective_dimensions(gram, autocorrelation), dimensions)
    draw = {
        "random_walk": lambda: random_walk_gram(norms, dimensions, 0.0, generator=generator),
        "drift": lambda: random_walk_gram(norms, dimensions, drift, generator=generator),
        "shuffled": shuffled,
        "stationary": lambda: stationary_gram(
            norms, max(round(effective), 1), autocorrelation, generator=generator
        ),
    }
    return {
        name: np.stack([explained_variance(one(), components) for _ in range(draws)])
        for name, one in draw.items()
    }


def plane_grid(coordinates: np.ndarray, points: int, margin: float) -> np.ndarray:
    """Evenly spaced grid (points,) that covers coordinates (S,) and has 0 on it.

    `margin` is what is added on each side at least, as a share of the range. Of the grids with 0,
    the last snapshot, on one of their points, it is the finest that covers all this.
    """
    low, high = min(coordinates.min(), 0.0), max(coordinates.max(), 0.0)
    low, high = low - margin * (high - low), high + margin * (high - low)
    below = np.arange(points)  # candidates: how many points lie below 0
    above = below[::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.fmax(-low / below, high / above)
    best = int(np.argmin(steps))
    return steps[best] * np.arange(-best, points - best)


def _gaussian_steps(count: int, dimensions: int, generator: np.random.Generator) -> np.ndarray:
    """A matrix whose products of rows are those of `count` standard Gaussian vectors.

    Bartlett's decomposition (1934): lower triangular, or trapezoidal in fewer `dimensions` than
    vectors, so that no vector of length `dimensions` is ever made.
    """
    lower = np.tril(generator.standard_normal((count, count)), -1)
    diagonal = np.arange(min(count, dimensions))
    lower[diagonal, diagonal] = np.sqrt(generator.chisquare(dimensions - diagonal))
    return lower[:, :dimensions]


def _with_norms(gram: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """A Gram matrix of the same cosines and of vectors of these norms."""
    scale = norms / np.sqrt(np.diag(gram))
    return gram * np.outer(scale, scale)


def _descending_eigh(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, vectors = np.linalg.eigh(gram)
    return np.maximum(values[::-1], 0.0), vectors[:, ::-1]
