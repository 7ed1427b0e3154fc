"""ResNet-20 and a vision transformer on images of CIFAR's shape: ours against five other packages.

Plane, Hessian-vector product, trace and top ten, where each runs at all; what raises, or is no
number, is kept in benchmarks/refused.csv.

    python benchmarks/architectures.py [--small]    # --small: try it out; writes nothing
"""

import argparse
import copy
import io
from collections.abc import Callable
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from functools import partial
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import networks
from harness import compare, write, write_table
from lossgeo import surface
from lossgeo.directions import random_direction
from lossgeo.hessian import hessian_operator
from lossgeo.numerics import make_deterministic
from lossgeo.objective import Objective, make_objective
from lossgeo.parameters import flatten
from lossgeo.spectrum import spectrum
from lossgeo.trace import Traces, traces

SHAPE, CLASSES = (3, 32, 32), 10
MODELS = {
    "ResNet-20": networks.resnet20,  # with batch normalisation, its statistics frozen
    "ViT-192x4": networks.vit,  # 192 wide, 4 deep, patches of 4 x 4
}
FULL = SimpleNamespace(plane=200, points=3, hessian=50, steps=30, repeats=3)
SMALL = SimpleNamespace(plane=20, points=3, hessian=10, steps=12, repeats=1)
TOP, PROBES, TIMED, ERROR = 10, 20, 4, 0.01

# attention's own kernel on a CPU has no second derivative; ours is measured without saying anything
KERNELS = {"": nullcontext, ", in sdpa_kernel(MATH)": partial(sdpa_kernel, SDPBackend.MATH)}

Ways = dict[str, Callable[[], object]]  # package and call -> what does the work

loss = nn.functional.cross_entropy


