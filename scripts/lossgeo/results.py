"""What the measurements of an objective found: numbers with their errors, plots, data sets, files.

Every result has a `value`, its standard error `se` and a flag `converged`; printing it says all
three in words. What the error contains, and what it does not, is in each class's docstring. The
samples' part of it is s / sqrt(N), that of N samples drawn at random. With recalibrated statistics
it is that for one calibration batch, whose choice is not part of it.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lossgeo.store import Group, Variable
from lossgeo.vtk import write_structured_grid

if TYPE_CHECKING:
    import xarray
    from matplotlib.axes import Axes

MANY_DIGITS = 8  # significant ones of a number that is known to more


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Result(ABC):
    """A number, its standard error, and whether it can be taken as it is."""

    value: float
    se: float
    converged: bool
    samples: int  # N
    units: str
    statistics: str = ""  # of batch normalisation: frozen or recalibrated; "" where there is none

    @property
    def _unit(self) -> str:
        """What is printed behind a number."""
        return "" if self.units == "1" else f" {self.units}"

    @abstractmethod
    def to_group(self) -> Group:
        """Every array under the names, dimensions and units that the study's files have."""

    @abstractmethod
    def _draw(self, ax: Axes) -> None:
        """Draw it on these axes."""

    def _height(self) -> float:
        """Of a figure of its own, in inches."""
        return 2.7

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw it on `ax`, or on the axes of a new figure, and return the axes."""
        from lossgeo.plots.single import axes_in_style

        with axes_in_style(ax, self._height()) as axes:
            self._draw(axes)
        return axes

    def to_xarray(self) -> xarray.Dataset:
        """The arrays with named dimensions and units, and the numbers as attributes.

        Raises ImportError where xarray is not installed.
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError(
                "to_xarray needs xarray, which is not installed: pip install lossgeo[xarray]"
            ) from error
        group = self.to_group()
        return xarray.Dataset(
            {
                name: (v.dims, v.values, {"units": v.units, "long_name": v.description})
                for name, v in group.variables.items()
            },
            attrs=dict(group.attributes),
        )


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Loss(Result):
    """The objective at its own parameters.

    `se` is that of the mean over the samples.
    """

    accuracy: float  # fraction of the samples classified correctly; NaN without classes

    def __repr__(self) -> str:
        return (
            f"loss {with_error(self.value, self.se)}{self._unit} "
            f"(standard error over {self.samples:,} samples)"
            + ("" if math.isnan(self.accuracy) else f", accuracy {self.accuracy:.2%}")
        )

    def to_group(self) -> Group:
        return Group({}, _numbers(self, "loss") | {"accuracy": self.accuracy})

    def _draw(self, ax: Axes) -> None:
        from lossgeo.plots.panels import labelled

        ax.errorbar([0], [self.value], [self.se], fmt="o", capsize=3)
        ax.set(xticks=[], ylabel=labelled("loss", self.units))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Line(Result):
    """The loss along D lines theta + alpha d.

    `value` is their mean curvature d'Hd at theta, of the Hessian itself and not of the grid, and
    `se` its standard error over the samples. The choice of random directions is not part of it.
    `rise_se` is the standard error of L - L(theta), which is much smaller than that of either: the
    samples are the same in both. What was not evaluated is interpolated; 95 % of those losses are
    off by at most `interpolation_error`, as a share of their rise above the centre (or of its
    standard error, where that is larger).
    """

    alpha: np.ndarray  # (A,) in units of the direction
    loss: np.ndarray  # (D, A)
    loss_se: np.ndarray  # (D, A)
    rise_se: np.ndarray  # (D, A)
    accuracy: np.ndarray  # (D, A)
    evaluated: np.ndarray  # (D, A) bool
    interpolation_error: float
    curvature: np.ndarray  # (D,) d'Hd
    curvature_se: np.ndarray  # (D,)

    def __repr__(self) -> str:
        count = len(self.loss)
        along = "one direction" if count == 1 else f"{count} directions"
        return (
            f"line: curvature {with_error(self.value, self.se)}{self._unit} along {along}\n"
            f"(standard error over {self.samples:,} samples); "
            + _extent(self.alpha, self.loss, self._unit)
            + _points(self.evaluated, self.interpolation_error, self.converged)
        )

    def to_group(self) -> Group:
        dims = ("direction", "alpha")
        return Group(
            {
                "alpha": _offsets("alpha", self.alpha),
                **_surface(dims, self),
                **_curvature("direction", self.curvature, self.curvature_se, self.units),
            },
            _numbers(self, "curvature") | {"interpolation_error": self.interpolation_error},
        )

    def _draw(self, ax: Axes) -> None:
        from lossgeo.plots import single

        single.lines(ax, self.alpha, self.loss, self.rise_se, self.evaluated, self.units)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Plane(Result):
    """The loss on a plane theta + alpha d1 + beta d2.

    `value` is the mean of the two axes' curvatures d'Hd at theta, of the Hessian itself, and `se`
    its standard error over the samples. Of axes that were drawn at random their choice is not part
    of it. `rise_se` and `interpolation_error` are those of a `Line`.
    """

    alpha: np.ndarray  # (A,) in units of d1
    beta: np.ndarray  # (B,) in units of d2
    loss: np.ndarray  # (A, B)
    loss_se: np.ndarray  # (A, B)
    rise_se: np.ndarray  # (A, B)
    accuracy: np.ndarray  # (A, B)
    evaluated: np.ndarray  # (A, B) bool
    interpolation_error: float
    cosine: float  # of the angle between the axes
    curvature: np.ndarray  # (2,) d'Hd of each axis
    curvature_se: np.ndarray  # (2,)
    axes: str  # what they are

    def __repr__(self) -> str:
        first, second = map(with_error, self.curvature, self.curvature_se)
        return (
            f"plane of {self.axes}: curvature {first} and {second}{self._unit} along its axes\n"
            f"(standard errors over {self.samples:,} samples); "
            + _extent(self.alpha, self.loss, self._unit)
            + _points(self.evaluated, self.interpolation_error, self.converged)
        )

    def to_group(self) -> Group:
        return Group(
            {
                "alpha": _offsets("alpha", self.alpha),
                "beta": _offsets("beta", self.beta),
                **_surface(("alpha", "beta"), self),
                **_curvature("axis", self.curvature, self.curvature_se, self.units),
            },
            _numbers(self, "mean_curvature")
            | {
                "cosine": self.cosine,
                "axes": self.axes,
                "interpolation_error": self.interpolation_error,
            },
        )

    def to_vtk(self, path: Path | str, *, log: bool = False) -> Path:
        """Write a .vts file for ParaView: the surface alpha, beta, loss, and all arrays on it.

        With `log` the height is log10 of the loss.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            height = np.log10(self.loss) if log else self.loss
        variables = _surface(("alpha", "beta"), self)
        arrays = {name: variable.values for name, variable in variables.items()}
        return write_structured_grid(path, self.alpha, self.beta, height, arrays)

    def _draw(self, ax: Axes) -> None:
        from lossgeo.plots import single

        single.plane(ax, self.to_group(), self.axes, self.units)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Spectrum(Result):
    """Extreme eigenvalues and spectral density of the Hessian H.

    `value` is the largest eigenvalue. Each has the standard error over the samples of v'H_i v, H_i
    being sample i's own Hessian: to first order that of the eigenvalue, as long as no other one is
    within a few of these errors. It has no bias in it: on few samples the largest eigenvalues of a
    Hessian are too high. `converged` says that all that were asked for have residuals
    ||Hv - lambda v|| below the tolerance times |lambda|.
    """

    eigenvalues: np.ndarray  # (k,) the largest, descending
    standard_errors: np.ndarray  # (k,)
    residuals: np.ndarray  # (k,)
    eigenvalues_converged: np.ndarray  # (k,) bool
    smallest: np.ndarray  # (b,) ascending
    smallest_standard_errors: np.ndarray  # (b,)
    smallest_residuals: np.ndarray  # (b,)
    smallest_converged: np.ndarray  # (b,) bool
    eigenvectors: Tensor  # (k, P), of the largest eigenvalues
    nodes: np.ndarray  # (probes, m) of the density's Gauss quadrature
    weights: np.ndarray  # (probes, m)
    products: int  # Hessian-vector products that it took

    @property
    def parameters(self) -> int:
        """P."""
        return int(self.eigenvectors.shape[1])

    def __repr__(self) -> str:
        ends = self.eigenvalues_converged, self.smallest_converged
        done, wanted = (sum(map(f, ends)) for f in (np.sum, len))
        largest = ", ".join(f"{value:.3g}" for value in self.eigenvalues[1:4])
        more = f"; next {largest}" if largest else ""
        least = f"; smallest {self.smallest[0]:.3g}" if len(self.smallest) else ""
        first = "converged" if self.eigenvalues_converged[0] else "not converged"
        return (
            f"largest eigenvalue {with_error(self.value, self.se)}{self._unit} ({first}; standard "
            f"error over {self.samples:,} samples)\n{done} of {wanted} eigenvalues converged"
            f"{more}{least}; {self.products} products"
        )

    def to_group(self) -> Group:
        return Group(
            {
                **_eigenvalues("top", self.eigenvalues, self.standard_errors, self),
                "top_residuals": _residuals("top", self.residuals, self.units),
                "top_converged": _flags("top", self.eigenvalues_converged),
                **_eigenvalues("bottom", self.smallest, self.smallest_standard_errors, self),
                "bottom_residuals": _residuals("bottom", self.smallest_residuals, self.units),
                "bottom_converged": _flags("bottom", self.smallest_converged),
                "eigenvectors": Variable(
                    ("top", "parameter"),
                    self.eigenvectors.cpu().numpy(),
                    "1",
                    "unit eigenvectors of the top eigenvalues",
                ),
                "nodes": Variable(
                    ("probe", "node"),
                    self.nodes,
                    self.units,
                    "quadrature nodes of the spectral density",
                ),
                "weights": Variable(
                    ("probe", "node"), self.weights, "1", "their weights; each probe's sum to 1"
                ),
            },
            _numbers(self, "largest_eigenvalue") | {"products": self.products},
        )

    def _draw(self, ax: Axes) -> None:
        from lossgeo.plots import single

        found = np.concatenate(
            [
                self.eigenvalues[self.eigenvalues_converged],
                self.smallest[self.smallest_converged],
            ]
        )
        single.density_of_states(ax, self.nodes, self.weights, found, self.units)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Trace(Result):
    """The trace of the Hessian, and that of the Gauss-Newton matrix by parameter tensor.

    `se` has two parts: `sample_se`, over the samples, and `probe_se`, over the random probes that
    estimate what the Hessian has beyond its Gauss-Newton part. That part is 0, and the trace exact,
    where the network is piecewise affine in each parameter (ReLU, no normalisation or attention).
    Of a loss of more than 512 outputs the Gauss-Newton part is estimated as well, by random signs
    of each sample, whose noise is in `sample_se`.
    `converged` says that no more of the error is due to probes than to samples.
    """

    sample_se: float
    probe_se: float
    exact: bool
    gauss_newton: tuple[float, float]  # its trace and standard error over the samples
    by_tensor: Mapping[str, tuple[float, float]]  # the same of each tensor's diagonal block
    filter_curvature: tuple[float, float]  # E[d'Hd] over filter-normalised d, and its `se`
    probes: int

    def __repr__(self) -> str:
        how = (
            f"standard error over {self.samples:,} samples; exact in the parameters"
            if self.exact
            else f"standard errors: {self.sample_se:.2g} over {self.samples:,} samples, "
            f"{self.probe_se:.2g} over {self.probes} probes"
            + ("" if self.converged else ": take more probes")
        )
        return f"trace {with_error(self.value, self.se)}{self._unit} ({how})"

    def to_group(self) -> Group:
        values = np.array(list(self.by_tensor.values()))
        return Group(
            {
                "tensor": Variable(
                    ("tensor",), np.array(list(self.by_tensor)), "1", "name of the parameter"
                ),
                "tensor_traces": Variable(
                    ("tensor",),
                    values[:, 0],
                    self.units,
                    "traces of the Gauss-Newton matrix's blocks",
                ),
                "tensor_traces_se": Variable(
                    ("tensor",), values[:, 1], self.units, "their standard errors over the samples"
                ),
            },
            _numbers(self, "trace")
            | {
                "trace_probe_se": self.probe_se,
                "trace_method": "exact" if self.exact else "hutchinson",
                "gauss_newton_trace": self.gauss_newton[0],
                "gauss_newton_trace_se": self.gauss_newton[1],
                "filter_curvature": self.filter_curvature[0],
                "filter_curvature_se": self.filter_curvature[1],
            },
        )

    def _draw(self, ax: Axes) -> None:
        from lossgeo.plots import single
        from lossgeo.plots.panels import labelled

        single.bars(ax, self.by_tensor, labelled("tr G", self.units))

    def _height(self) -> float:
        return max(2.0, 0.7 + 0.14 * len(self.by_tensor))


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Sharpness(Result):
    """The largest rise of the loss that was found in a ball around theta.

    `value` is a lower bound of max L(theta + delta) - L(theta): `rises` are the best that were
    found after 0, 1, 2, ... gradients of the ascent, and `converged` says that the last one added
    less than a hundredth. `se` is the standard error over the samples at the displacement that was
    found, paired with the loss at theta; that the same samples chose it is not part of it.
    """

    rises: np.ndarray  # (steps + 1,)
    first_order: float  # the rise of the linearised loss, radius * ||grad L||
    radius: float
    ball: str

    @property
    def last_gain(self) -> float:
        """What the last gradient added, as a share of the rise."""
        return float(1 - self.rises[-2] / self.rises[-1]) if self.rises[-1] > 0 else 0.0

    def __repr__(self) -> str:
        found = "converged" if self.converged else "not converged: take more steps"
        return (
            f"sharpness {with_error(self.value, self.se)}{self._unit}: the largest rise found in "
            f"the {self.ball} ball of radius {self.radius:g}\n({found}, the last gradient added "
            f"{self.last_gain:.1%}; standard error over {self.samples:,} samples)"
        )

    def to_group(self) -> Group:
        return Group(
            {
                "best": Variable(
                    ("gradient",), self.rises, self.units, "the largest rise after so many"
                )
            },
            _numbers(self, "rise")
            | {"first_order": self.first_order, "radius": self.radius, "ball": self.ball},
        )

    def _draw(self, ax: Axes) -> None:
        from lossgeo.plots import single

        single.ascent(ax, self.rises, self.se, self.first_order, self.units)


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Barrier(Result):
    """The straight path between two networks, and the barrier of the loss on it.

    `value` is the height of the path above the chord between its ends at its highest inner point,
    never below 0 (Entezari et al. 2021), and `se` the standard error over the samples of the rise
    there, paired between the path and its ends. The choice of the highest of T points is not part
    of it: it puts heights of the order of `se` too high. `converged` says that the parabola through
    the highest point and its neighbours is above it by less than `se`: more points would not
    change the number.
    """

    at: float  # t of the highest point
    t: np.ndarray  # (T,) 0 to 1
    loss: np.ndarray  # (T,)
    loss_se: np.ndarray  # (T,)
    error: np.ndarray  # (T,) fraction classified wrongly
    error_barrier: tuple[float, float]  # the same of the error
    tempered_barrier: tuple[float, float]  # of the loss at each point's best temperature
    missed: float  # by how much the parabola is higher
    aligned: bool
    permuted: int  # units that were given another place

    def __repr__(self) -> str:
        after = f" after {self.permuted} hidden units were permuted" if self.aligned else ""
        found = "" if self.converged else "; not resolved: take more points"
        error = f", in error {with_error(*self.error_barrier)}"
        error = "" if math.isnan(self.error_barrier[0]) else error
        return (
            f"barrier {with_error(self.value, self.se)}{self._unit} at t = {self.at:.2f}{after}"
            f"{error}\n"
            f"(standard errors over {self.samples:,} samples, paired with the ends{found})"
        )

    def to_group(self) -> Group:
        return Group(
            {
                "t": Variable(("t",), self.t, "1", "position on the path, 0 to 1"),
                "loss": Variable(("t",), self.loss, self.units, "mean loss"),
                "loss_se": Variable(
                    ("t",), self.loss_se, self.units, "standard error of the loss over the samples"
                ),
                "error": Variable(("t",), self.error, "1", "fraction classified wrongly"),
            },
            _numbers(self, "loss_barrier")
            | {
                "loss_barrier_t": self.at,
                "error_barrier": self.error_barrier[0],
                "error_barrier_se": self.error_barrier[1],
                "tempered_loss_barrier": self.tempered_barrier[0],
                "tempered_loss_barrier_se": self.tempered_barrier[1],
                "aligned": int(self.aligned),
            },
        )

    def _draw(self, ax: Axes) -> None:
        from lossgeo.plots import single

        label = "aligned" if self.aligned else "as they are"
        single.path(ax, self.t, self.loss, self.loss_se, label, self.units)


def with_error(value: float, se: float) -> str:
    """A number and its standard error, both to the second significant digit of the error."""
    if not (math.isfinite(value) and math.isfinite(se) and se > 0):
        return f"{value:.4g} ± {se:.2g}"
    size = math.floor(math.log10(max(abs(value), se)))
    digits = 1 - math.floor(math.log10(se))  # after the point
    if digits + size >= MANY_DIGITS:
        return f"{value:.{MANY_DIGITS}g} ± {se:.1e}"
    if -4 <= size < 7:
        digits = max(digits, 0)
        return f"{value:.{digits}f} ± {se:.{digits}f}"
    digits += size
    return f"({value / 10**size:.{digits}f} ± {se / 10**size:.{digits}f})e{size:+03d}"


def _numbers(result: Result, name: str) -> dict[str, str | int | float]:
    """What all results have, as attributes."""
    return {
        name: result.value,
        f"{name}_se": result.se,
        "converged": int(result.converged),
        "samples": result.samples,
        "units": result.units,
        **({"statistics": result.statistics} if result.statistics else {}),
    }


def _offsets(name: str, values: np.ndarray) -> Variable:
    return Variable((name,), values, "1", f"offset along {name} in units of its direction")


def _surface(dims: tuple[str, ...], of: Line | Plane) -> dict[str, Variable]:
    rises = "standard error of the rise above the centre over the samples, paired"
    return {
        "loss": Variable(dims, of.loss, of.units, "mean loss"),
        "loss_se": Variable(dims, of.loss_se, of.units, "its standard error over the samples"),
        "rise_se": Variable(dims, of.rise_se, of.units, rises),
        "accuracy": Variable(dims, of.accuracy, "1", "fraction classified correctly"),
        "evaluated": Variable(
            dims, of.evaluated.astype("int8"), "1", "1: evaluated; 0: interpolated"
        ),
    }


def _curvature(dim: str, values: np.ndarray, errors: np.ndarray, units: str) -> dict[str, Variable]:
    about = "d'Hd at the centre, of the Hessian itself"
    return {
        "curvature": Variable((dim,), values, units, about),
        "curvature_se": Variable((dim,), errors, units, "its standard error over the samples"),
    }


def _eigenvalues(
    end: str, values: np.ndarray, errors: np.ndarray, of: Spectrum
) -> dict[str, Variable]:
    about = "their standard errors over the samples"
    return {
        f"{end}_eigenvalues": Variable((end,), values, of.units, f"{end} eigenvalues"),
        f"{end}_standard_errors": Variable((end,), errors, of.units, about),
    }


def _residuals(end: str, values: np.ndarray, units: str) -> Variable:
    return Variable((end,), values, units, "||H v - lambda v||")


def _flags(end: str, values: np.ndarray) -> Variable:
    return Variable((end,), values.astype("int8"), "1", "1: residual below tolerance")


def _extent(alpha: np.ndarray, loss: np.ndarray, unit: str) -> str:
    finite = loss[np.isfinite(loss)]
    if not len(finite):
        return "no finite loss; "
    return f"loss {finite.min():.3g} to {finite.max():.3g}{unit} within ±{alpha[-1]:g};\n"


def _points(evaluated: np.ndarray, interpolation_error: float, finite: bool) -> str:
    done, every = int(evaluated.sum()), evaluated.size
    rest = f", the others to {interpolation_error:.1%} of their rise" if done < every else ""
    marked = "" if finite else "; some losses are not finite"
    return f"{done:,} of {every:,} points evaluated{rest}{marked}"
