"""Projects as users have them: a clone with data, driven by real `snakemake` calls."""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).parents[2]
CLONED = (
    "Snakefile",
    "benchmarks",
    "claims.yaml",
    "config.yaml",
    "config.quick.yaml",
    "config.connectivity.yaml",
    "workflow",
    "scripts",
    "envs",
    "profiles",
    "requirements.txt",
)
RESULTS = Path("results/tiny")
LONG = ("test_slurm.py", "test_networks.py", "test_bytes.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole studies first, that of the cluster above all: while it waits, others compute."""
    order = {name: number for number, name in enumerate(LONG)}
    items.sort(key=lambda item: order.get(item.path.name, len(LONG)))


def clone(folder: Path) -> Path:
    """A clone of the project with the tiny config, its data and its user's model."""
    folder.mkdir(parents=True)
    for name in CLONED:
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy2
        copy(source, folder / name)
    share_memory(folder)
    shutil.copy2(ROOT / "tests" / "configs" / "tiny.yaml", folder)
    shutil.copy2(Path(__file__).with_name("my_models.py"), folder)
    write_stripes(folder / "data" / "stripes")
    return folder


def share_memory(folder: Path) -> None:
    """Let the clones of one call of pytest share what they know of code and models.

    All of that is named after a digest of what it depends on (see `lossgeo.memory`).
    """
    for parent in folder.parents:
        if parent.parent.name.startswith("pytest-of-"):
            (parent / "known").mkdir(exist_ok=True)
            (folder / ".snakemake").mkdir()
            (folder / ".snakemake" / "lossgeo").symlink_to(parent / "known")


def write_stripes(folder: Path) -> None:
    """A data set of three classes that can be learned: which third of the image is bright."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for split, count in (("train", 150), ("t10k", 60)):
        labels = random.integers(0, 3, count).astype(np.uint8)
        images = random.integers(0, 200, (count, 9, 9)).astype(np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[3 * label : 3 * label + 3] //= 4
        for name, values in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
            (folder / f"{split}-{name}-ubyte").write_bytes(header + values.tobytes())


def snakemake(
    project: Path, *arguments: str, cores: int = 2, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess:
    """Run snakemake in a project, under the tiny config unless `arguments` name another.

    In another environment it is a process of its own; otherwise a fork (see `server`).
    """
    config = () if "--configfile" in arguments else ("--configfile", "tiny.yaml")
    arguments = (*arguments, "--cores", str(cores), *config)
    if env:
        command = [sys.executable, "-m", "snakemake", *arguments]
        return subprocess.run(command, cwd=project, capture_output=True, text=True, env=env)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: f"{folder}/{name}" for name in ("stdout", "stderr")}
        asked = {"folder": str(project), "arguments": arguments} | files
        process = server()
        print(json.dumps(asked), file=process.stdin, flush=True)
        status = int(process.stdout.readline())
        printed = {name: Path(path).read_text() for name, path in files.items()}
    return subprocess.CompletedProcess(["snakemake", *arguments], status, **printed)


@functools.cache
def server() -> subprocess.Popen:
    """The process that forks: it ends with this one, when its input does."""
    return subprocess.Popen(
        [sys.executable, Path(__file__).with_name("server.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def run(project: Path, *arguments: str, **options) -> str:
    """What a snakemake call printed, which must succeed."""
    done = snakemake(project, *arguments, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def planned(project: Path, *targets: str) -> dict[str, set[str]]:
    """Rule -> the files, relative to the results, that a call would make or make again."""
    done = snakemake(project, "--summary", *targets)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert rows[0][0] == "output_file"
    plan: dict[str, set[str]] = {}
    for file, _, rule, *_, what in rows[1:]:
        if what != "no update":
            plan.setdefault(rule, set()).add(file.removeprefix(f"{RESULTS}/"))
    return plan


def edit_config(project: Path, change: Callable[[dict], object]) -> None:
    """Change the project's tiny.yaml as a user would, by way of the loaded dict."""
    path = project / "tiny.yaml"
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config, sort_keys=False))


def digests(project: Path) -> dict[str, str]:
    """File -> sha256 of all results but logs, benchmarks and records, which hold times."""
    root = project / RESULTS
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
        and path.relative_to(root).parts[0] not in ("logs", "benchmarks")
        and not (path.name.startswith(".") and path.suffix == ".json")
    }


def processes(project: Path) -> list[tuple[int, str]]:
    """The process ids and commands of those that work in a project's folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == project:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                found.append((int(process.name), command))
        except OSError:  # it has ended, or is another user's
            continue
    return found


@pytest.fixture(scope="session")
def built(tmp_path_factory, worker_id) -> Path:
    """A project in which everything has been built once, by whichever worker is the first to ask.

    It is there to be read. Tests that run Snakemake in it use a `copy`.
    """
    folder = tmp_path_factory.getbasetemp()
    if worker_id != "master":
        folder = folder.parent
    project, done = folder / "built" / "project", folder / "built" / "done"
    with FileLock(folder / "built.lock"):
        if not done.exists():
            shutil.rmtree(project, ignore_errors=True)
            run(clone(project))
            done.touch()
    return project


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """A copy of the built project, Snakemake's records and file times included."""
    project = tmp_path / "project"
    subprocess.run(["cp", "-a", built, project], check=True)
    return project


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A clone in which nothing has been built."""
    return clone(tmp_path / "project")


@pytest.fixture
def without_torch(tmp_path: Path) -> dict[str, str]:
    """An environment in which `import torch` fails."""
    (tmp_path / "poison").mkdir()
    (tmp_path / "poison" / "torch.py").write_text("raise ImportError('torch was imported')\n")
    return os.environ | {"PYTHONPATH": str(tmp_path / "poison")}
