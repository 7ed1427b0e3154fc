"""Walk a study's results, and say of every file whether it is what the config asks for.

    python scripts/verify.py [--fix] [--configfile mine.yaml]

Exits with 1 where something is wrong. With --fix that is moved aside, so that the next run makes it
again: not while Snakemake runs in this folder (in another that shares the results it is not seen).
"""

import argparse
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from lossgeo import verification  # noqa: E402 (the clone's, whatever is installed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fix", action="store_true", help="move what is wrong aside")
    parser.add_argument("--configfile", nargs="+", default=[], help="as for snakemake")
    asked = parser.parse_args()
    config = ["--configfile", *asked.configfile] if asked.configfile else []
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--summary", "--verbose", *config],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        return done.returncode
    plan = verification.parse_summary(done.stdout, done.stderr)
    results = verification.results_of(plan)
    found = verification.verify(results, plan)
    by_state = defaultdict(list)
    for file in found:
        by_state[file.state].append(file)
    for state in verification.STATES:
        files = by_state[state]
        if not files:
            continue
        print(f"{state}: {len(files)} ({verification.STATES[state]})")
        for file in files if state not in ("whole", "missing") else []:
            print(f"  {file.path}: {file.why}" if file.why else f"  {file.path}")
    wrong = [file for file in found if file.state in verification.WRONG]
    if wrong and asked.fix:
        if verification.is_locked(Path.cwd()):
            print("--fix: a study runs here; or one was killed: snakemake --unlock, and then again")
            return 1
        aside = verification.move_aside(results, wrong)
        print(f"{len(wrong)} files were moved to {aside}; run snakemake, and it makes them again")
    return int(bool(wrong) and not asked.fix)


if __name__ == "__main__":
    sys.exit(main())
