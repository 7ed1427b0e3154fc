"""What runs as a job: the clone's code, as long as Snakemake does, whatever else fails."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import h5py

from workflow.conftest import RESULTS, edit_config, processes, snakemake

RUN = RESULTS / "runs" / "mlp-4" / "momentum" / "seed0"


def test_jobs_end_when_snakemake_alone_is_killed(fresh):
    """`kill -9` of Snakemake while it trains for hours: nothing is left that could write later."""

    def for_hours(config: dict) -> None:
        for name in ("architecture", "instability"):
            config["experiments"][name].update(epochs=100_000)

    edit_config(fresh, for_hours)
    target = str(RUN / "history.csv")
    head = subprocess.Popen(
        [sys.executable, "-m", "snakemake", target, "--cores=1", "--configfile", "tiny.yaml"],
        cwd=fresh,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    log = fresh / RESULTS / "logs" / "train" / "mlp-4" / "momentum" / "seed0.log"
    try:
        deadline = time.monotonic() + 240
        while not log.exists():
            assert head.poll() is None, "the run ended before it could be killed"
            assert time.monotonic() < deadline, "no job began"
            time.sleep(0.1)
    finally:
        head.send_signal(signal.SIGKILL)
        head.wait()
    deadline = time.monotonic() + 60
    while left := processes(fresh):
        assert time.monotonic() < deadline, f"{left} are still at work"
        time.sleep(0.1)
    assert "Snakemake has ended" in log.read_text()
    assert list((fresh / RUN).iterdir()) == []


def test_jobs_run_the_clones_code_and_go_on_after_one_that_fails(fresh, tmp_path):
    """With a lossgeo installed, and a package of the same name as the user's model.

    The first is passed over. The second wins, and its jobs refuse to write: both of them, and all
    the others are done, on a single core and in whatever order.
    """
    installed = tmp_path / "site-packages"
    shutil.copytree(fresh / "scripts" / "lossgeo", installed / "lossgeo")
    for module in (installed / "lossgeo").glob("*.py"):
        module.write_text("raise ImportError('the installed lossgeo')\n")
    shutil.copy(fresh / "my_models.py", installed)
    own = [RESULTS / "runs" / "own" / "momentum" / f"seed{seed}" for seed in (0, 1)]
    targets = [str(run / "history.csv") for run in (*own, RUN)]
    env = os.environ | {"PYTHONPATH": str(installed)}
    done = snakemake(fresh, *targets, cores=1, env=env)
    assert done.returncode != 0
    with h5py.File(fresh / RUN / "snapshots.h5") as file:
        assert "lossgeo/numerics.py" in json.loads(file.attrs["code"])
    for seed, run in enumerate(own):
        assert not (fresh / run / "snapshots.h5").exists()
        log = fresh / RESULTS / "logs" / "train" / "own" / "momentum" / f"seed{seed}.log"
        assert f"my_models was imported from {installed}/my_models.py" in log.read_text()
