"""A job has a log from its first line, runs the code whose digests it records, and leaves alone
what is newer than itself. All as Snakemake does it: a script behind a preamble, in a process."""

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from lossgeo import job, records
from lossgeo.data import sha256
from lossgeo.digest import code_digests, factory_digests

SCRIPTS = Path(job.__file__).parents[1]
WITH_LOG = sorted(
    path.name for path in SCRIPTS.glob("*.py") if path.stem not in ("estimate", "new", "verify")
)

PREAMBLE = """\
from types import SimpleNamespace
snakemake = SimpleNamespace(scriptdir={scripts!r}, log=["log"], params={{"code": {code!r}}})
snakemake.config = {{"results": "results", "data": {{"folder": "data", "name": "stripes"}}}}
snakemake.input = []
"""
BEGIN = "from lossgeo import job\njob.begin(snakemake)\nfrom lossgeo import store\n"
WRITE = "with store.whole_or_not('a.csv') as beside:\n    beside.write_text('by this job')\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A clone with a user's model; jobs run in it."""
    project = tmp_path / "project"
    shutil.copytree(SCRIPTS, project / "scripts")
    (project / "my_models.py").write_text("def build(): ...\n")
    (project / "scripts" / "work.py").write_text(f"{BEGIN}import my_models\n{WRITE}")
    return project


def digests(project: Path) -> dict[str, str]:
    scripts = project / "scripts"
    return code_digests(scripts / "work.py", scripts) | code_digests(
        project / "my_models.py", project
    )


def script(project: Path, source: str, code: dict[str, str]) -> Path:
    path = project / ".snakemake" / "scripts" / "tmp1234.work.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(PREAMBLE.format(scripts=str(project / "scripts"), code=code) + source)
    return path


def run(
    project: Path, source: str, code: dict[str, str], *before: Path
) -> subprocess.CompletedProcess:
    """Run a job of these digests with `before` on its path before the clone's scripts."""
    places = [*before, project / "scripts", project]
    return subprocess.run(
        [sys.executable, script(project, source, code)],
        cwd=project,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))},
        capture_output=True,
        text=True,
    )


def log(project: Path) -> str:
    return (project / "log").read_text()


def test_a_job_writes_and_replaces_what_is_older_than_itself(project):
    (project / "a.csv").write_text("older\n")
    time.sleep(0.05)
    source = (project / "scripts" / "work.py").read_text()
    done = run(project, source, digests(project))
    assert done.returncode == 0, log(project)
    assert (project / "a.csv").read_text() == "by this job"


@pytest.mark.parametrize("name", WITH_LOG)
def test_a_failed_import_is_in_the_log_of_every_script(project, tmp_path, name):
    for package in ("h5py", "matplotlib", "numpy", "pandas", "torch"):
        (tmp_path / f"{package}.py").write_text("raise ImportError('broken installation')\n")
    done = run(project, (project / "scripts" / name).read_text(), {}, tmp_path)
    assert done.returncode == 1
    assert "ImportError: broken installation" in log(project)


def test_an_installed_lossgeo_is_refused_in_one_line(project, tmp_path):
    shutil.copytree(SCRIPTS / "lossgeo", tmp_path / "site-packages" / "lossgeo")
    source = (project / "scripts" / "work.py").read_text()
    done = run(project, source, digests(project), tmp_path / "site-packages")
    assert done.returncode == 1
    (line,) = log(project).splitlines()
    for words in (
        f"module lossgeo was imported from {tmp_path}/site-packages/lossgeo/__init__.py",
        f"expected {project}/scripts/lossgeo/__init__.py",
        "uninstall the other one",
    ):
        assert words in line
    assert not (project / "a.csv").exists()


def test_an_installed_model_of_the_same_name_is_refused_before_anything_is_written(
    project, tmp_path
):
    (tmp_path / "site-packages").mkdir()
    shutil.copy(project / "my_models.py", tmp_path / "site-packages")
    source = (project / "scripts" / "work.py").read_text()
    done = run(project, source, digests(project), tmp_path / "site-packages")
    assert done.returncode == 1
    (line,) = log(project).splitlines()
    assert f"module my_models was imported from {tmp_path}/site-packages/my_models.py" in line
    assert {path.name for path in project.iterdir()} == {
        ".snakemake",
        "log",
        "my_models.py",
        "scripts",
    }


