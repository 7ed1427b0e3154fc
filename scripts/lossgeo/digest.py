"""Digests of source code: which modules a script reaches, and what they say.

Snakemake compares params, not imported modules. A rule that carries these digests among its
params reruns when a module that its script uses has changed, and only then.
"""

import ast
import functools
import hashlib
from pathlib import Path


def code_digests(script: Path | str, root: Path | str) -> dict[str, str]:
    """Path relative to `root` -> sha256, for a script and every module under `root` it reaches.

    Imports are followed wherever they stand, inside functions too, and through other modules.
    Modules that are not files under `root` are left out: their versions are pinned elsewhere.
    """
    root = Path(root)
    reached: set[Path] = set()
    waiting = [Path(script)]
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += [p for name in _imports(path, root) for p in _module_files(name, root)]
    return {str(path.relative_to(root)): _digest(path) for path in sorted(reached)}


def module_digests(module: str, root: Path | str) -> dict[str, str]:
    """`code_digests` of an importable module; empty if it is not a file under `root`."""
    digests: dict[str, str] = {}
    for path in _module_files(module, Path(root)):
        digests |= code_digests(path, root)
    return digests


@functools.cache
def _imports(path: Path, root: Path) -> tuple[str, ...]:
    """Dotted names that a source file imports; `from a import b` counts as a and as a.b."""
    names = []
    package = path.relative_to(root).parent.parts
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            names += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return tuple(names)


@functools.cache
def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _module_files(module: str, root: Path) -> list[Path]:
    """The files under `root` that importing `module` runs: packages' __init__.py and the module."""
    parts = module.split(".")
    files = [root.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
    files.append(root.joinpath(*parts[:-1], f"{parts[-1]}.py"))
    return [file for file in files if file.is_file()]
