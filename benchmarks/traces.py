"""The trace of the Hessian to 1 %: exactly, against probes until their error is that small.

What a peer needs is found first: Hutchinson's estimator has the standard error of one probe over
the square root of their number; the others, in which probes share a basis, are run over and over
with growing numbers until they are off by 1 % (root mean square of SEEDS runs).
"""

from collections.abc import Callable
from functools import partial

import backpack
import numpy as np
import torch
from backpack.extensions import DiagGGNExact
from curvlinops import HessianLinearOperator, hutchpp_trace, xtrace
from hessian_eigenthings import HessianOperator, LambdaOperator, trace
from pyhessian import hessian
from torch import nn

from harness import CLASSES, SHAPE, SPECS, compare, mnist, trained, usual_model, write
from lossgeo.gauss_newton import sample_traces
from lossgeo.hessian import hessian_operator
from lossgeo.models import build
from lossgeo.numerics import make_deterministic
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten
from lossgeo.trace import Estimate, estimate, of_samples

ERROR = 0.01
PROBES = 100  # that measure the spread of one
TIMED = 12  # products that are timed
SEEDS = 8
NUMBERS = (12, 24, 36, 48, 72, 96, 144, 192, 288, 384, 576, 768)  # divisible by 2 and by 3
PASSES = 1 + CLASSES  # of ours: one forward, and one backward for each class


class Products:
    """Our products as an operator of curvlinops, to find out quickly what it needs."""

    def __init__(self, operator: LambdaOperator) -> None:
        self.operator = operator
        self.shape = (operator.size, operator.size)
        self.dtype, self.device = operator.dtype, operator.device

    def __matmul__(self, matrix: torch.Tensor) -> torch.Tensor:
        if matrix.ndim == 1:
            return self.operator.matvec(matrix)
        return torch.stack([self.operator.matvec(v) for v in matrix.T.contiguous()], dim=1)


def batch_loss(model: nn.Module, batch: tuple) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def enough(method: Callable, products: Products, exact: float) -> int:
    """The first of NUMBERS with which `method` is off by ERROR at most."""
    for number in NUMBERS:
        torch.manual_seed(0)
        found = np.array([float(method(products, number)) for _ in range(SEEDS)])
        error = float(np.sqrt(np.mean((found / exact - 1) ** 2)))
        print(f"{method.__name__}, {number} products: off by {100 * error:.2g} %", flush=True)
        if error <= ERROR:
            return number
    raise SystemExit(f"{method.__name__} has not come within {ERROR} in {number} products")


def sequential(model: nn.Module) -> nn.Sequential:
    """The usual network as BackPACK takes it: layers in a row, none of them in place."""
    convolutions = []
    if hasattr(model, "conv1"):
        convolutions = [model.conv1, nn.ReLU(), nn.MaxPool2d(2)]
        convolutions += [model.conv2, nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*convolutions, nn.Flatten(), model.hidden, nn.ReLU(), model.output)


def ggn_diagonal(model: nn.Module, batches: list) -> Callable[[], float]:
    """The trace as the sum of BackPACK's exact diagonal of the Gauss-Newton matrix."""
    model, criterion = backpack.extend(model), backpack.extend(nn.CrossEntropyLoss())
    samples = sum(len(y) for _, y in batches)

    def run() -> float:
        total = 0.0
        for x, y in batches:
            model.zero_grad()
            with backpack.backpack(DiagGGNExact()):
                criterion(model(x), y).backward()
            diagonals = (p.diag_ggn_exact for p in model.parameters())
            total += len(y) / samples * sum(float(d.double().sum()) for d in diagonals)
        return total

    return run


def main() -> None:
    train = mnist()
    rows = []
    for name, samples in (("MLP-128", 2000), ("CNN-16", 200)):
        spec = SPECS[name]
        model = trained(spec, *(part[: 12800 if "CNN" in name else 60000] for part in train))
        x, y = (part[:samples] for part in train)
        theta = flatten(model)
        objective = make_objective(build(spec, SHAPE, CLASSES), x, y)
        batches = list(zip(x.split(100), y.split(100), strict=True))

        def usual(spec=spec, model=model) -> nn.Module:
            return usual_model(spec, model.state_dict()).eval()

        def ours(objective=objective, theta=theta) -> Estimate:
            return estimate(of_samples(sample_traces(objective, theta)))

        exact = ours().value
        products = Products(hessian_operator(objective, theta))
        spread = trace(products.operator, num_matvecs=PROBES, method="hutchinson", seed=0).stderr
        probes = round((spread * np.sqrt(PROBES) / (ERROR * exact)) ** 2)
        print(f"{name}: trace {exact:.6g}, {probes} probes of Hutchinson's for 1 %", flush=True)

        listed = HessianOperator(usual(), batches, batch_loss)
        whole = hessian(usual(), nn.functional.cross_entropy, dataloader=batches, cuda=False)
        few = min(TIMED, probes)
        hutchinson = {
            "PyHessian": partial(whole.trace, maxIter=few, tol=0),
            "hessian-eigenthings": partial(
                trace, listed, num_matvecs=few, method="hutchinson", seed=0
            ),
        }
        diagonal = ggn_diagonal(sequential(usual()), batches)
        row = partial(compare, f"trace at 1 % error, {name}", ours=ours, samples=samples, repeats=3)
        rows.append(
            row(
                "BackPACK's exact diagonal of the Gauss-Newton matrix",
                theirs=diagonal,
                agreement=abs(diagonal() / exact - 1),
            )
        )
        rows += [
            row(
                f"{peer}, Hutchinson: {probes} products against {PASSES} passes",
                theirs=theirs,
                share=few / probes,
                parts="products",
            )
            for peer, theirs in hutchinson.items()
        ]
        net = usual()
        linear = HessianLinearOperator(
            net, nn.CrossEntropyLoss(), list(net.parameters()), batches, check_deterministic=False
        )
        for title, method in (("Hutch++", hutchpp_trace), ("XTrace", xtrace)):
            number = enough(method, products, exact)
            rows.append(
                row(
                    f"curvlinops, {title}: {number} products against {PASSES} passes",
                    theirs=partial(method, linear, TIMED),
                    share=TIMED / number,
                    parts="products",
                )
            )
    write("traces", rows)


if __name__ == "__main__":
    make_deterministic(1)
    main()
