"""The largest eigenvalue of many samples: by way of the few that matter, and by Lanczos on all.

Both go on to the same residual, with products of the same kind. Lanczos gets exactly the steps that
it needs, found in advance, and a graph that is kept; ours builds its graph anew in every pass.
"""

import numpy as np
import torch
from hessian_eigenthings import lanczos, lanczos_tridiagonal

from harness import CLASSES, SHAPE, SPECS, compare, mnist, trained, write
from lossgeo.hessian import hessian_operator
from lossgeo.ladder import leading_eigenpairs
from lossgeo.models import build
from lossgeo.numerics import make_deterministic
from lossgeo.objective import make_objective
from lossgeo.parameters import flatten

SAMPLES, TOLERANCE, MOST = 20000, 1e-3, 40


def steps_needed(operator) -> int:
    """Lanczos steps from a random start until the residual of the largest pair is small enough."""
    start = torch.randn(operator.size, generator=torch.Generator().manual_seed(0))
    krylov = lanczos_tridiagonal(operator, start, MOST)
    diagonal, off = (part.double().numpy() for part in (krylov.alphas, krylov.betas))
    for steps in range(2, MOST):
        inner = off[: steps - 1]
        matrix = np.diag(diagonal[:steps]) + np.diag(inner, 1) + np.diag(inner, -1)
        values, vectors = np.linalg.eigh(matrix)
        if off[steps - 1] * abs(vectors[-1, -1]) < TOLERANCE * abs(values[-1]):
            return steps
    raise SystemExit(f"Lanczos has not converged in {MOST} steps")


def main() -> None:
    train = mnist()
    rows = []
    for name in ("MLP-32", "MLP-128", "CNN-16"):
        spec = SPECS[name]
        model = trained(spec, *(part[: 12800 if "CNN" in name else 60000] for part in train))
        theta = flatten(model)
        objective = make_objective(build(spec, SHAPE, CLASSES), *(part[:SAMPLES] for part in train))
        steps = steps_needed(hessian_operator(objective, theta))

        def ours(objective=objective, theta=theta):
            generator = torch.Generator().manual_seed(0)
            return leading_eigenpairs(
                objective, theta, top=1, tolerance=TOLERANCE, generator=generator
            )

        def theirs(objective=objective, theta=theta, steps=steps):
            operator = hessian_operator(objective, theta)
            return lanczos(operator, k=1, max_iter=steps, which="LA", reorthogonalize=True, seed=0)

        found = ours()
        rows.append(
            compare(
                f"largest eigenvalue, {name}",
                f"Lanczos on all samples, {steps} products against {found.products}",
                ours,
                theirs,
                samples=SAMPLES,
                agreement=abs(found.pairs.values[0] / float(theirs().eigenvalues[0]) - 1),
                repeats=5 if "MLP" in name else 3,
            )
        )
    write("ladder", rows)


if __name__ == "__main__":
    make_deterministic(1)
    main()
