"""Kill a study at random, again and again, and compare it with one that was left alone.

    python tests/torture.py [--kills 20] [--seed 0] [--folder DIR]

Each kill (SIGKILL) hits the whole process group, Snakemake alone, or one job. After each, no file
may be damaged or another one's; in the end every byte must be as in the study that was left alone.
Exits with 1 where one is not. The tiny study of the tests is used: some ten minutes on two cores.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from workflow.conftest import clone, digests, processes, run

KINDS = ("group", "snakemake", "job")
SNAKEMAKE = [sys.executable, "-m", "snakemake", "--configfile", "tiny.yaml", "--cores", "2"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of when what is killed")
    parser.add_argument("--folder", type=Path, help="where it is done, and left to be looked at")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        return torture(
            (asked.folder or Path(temporary)).resolve(), asked.kills, random.Random(asked.seed)
        )


def torture(folder: Path, kills: int, draw: random.Random) -> int:
    """The exit status: 1 where a kill did damage that was not mended."""
    began = time.monotonic()
    calm = clone(folder / "calm")
    run(calm)
    took = time.monotonic() - began
    expected = digests(calm)
    print(f"left alone: {len(expected)} files in {took:.0f} s", flush=True)

    done, round_ = Counter(), 0
    while done.total() < kills:  # a study may be done before it was killed often enough
        round_ += 1
        project = clone(folder / f"killed{round_}")
        failures = 0
        while not is_done(project, kills, done, draw, took):
            failures += done.total() >= kills
            if failures > 3:
                sys.exit(f"{project} cannot be finished: see its .snakemake/log")
        if wrong := differences(project, expected):
            print(*wrong, sep="\n", flush=True)
            return 1
    print(f"{dict(done)} killed, in {round_} studies: all {len(expected)} files as they should be")
    return 0


def is_done(project: Path, kills: int, done: Counter, draw: random.Random, took: float) -> bool:
    """One call of Snakemake, which is killed or ends: whether it ended well."""
    head = subprocess.Popen(
        [*SNAKEMAKE, "--rerun-incomplete"],
        cwd=project,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    ended = None
    while ended is None:
        ended = wait(head, draw.expovariate(kills / took) if done.total() < kills else None)
        if ended is None:
            kind = draw.choice(KINDS)
            if killed := kill(kind, head, project, draw):
                done[kind] += killed
                print(f"kill {done.total()}: {kind}, {len(digests(project))} files", flush=True)
            if kind != "job":  # then the rest goes on
                head.wait()
                check_whole(project)
                return False
    if ended:
        check_whole(project)
    return ended == 0


def wait(head: subprocess.Popen, seconds: float | None) -> int | None:
    """The exit status of a process, or None where it runs for longer."""
    try:
        return head.wait(seconds)
    except subprocess.TimeoutExpired:
        return None


def kill(kind: str, head: subprocess.Popen, project: Path, draw: random.Random) -> int:
    """Kill, and return how many were: none where there was no job."""
    if kind == "group":
        os.killpg(head.pid, signal.SIGKILL)
    elif kind == "snakemake":
        head.kill()
    else:
        jobs = [pid for pid, command in processes(project) if "/.snakemake/scripts/" in command]
        if not jobs:
            return 0
        try:
            os.kill(draw.choice(jobs), signal.SIGKILL)
        except ProcessLookupError:  # it has just ended
            return 0
    return 1


def check_whole(project: Path) -> None:
    """Once all jobs have ended, exit with what is wrong unless every file is one that was made.

    What a job left half written, and what it had not recorded yet, is made again.
    """
    deadline = time.monotonic() + 30
    while left := processes(project):
        if time.monotonic() > deadline:
            sys.exit(f"{left} are still at work")
        time.sleep(0.1)
    subprocess.run([*SNAKEMAKE, "--unlock"], cwd=project, check=True, capture_output=True)
    states = verify(project).stdout.splitlines()
    wrong = [line for line in states if line.partition(":")[0] in ("damaged", "foreign", "stale")]
    if wrong:
        sys.exit("\n".join(states))


def verify(project: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "scripts/verify.py", "--configfile", "tiny.yaml", *options],
        cwd=project,
        capture_output=True,
        text=True,
    )


def differences(project: Path, expected: dict[str, str]) -> list[str]:
    """What is not as in the study that was left alone, once leftovers have been moved aside."""
    verify(project, "--fix")
    after = verify(project)
    found = {name: sha for name, sha in digests(project).items() if not name.startswith(".aside/")}
    names = sorted(found.items() ^ expected.items())
    return [*({f"{name} differs" for name, _ in names}), *([after.stdout] * after.returncode)]


if __name__ == "__main__":
    sys.exit(main())
