"""The study on a Slurm cluster: what dies is done again, and the bytes are those of one machine.

The cluster is a real one, of two nodes on this machine (see `loopback`).
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import yaml

import loopback
from workflow.conftest import ROOT, clone, digests, run

PROFILE = ROOT / "profiles" / "slurm" / "config.yaml"
# without accounting, small nodes, no time to wait, and every run a submission of its own
HERE = ["--slurm-status-command", "squeue", "--cores", "2", "--latency-wait", "10"]
HERE += ["--slurm-init-seconds-before-status-checks", "5", "--group-components", "run=1"]
HERE += ["--resources", f"mem_mb={loopback.MEMORY}"]
# two models with some stages, forks with their paths, a table and a figure of theirs
DONE = (
    *("runs/own/momentum/seed0/hessian", "runs/own/momentum/seed0/flatness"),
    *("runs/mlp-4/momentum/seed0/hessian", "runs/mlp-4/momentum/seed0/landscape"),
    *("tables/instability", "figures/instability/instability"),
)


def test_every_rule_is_in_a_group_or_local():
    """So that no job is a submission of its own."""
    profile = yaml.safe_load(PROFILE.read_text())
    grouped = {line.partition("=")[0] for line in profile["groups"]}
    text = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    _, *parts = re.split(r"^ *rule (\w+):", text, flags=re.MULTILINE)
    rules = {name for name, body in zip(*[iter(parts)] * 2, strict=True) if "localrule" not in body}
    rules |= {f"figure_{name}" for name in re.findall(r'^    "(\w+)": \(', text, re.MULTILINE)}
    assert profile["executor"] == "slurm"
    assert grouped == rules - {"publish"}


def test_the_profile_repeats_what_holds_on_one_machine():
    """Snakemake reads one workflow profile alone."""
    default = yaml.safe_load((ROOT / "profiles" / "default" / "config.yaml").read_text())
    profile = yaml.safe_load(PROFILE.read_text())
    assert {key: profile.get(key) for key in default} == default


@pytest.fixture
def cluster():
    with tempfile.TemporaryDirectory(prefix="slurm") as folder:  # its sockets need a short path
        try:
            with loopback.cluster(Path(folder)) as found:
                yield found
        except loopback.NoSlurm as error:
            pytest.skip(f"no Slurm: {error}")


@pytest.fixture
def heads():
    """Calls of Snakemake, which end with the test."""
    started: list[Head] = []
    yield started
    for head in started:
        if head.process.poll() is None:
            os.killpg(head.process.pid, signal.SIGKILL)
            head.process.wait()


class Head:
    """A call of Snakemake on the cluster, and what it has printed."""

    def __init__(self, project: Path, log: Path, targets: list[str]) -> None:
        self.log = log
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "snakemake", *targets, "--configfile", "tiny.yaml"),
                    *("--workflow-profile", "profiles/slurm", *HERE),
                ],
                cwd=project,
                stdout=file,
                stderr=file,
                start_new_session=True,
                env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            )

    def printed(self) -> str:
        return self.log.read_text()

    def job(self, done: set[str]) -> str:
        """The number of a job that runs and is none of some others, once there is one."""
        found: list[str] = []

        def is_there() -> bool:
            assert self.process.poll() is None, self.printed()
            found[:] = [number for number in loopback.running() if number not in done]
            return bool(found)

        loopback.wait_for(is_there, "a job to run", 120)
        return found[0]


def test_what_dies_on_a_cluster_is_done_again_to_the_same_bytes(built, cluster, heads, tmp_path):
    """A job is cancelled, a node dies with its jobs, and Snakemake is killed and called again."""
    began = time.monotonic()

    def say(what: str) -> None:
        print(f"{time.monotonic() - began:5.0f} s  {what}", flush=True)

    project = clone(tmp_path / "project")
    known = digests(built)
    targets = [f"results/tiny/{name}" for name in known if name.startswith(DONE)]
    log = tmp_path / "head.log"
    heads.append(head := Head(project, log, targets))
    say(f"snakemake is asked for {len(targets)} files")

    cancelled = head.job(set())
    subprocess.run(["scancel", cancelled], check=True)
    say(f"job {cancelled} runs, and is cancelled")
    loopback.wait_for(lambda: "Trying to restart job" in log.read_text(), "word of it")
    say("snakemake has seen it, and tries again")

    lost = head.job({cancelled})
    node = loopback.running()[lost]
    loopback.kill_node(cluster, node)
    say(f"job {lost} runs on {node}, whose slurmd and all that it started are killed")
    loopback.wait_for(lambda: loopback.states()[node].startswith("DOWN"), "the node to be down")
    say(f"Slurm calls {node} down")
    loopback.start_node(cluster, node)
    loopback.wait_for(lambda: not loopback.states()[node].startswith("DOWN"), "the node to be up")
    say(f"{node} is up again")

    running = head.job({cancelled})
    os.killpg(head.process.pid, signal.SIGKILL)
    head.process.wait()
    say(f"job {running} runs; snakemake is killed (kill -9)")
    run(project, "--unlock")
    heads.append(head := Head(project, log, targets))
    say("snakemake --unlock, and the same call again; jobs of the first call still run")
    assert head.process.wait(600) == 0, head.printed()

    found = {name: sha for name, sha in digests(project).items() if name in known}
    assert found.keys() >= {target.removeprefix("results/tiny/") for target in targets}
    assert found == {name: known[name] for name in found}
    submitted = len(re.findall(r"submitted with SLURM jobid", head.printed()))
    say(f"done: {submitted} submissions; all {len(found)} files are those of a local run")
