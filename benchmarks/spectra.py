"""Top eigenvalues, trace and density of one point: Krylov runs and a sum against three calls."""

import numpy as np
import torch
from hessian_eigenthings import HessianOperator, lanczos, spectral_density, trace
from torch import nn

from harness import CLASSES, SHAPE, SPECS, compare, mnist, trained, usual_model, write
from lossgeo.gauss_newton import sample_traces
from lossgeo.hessian import hessian_operator
from lossgeo.models import build
from lossgeo.numerics import make_deterministic
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten
from lossgeo.spectrum import spectrum
from lossgeo.trace import of_samples

TOP, PROBES, STEPS = 10, 5, 40


def batch_loss(model: nn.Module, batch: tuple) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def their_three_calls(operator) -> None:
    """As many probes and Lanczos steps as ours; their trace has an error over these, ours none."""
    lanczos(operator, k=TOP, max_iter=STEPS, tol=1e-3, which="LA", reorthogonalize=True, seed=0)
    trace(operator, num_matvecs=PROBES, method="hutchinson", seed=0)
    spectral_density(operator, num_runs=PROBES, lanczos_steps=STEPS, seed=0)


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
        theirs = HessianOperator(usual_model(spec, model.state_dict()), batches, batch_loss)

        def ours(objective=objective, theta=theta):
            of_samples(sample_traces(objective, theta)).mean()
            return spectrum(
                hessian_operator(objective, theta),
                top=TOP,
                bottom=0,
                probes=PROBES,
                steps=STEPS,
                max_steps=STEPS,
                tolerance=1e-3,
                generator=torch.Generator().manual_seed(0),
            )

        tight = lanczos(theirs, k=TOP, max_iter=100, which="LA", reorthogonalize=True, seed=1)
        agreement = np.abs(ours().top.values / tight.eigenvalues.double().numpy() - 1).max()
        rows.append(
            compare(
                f"top {TOP}, trace and density, {name}",
                "lanczos, trace and spectral_density of hessian-eigenthings",
                ours,
                lambda op=theirs: their_three_calls(op),
                samples=samples,
                agreement=float(agreement),
                repeats=5 if name == "MLP-128" else 3,
            )
        )
    write("spectra", rows)


if __name__ == "__main__":
    make_deterministic(1)
    main()
