"""The public face: one objective, and one method for each thing that can be measured of it.

Nothing is computed here that the study's stages do not compute by the same functions: an
`Objective` holds `objective.Objective` and theta, and gives every function defaults, random
generators from one seed, and a result that prints itself.
"""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from lossgeo import (
    buffers,
    losses,
    multilevel,
    paths,
    permutations,
    sharpness,
    spectrum,
    trace,
    views,
)
from lossgeo.directions import cosine, random_direction
from lossgeo.hessian import hessian_operator, sample_forms
from lossgeo.models import ModelError
from lossgeo.multilevel import ESTIMATORS
from lossgeo.numerics import derive_seed, numpy_generator, torch_generator
from lossgeo.objective import evaluate, make_objective, mean_and_error, with_running
from lossgeo.parameters import copy_of, flatten, join
from lossgeo.part import part_of
from lossgeo.results import Barrier, Line, Loss, Plane, Sharpness, Spectrum, Trace
from lossgeo.surface import centred_grid

Estimator = Literal["multilevel", "full"]
Statistics = Literal["frozen", "recalibrated"]
Normalization = Literal["filter", "layer", "model", "element", "none"]

RISE = 0.1  # by which the quadratic has risen at 1 on the axes of the eigenvectors' plane
ALIGNMENT_STARTS = 5
LAST_GAIN = 0.01  # an ascent has converged once a further gradient adds a smaller share


