"""Tidy tables: one row per observation, from the artefacts of a stage.

Every function takes the paths of one stage's files, in the order in which rows are to appear, and
returns a DataFrame whose columns `columns.csv` describes; `with_labels` adds two of a model. Rows
of runs that diverged, or that never reached a point, are there with their status and NaN.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lossgeo import store
from lossgeo.geometry import line_geometry, plane_geometry
from lossgeo.statistics import ratio_of_means

Paths = Sequence[Path | str]

RUN = ("model", "parameters", "optimizer", "seed")
MEASURED = (*RUN, "split", "samples")

POINT = ("status", "step", "loss", "loss_se")
LOSSES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
RUNG = ("samples", "number", "products", "coarse_samples", "coarse_products")
EIGENPAIR = ("eigenvalues", "residuals", "converged")
ESTIMATES = ("trace", "gauss_newton_trace", "filter_curvature", "effective_rank")
MATRICES = ("hessian", "gauss_newton", "filter", "preconditioned")
MATCHED = {  # of the group `matched` -> column
    "step": "matched_step",
    "epoch": "matched_epoch",
    "loss": "matched_loss_reached",
    "loss_se": "matched_loss_se",
}
LEVELS = ("held_out", "interpolation_error")
CURVATURE = ("curvature", "curvature_se")
NULLS = ("random_walk", "drift", "shuffled", "stationary")
SURFACES = {  # kind -> group of the landscape file, coordinates
    "line": ("lines", ("alpha",)),
    "plane": ("planes", ("alpha", "beta")),
    "eigenplane": ("eigenplane", ("alpha", "beta")),
}


def history(paths: Paths) -> pd.DataFrame:
    """The rows of every run's history, from the runs' history.csv."""
    return pd.concat(map(_read_history, paths), ignore_index=True)


def runs(paths: Paths, matched_loss: float, target_accuracy: float) -> pd.DataFrame:
    """One row per run: where it ended, when it reached a loss and an accuracy, its matched point.

    `paths` are the history.csv of all runs and then the snapshots.h5 of all, in one order. Which
    running statistics are meant is a column where some run has any.
    """
    rows = []
    half = len(paths) // 2
    for path, snapshots in zip(paths[:half], paths[half:], strict=True):
        one = _read_history(path)
        last, attributes = one.iloc[-1], store.attributes(snapshots)
        rows.append(
            {column: last[column] for column in (*RUN, "step", "epoch", *LOSSES, "diverged")}
            | {"steps_to_train_loss": steps_until(one, one["train_loss"] - matched_loss)}
            | {"steps_to_test_accuracy": steps_until(one, target_accuracy - one["test_accuracy"])}
            | {"initial_gradient_norm": attributes.get("initial_gradient_norm", np.nan)}
            | _matched(snapshots)
            | {"statistics": attributes.get("statistics", np.nan)}
        )
    table = pd.DataFrame(rows)
    if table["statistics"].isna().all():
        del table["statistics"]
    return table.assign(step=table["step"].astype("Int64"))


def steps_until(history: pd.DataFrame, excess: pd.Series) -> float:
    """Steps until `excess`, one value per row of a history, first is 0 or less; NaN: never.

    It is taken to fall in a straight line between the row at which it is and the row before.
    """
    reached = np.flatnonzero(excess <= 0)
    if not len(reached):
        return np.nan
    steps, heights, row = (
        history["step"].to_numpy(float, na_value=np.nan),
        excess.to_numpy(),
        reached[0],
    )
    if not row:
        return steps[0]
    return float(np.interp(0.0, -heights[row - 1 : row + 1], steps[row - 1 : row + 1]))


def eigenvalues(paths: Paths) -> pd.DataFrame:
    """One row per eigenvalue, of the Hessian and of its kin, at a point of a run."""
    rows = []
    for path, point, hessian in _points(paths):
        for matrix in MATRICES:
            if matrix == "hessian":
                group = hessian
            elif matrix in store.subgroups(path, point):
                group = store.read(path, f"{point}/{matrix}")
            else:
                continue
            known = _run(path) | {"point": point, "status": hessian.attributes["status"]}
            rows += [known | {"matrix": matrix} | row for row in _eigenpairs(group)]
    return pd.DataFrame(rows)


def curvature(paths: Paths) -> pd.DataFrame:
    """One row per point of a run: traces, effective rank and outliers of the Hessian."""
    rows = []
    for path, point, group in _points(paths, "nodes"):
        found = group.attributes
        rows.append(
            _run(path)
            | {"point": point}
            | {name: found[name] for name in POINT}
            | {"trace_method": found["trace_method"]}
            | {f"{name}{end}": found[f"{name}{end}"] for name in ESTIMATES for end in ("", "_se")}
            | {name: found[name] for name in ("outliers", "outlier_gap")}
            | {name: found[name] for name in ("products", "gauss_newton_products")}
        )
    table = pd.DataFrame(rows)
    lost = table["status"] != "ok"
    counts = ["step", "products", "gauss_newton_products"]
    table[counts] = table[counts].astype("Int64").mask(lost)
    table["step"] = _known(table["step"])
    return table.assign(trace_method=table["trace_method"].mask(lost))


def layers(paths: Paths) -> pd.DataFrame:
    """One row per parameter tensor at a point of a run: its part of the trace."""
    frames = []
    for path, point, group in _points(paths, "tensor_traces", "tensor_traces_se"):
        known = _run(path) | {"point": point, "status": group.attributes["status"]}
        frame = pd.DataFrame(
            {
                "tensor": json.loads(group.attributes["tensors"]),
                "entries": json.loads(group.attributes["tensor_sizes"]),
                "gauss_newton_trace": group.variables["tensor_traces"].values,
                "gauss_newton_trace_se": group.variables["tensor_traces_se"].values,
            }
        )
        frames.append(with_identity(known, frame))
    return pd.concat(frames, ignore_index=True)


def layer_curvature(paths: Paths) -> pd.DataFrame:
    """One row per layer at a point of a run: trace and largest eigenvalue of its block of H."""
    frames = []
    for path, point, _ in _points(paths, "nodes"):
        group = store.read(path, f"{point}/layers")
        found = {name: variable.values for name, variable in group.variables.items()}
        status = group.attributes["status"]
        exact = np.where(found["exact"] == 1, "exact", "hutchinson")
        frame = pd.DataFrame(
            {
                "layer": json.loads(group.attributes["layers"]),
                "entries": found["parameters"],
                "trace": found["traces"],
                "trace_se": found["traces_se"],
                "trace_method": exact if status == "ok" else np.nan,
                "eigenvalue": found["eigenvalues"],
                "eigenvalue_se": found["standard_errors"],
                "residual": found["residuals"],
                "converged": found["converged"] == 1,
            }
        )
        frames.append(with_identity(_run(path) | {"point": point, "status": status}, frame))
    return pd.concat(frames, ignore_index=True)


def spectrum(paths: Paths) -> pd.DataFrame:
    """One row per quadrature node of the spectral density at a point of a run."""
    frames = []
    for path, point, group in _points(paths, "nodes", "weights"):
        nodes, weights = (group.variables[name].values for name in ("nodes", "weights"))
        status = group.attributes["status"]
        frame = pd.DataFrame(
            {
                "probe": np.repeat(np.arange(len(nodes)), nodes.shape[1]),
                "node": nodes.ravel(),
                "weight": weights.ravel() if status == "ok" else np.nan,
            }
        )
        identity = _run(path) | {"point": point, "status": status}
        frames.append(with_identity(identity, frame))
    return pd.concat(frames, ignore_index=True)


def ladder(paths: Paths) -> pd.DataFrame:
    """One row per subset of the samples and eigenvalue at a point of a run.

    What it cost is empty where there was nothing to measure.
    """
    rows = []
    for path, point, group in _points(paths, *RUNG, *EIGENPAIR, "eigenvalue_se"):
        found = {name: variable.values for name, variable in group.variables.items()}
        for subset, values in enumerate(found["eigenvalues"]):
            for rank in range(1, len(values) + 1):
                rows.append(
                    identity_of(path, (*RUN, "split"))
                    | {"point": point, "status": group.attributes["status"]}
                    | {"samples": found["samples"][subset], "subset": found["number"][subset]}
                    | {"rank": rank, "eigenvalue": values[rank - 1]}
                    | {"eigenvalue_se": found["eigenvalue_se"][subset, rank - 1]}
                    | {"residual": found["residuals"][subset, rank - 1]}
                    | {"converged": bool(found["converged"][subset, rank - 1])}
                    | {name: found[name][subset] for name in RUNG[2:]}
                )
    table = pd.DataFrame(rows)
    costs = list(RUNG[2:])
    table[costs] = table[costs].astype("Int64").mask(table["status"] != "ok")
    return table


def landscape(paths: Paths, rise: float, persistence: float) -> pd.DataFrame:
    """One row per line or plane: its geometry (see `geometry.Geometry`), and d'Hd at its centre."""
    rows = []
    limits = {"rise": rise, "persistence": persistence}
    for path in paths:
        for point in store.subgroups(path):
            for kind, (name, axes) in SURFACES.items():
                group = store.read(path, f"{point}/{name}")
                grid = [group.variables[axis].values for axis in axes]
                for index in range(len(group.variables["loss"].values)):
                    rows.append(
                        _run(path)
                        | {"point": point, "status": group.attributes["status"]}
                        | {"surface": kind, "index": index}
                        | _surface(group, grid, index, limits)
                    )
    return pd.DataFrame(rows)


