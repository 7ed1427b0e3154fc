"""Cost of a plane against its size: points, samples and parameters, each doubled three times.

Every measurement is a process of its own, so that its peak memory is its own as well.
"""

import csv
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np

from harness import CLASSES, HERE, SHAPE, mnist

BASE = {
    "MLP": {"family": "mlp", "width": 128, "samples": 2000, "rows": 13, "columns": 13},
    "CNN": {"family": "cnn", "width": 16, "samples": 500, "rows": 3, "columns": 4},
}
LARGE = {"family": "cnn", "width": 64, "samples": 2000, "rows": 101, "columns": 101}
COLUMNS = ("network", "doubled", "value", "parameters", "points", "samples", "seconds", "peak_mb")


def measure(family: str, width: int, samples: int, rows: int, columns: int) -> dict:
    """Seconds and peak memory (MB, of the process) of a plane, multilevel where it is large."""
    import torch

    from lossgeo import multilevel, surface
    from lossgeo.models import build
    from lossgeo.numerics import make_deterministic
    from lossgeo.objective import make_objective
    from lossgeo.parameters import flatten

    make_deterministic(1)
    model = build({"family": family, "width": width}, SHAPE, CLASSES)
    objective = make_objective(model, *mnist(samples))
    theta = flatten(model)
    axes = 0.01 * torch.randn(2, len(theta), generator=torch.Generator().manual_seed(0))
    grids = [np.linspace(-1, 1, n) for n in (rows, columns)]
    seconds = []
    large = rows * columns > 10000
    for _ in range(1 if large else 6):
        start = time.perf_counter()
        if large:
            generator = np.random.default_rng(0)
            multilevel.plane(
                objective, theta, *axes, *grids, estimator="multilevel", generator=generator
            )
        else:
            surface.plane(objective, theta, *axes, *grids)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "parameters": len(theta),
        "points": rows * columns,
        "samples": samples,
        "seconds": f"{statistics.median(seconds[-5:]):.4g}",
        "peak_mb": f"{peak:.0f}",
    }


def in_own_process(settings: dict) -> dict:
    command = [sys.executable, __file__, json.dumps(settings)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def plot(rows: list[dict]) -> None:
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(2, 3, figsize=(6.8, 4.2), sharex="col", layout="constrained")
    for column, doubled in enumerate(("points", "samples", "parameters")):
        for network, colour in (("MLP", "#0072B2"), ("CNN", "#D55E00")):
            chosen = [r for r in rows if r["network"] == network and r["doubled"] == doubled]
            x = np.array([float(r["value"]) for r in chosen])
            times = np.array([float(r["seconds"]) for r in chosen])
            memory = [float(r["peak_mb"]) for r in chosen]
            base = BASE[network]
            label = f"{network}-{base['width']}"
            panels[0, column].loglog(x, times, "o", color=colour, label=label, base=2)
            panels[0, column].loglog(x, times[0] * x / x[0], "--", color=colour, lw=0.8, base=2)
            panels[1, column].semilogx(x, memory, "o-", color=colour, lw=0.8, base=2)
        panels[1, column].set(xlabel=doubled)
    for panel in panels[1]:
        panel.set_ylim(0, 1.1 * max(float(row["peak_mb"]) for row in rows))
    panels[0, 0].set(ylabel="time of a plane (s)")
    panels[1, 0].set(ylabel="peak memory (MB)")
    panels[0, 0].legend(
        title="dashed: linear", frameon=False, fontsize=7, title_fontsize=7, loc="lower left"
    )
    figure.savefig(HERE.parent / "docs" / "scaling.png", dpi=150, metadata={"Software": None})


def main() -> None:
    rows = []
    for network, base in BASE.items():
        for doubled in ("points", "samples", "parameters"):
            for power in range(4):
                settings = dict(base)
                if doubled == "points":
                    settings["rows"] *= 2 ** ((power + 1) // 2)
                    settings["columns"] *= 2 ** (power // 2)
                else:
                    key = "samples" if doubled == "samples" else "width"
                    settings[key] *= 2**power
                found = in_own_process(settings)
                rows.append(
                    {"network": network, "doubled": doubled, "value": found[doubled], **found}
                )
                print(rows[-1], flush=True)
    plot(rows)
    rows.append(
        {"network": "CNN-64, multilevel", "doubled": "", "value": ""} | in_own_process(LARGE)
    )
    print(rows[-1], flush=True)
    with open(HERE / "scaling.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(**json.loads(sys.argv[1]))))
    else:
        main()