class Objective:
    """The loss of a model as a function of its parameters, on fixed samples.

        net = lossgeo.Objective(model, inputs, targets)

    L(theta) is the mean over the N samples of the loss of each; theta (P,) are the model's
    parameters. The model is copied, in evaluation mode, and never changed; neither are torch's
    settings nor any global random state. The same `seed` gives the same numbers on one kind of
    machine.

    model: any `torch.nn.Module` that takes inputs (n, ...) and returns outputs (n, ...).
    inputs, targets: tensors or NumPy arrays, (N, ...) each; or, without `targets`, a
        `DataLoader`, a `Dataset` or any other iterable of batches (inputs, targets), which is gone
        through once and kept in memory.
    loss: "cross-entropy" or "binary-cross-entropy", in nats, or "mse"; a loss of `torch.nn`; or any
        function (outputs, targets) -> (n,), the loss of each sample. `losses.make_loss` has their
        formulas, and more ways to name one. Of one of `torch.nn` a sample's loss is the mean of
        its entries, whatever the `reduction`; weights of classes multiply it, and are not divided
        by their sum over the samples.
    parameters: names that theta is made of, `*` standing for anything ("blocks.0.*"), among those
        with requires_grad; all of these unless given. The others are constants.
    statistics: of batch normalisation, for networks that have it. "frozen": the model's own,
        constants of L, and interpolated on a path between two networks; "recalibrated": computed at
        each theta on the inputs. Errors over the samples are those for the statistics as they are;
        that other samples would give others can be the larger part.
    seed: of every random direction and probe.
    samples: the first so many; all unless given.
    device, dtype: the model's own unless given; half precision becomes float32.
    permutations: the table of hidden units that can change places (see `barrier`).
    memory: bytes of graphs that may be kept between products with the Hessian; with less, it takes
        longer.

    Raises ValueError where model, inputs and targets do not fit.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Any,
        targets: Any = None,
        *,
        loss: str | Mapping[str, Any] | losses.PerSample | losses.Loss = "cross-entropy",
        parameters: str | Sequence[str] | None = None,
        statistics: Statistics | None = None,
        seed: int = 0,
        samples: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        permutations: Mapping[str, Any] | None = None,
        memory: float = 4e9,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"model is a {type(model).__name__}, expected a torch.nn.Module")
        first = next(model.parameters(), None)
        if first is None:
            raise ValueError("the model has no parameters: there is nothing to measure")
        device = torch.device(first.device if device is None else device)
        dtype = torch.promote_types(first.dtype, torch.float32) if dtype is None else dtype
        with _own_settings(device):
            x, y = _collect(inputs, targets, samples, seed)
            own = copy_of(model).to(device, dtype).eval()
            named = losses.make_loss(_of_samples(loss))
            few = _placed(x[:2], device, dtype), _placed(y[:2], device, dtype)
            _check(own, named, few, y)
            objective = make_objective(
                own,
                x,
                y,
                dtype=dtype,
                device=device,
                memory=memory,
                statistics=statistics,
                loss=named,
            )
            theta = flatten(objective.model)
            if parameters is not None:
                patterns = [parameters] if isinstance(parameters, str) else parameters
                objective, theta = part_of(objective, theta, patterns)
        self._name = type(model).__name__
        self._objective = objective
        self._theta = theta
        self._seed = seed
        self._table = permutations

    @property
    def theta(self) -> Tensor:
        """(P,), a copy of the parameters that everything is measured at."""
        return self._theta.clone()

    @property
    def parameters(self) -> int:
        """P."""
        return len(self._theta)

    @property
    def samples(self) -> int:
        """N."""
        return self._objective.samples

    @property
    def seed(self) -> int:
        return self._seed

    def __repr__(self) -> str:
        dtype = str(self._theta.dtype).removeprefix("torch.")
        return (
            f"Objective of {self._name}: {self.parameters:,} parameters, "
            f"{self._objective.loss.name} on {self.samples:,} samples, "
            f"{dtype} on {self._theta.device}, seed {self.seed}"
        )

    def loss(self) -> Loss:
        """The loss and the accuracy of the model as it is.

            L(theta) = 1/N sum_i l_i(theta)

        The error is the standard error over the samples.
        """
        with self._settings():
            found = evaluate(self._objective, self._theta)
        return Loss(
            value=found.loss,
            se=found.loss_se,
            converged=math.isfinite(found.loss),
            accuracy=found.accuracy,
            **self._about(),
        )

    def line(
        self,
        direction: Tensor | None = None,
        *,
        directions: int = 1,
        distance: float = 1.0,
        points: int = 51,
        normalization: Normalization = "filter",
        estimator: Estimator = "multilevel",
        seed: int | None = None,
    ) -> Line:
        """The loss along straight lines theta + alpha d, |alpha| <= distance.

        direction: d (P,), as it is; or as many random ones as `directions` says, normalised to
            theta: "filter" gives every filter of d the norm of theta's (Li et al. 2018).
        points: odd, so that theta is one of them.
        estimator: "multilevel" evaluates few points, all samples at each, until the next are
            predicted; "full" evaluates all.

        The number is the curvature d'Hd at theta (mean over the directions), and its error the
        standard error over the samples.
        """
        seed = self.seed if seed is None else seed
        alpha = _grid(distance, points)
        _check_estimator(estimator)
        with self._settings():
            if direction is not None:
                axes = [self._as_direction(direction)]
            else:
                axes = self._random_directions("line", directions, normalization, seed)
            values, levels = multilevel.lines(
                self._objective,
                self._theta,
                axes,
                alpha,
                estimator=estimator,
                generator=numpy_generator("line levels", seed),
            )
            forms = sample_forms(self._objective, self._theta, torch.stack(axes))
        value, error = mean_and_error(forms.mean(0))
        curvature, curvature_se = mean_and_error(forms)
        return Line(
            value=float(value),
            se=float(error),
            converged=bool(np.isfinite(values["loss"]).all()),
            alpha=alpha,
            loss=values["loss"],
            loss_se=values["loss_se"],
            rise_se=values["rise_se"],
            accuracy=values["accuracy"],
            evaluated=np.broadcast_to(levels.evaluated, values["loss"].shape),
            interpolation_error=levels.interpolation_error,
            curvature=curvature,
            curvature_se=curvature_se,
            **self._about(),
        )

    def plane(
        self,
        axes: Literal["random", "eigenvectors"] | Spectrum | tuple[Tensor, Tensor] = "random",
        *,
        distance: float | None = None,
        points: int = 25,
        normalization: Normalization = "filter",
        estimator: Estimator = "multilevel",
        seed: int | None = None,
    ) -> Plane:
        """The loss on a plane theta + alpha d1 + beta d2, |alpha| and |beta| <= distance.

        axes: "random": two random directions, normalised to theta as in `line`; "eigenvectors", or
            what `spectrum` has returned: the two top eigenvectors of the Hessian, each in units of
            where the quadratic has risen by 0.1; or two directions (P,) of your own.
        distance: 1 unless given, and 4 for eigenvectors.
        points, estimator: as in `line`.

        The number is the mean of the two curvatures d'Hd at theta, and its error the standard
        error over the samples.
        """
        seed = self.seed if seed is None else seed
        _check_estimator(estimator)
        if axes == "eigenvectors":
            axes = self.spectrum(top=2, bottom=0, seed=seed)
        with self._settings():
            if isinstance(axes, Spectrum):
                name, reach = "the top two eigenvectors", 4.0
                scaled, _ = views.eigen_axes(axes.to_group(), RISE)
                pair = [self._as_direction(axis) for axis in scaled]
            elif isinstance(axes, str):
                if axes != "random":
                    raise ValueError(
                        f"axes are {axes!r}, expected 'random', 'eigenvectors', a spectrum or two "
                        "directions"
                    )
                name, reach = "two random directions", 1.0
                pair = self._random_directions("plane", 2, normalization, seed)
            else:
                name, reach = "two given directions", 1.0
                pair = [self._as_direction(axis) for axis in axes]
                if len(pair) != 2:
                    raise ValueError(f"{len(pair)} axes were given, expected two")
            grid = _grid(reach if distance is None else distance, points)
            values, levels = multilevel.plane(
                self._objective,
                self._theta,
                pair[0],
                pair[1],
                grid,
                grid,
                estimator=estimator,
                generator=numpy_generator("plane levels", seed, 0),
            )
            forms = sample_forms(self._objective, self._theta, torch.stack(pair))
        value, error = mean_and_error(forms.mean(0))
        curvature, curvature_se = mean_and_error(forms)
        return Plane(
            value=float(value),
            se=float(error),
            converged=bool(np.isfinite(values["loss"]).all()),
            alpha=grid,
            beta=grid,
            loss=values["loss"],
            loss_se=values["loss_se"],
            rise_se=values["rise_se"],
            accuracy=values["accuracy"],
            evaluated=levels.evaluated.reshape(values["loss"].shape),
            interpolation_error=levels.interpolation_error,
            cosine=cosine(*pair),
            curvature=curvature,
            curvature_se=curvature_se,
            axes=name,
            **self._about(),
        )

    def spectrum(
        self,
        top: int = 10,
        *,
        bottom: int = 1,
        probes: int = 1,
        steps: int = 30,
        max_steps: int = 80,
        tolerance: float = 1e-3,
        seed: int | None = None,
    ) -> Spectrum:
        """The largest and smallest eigenvalues of the Hessian, and its spectral density.

        By Lanczos with full reorthogonalisation from random probes: `steps` products each, and of
        the first up to `max_steps`, until the `top` largest and `bottom` smallest eigenvalues have
        residuals ||Hv - lambda v|| < tolerance |lambda|.

        The number is the largest eigenvalue, and its error the standard error over the samples of
        v'H_i v. That few samples put it too high is no part of the error.
        """
        seed = self.seed if seed is None else seed
        if top < 1 or bottom < 0 or probes < 1:
            raise ValueError(
                f"top is {top}, bottom {bottom} and probes {probes}, expected at least 1, 0 and 1"
            )
        with self._settings():
            found = spectrum.spectrum(
                hessian_operator(self._objective, self._theta),
                top=min(top, self.parameters),
                bottom=min(bottom, max(self.parameters - top, 0)),
                probes=probes,
                steps=max(steps, top + bottom),
                max_steps=max(max_steps, top + bottom),
                tolerance=tolerance,
                generator=torch_generator("spectrum", seed),
            )
            vectors = torch.cat([found.top.vectors, found.bottom.vectors])
            forms = sample_forms(self._objective, self._theta, vectors)
        errors = mean_and_error(forms)[1]
        ends = len(found.top.values)
        return Spectrum(
            value=float(found.top.values[0]),
            se=float(errors[0]),
            converged=bool(found.top.converged.all() and found.bottom.converged.all()),
            eigenvalues=found.top.values,
            standard_errors=errors[:ends],
            residuals=found.top.residuals,
            eigenvalues_converged=found.top.converged,
            smallest=found.bottom.values,
            smallest_standard_errors=errors[ends:],
            smallest_residuals=found.bottom.residuals,
            smallest_converged=found.bottom.converged,
            eigenvectors=found.top.vectors,
            nodes=found.nodes,
            weights=found.weights,
            products=found.products,
            **self._about(),
        )

    def trace(self, *, probes: int = 10, seed: int | None = None) -> Trace:
        """The trace of the Hessian, and that of its Gauss-Newton matrix by parameter tensor.

        tr G = 1/N sum_i tr J_i'A_i J_i, J_i being the Jacobian of sample i's outputs and A_i the
        second derivative of its loss by them, is exact (beyond 512 outputs it is estimated). What
        the Hessian has beyond it is 0 in networks that are piecewise affine in each parameter
        (ReLU); elsewhere it is estimated from `probes` random vectors z by z'(H - G)z (Hutchinson
        1989).

        The error has both parts: over the samples, and over the probes.
        """
        seed = self.seed if seed is None else seed
        if probes < 2:
            raise ValueError(
                f"probes are {probes}, expected at least 2: their scatter is the error"
            )
        with self._settings():
            found = trace.traces(
                self._objective,
                self._theta,
                rest_probes=probes,
                generator=torch_generator("trace", seed),
            )
        whole = found.hessian
        return Trace(
            value=whole.value,
            se=whole.se,
            converged=math.isfinite(whole.value) and whole.probe_se <= whole.sample_se,
            sample_se=whole.sample_se,
            probe_se=whole.probe_se,
            exact=found.exact,
            gauss_newton=(found.gauss_newton.value, found.gauss_newton.se),
            by_tensor={
                name: (part.value, part.se)
                for name, part in zip(self._objective.layout.names, found.by_tensor, strict=True)
            },
            filter_curvature=(found.filter_curvature.value, found.filter_curvature.se),
            probes=0 if found.exact else probes,
            **self._about(),
        )

    def sharpness(
        self,
        radius: float = 0.05,
        *,
        ball: Literal["euclidean", "elementwise"] = "euclidean",
        steps: int = 10,
    ) -> Sharpness:
        """The largest rise max L(theta + delta) - L(theta) that is found in a ball around theta.

        ball: "euclidean", ||delta|| <= radius (SAM, Foret et al. 2021); or "elementwise",
            ||delta / |theta||| <= radius, which no rescaling of ReLU units changes (ASAM, Kwon et
            al. 2021).
        steps: gradients of the projected ascent.

        The rise is a lower bound of the largest, and has converged when the last gradient added
        less than a hundredth. The error is the standard error over the samples at the displacement
        that was found. There is no chance in it.
        """
        if ball not in ("euclidean", "elementwise"):
            raise ValueError(f"ball is {ball!r}, expected 'euclidean' or 'elementwise'")
        if not radius > 0:
            raise ValueError(f"radius is {radius}, expected a positive number")
        if steps < 1:
            raise ValueError(f"steps are {steps}, expected at least 1")
        with self._settings():
            found = sharpness.worst_case(
                self._objective,
                self._theta,
                [radius],
                steps,
                scale=self._theta.abs() if ball == "elementwise" else None,
            )
        value, error = mean_and_error(found.rises[0])
        rises = found.best[0]
        gained = rises[-1] - rises[-2]
        return Sharpness(
            value=float(value),
            se=float(error),
            converged=bool(np.isfinite(rises).all() and gained <= LAST_GAIN * rises[-1]),
            rises=rises,
            first_order=float(found.first_order[0]),
            radius=radius,
            ball=ball,
            **self._about(),
        )

    def barrier(
        self,
        other: nn.Module | Objective | Mapping[str, Tensor],
        *,
        aligned: bool = False,
        points: int = 25,
        seed: int | None = None,
    ) -> Barrier:
        """The barrier of the loss on the straight line to another network of the same kind.

            max_t L((1 - t) theta + t theta') - [(1 - t) L(theta) + t L(theta')]

        other: a model, an `Objective` (of which theta alone is taken) or a state dict. Where theta
            is a part of the parameters, the others stay those of this network; running statistics
            that are frozen go from one network's to the other's all the same.
        aligned: first permute the other's hidden units, which leaves its function as it is, so that
            its weights come closest to these (weight matching, Ainsworth et al. 2022). Which units
            can change places is found in an `nn.Sequential` of linear, convolution, pooling and
            elementwise layers; for other networks the argument `permutations` of `Objective` says
            it: {group: {parameter: axis or [axis, ...]}}.

        The error is the standard error over the samples, paired between the path and its ends; that
        the highest of the points is taken is no part of it.
        """
        seed = self.seed if seed is None else seed
        if points < 3:
            raise ValueError(f"points are {points}, expected at least 3")
        t = np.linspace(0.0, 1.0, points)
        with self._settings():
            own = self._objective
            end, statistics = self._theta_of(other)
            permuted = 0
            if aligned:
                groups = self._groups()
                found = permutations.weight_matching(
                    self._theta,
                    end,
                    self._objective.layout,
                    groups,
                    starts=ALIGNMENT_STARTS,
                    generator=torch_generator("alignment", seed),
                )
                end = permutations.permute(end, self._objective.layout, groups, found.permutations)
                permuted = sum(
                    int((order != torch.arange(len(order))).sum()) for order in found.permutations
                )
            ends = buffers.along(
                own.running,
                [self._theta, end],
                [buffers.read(own.model, own.running), statistics],
            )
            logits = paths.logits_on(with_running(own), ends, paths.line(t))
            profile = paths.profile(t, logits, own.targets, own.loss)
        loss = profile.barriers["loss"]
        missed = _missed(t, profile.means["loss"], loss.t)
        return Barrier(
            value=loss.height,
            se=loss.height_se,
            converged=math.isfinite(loss.height) and missed <= loss.height_se,
            at=loss.t,
            t=t,
            loss=profile.means["loss"],
            loss_se=profile.errors["loss"],
            error=profile.means["error"],
            error_barrier=_height(profile.barriers["error"]),
            tempered_barrier=_height(profile.barriers["tempered_loss"]),
            missed=missed,
            aligned=aligned,
            permuted=permuted,
            **self._about(),
        )

    def _settings(self) -> ExitStack:
        return _own_settings(self._theta.device)

    def _about(self) -> dict[str, Any]:
        return {
            "samples": self.samples,
            "units": self._objective.loss.units,
            "statistics": self._objective.statistics or "",
        }

    def _random_directions(
        self, purpose: str, count: int, normalization: str, seed: int
    ) -> list[Tensor]:
        if count < 1:
            raise ValueError(f"directions are {count}, expected at least 1")
        shapes = self._objective.layout.shapes
        if normalization in ("filter", "layer") and all(len(shape) < 2 for shape in shapes):
            raise ValueError(
                f"normalization is {normalization!r}, and all parameters are vectors, which such "
                "directions do not move; expected 'model', 'element' or 'none'"
            )
        return [
            random_direction(
                self._theta,
                self._objective.layout,
                normalization,
                generator=torch_generator(purpose, seed, index),
            )
            for index in range(count)
        ]

    def _as_direction(self, direction: Tensor) -> Tensor:
        direction = torch.as_tensor(direction).detach().to(self._theta)
        if direction.shape != self._theta.shape:
            raise ValueError(
                f"a direction has shape {tuple(direction.shape)}, expected ({self.parameters},): "
                "one entry for each parameter"
            )
        return direction

    def _theta_of(
        self, other: nn.Module | Objective | Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """theta of a network of the same kind, and its running statistics if these count."""
        model: nn.Module
        if isinstance(other, Objective):
            model = other._objective.model
        elif isinstance(other, nn.Module):
            model = other
        elif isinstance(other, Mapping):
            model = copy_of(self._objective.model)
            try:
                model.load_state_dict(other)
            except RuntimeError as error:
                raise ValueError(f"the state dict does not fit the model: {error}") from error
        else:
            raise ValueError(
                f"the other network is a {type(other).__name__}, expected a torch.nn.Module, an "
                "Objective or a state dict"
            )
        expected, found = map(_shapes, (self._objective.model, model))
        if expected != found:
            raise ValueError(_difference(expected, found))
        named = dict(model.named_parameters())
        theta = join(named[name].detach() for name in self._objective.layout.names)
        running = self._objective.running
        if missing := set(running.names) - {name for name, _ in model.named_buffers()}:
            raise ValueError(
                f"the other network has no running statistics {min(missing)}, expected them with "
                "statistics='frozen'"
            )
        return theta.to(self._theta), buffers.read(model, running)

    def _groups(self) -> list[permutations.Group]:
        try:
            groups = permutations.find_groups(self._objective.model, self._table)
            if groups and self._table is not None:
                shape = tuple(self._objective.blocks[0][0].shape[1:])
                permutations.check_table(self._objective.model, self._table, shape)
        except ModelError as error:
            raise ValueError(f"permutations: {error}") from error
        if self._objective.running.names:
            raise ValueError(
                "the running statistics of permuted units would have to be permuted with them: "
                "give Objective statistics='recalibrated'"
            )
        if groups is None:
            raise ValueError(
                f"which hidden units of {self._name} can change places is not known: give "
                "Objective a table, permutations={group: {parameter: axis or [axis, ...]}}"
            )
        return groups


def _own_settings(device: torch.device) -> ExitStack:
    """A context in which the caller's modes of torch do not count, and none of them is changed."""
    stack = ExitStack()
    stack.enter_context(torch.inference_mode(False))
    stack.enter_context(torch.enable_grad())
    stack.enter_context(torch.autocast(device.type, enabled=False))
    if torch.get_default_device().type != "cpu":
        stack.enter_context(torch.device("cpu"))
    return stack


