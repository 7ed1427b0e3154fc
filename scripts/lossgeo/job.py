"""What every job of the workflow does first."""

import sys
from pathlib import Path


def log_to(path: Path | str) -> None:
    """Send everything that this process prints from now on, tracebacks included, to a log file."""
    sys.stdout = sys.stderr = open(path, "w", buffering=1)  # noqa: SIM115 (open until the end)