def flatness(paths: Paths) -> pd.DataFrame:
    """One row per point of a run and radius of the noise: mean rise over the draws.

    Its ratio to r^2 / 2 d'Hd is 1 where the loss is its quadratic. The draws are the same in both,
    and so paired.
    """
    rows = []
    for path in paths:
        for point in store.subgroups(path):
            for noise in ("normalized", "elementwise", "isotropic"):
                group = store.read(path, f"{point}/{noise}")
                found = {name: variable.values for name, variable in group.variables.items()}
                draws = len(found["curvature"])
                for index, radius in enumerate(found["radius"]):
                    rises = found["rise"][index]
                    ratio, ratio_se = ratio_of_means(rises, radius**2 / 2 * found["curvature"])
                    rows.append(
                        _run(path)
                        | {"point": point, "status": group.attributes["status"], "noise": noise}
                        | {"normalization": group.attributes["normalization"]}
                        | {"noise_radius": radius, "rise": rises.mean()}
                        | {"rise_se": rises.std(ddof=1) / np.sqrt(draws)}
                        | {"rise_sample_se": found["rise_sample_se"][index]}
                        | {"curvature": found["curvature"].mean()}
                        | {"curvature_se": found["curvature"].std(ddof=1) / np.sqrt(draws)}
                        | {"curvature_sample_se": float(found["curvature_sample_se"])}
                        | {"kink_ratio": ratio, "kink_ratio_se": ratio_se}
                        | {"kink_ratio_sample_se": found["kink_ratio_sample_se"][index]}
                        | {"draws": draws}
                    )
    return pd.DataFrame(rows)


