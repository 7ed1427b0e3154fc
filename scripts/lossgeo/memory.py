"""What was worked out before: plain values that every call of Snakemake would work out again.

They lie under .snakemake in the working directory, one file each, named after a digest of all that
they depend on: so none is ever out of date, and all can be deleted at any time.

Plain Python: the workflow imports it on every call, so it must not import torch.
"""

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any


def recall(key: str, work: Callable[[], Any]) -> Any:
    """What `work` returned under a key, now or in an earlier process: a value that JSON holds.

    Nothing is kept where Snakemake has no folder, or where it cannot be written.
    """
    path = Path(".snakemake", "lossgeo", f"{key}.json")
    with suppress(OSError, ValueError):
        return json.loads(path.read_text())
    value = work()
    if path.parents[1].is_dir():
        with suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            beside = path.with_name(f".{os.getpid()}.{path.name}")
            beside.write_text(json.dumps(value))
            os.replace(beside, path)
    return json.loads(json.dumps(value))


def key_of(*parts: bytes | str) -> str:
    """A digest of some parts, in their order."""
    digests = [hashlib.sha256(part.encode() if isinstance(part, str) else part) for part in parts]
    return hashlib.sha256(b"".join(digest.digest() for digest in digests)).hexdigest()
