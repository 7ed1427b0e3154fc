"""The geometry of a line or plane as numbers: basin, anisotropy, convexity, roughness, minima."""

from dataclasses import asdict, dataclass

import numpy as np
import scipy

from lossgeo.statistics import share_interval


@dataclass(frozen=True)
class Geometry:
    """A line or plane as numbers. Lengths are in units of the direction that spans it."""

    second_difference: float  # at the centre, on the grid's step; mean of the two axes, nats
    radius: float  # distance from the centre at which the loss has risen by `rise`; mean of rays
    radius_censored: bool  # some ray leaves the grid first: the radius is a lower bound
    anisotropy: float  # ratio of the two eigenvalues of the fitted quadratic; NaN for a line
    convex_fraction: float  # fraction of stencils whose second differences are positive
    convex_low: float  # 95 % interval of that fraction over all of the grid's stencils
    convex_high: float
    stencils: int  # how many were evaluated for it
    roughness: float  # root mean square deviation from the smoothed surface / the range of the loss
    minima: int  # local minima deeper than `persistence`

    def asdict(self) -> dict:
        return asdict(self)


def line_geometry(
    alphas: np.ndarray,
    loss: np.ndarray,
    *,
    rise: float,
    persistence: float,
    stencils: np.ndarray | None = None,
) -> Geometry:
    """The geometry of a line, loss (A,) over evenly spaced alphas (A,) with 0 in the middle.

    The second difference at the centre is [L(h) - 2 L(0) + L(-h)] / h^2: d'Hd where the loss is
    smooth on the scale of the step h, and larger where it has kinks there. A stencil is a point and
    its two neighbours, and convex where that difference is not negative. Where the line is not
    finite, every quantity that its gaps touch is NaN.

    An interpolated line has the interpolant's shape. `stencils` (A,), bool, are the centres of
    those whose points were all evaluated, a random sample; then they alone say how much of the line
    is convex, with the exact binomial interval (Clopper & Pearson 1934), and there is no roughness.
    Without `stencils` all points were evaluated, and the fraction has no error.
    """
    loss = np.where(np.isfinite(loss), loss, np.nan)
    second = np.diff(loss, 2) / (alphas[1] - alphas[0]) ** 2
    radius, censored = _radius(alphas, loss, rise)
    return Geometry(
        second_difference=float(second[len(second) // 2]),
        radius=radius,
        radius_censored=censored,
        anisotropy=np.nan,
        **_convexity(second, _noise(loss) / (alphas[1] - alphas[0]) ** 2, stencils),
        roughness=_roughness(loss) if stencils is None else np.nan,
        minima=count_minima(loss, persistence),
    )


def plane_geometry(
    alphas: np.ndarray,
    betas: np.ndarray,
    loss: np.ndarray,
    *,
    rise: float,
    persistence: float,
    stencils: np.ndarray | None = None,
) -> Geometry:
    """The geometry of a plane, loss (A, B) over evenly spaced alphas (A,) and betas (B,).

    The grid is centred: its middle point is theta. Second difference and anisotropy are of the
    quadratic that the central second differences fit exactly, [[L_aa, L_ab], [L_ab, L_bb]]: half
    its trace, and the ratio of the eigenvalue of larger to that of smaller magnitude. The radius is
    the mean over the rays along the grid's rows, columns and diagonals through the centre. A
    stencil is a point and its eight neighbours, and convex where that matrix is positive
    semi-definite. `stencils` (A, B) are as for a line.
    """
    loss = np.where(np.isfinite(loss), loss, np.nan)
    a, b = len(alphas) // 2, len(betas) // 2
    step_a, step_b = alphas[1] - alphas[0], betas[1] - betas[0]
    hessian = _grid_hessian(loss, step_a, step_b)  # (A - 2, B - 2, 2, 2)
    centre = hessian[a - 1, b - 1]
    eigenvalues = _eigenvalues(centre)
    larger, smaller = eigenvalues[np.argsort(-np.abs(eigenvalues))]
    noise = _noise(loss) / min(step_a, step_b) ** 2
    lowest = np.min(_eigenvalues(hessian), axis=-1)
    radius, censored = _plane_radius(alphas, betas, loss, rise)
    return Geometry(
        second_difference=float(np.trace(centre) / 2),
        radius=radius,
        radius_censored=censored,
        anisotropy=float(larger / smaller) if smaller else np.nan,
        **_convexity(lowest, noise, stencils),
        roughness=_roughness(loss) if stencils is None else np.nan,
        minima=count_minima(loss, persistence),
    )


def quadratic_r2(alphas: np.ndarray, loss: np.ndarray) -> float:
    """R^2 of the least-squares parabola through a line, loss (A,) over alphas (A,).

    1 - sum (L - fit)^2 / sum (L - mean L)^2. NaN where the loss is not finite, or where its range
    is within the rounding of float32: a flat line has no shape to explain.
    """
    if not np.isfinite(loss).all() or np.ptp(loss) <= _noise(loss):
        return np.nan
    left = loss - np.polyval(np.polyfit(alphas, loss, 2), alphas)
    return float(1 - np.sum(left**2) / np.sum((loss - loss.mean()) ** 2))


def fitted_anisotropy(alphas: np.ndarray, betas: np.ndarray, loss: np.ndarray) -> float:
    """Ratio of the eigenvalues, of larger to smaller magnitude, of the quadratic fitted to a plane.

    Least squares of c + g'x + x'Ax / 2 over all points of loss (A, B), x = (alpha, beta): A
    averages over the plane, where `plane_geometry` differentiates at its centre. NaN where a loss
    is not finite.
    """
    if not np.isfinite(loss).all():
        return np.nan
    a, b = (grid.ravel() for grid in np.meshgrid(alphas, betas, indexing="ij"))
    terms = np.stack([np.ones_like(a), a, b, a**2 / 2, a * b, b**2 / 2], axis=1)
    *_, aa, ab, bb = np.linalg.lstsq(terms, loss.ravel())[0]
    eigenvalues = np.linalg.eigvalsh([[aa, ab], [ab, bb]])
    larger, smaller = eigenvalues[np.argsort(-np.abs(eigenvalues))]
    return float(larger / smaller) if smaller else np.nan


def count_minima(loss: np.ndarray, persistence: float) -> int:
    """Local minima of a line (A,) or plane (A, B) that are deeper than `persistence` (nats).

    0-dimensional persistent homology of the sublevel sets: components are born at local minima and
    the younger dies where two meet; its lifetime is the depth (Edelsbrunner et al. 2002).
    Neighbours share an edge of the grid. Points that are not finite count as +infinity.
    """
    heights = np.where(np.isfinite(loss), loss, np.inf)
    parents: dict[tuple, tuple] = {}

    def root(point: tuple) -> tuple:
        while parents[point] != point:
            parents[point] = parents[parents[point]]
            point = parents[point]
        return point

    minima = 0
    for flat in np.argsort(heights, axis=None, kind="stable"):
        point = tuple(int(i) for i in np.unravel_index(flat, heights.shape))
        height = heights[point]
        if np.isinf(height):
            break
        parents[point] = point
        for axis in range(heights.ndim):
            for offset in (-1, 1):
                neighbour = (*point[:axis], point[axis] + offset, *point[axis + 1 :])
                if neighbour not in parents:
                    continue
                older, younger = sorted((root(point), root(neighbour)), key=lambda p: heights[p])
                if older == younger:
                    continue
                minima += height - heights[younger] > persistence
                parents[younger] = older
    components = {root(point) for point in parents}
    return int(minima) + len(components)


def _radius(distances: np.ndarray, loss: np.ndarray, rise: float) -> tuple[float, bool]:
    """Mean distance over the two rays of a centred line, and whether one left the grid first."""
    centre = len(distances) // 2
    rays = [
        _ray(np.abs(distances[centre:]), loss[centre:], rise),
        _ray(np.abs(distances[centre::-1]), loss[centre::-1], rise),
    ]
    return float(np.mean([r for r, _ in rays])), any(censored for _, censored in rays)


def _plane_radius(
    alphas: np.ndarray, betas: np.ndarray, loss: np.ndarray, rise: float
) -> tuple[float, bool]:
    a, b = len(alphas) // 2, len(betas) // 2
    lines = [_radius(alphas, loss[:, b], rise), _radius(betas, loss[a, :], rise)]
    if len(alphas) == len(betas):
        diagonal = np.sign(alphas) * np.hypot(alphas, betas)
        lines += [
            _radius(diagonal, np.diagonal(loss), rise),
            _radius(diagonal, np.diagonal(loss[:, ::-1]), rise),
        ]
    return float(np.mean([r for r, _ in lines])), any(censored for _, censored in lines)


def _ray(distance: np.ndarray, loss: np.ndarray, rise: float) -> tuple[float, bool]:
    """Where a ray's loss first crosses loss[0] + rise.

    Between grid points the square root of the rise is taken as linear in the distance, which is
    exact for a parabola, in the first cell too.
    """
    above = np.flatnonzero(~(loss - loss[0] < rise))  # a NaN stops the ray as well
    if not len(above):
        return float(distance[-1]), True
    i = above[0]
    if np.isnan(loss[i]):
        return np.nan, False
    before, after = np.sqrt(np.maximum(loss[i - 1 : i + 1] - loss[0], 0.0))
    share = (np.sqrt(rise) - before) / (after - before)
    return float(distance[i - 1] + share * (distance[i] - distance[i - 1])), False


def _grid_hessian(loss: np.ndarray, step_a: float, step_b: float) -> np.ndarray:
    """Second differences of loss (A, B) at the inner points, (A - 2, B - 2, 2, 2)."""
    aa = np.diff(loss, 2, axis=0)[:, 1:-1] / step_a**2
    bb = np.diff(loss, 2, axis=1)[1:-1, :] / step_b**2
    ab = (loss[2:, 2:] - loss[2:, :-2] - loss[:-2, 2:] + loss[:-2, :-2]) / (4 * step_a * step_b)
    return np.stack([np.stack([aa, ab], -1), np.stack([ab, bb], -1)], -2)


def _eigenvalues(hessian: np.ndarray) -> np.ndarray:
    """Eigenvalues (..., 2) of symmetric matrices (..., 2, 2); NaN where an entry is not finite."""
    finite = np.isfinite(hessian).all(axis=(-2, -1))
    values = np.linalg.eigvalsh(np.where(finite[..., None, None], hessian, 0.0))
    return np.where(finite[..., None], values, np.nan)


def _noise(loss: np.ndarray) -> float:
    """What rounding in float32 can do to a second difference of a loss: 8 units in last place."""
    return float(8 * np.finfo(np.float32).eps * np.nanmax(np.abs(loss), initial=0.0))


def _convexity(lowest: np.ndarray, noise: float, stencils: np.ndarray | None) -> dict:
    """The fields of Geometry from the lowest curvature of every inner point, (A - 2 ...).

    Stencils with a value that is not finite are left out.
    """
    lowest = lowest.ravel() if stencils is None else lowest[stencils[(slice(1, -1),) * lowest.ndim]]
    holds = lowest[np.isfinite(lowest)] >= -noise
    fraction = low = high = float(holds.mean()) if len(holds) else np.nan
    if stencils is not None and len(holds):
        low, high = share_interval(int(holds.sum()), len(holds))
    return {
        "convex_fraction": fraction,
        "convex_low": float(low),
        "convex_high": float(high),
        "stencils": len(holds),
    }


def _roughness(loss: np.ndarray) -> float:
    """Root mean square of loss minus its local cubic smoothing, divided by the range of the loss.

    The smoothing is Savitzky and Golay's (1964), five points, third order, along each axis: it
    leaves cubics as they are. NaN where the loss is not finite, is constant, or has fewer points.
    """
    if not np.isfinite(loss).all() or min(loss.shape) < 5 or np.ptp(loss) == 0:
        return np.nan
    smooth = loss
    for axis in range(loss.ndim):
        smooth = scipy.signal.savgol_filter(smooth, window_length=5, polyorder=3, axis=axis)
    return float(np.sqrt(np.mean((loss - smooth) ** 2)) / np.ptp(loss))
