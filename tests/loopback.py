"""A Slurm cluster of two nodes on this machine: munged, slurmctld and two slurmd on loopback.

For tests of what a cluster does. It needs root, Debian's packages slurm-wlm and munge, which it
installs where apt-get is at hand, and /etc/slurm/slurm.conf: so it is only started where TEST_SLURM
says so. A machine that has a Slurm of its own is left alone.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

CONFIG = Path("/etc/slurm/slurm.conf")  # where everything of Slurm looks, whatever its environment
OURS = "# of lossgeo's tests"
NODES = ("node1", "node2")
MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 // len(NODES)  # MiB each
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")


class Cluster(NamedTuple):
    """A cluster that runs: its folder, with its logs, and its processes by their names."""

    folder: Path
    processes: dict[str, subprocess.Popen]


class NoSlurm(RuntimeError):
    """Why there can be no cluster here."""


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster that has its state and logs in a folder, and ends with the block.

    Raises NoSlurm where it cannot be.
    """
    install()
    folder.mkdir(parents=True, exist_ok=True)
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.write_text(configuration(folder))
    found = Cluster(folder, {})
    try:
        try:
            start_munged(found)
            start(found, "slurmctld", "slurmctld", "-D", "-i")
            for node in NODES:
                start_node(found, node)
            wait_for(lambda: states() == dict.fromkeys(NODES, "IDLE"), "the nodes to be idle")
        except (TimeoutError, subprocess.CalledProcessError) as error:
            said = [path.read_text().strip()[-300:] for path in sorted(folder.glob("*.log"))]
            raise NoSlurm(f"its daemons do not start here: {error}; {said}") from None
        yield found
    finally:
        CONFIG.unlink(missing_ok=True)
        for node in NODES:
            end_jobs(node)
        for process in reversed(found.processes.values()):
            end(process)


def install() -> None:
    """Have Slurm, or raise NoSlurm."""
    if not os.environ.get("TEST_SLURM"):
        raise NoSlurm(
            "nobody asked for it: `make test-slurm`, or TEST_SLURM=1 (it installs packages)"
        )
    if os.geteuid() != 0:
        raise NoSlurm("this is not root, and Slurm's daemons need to be")
    if CONFIG.exists() and OURS not in CONFIG.read_text():
        raise NoSlurm(f"{CONFIG} is there: this machine has a Slurm of its own")
    CONFIG.unlink(missing_ok=True)  # one of ours, left by a test that was killed
    if os.environ.get("SLURM_CONF") or (shutil.which("sinfo") and not call("sinfo").returncode):
        raise NoSlurm("this machine belongs to a Slurm cluster")
    if all(map(shutil.which, PROGRAMS)):
        return
    if not shutil.which("apt-get"):
        raise NoSlurm("there is no Slurm, and no apt-get to install it")
    install = ["apt-get", "install", "--yes", "--no-install-recommends", "slurm-wlm", "munge"]
    quiet = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (["apt-get", "update"], install):
            done = subprocess.run(command, capture_output=True, text=True, env=quiet, timeout=180)
    except subprocess.TimeoutExpired:
        raise NoSlurm("apt-get takes too long to install it") from None
    if done.returncode or not all(map(shutil.which, PROGRAMS)):
        raise NoSlurm(f"Slurm could not be installed: {done.stderr.strip()[-500:]}")


def configuration(folder: Path) -> str:
    """What slurm.conf says: two nodes with half of this machine's memory each."""
    name = socket.gethostname()
    return f"""{OURS}
ClusterName=loopback
SlurmctldHost={name}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldPort=17000
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MinJobAge=300
SlurmdTimeout=5
KillWait=2
InactiveLimit=0
ReturnToService=2
SchedulerParameters=sched_interval=5,batch_sched_delay=1
NodeName={",".join(NODES)} NodeHostname={name} NodeAddr=127.0.0.1 Port=17001,17002 \
CPUs=2 RealMemory={MEMORY}
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def start_munged(found: Cluster) -> None:
    """Who says who somebody is; unless one runs already."""
    if Path("/run/munge/munge.socket.2").is_socket() and not call("munge", "-n").returncode:
        return
    subprocess.run(["install", "-d", "-o", "munge", "-g", "munge", "/run/munge"], check=True)
    start(found, "munged", "runuser", "-u", "munge", "--", "munged", "--foreground", "--force")
    wait_for(lambda: call("munge", "-n").returncode == 0, "munged to answer")


def start_node(found: Cluster, node: str) -> None:
    start(found, node, "slurmd", "-D", "-N", node)


def start(found: Cluster, name: str, *command: str) -> None:
    with open(found.folder / f"{name}.log", "ab") as log:
        found.processes[name] = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )


def kill_node(found: Cluster, node: str) -> None:
    """End a node's daemon and all that it had started, as when it loses its power."""
    process = found.processes.pop(node)
    with_no_mercy(process.pid)
    end_jobs(node)
    process.wait()


def end_jobs(node: str) -> None:
    """Kill what a node's daemon has started: it would go on without the daemon."""
    for pid in jobs_of(node):
        for one in (pid, *descendants(pid)):
            with_no_mercy(one)


def jobs_of(node: str) -> list[int]:
    """The process ids of slurmstepd's that work for a node."""
    found = []
    for status in Path("/proc").glob("[0-9]*"):
        try:
            environment = (status / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"SLURMD_NODENAME={node}".encode() in environment:
            found.append(int(status.name))
    return found


def descendants(pid: int) -> list[int]:
    """The process ids of children, their children, and so on."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    children = [int(line) for line in found.stdout.split()]
    return [one for child in children for one in (child, *descendants(child))]


def with_no_mercy(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def end(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def states() -> dict[str, str]:
    """Node -> its state."""
    found = call("sinfo", "--noheader", "--Node", "--format=%N %T").stdout
    return {name: state.upper() for name, state in map(str.split, found.splitlines())}


def running() -> dict[str, str]:
    """Number -> node of the jobs that run."""
    found = call("squeue", "--noheader", "--states=RUNNING", "--format=%i %N").stdout
    return dict(line.split() for line in found.splitlines())


def call(*command: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, capture_output=True, text=True)


def wait_for(done, what: str, seconds: float = 60) -> None:
    """Wait until `done()` is true, or raise TimeoutError with what was waited for."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)
