"""A user's own networks, through the workflow, each with a truth that our own code has no part in.

Every objective is of all training samples. Its Hessian is a dense one in float64, by autograd; of
statistics that are recalibrated, whose function torch cannot differentiate, a second difference of
the loss along the eigenvector that was found.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.autograd.functional import hessian
from torch.func import functional_call
from torch.nn import functional as F

from workflow import my_networks
from workflow.conftest import RESULTS, ROOT, clone, run

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross-entropy": F.cross_entropy,
    "tokens": lambda logits, targets: F.cross_entropy(logits.flatten(0, 1), targets.flatten()),
    "mse": F.mse_loss,
}


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """The study of tests/configs/networks.yaml: some of its tables and figures."""
    project = project_of(tmp_path_factory.mktemp("images"), "networks.yaml")
    (project / "weights").mkdir()
    for seed, (name, save) in enumerate((("a.safetensors", save_file), ("b.pt", torch.save))):
        torch.manual_seed(seed)
        save(my_networks.resnet((3, 8, 8), 3, "group").state_dict(), project / "weights" / name)
    tables = [str(RESULTS / "tables" / f"{name}.csv") for name in ("curvature", "connectivity")]
    figures = [
        str(RESULTS / "figures" / experiment / f"{name}.png")
        for experiment, name in (("networks", "planes"), ("pairs", "connectivity"))
    ]
    run(project, *tables, *figures, str(RESULTS / "tables" / "flatness.csv"))
    return project


def project_of(folder: Path, config: str) -> Path:
    """A clone in which a config stands in the place of tiny.yaml."""
    project = clone(folder / "project")
    shutil.copy2(ROOT / "tests" / "configs" / config, project / "tiny.yaml")
    shutil.copy2(Path(my_networks.__file__), project)
    return project


def point(project: Path, run: str, name: str = "snapshots.h5") -> h5py.File:
    return h5py.File(project / RESULTS / "runs" / run / name)


def state_of(model: nn.Module, project: Path, run: str) -> None:
    """Give a model in float64 the parameters and running statistics of a run's last snapshot."""
    with point(project, run) as file:
        theta = torch.from_numpy(file["theta"][-1]).double()
        nn.utils.vector_to_parameters(theta, model.parameters())
        if "buffers" in file:
            kept = torch.from_numpy(file["buffers"][-1]).double()
            floating = [b for b in model.buffers() if b.is_floating_point()]
            for buffer, values in zip(
                floating, kept.split([b.numel() for b in floating]), strict=True
            ):
                buffer.copy_(values.view_as(buffer))


def dense(model: nn.Module, loss: Callable, data: tuple, names: list[str]) -> np.ndarray:
    """Eigenvalues, descending, of the Hessian by the named parameters."""
    inputs, targets = as_tensors(data)
    parameters = dict(model.named_parameters())
    shapes = [parameters[name].shape for name in names]
    sizes = [shape.numel() for shape in shapes]

    def value(theta: Tensor) -> Tensor:
        parts = [part.view(shape) for part, shape in zip(theta.split(sizes), shapes, strict=True)]
        changed = parameters | dict(zip(names, parts, strict=True))
        return loss(functional_call(model, changed, (inputs,)), targets)

    theta = torch.cat([parameters[name].detach().flatten() for name in names])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        matrix = hessian(value, theta)
    return np.linalg.eigvalsh(matrix.numpy())[::-1]


def as_tensors(data: tuple) -> tuple[Tensor, Tensor]:
    inputs, targets = map(torch.from_numpy, data[:2])
    return tuple(t.double() if t.is_floating_point() else t.long() for t in (inputs, targets))


def top(project: Path, run: str) -> np.ndarray:
    with point(project, run, "hessian.h5") as file:
        assert file["final/top_converged"][:].all()
        return file["final/top_eigenvalues"][:]


@pytest.mark.parametrize(
    ("run", "build"),
    [
        ("group-norm/momentum/seed0", lambda: my_networks.resnet((3, 8, 8), 3, "group")),
        ("frozen/momentum/seed0", lambda: my_networks.resnet((3, 8, 8), 3, "batch")),
        ("transformer/momentum/seed0", lambda: my_networks.vit((3, 8, 8), 3)),
        ("elsewhere/given/seed1", lambda: my_networks.resnet((3, 8, 8), 3, "group")),
    ],
)
def test_eigenvalues_are_those_of_the_dense_hessian(images, run, build):
    model = build().double().eval()
    state_of(model, images, run)
    names = [name for name, _ in model.named_parameters()]
    if run.startswith("group-norm"):
        names = [name for name in names if "conv" in name or name.startswith("3.")]
    expected = dense(model, F.cross_entropy, my_networks.images(), names)
    np.testing.assert_allclose(top(images, run), expected[:3], rtol=2e-3)


def test_recalibrated_statistics_are_a_function_of_theta(images):
    """L(theta + h v) by a pass in training mode, of which evaluation keeps the statistics."""
    run = "recalibrated/momentum/seed0"
    with point(images, run, "hessian.h5") as file:
        vector = torch.from_numpy(file["final/eigenvectors"][0]).double()
    model = my_networks.resnet((3, 8, 8), 3, "batch").double()
    state_of(model, images, run)
    theta = nn.utils.parameters_to_vector(model.parameters()).detach()
    inputs, targets = as_tensors(my_networks.images())

    def loss(alpha: float) -> float:
        nn.utils.vector_to_parameters(theta + alpha * vector, model.parameters())
        for layer in model.modules():
            if isinstance(layer, nn.BatchNorm2d):
                layer.reset_running_stats()
                layer.momentum = None
        with torch.no_grad():
            model.train()(inputs)
            return float(F.cross_entropy(model.eval()(inputs), targets))

    step = 1e-3
    second = (loss(step) - 2 * loss(0) + loss(-step)) / step**2
    assert top(images, run)[0] == pytest.approx(second, rel=2e-3)


def test_tables_name_what_was_measured_and_how(images):
    curvature = pd.read_csv(images / RESULTS / "tables" / "curvature.csv")
    assert np.isfinite(curvature["trace"]).all()
    connectivity = pd.read_csv(images / RESULTS / "tables" / "connectivity.csv")
    lines = connectivity.query("rung == 'line'")
    assert set(lines["model"]) == {"frozen", "recalibrated", "elsewhere"}
    assert (lines["status"] == "ok").all()


@pytest.mark.parametrize(
    ("config", "loss", "data", "build"),
    [
        (
            "tokens.yaml",
            "tokens",
            my_networks.sentences,
            lambda: my_networks.next_token((10,), 5),
        ),
        (
            "regression.yaml",
            "mse",
            my_networks.curve,
            lambda: my_networks.regressor((3,), 2),
        ),
    ],
)
def test_other_data_and_losses_go_through_the_study(tmp_path, config, loss, data, build):
    project = project_of(tmp_path, config)
    run(project)
    model, name = build().double().eval(), "mine/adam/seed0"
    state_of(model, project, name)
    names = [name for name, _ in model.named_parameters()]
    expected = dense(model, LOSSES[loss], data(), names)
    np.testing.assert_allclose(top(project, name), expected[:3], rtol=2e-3)
