"""Weights from elsewhere: files of tensors, matched by name with a model's parameters.

A file is read as data: `.safetensors`, or what `torch.save` writes of tensors (.pt, .pth, .bin,
.ckpt), by `torch.load(weights_only=True)`, which runs no code of the file.
"""

import pickle
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lossgeo.objective import NONE, Objective, at, evaluate
from lossgeo.parameters import Layout, join, layout_of
from lossgeo.training import HISTORY, UNKNOWN, Run, as_stored

NESTED = ("state_dict", "model_state_dict", "model", "params")  # where a file keeps its state dict
PREFIXES = ("module.", "_orig_mod.", "model.")  # of DataParallel, torch.compile, Lightning
KINDS = ("missing", "unexpected", "of another shape", "of other values")
SHOWN = 6  # names in a list of a message, at most


class CheckpointError(ValueError):
    """A file that holds no weights, or not those of the model."""


@dataclass(frozen=True)
class Checkpoint:
    """The weights of one file as a point of the model's."""

    theta: Tensor  # (P,) float32
    statistics: Tensor | None  # (B,) float32, running ones; None where the model has none
    dtype: str  # of the parameters in the file, as "float16"; several: "bfloat16, float32"


def load(path: Path | str, model: nn.Module, running: Layout = NONE) -> Checkpoint:
    """theta (P,) of a file's weights, in the order of `model`'s parameters, cast to float32.

    And the running statistics (B,) of the names in `running` (see `buffers.running_statistics`).
    What theta holds neither, frozen parameters and other buffers, has to be as the model has it,
    where the file has it at all; but for counters of batches, which no evaluation reads.

    Raises CheckpointError with one line that names every parameter that the file lacks, every name
    that the model does not have, and every shape that is another.
    """
    state = without_prefixes(read(path), model)
    found: dict[str, Tensor] = {}
    wrong: dict[str, list[str]] = {kind: [] for kind in KINDS}
    known = set(model.state_dict())
    buffers = dict(model.named_buffers())
    wanted = [(names, p) for names, p in _parameters(model) if p.requires_grad]
    wanted += [([name], buffers[name]) for name in running.names]
    for names, tensor in wanted:
        known.update(names)
        if not any(name in state for name in names):
            wrong["missing"].append(names[0])
        elif fault := _fault(names, state, tensor):
            wrong[fault[0]].append(fault[1])
        else:
            found[names[0]] = next(state[name] for name in names if name in state)
    fixed = {name: p for name, p in model.named_parameters() if not p.requires_grad}
    for name, tensor in (fixed | buffers).items():
        known.add(name)
        is_counter = name.rpartition(".")[2] == "num_batches_tracked"
        if name in running.names or is_counter or name not in state:
            continue
        if not _equal(state[name], tensor):
            what = "a frozen parameter" if name in fixed else "a buffer"
            wrong["of other values"].append(f"{name}, {what} that is not as the model makes it")
    wrong["unexpected"] += [name for name in state if name not in known]
    if any(wrong.values()):
        named = (f"{kind}: {_listed(names)}" for kind, names in wrong.items() if names)
        raise CheckpointError(f"the weights in {path} are not the model's: {'; '.join(named)}")
    dtypes = sorted({_name(tensor.dtype) for tensor in found.values()})
    theta, statistics = (
        join(found[name].to(torch.float32) for name in layout.names) if layout.names else None
        for layout in (layout_of(model), running)
    )
    return Checkpoint(theta, statistics, ", ".join(dtypes))


def as_run(points: Sequence[Checkpoint], train: Objective, test: Objective) -> Run:
    """Weights in their order as the snapshots of a run: measured on two objectives, no more.

    The epoch counts the files from 0; how many steps were taken (-1) and by which optimizer is not
    known.
    """
    measured = [
        (UNKNOWN, number, *(x for now in (a, b) for x in (now.loss, now.accuracy)), np.nan)
        for number, (a, b) in enumerate(
            [evaluate(at(objective, point.statistics), point.theta) for objective in (train, test)]
            for point in points
        )
    ]
    columns = zip(HISTORY, zip(*measured, strict=True), strict=True)
    history = {name: np.array(column) for name, column in columns}
    return Run(
        np.stack([as_stored(point.theta) for point in points]),
        preconditioners=None,
        snapshot_rows=np.arange(len(points)),
        history=history | {"epoch": history["epoch"].astype(float)},
        diverged=False,
        matched=None,
        states={},
        state_epochs=np.array([], dtype=np.int64),
        buffers=np.stack([point.statistics for point in points]) if train.running.names else None,
    )