def _collect(inputs: Any, targets: Any, samples: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs (N, ...) and targets (N,) as tensors, at most `samples` of them."""
    if samples is not None and samples < 1:
        raise ValueError(f"samples are {samples}, expected at least 1")
    if targets is None:
        if isinstance(inputs, (Tensor, np.ndarray)):
            raise ValueError("inputs were given without targets: give both, or batches of both")
        x, y = _from_batches(inputs, samples, seed)
    else:
        x, y = _as_tensor(inputs), _as_tensor(targets)
    if not x.ndim or not y.ndim or len(x) != len(y) or not len(x):
        raise ValueError(
            f"inputs of shape {tuple(x.shape)} and targets of shape {tuple(y.shape)}: expected as "
            "many of both, and some"
        )
    return x[:samples].detach(), y[:samples].detach()


def _from_batches(batches: Iterable[Any], samples: int | None, seed: int) -> tuple[Tensor, Tensor]:
    """All batches of an iterable one after the other, by random numbers of their own."""
    from torch.utils.data import DataLoader, Dataset, IterableDataset

    if isinstance(batches, Dataset) and not isinstance(batches, IterableDataset):
        batches = DataLoader(batches, batch_size=256)
    if not isinstance(batches, Iterable):
        raise ValueError(
            f"inputs are a {type(batches).__name__} without targets, expected batches: a "
            "DataLoader, a Dataset or an iterable of (inputs, targets)"
        )
    parts: list[tuple[Tensor, Tensor]] = []
    count = 0
    with _own_random_state(seed):
        for batch in batches:
            if not isinstance(batch, Sequence) or len(batch) != 2:
                raise ValueError(
                    f"a batch is a {type(batch).__name__}, expected a pair (inputs, targets)"
                )
            x, y = map(_as_tensor, batch)
            parts.append((x, y))
            count += len(x)
            if samples is not None and count >= samples:
                break
    if not parts:
        raise ValueError("there is no batch of samples, expected at least one")
    inputs, targets = zip(*parts, strict=True)
    return torch.cat(inputs), torch.cat(targets)


@contextmanager
def _own_random_state(seed: int) -> Iterator[None]:
    """A context whose draws depend on the seed alone; the states outside stay as they are."""
    python, numpy, torch_ = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    own = derive_seed("batches", seed)
    try:
        random.seed(own)
        np.random.seed(own % 2**32)  # noqa: NPY002
        torch.default_generator.manual_seed(own)
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(torch_)


def _as_tensor(values: Any) -> Tensor:
    if isinstance(values, Tensor):
        return values
    try:
        return torch.from_numpy(np.array(values))
    except TypeError as error:
        raise ValueError(
            f"a {type(values).__name__} is no array of numbers: {error}; expected tensors or "
            "NumPy arrays"
        ) from error


def _of_samples(loss: Any) -> Any:
    """A loss of `torch.nn` as one of each sample; anything else as it is."""
    if not isinstance(loss, nn.Module) or not hasattr(loss, "reduction"):
        return loss
    if type(loss) is nn.CrossEntropyLoss and loss.weight is None and loss.ignore_index < 0:
        return {"name": "cross-entropy", "label_smoothing": loss.label_smoothing}
    if type(loss) is nn.MSELoss:
        return "mse"
    if type(loss) is nn.BCEWithLogitsLoss and loss.weight is None and loss.pos_weight is None:
        return "binary-cross-entropy"
    each = copy.deepcopy(loss)
    each.reduction = "none"
    return losses.Loss(
        type(loss).__name__,
        lambda outputs, targets: each(outputs, targets).reshape(len(outputs), -1).mean(1),
    )


def _placed(values: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    return values.to(device, dtype if values.is_floating_point() else None)


def _check(
    model: nn.Module, loss: losses.Loss, few: tuple[Tensor, Tensor], targets: Tensor
) -> None:
    """Raise ValueError unless the loss of the model's outputs for a few samples can be measured."""
    inputs, few_targets = few
    try:
        with torch.no_grad():
            outputs = model(inputs)
    except Exception as error:
        raise ValueError(
            f"the model failed on inputs of shape {tuple(inputs.shape)}: {error}"
        ) from error
    if not isinstance(outputs, Tensor) or not outputs.ndim or len(outputs) != len(inputs):
        found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ValueError(
            f"the model's output for {len(inputs)} samples is {found}, expected a tensor "
            f"({len(inputs)}, ...)"
        )
    if loss.smoothing is not None and not targets.is_floating_point():
        low, high, classes = int(targets.min()), int(targets.max()), outputs.shape[-1]
        if low < 0 or high >= classes:
            raise ValueError(
                f"targets are {low} to {high}, expected classes 0 to {classes - 1}: the model has "
                f"{classes} outputs"
            )
    if torch.isfinite(outputs).all():  # what has diverged is measured as it is
        losses.check_loss(loss, outputs, few_targets)


def _grid(distance: float, points: int) -> np.ndarray:
    if not distance > 0:
        raise ValueError(f"distance is {distance}, expected a positive number")
    return centred_grid(distance, points)


def _check_estimator(estimator: str) -> None:
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator is {estimator!r}, expected one of {ESTIMATORS}")


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def _difference(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, Any]) -> str:
    """What is different in the parameters of another network."""
    for name, shape in expected.items():
        if found.get(name) != shape:
            has = f"has one of shape {found[name]}" if name in found else "has none"
            return f"the other network {has}: {name} of shape {shape}; expected the same parameters"
    return f"the other network has a further parameter: {min(set(found) - set(expected))}"


def _height(barrier: paths.Barrier) -> tuple[float, float]:
    return barrier.height, barrier.height_se


def _missed(t: np.ndarray, loss: np.ndarray, at: float) -> float:
    """How much higher than its highest point the parabola through it and its neighbours is."""
    if not math.isfinite(at):
        return math.nan
    rise = loss - ((1 - t) * loss[0] + t * loss[-1])
    k = int(np.abs(t - at).argmin())
    slope, bend = (rise[k + 1] - rise[k - 1]) / 2, rise[k + 1] - 2 * rise[k] + rise[k - 1]
    return float(slope**2 / (-2 * bend)) if bend < 0 else 0.0