def images(samples: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Synthetic images (n, 3, 32, 32), each its class's picture under noise, and classes (n,)."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(CLASSES, 3, 8, 8, generator=generator)
    pictures = nn.functional.interpolate(pictures, scale_factor=4)
    classes = torch.randint(0, CLASSES, (samples,), generator=generator)
    return pictures[classes] + torch.randn(samples, *SHAPE, generator=generator), classes


def trained(make: Callable, data: tuple[torch.Tensor, torch.Tensor], steps: int = 30) -> nn.Module:
    """A network after a few steps, in evaluation mode: no minimum, and no initialisation either."""
    torch.manual_seed(0)
    model = make(SHAPE, CLASSES).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    batches = list(zip(*(part.split(64) for part in data), strict=True))
    for step in range(steps):
        x, y = batches[step % len(batches)]
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    return model.eval()


def batch_loss(model: nn.Module, batch: tuple) -> torch.Tensor:
    return loss(model(batch[0]), batch[1])


def our_plane(objective: Objective, theta: torch.Tensor, points: int) -> np.ndarray:
    """Every point of a plane along two filter-normalised directions."""
    axes = [
        random_direction(
            theta, objective.layout, "filter", generator=torch.Generator().manual_seed(seed)
        )
        for seed in (0, 1)
    ]
    grid = np.linspace(-1, 1, points)
    return surface.plane(objective, theta, *axes, grid, grid)["loss"]


def their_planes(model: nn.Module, data: tuple, points: int) -> Ways:
    """Each on a copy of the model, which some leave moved."""

    def loss_landscapes() -> np.ndarray:
        import loss_landscapes.metrics

        metric = loss_landscapes.metrics.Loss(loss, *data)
        return loss_landscapes.random_plane(
            copy.deepcopy(model), metric, distance=1, steps=points, normalization="filter"
        )

    def landscaper() -> np.ndarray:
        from landscaper.compute import compute_loss_landscape

        axes = [[torch.randn_like(p) for p in model.parameters()] for _ in range(2)]
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            return compute_loss_landscape(
                copy.deepcopy(model),
                data,
                axes,
                lambda net, batch: batch_loss(net, batch).item(),
                steps=points,
                dim=2,
                device="cpu",
            )[0]

    def nngeom() -> np.ndarray:
        import nngeom

        wrapped = nngeom.Model(copy.deepcopy(model), loss_fn=batch_loss)
        return nngeom.plane_slice_2d(wrapped, data, span=1.0, steps=points).losses

    return {
        "loss-landscapes random_plane, whole batch": loss_landscapes,
        "landscaper compute_loss_landscape, whole batch": landscaper,
        "nngeom plane_slice_2d, whole batch": nngeom,
    }


def their_products(model: nn.Module, data: tuple) -> dict[str, Callable]:
    """Package -> what makes its product of the Hessian with a vector (P,)."""
    batches = list(zip(*(part.split(100) for part in data), strict=True))
    parameters = list(model.parameters())

    def hessian_eigenthings() -> Callable:
        from hessian_eigenthings import HessianOperator

        return HessianOperator(model, batches, batch_loss).matvec

    def curvlinops() -> Callable:
        from curvlinops import HessianLinearOperator

        operator = HessianLinearOperator(
            model, nn.CrossEntropyLoss(), parameters, batches, check_deterministic=False
        )
        return lambda v: operator @ v

    def landscaper() -> Callable:
        from landscaper.hessian import PyHessian

        operator = PyHessian(model, loss, batches, "cpu", try_cache=True)
        sizes = [p.numel() for p in parameters]

        def product(v: torch.Tensor) -> torch.Tensor:
            parts = zip(v.split(sizes), parameters, strict=True)
            found = operator.hv_product([part.view_as(p) for part, p in parts])[1]
            return torch.cat([part.flatten() for part in found])

        return product

    def nngeom() -> Callable:
        import nngeom

        wrapped = nngeom.Model(model, loss_fn=batch_loss)
        return lambda v: torch.from_numpy(wrapped.hvp(data, v.double().numpy()))

    return {
        "hessian-eigenthings HessianOperator, batches of 100": hessian_eigenthings,
        "curvlinops HessianLinearOperator, batches of 100": curvlinops,
        "landscaper PyHessian, cached batches of 100": landscaper,
        "nngeom Model.hvp, whole batch": nngeom,
    }


def their_top_tens(model: nn.Module, data: tuple, products: dict, steps: int) -> Ways:
    def hessian_eigenthings() -> np.ndarray:
        from hessian_eigenthings import HessianOperator, lanczos

        batches = list(zip(*(part.split(100) for part in data), strict=True))
        operator = HessianOperator(model, batches, batch_loss)
        found = lanczos(
            operator, k=TOP, max_iter=steps, tol=1e-3, which="LA", reorthogonalize=True, seed=0
        )
        return found.eigenvalues.double().numpy()

    def curvlinops() -> np.ndarray:
        from scipy.sparse.linalg import LinearOperator, eigsh

        product = products["curvlinops HessianLinearOperator, batches of 100"]()
        size = sum(p.numel() for p in model.parameters())
        operator = LinearOperator(
            (size, size),
            lambda v: product(torch.from_numpy(v.ravel().astype("f4"))).numpy(),
            dtype="f4",
        )
        start = np.random.default_rng(0).standard_normal(size).astype("f4")
        return eigsh(operator, k=TOP, which="LA", tol=1e-3, v0=start)[0][::-1]

    def nngeom() -> np.ndarray:
        import nngeom

        wrapped = nngeom.Model(model, loss_fn=batch_loss)
        return nngeom.lanczos_spectrum(wrapped, data, m=steps, seed=0).eigenvalues[:TOP]

    return {
        f"hessian-eigenthings lanczos, {steps} steps": hessian_eigenthings,
        "curvlinops with scipy's eigsh": curvlinops,
        f"nngeom lanczos_spectrum, {steps} steps": nngeom,
    }


def their_traces(model: nn.Module, data: tuple) -> Ways:
    """TIMED probes each, all that their cost per probe takes to know."""
    batches = list(zip(*(part.split(100) for part in data), strict=True))

    def hessian_eigenthings() -> object:
        from hessian_eigenthings import HessianOperator, trace

        operator = HessianOperator(model, batches, batch_loss)
        return trace(operator, num_matvecs=TIMED, method="hutchinson", seed=0).estimate

    def curvlinops() -> object:
        from curvlinops import HessianLinearOperator, hutchinson_trace

        operator = HessianLinearOperator(
            model,
            nn.CrossEntropyLoss(),
            list(model.parameters()),
            batches,
            check_deterministic=False,
        )
        return hutchinson_trace(operator, TIMED)

    def landscaper() -> object:
        from landscaper.hessian import PyHessian

        return PyHessian(model, loss, batches, "cpu", try_cache=True).trace(TIMED, tol=0)

    def nngeom() -> object:
        import nngeom

        return nngeom.hutchinson_trace(
            nngeom.Model(model, loss_fn=batch_loss), data, n_samples=TIMED, seed=0
        )

    return {
        "hessian-eigenthings, Hutchinson": hessian_eigenthings,
        "curvlinops, Hutchinson": curvlinops,
        "landscaper, Hutchinson": landscaper,
        "nngeom, Hutchinson": nngeom,
    }


def check_finite(found: object) -> None:
    """Raise FloatingPointError unless a peer's result is made of numbers."""
    values = found[0] if isinstance(found, tuple) else found
    if not np.isfinite(np.asarray(values, dtype=float)).all():
        raise FloatingPointError("values that are NaN or infinite")


def side_by_side(name: str, model: nn.Module, size: SimpleNamespace) -> tuple[list, list]:
    """Rows of the results of one network, and of what was refused."""
    rows, refused = [], []

    def each(
        work: str,
        ours: Callable[[], object],
        others: Ways,
        *,
        difference: Callable[[object], float] | None = None,
        **options,
    ) -> None:
        """Compare one way after the other; what fails for attention, without its kernel again."""
        for peer, theirs in others.items():
            for suffix, kernels in KERNELS.items():
                row = {"work": f"{work}, {name}", "against": peer + suffix}
                last: list[object] = []

                def run(theirs=theirs, last=last, kernels=kernels) -> None:
                    with kernels():
                        last[:] = [theirs()]

                try:
                    found = compare(
                        *row.values(), ours, run, **({"repeats": size.repeats} | options)
                    )
                    check_finite(last[0])
                except Exception as error:
                    what = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
                    refused.append(row | {"raised": what})
                    print(f"{row['work']} against {row['against']}: {what}", flush=True)
                    if "attention" in what:
                        continue
                else:
                    if difference:
                        found["agreement"] = f"{difference(last[0]):.0e}"
                    rows.append(found)
                break

    data = images(size.plane)
    theta = flatten(model)
    objective = make_objective(model, *data, statistics="frozen")
    each(
        "plane, every point",
        partial(our_plane, objective, theta, size.points),
        their_planes(model, data, size.points),
        samples=size.plane,
    )

    data = images(size.hessian)
    objective = make_objective(model, *data, statistics="frozen")
    operator = hessian_operator(objective, theta)
    v = torch.randn(len(theta), generator=torch.Generator().manual_seed(0))
    ours = partial(operator.matvec, v)
    reference = ours()
    products = their_products(model, data)
    for peer, make in products.items():
        made: list[Callable] = []

        def theirs(make=make, made=made) -> torch.Tensor:
            product = made.pop() if made else make()
            found = product(v)
            made.append(product)  # which one that failed is not
            return found

        each(
            "Hessian-vector product",
            ours,
            {peer: theirs},
            difference=lambda found: float((found - reference).norm() / reference.norm()),
            samples=size.hessian,
        )

    def our_top_ten() -> np.ndarray:
        return spectrum(
            hessian_operator(objective, theta),
            top=TOP,
            bottom=1,
            probes=1,
            steps=size.steps,
            max_steps=size.steps,
            tolerance=1e-3,
            generator=torch.Generator().manual_seed(0),
        ).top.values

    tens = their_top_tens(model, data, products, size.steps)
    each(f"top {TOP}", our_top_ten, tens, samples=size.hessian, repeats=1)

    def our_trace() -> Traces:
        generator = torch.Generator().manual_seed(0)
        return traces(objective, theta, rest_probes=PROBES, generator=generator, filters=False)

    exact = our_trace().hessian
    forms = signs_forms(operator, len(theta))
    error = max(exact.probe_se, ERROR * abs(exact.value) if not exact.probe_se else 0.0)
    probes = max(TIMED, round((forms.std(ddof=1) / error) ** 2))
    each(
        f"trace to {100 * error / abs(exact.value):.2g} %",
        our_trace,
        {f"{peer}: {probes} products": way for peer, way in their_traces(model, data).items()},
        samples=size.hessian,
        share=TIMED / probes,
        parts="products",
    )
    return rows, refused


def signs_forms(operator, size: int) -> np.ndarray:
    """z'Hz of PROBES random signs z, whose spread is that of one of Hutchinson's probes."""
    signs = (
        torch.randint(0, 2, (PROBES, size), generator=torch.Generator().manual_seed(1)) * 2.0 - 1
    )
    return np.array([float(z @ operator.matvec(z)) for z in signs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--small", action="store_true", help="few samples; writes nothing")
    asked = parser.parse_args()
    size = SMALL if asked.small else FULL
    rows, refused = [], []
    for name, make in MODELS.items():
        found, left_out = side_by_side(name, trained(make, images(640)), size)
        rows += found
        refused += left_out
    if not asked.small:
        write("architectures", rows)
        write_table("refused.csv", refused, ("work", "against", "raised"))


if __name__ == "__main__":
    make_deterministic(1)
    main()