def read(path: Path | str) -> dict[str, Tensor]:
    """Name -> tensor of the state dict in a file, which may be kept under one of NESTED.

    Raises CheckpointError where the file cannot be read as data, or holds none.
    """
    path = Path(path)
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    state = _state_dict(content)
    if state is None:
        found = (
            f"the keys {_listed(map(str, content))}"
            if isinstance(content, Mapping)
            else (f"a {type(content).__name__}")
        )
        raise CheckpointError(
            f"{path} holds {found or 'nothing'}, expected a state dict, name -> tensor, on its own "
            f"or under one of {', '.join(NESTED)}"
        )
    return state


def without_prefixes(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """A state dict without what wrappers put before every name, unless the model's have it too."""
    own = list(model.state_dict())
    while prefix := next((p for p in PREFIXES if _all_start(state, p)), None):
        if _all_start(own, prefix):
            break
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is no whole safetensors file: {error}") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols of pickle
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        names = re.findall(r"GLOBAL ([\w.]+)", str(error))
        raise CheckpointError(
            f"{path} holds more than tensors and numbers"
            f"{f' ({names[0]})' if names else ''}, which could run code when it is read, so that "
            "it is not; save its weights alone, by torch.save(model.state_dict(), path) or as "
            "safetensors"
        ) from error
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read as a file of torch.save: {error!r}"
        ) from error


def _state_dict(content: Any) -> dict[str, Tensor] | None:
    """The names and tensors in what a file holds, on their own or under one of NESTED."""
    if not isinstance(content, Mapping) or not content:
        return None
    if all(isinstance(value, Tensor) for value in content.values()):
        return {str(name): value for name, value in content.items()}
    inside = (_state_dict(content.get(key)) for key in NESTED)
    return next((state for state in inside if state is not None), None)


def _parameters(model: nn.Module) -> Iterator[tuple[list[str], nn.Parameter]]:
    """Each parameter with all names under which the model has it: tied ones have several."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    for parameter in model.parameters():
        yield names[id(parameter)], parameter


def _fault(
    names: list[str], state: Mapping[str, Tensor], parameter: Tensor
) -> tuple[str, str] | None:
    """The kind of what is wrong with a parameter that a file has, and what it is; None: nothing."""
    first, *others = (name for name in names if name in state)
    tensor = state[first]
    if tensor.shape != parameter.shape:
        here, own = tuple(tensor.shape), tuple(parameter.shape)
        return "of another shape", f"{first} {here}, in the model {own}"
    if not tensor.is_floating_point():
        return "of other values", f"{first}, which is {_name(tensor.dtype)}"
    if not tensor.float().isfinite().all():
        return "of other values", f"{first}, which is not finite in float32"
    for other in others:
        if not torch.equal(state[other], tensor):
            return "of other values", f"{other}, which the model ties to {first}"
    return None


def _equal(found: Tensor, own: Tensor) -> bool:
    """Whether a file's tensor is the model's own, in the precision that the file has."""
    if found.shape != own.shape:
        return False
    return torch.allclose(found.to(own), own.to(found).to(own), equal_nan=True)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _all_start(names: Iterable[str], prefix: str) -> bool:
    names = list(names)
    return bool(names) and all(name.startswith(prefix) for name in names)


def _listed(names: Iterable[str]) -> str:
    """Names in a line: the first ones, and how many more there are."""
    names = list(names)
    more = [f"and {len(names) - SHOWN} more"] if len(names) > SHOWN else []
    return ", ".join(names[:SHOWN] + more)