def test_a_model_from_the_path_is_used_and_the_packages_that_it_imports_are_recorded(
    project, tmp_path
):
    (tmp_path / "elsewhere").mkdir()
    (project / "my_models.py").rename(tmp_path / "elsewhere" / "my_models.py")
    with open(tmp_path / "elsewhere" / "my_models.py", "a") as module:
        module.write("import yaml\n")
    scripts = project / "scripts"
    code = code_digests(scripts / "work.py", scripts)
    code |= factory_digests("my_models", [project, tmp_path / "elsewhere"])
    end = "snakemake.output, snakemake.rule = ['a.csv'], 'work'\njob.end(snakemake)\n"
    source = (scripts / "work.py").read_text() + end
    done = run(project, source, code, tmp_path / "elsewhere")
    assert done.returncode == 0, log(project)
    record = records.read(project / "a.csv")
    assert "my_models.py" in record.params["code"]
    assert record.versions["PyYAML"] == version("PyYAML")


@pytest.mark.parametrize("name", ["scripts/lossgeo/store.py", "scripts/work.py", "my_models.py"])
def test_code_that_was_edited_after_its_digest_was_taken_is_refused(project, name):
    source, code = (project / "scripts" / "work.py").read_text(), digests(project)
    with open(project / name, "a") as file:
        file.write("EDITED = True\n")
    assert run(project, source, code).returncode == 1
    (line,) = log(project).splitlines()
    assert f"{name.removeprefix('scripts/')} was edited after snakemake had read it" in line


def test_data_that_was_changed_after_the_plan_is_refused(project):
    (project / "data" / "stripes").mkdir(parents=True)
    images = project / "data" / "stripes" / "images"
    images.write_bytes(b"as planned")
    source = (
        "from snakemake.iocontainers import InputFiles\n"
        "snakemake.input = InputFiles(['data/stripes/images'])\n"
        "snakemake.input._set_name('data', 0, end=1)\n"
        f"snakemake.params['config'] = {{'data': {{'sha256': {{'images': {sha256(images)!r}}}}}}}\n"
        + (project / "scripts" / "work.py").read_text()
    )
    assert run(project, source, digests(project)).returncode == 0, log(project)
    images.write_bytes(b"as changed")
    assert run(project, source, digests(project)).returncode == 1
    (line,) = log(project).splitlines()
    assert line.startswith("data/stripes/images is not the file that snakemake read")


def test_an_artefact_that_is_newer_than_the_job_is_left_as_it_is(project):
    """A second run's, made while this one, an orphan, was still at work."""
    newer = "import time; time.sleep(0.05); open('a.csv', 'w').write('newer')\n"
    done = run(project, BEGIN + newer + WRITE, {})
    assert done.returncode == 1
    assert (project / "a.csv").read_text() == "newer"
    assert "a.csv was written after this job began" in log(project)
    assert not list(project.glob(".*.a.csv"))


HEAD = """\
import subprocess, sys, threading
started = []
def start():
    started.append(subprocess.Popen(sys.argv[1], shell=True))
thread = threading.Thread(target=start)
thread.start()
thread.join()
started[0].wait()
"""
SLEEP = BEGIN + "import time; time.sleep({seconds}); open('done', 'w')\n"


def start_head(project: Path, seconds: float) -> subprocess.Popen:
    """What Snakemake is to a job, with a shell between; the thread that started it has ended."""
    job = script(project, SLEEP.format(seconds=seconds), {})
    return subprocess.Popen(
        [sys.executable, "-c", HEAD, f"{sys.executable} {job}; true"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(project / "scripts")},
        start_new_session=True,
    )


def test_a_job_ends_with_snakemake_though_a_shell_between_them_lives_on(project):
    head = start_head(project, seconds=60)
    while not (project / "log").exists():
        assert head.poll() is None
        time.sleep(0.05)
    time.sleep(0.5)
    head.send_signal(signal.SIGKILL)
    head.wait()
    deadline = time.monotonic() + 20
    while any_in_session(head.pid):
        assert time.monotonic() < deadline, "the job goes on"
        time.sleep(0.1)
    assert "Snakemake has ended" in log(project)


def any_in_session(session: int) -> bool:
    try:
        os.killpg(session, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_job_goes_on_after_the_thread_that_started_it(project):
    assert start_head(project, seconds=3).wait() == 0
    assert (project / "done").exists()
    assert log(project) == ""
