"""The same bytes, however the work was cut up and whatever interrupted it."""

import os
import signal
import subprocess
import sys
import time

from lossgeo import records
from workflow.conftest import RESULTS, digests, run


def test_a_killed_run_resumes_on_another_number_of_cores_to_the_same_bytes(built, fresh):
    """`kill -9` on the whole process group while it trains on two cores; the rest is done on one.

    That is the rest of the training and some stages of one model, as after any `kill -9`: by what
    Snakemake asks for.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "snakemake", "--cores", "2", "--configfile", "tiny.yaml"],
        cwd=fresh,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 240
    while len(list((fresh / RESULTS).glob("runs/*/*/*/snapshots.h5"))) < 3:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert digests(fresh).keys() < digests(built).keys() | leftovers(fresh)
    run(fresh, "--unlock")
    known = digests(built)
    targets = [name for name in known if name.startswith(DONE_AGAIN)]
    asked = [str(RESULTS / name) for name in targets]
    # processes of their own, with strings of another hash than those that built the other
    run(fresh, *asked, "--rerun-incomplete", cores=1, env=os.environ | {"PYTHONHASHSEED": "1"})
    found = {name: digest for name, digest in digests(fresh).items() if not is_leftover(name)}
    assert found.keys() >= set(targets)
    assert found == {name: known[name] for name in found}
    for name in targets:
        here, there = (records.read(project / RESULTS / name) for project in (fresh, built))
        assert here.versions == there.versions, "a fork has imported what a process does"


DONE_AGAIN = (  # a convolutional network, forks, a table and a figure of theirs
    *(f"runs/cnn-2/momentum/seed0/{stage}" for stage in ("hessian", "landscape", "flatness")),
    *("tables/instability", "figures/instability/instability"),
)


def is_leftover(name: str) -> bool:
    """Whether a file is a half-written one, which never has an artefact's name."""
    return name.rpartition("/")[2].startswith(".")


def leftovers(project) -> set[str]:
    return {name for name in digests(project) if is_leftover(name)}