def worst_case(paths: Paths) -> pd.DataFrame:
    """One row per point of a run and ball around it: the largest rise that was found."""
    rows = []
    for path in paths:
        for point in store.subgroups(path):
            for ball in ("euclidean", "elementwise"):
                group = store.read(path, f"{point}/worst/{ball}")
                found = {name: variable.values for name, variable in group.variables.items()}
                for index, radius in enumerate(found["radius"]):
                    best = found["best"][index]
                    rows.append(
                        _run(path)
                        | {"point": point, "status": group.attributes["status"]}
                        | {"ball": ball, "ball_radius": radius}
                        | {"worst_rise": found["rise"][index]}
                        | {"worst_rise_se": found["rise_sample_se"][index]}
                        | {"first_order": found["first_order"][index]}
                        | {"gradients": len(best) - 1}
                        | {"late_gain": 1 - best[len(best) // 2] / best[-1] if best[-1] else 0.0}
                    )
    return pd.DataFrame(rows)


def invariance(paths: Paths) -> pd.DataFrame:
    """One row per measure of sharpness and rescaling of a network whose function stays the same."""
    rows = []
    for path in paths:
        for point in store.subgroups(path):
            if "invariance" not in store.subgroups(path, point):
                continue
            group = store.read(path, f"{point}/invariance")
            status = group.attributes["status"]
            for index, rescaling in enumerate(("layer", "node"), 1):
                for measure in group.attributes["measures"].split(","):
                    row = _run(path) | {"point": point, "status": status}
                    row |= {"factor": group.attributes["factor"]}
                    row |= {"rescaling": rescaling, "sharpness": measure}
                    if status == "ok":
                        found = {
                            suffix: group.variables[measure + suffix].values
                            for suffix in ("", "_se", "_ratio", "_ratio_se", "_converged")
                        }
                        row |= {"value": found[""][0], "value_se": found["_se"][0]}
                        row |= {"rescaled": found[""][index], "rescaled_se": found["_se"][index]}
                        row |= {"ratio": found["_ratio"][index]}
                        row |= {"ratio_se": found["_ratio_se"][index]}
                        row |= {"converged": bool(found["_converged"][[0, index]].all())}
                    rows.append(row)
    columns = ("value", "value_se", "rescaled", "rescaled_se", "ratio", "ratio_se", "converged")
    known = (*MEASURED, "point", "status", "factor", "rescaling", "sharpness")
    return pd.DataFrame(rows, columns=[*known, *columns])


def trajectory(paths: Paths) -> pd.DataFrame:
    """One row per principal component of a run and kind of null trajectory."""
    rows = []
    for path in paths:
        attributes = store.attributes(path)
        known = _run(path) | {"status": attributes["status"]}
        if not _has_pca(path):
            components = attributes["components"]
            rows += [
                known | {"component": component, "null_model": null}
                for null in NULLS
                for component in range(1, components + 1)
            ]
            continue
        variables = store.read(path, "pca").variables
        for null in NULLS:
            drawn = variables[f"explained_{null}"].values  # (draws, components)
            low, high = np.percentile(drawn, [2.5, 97.5], axis=0)
            for i, component in enumerate(variables["component"].values):
                share = variables["explained"].values[i]
                rows.append(
                    known
                    | {"component": component, "null_model": null, "explained": share}
                    | {"null_mean": drawn[:, i].mean(), "null_low": low[i], "null_high": high[i]}
                    | {"outside_null": share - np.clip(share, low[i], high[i])}
                )
    columns = ("component", "null_model", "explained", "null_mean", "null_low", "null_high")
    columns = (*columns, "outside_null")
    return pd.DataFrame(rows, columns=[*MEASURED, "status", *columns])


def trajectory_path(paths: Paths) -> pd.DataFrame:
    """One row per snapshot: where it lies in the PCA plane, how far off it, and its true loss."""
    frames = []
    for path in paths:
        known = _run(path) | {"status": store.attributes(path)["status"]}
        if not _has_pca(path):
            frames.append(pd.DataFrame([known]))
            continue
        variables = store.read(path, "pca").variables
        frame = pd.DataFrame(
            {
                "step": _known(variables["step"].values),
                "epoch": variables["epoch"].values,
                "coordinate_1": variables["coordinates"].values[:, 0],
                "coordinate_2": variables["coordinates"].values[:, 1],
                "residual_distance": variables["residual"].values,
                "loss": variables["loss"].values,
                "loss_se": variables["loss_se"].values,
            }
        )
        frames.append(with_identity(known, frame))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=MEASURED)


def parabola(paths: Paths) -> pd.DataFrame:
    """One row per run: how well a parabola fits the loss along PC1, and along random directions.

    Directions along which the loss is flat to rounding have no R^2 and do not count.
    """
    rows = []
    for path in paths:
        row = _run(path) | {"status": store.attributes(path)["status"]}
        if _has_pca(path):
            found = store.read(path, "parabola", ("r2_pc1", "r2_random")).variables
            along_pc1, random = float(found["r2_pc1"].values), found["r2_random"].values
            random = random[np.isfinite(random)]
            row |= {"r2_pc1": along_pc1, "directions": len(random)}
            if len(random):
                low, high = np.percentile(random, [2.5, 97.5])
                row |= {"r2_random_mean": random.mean(), "r2_random_low": low}
                row |= {"r2_random_high": high, "r2_difference": along_pc1 - random.mean()}
        rows.append(row)
    numbers = ("r2_pc1", "r2_random_mean", "r2_random_low", "r2_random_high", "r2_difference")
    table = pd.DataFrame(rows, columns=[*MEASURED, "status", *numbers, "directions"])
    return table.astype(dict.fromkeys(numbers, float) | {"directions": "Int64"})


def columns() -> pd.DataFrame:
    """The unit and the description of every column, by its name: the file `columns.csv`."""
    file = Path(__file__).with_name("columns.csv")
    return pd.read_csv(file, index_col="column", keep_default_na=False)


def dictionary(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """One row per column of every table: its unit and what it is."""
    described = columns()
    return pd.DataFrame(
        [
            {
                "table": name,
                "column": column,
                "unit": described.loc[column, "unit"],
                "description": described.loc[column, "description"],
            }
            for name, table in tables.items()
            for column in table.columns
        ]
    )


def identity_of(path: Path | str, names: Sequence[str]) -> dict:
    """These root attributes of an artefact, and the part of theta that it is of, if not all."""
    attributes = store.attributes(path)
    part = {"part": attributes["part"]} if "part" in attributes else {}
    return {name: attributes[name] for name in names} | part


def kernels(paths: Paths) -> pd.DataFrame:
    """How many artefacts of each kind were computed on which kernels (see `numerics.kernels`).

    More than one kind of kernels in a study: its last digits are not those of any one machine.
    """
    found = [(Path(path).stem, store.attributes(path)["kernels"]) for path in paths]
    frame = pd.DataFrame(found, columns=["artefact", "kernels"])
    return frame.groupby(["artefact", "kernels"]).size().reset_index(name="files")


def with_labels(table: pd.DataFrame, labels: Mapping[str, Mapping]) -> pd.DataFrame:
    """A table with family and width, as `labels` has them for each model, beside the model."""
    if "model" not in table:
        return table
    made = table.copy()
    place = made.columns.get_loc("model") + 1
    for label in ("width", "family"):
        made.insert(place, label, [labels[model][label] for model in made["model"]])
    return made


def with_identity(identity: Mapping, frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with the identity's values in columns before its own."""
    return pd.concat(
        [pd.DataFrame({name: [value] * len(frame) for name, value in identity.items()}), frame],
        axis=1,
    )


def _read_history(path: Path | str) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"step": "Int64"})


def _known(steps) -> pd.Series:
    """Steps taken, whole numbers; empty where they are not known (-1)."""
    found = pd.Series(steps, dtype="Int64")
    return found.mask(found < 0)


def _points(paths: Paths, *names: str) -> Iterator[tuple[Path | str, str, store.Group]]:
    """Every point of every file, with the named variables, or all."""
    for path in paths:
        for point in store.subgroups(path):
            yield path, point, store.read(path, point, names or None)


def _eigenpairs(group: store.Group) -> Iterator[dict]:
    """The eigenvalues of a group, end by end, outermost first."""
    found = {name: variable.values for name, variable in group.variables.items()}
    for end in ("top", "bottom"):
        for i, value in enumerate(found.get(f"{end}_eigenvalues", ())):
            yield {
                "end": end,
                "rank": i + 1,
                "eigenvalue": value,
                "eigenvalue_se": found[f"{end}_standard_errors"][i],
                "residual": found[f"{end}_residuals"][i],
                "converged": bool(found[f"{end}_converged"][i]),
                "cosine": found["cosines"][i] if "cosines" in found else np.nan,
            }


def _matched(snapshots: Path | str) -> dict:
    """The matched point that training kept; NaN where it was not asked for or never reached."""
    if "matched" not in store.subgroups(snapshots):
        return dict.fromkeys(MATCHED.values(), np.nan)
    found = store.read(snapshots, "matched", MATCHED).variables
    numbers = {column: float(found[name].values) for name, column in MATCHED.items()}
    return numbers | ({"matched_step": np.nan} if numbers["matched_step"] < 0 else {})


def _surface(group: store.Group, grid: list[np.ndarray], index: int, limits: dict) -> dict:
    """A line or plane as numbers; all NaN where its point has no theta."""
    found = {name: variable.values for name, variable in group.variables.items()}
    evaluated = found["evaluated"][index]
    measure = line_geometry if len(grid) == 1 else plane_geometry
    stencils = None if evaluated.all() else found["stencils"][index].astype(bool)
    numbers = (
        {"cosine": _cosine(group, index)}
        | {name: found[name][index] for name in CURVATURE}
        | measure(*grid, found["loss"][index], **limits, stencils=stencils).asdict()
        | {"eigenvalue_ratio": _eigenvalue_ratio(group), "evaluated": evaluated.mean()}
        | {name: found[name][index] for name in LEVELS}
    )
    if group.attributes["status"] != "ok":
        return dict.fromkeys(numbers, np.nan)
    return numbers


def _has_pca(path: Path | str) -> bool:
    """Whether the run had enough finite snapshots for a PCA."""
    return "pca" in store.subgroups(path)


def _run(path: Path | str) -> dict:
    return identity_of(path, MEASURED)


def _eigenvalue_ratio(group: store.Group) -> float:
    """Second difference along the first eigenvector / its eigenvalue; NaN for other surfaces."""
    found = group.attributes
    if "second_difference_alpha" not in found or not found["eigenvalue_alpha"]:
        return np.nan
    return found["second_difference_alpha"] / found["eigenvalue_alpha"]


def _cosine(group: store.Group, index: int) -> float:
    if "cosine" in group.variables:
        return float(group.variables["cosine"].values[index])
    return float(group.attributes.get("cosine", np.nan))
