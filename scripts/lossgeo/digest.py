"""Digests of source code: which modules a script reaches, and what they say.

Snakemake compares params, not imported modules. A rule that carries these digests among its
params reruns when a module that its script uses has changed, and only then. What a module says is
its code: comments, docstrings and empty lines are left out.
"""

import ast
import functools
import hashlib
import io
import json
import sys
import sysconfig
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.util import decode_source, find_spec
from pathlib import Path
from typing import Any

from lossgeo import memory, records


def code_digests(script: Path | str, root: Path | str) -> dict[str, str]:
    """Path relative to `root` -> sha256, for a script and every module under `root` it reaches.

    Imports are followed wherever they stand, inside functions too, and through other modules.
    Modules that are not files under `root` are left out: their versions are pinned elsewhere.
    """
    return dict(_code_digests(Path(script), Path(root)))


@functools.cache
def _code_digests(script: Path, root: Path) -> dict[str, str]:
    reached: set[Path] = set()
    waiting = [script]
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += [file for name in imports(path, root) for file in _module_files(name, root)]
    return {str(path.relative_to(root)): file_digest(path) for path in sorted(reached)}


def module_digests(module: str, root: Path | str) -> dict[str, str]:
    """`code_digests` of an importable module; empty if it is not a file under `root`."""
    digests: dict[str, str] = {}
    for path in _module_files(module, Path(root)):
        digests |= code_digests(path, root)
    return digests


def factory_digests(module: str, folders: Iterable[Path | str]) -> dict[str, str]:
    """Digests of a user's module and of the modules that it reaches, in some folders.

    Paths are relative to the folder, the first in which a module is a file. Of packages that are
    installed, the module's own alone is followed: the versions of the others are recorded.
    """
    return dict(_factory_digests(module, tuple(dict.fromkeys(map(Path, folders)))))


@functools.cache
def _factory_digests(module: str, folders: tuple[Path, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    seen, waiting = set(), [module]
    while waiting:
        name = waiting.pop()
        folder = None if name in seen else find_folder(name, folders)
        seen.add(name)
        if folder is None or (_is_installed(folder) and _top(name) != _top(module)):
            continue
        for path in _module_files(name, folder):
            found[str(path.relative_to(folder))] = file_digest(path)
            waiting += imports(path, folder)
    return dict(sorted(found.items()))


def call_digest(reference: str, arguments: Mapping[str, Any]) -> str:
    """The digest of what a call of a user's function, `package.module:function`, depends on.

    Its code (`factory_digests`), and its arguments: where text names a file, that file's bytes.
    """
    files = [Path(value) for value in arguments.values() if isinstance(value, str)]
    code: dict[str, str] = {}
    with suppress(SyntaxError, ValueError):  # whoever calls it is told
        code = factory_digests(reference.partition(":")[0], [Path.cwd(), *sys.path])
    said = {
        "factory": reference,
        "arguments": dict(arguments),
        "code": code,
        "files": {str(path): records.digest_now(path) for path in files if path.is_file()},
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def find_folder(module: str, folders: Iterable[Path | str]) -> Path | None:
    """The first of some folders in which a module itself is a file, or where an import finds it."""
    parts = module.split(".")
    for folder in map(Path, folders):
        at = folder.joinpath(*parts)
        if (at / "__init__.py").is_file() or at.with_name(f"{parts[-1]}.py").is_file():
            return folder
    with suppress(ImportError, ValueError):
        spec = find_spec(_top(module))  # of an editable installation, say; nothing is imported
        origin = Path(spec.origin) if spec and spec.has_location and spec.origin else None
        if origin is not None and origin.suffix == ".py":
            folder = origin.parents[1] if origin.name == "__init__.py" else origin.parent
            return folder if folder not in map(Path, folders) else None
    return None


def _is_installed(folder: Path) -> bool:
    """Whether a folder holds packages of an environment, or Python's own."""
    python = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib")}
    installed = folder.name in ("site-packages", "dist-packages", "lib-dynload")
    return installed or folder.resolve() in python


def imports(path: Path, root: Path) -> tuple[str, ...]:
    """Dotted names that a source file imports; `from a import b` counts as a and as a.b."""
    names = []
    package = path.relative_to(root).parent.parts
    for level, module, imported in _source(path)[1]:
        above = package[: len(package) + 1 - level] if level else ()
        module = ".".join([*above, *([module] if module else [])])
        names += [module, *(f"{module}.{name}" for name in imported)]
    return tuple(names)


def file_digest(path: Path) -> str:
    """The digest of what a file of source says; of any other file, the sha256 of its bytes."""
    if path.suffix == ".py":
        return _source(path)[0]
    return hashlib.sha256(path.read_bytes()).hexdigest()


@functools.cache
def _source(path: Path) -> tuple[str, list]:
    """The digest of what a file of source says, and its imports, as `_imported` returns them."""
    content = path.read_bytes()

    def work() -> tuple[str, list]:
        source = decode_source(content)
        return said_digest(source), _imported(ast.parse(source, str(path)))

    return memory.recall(memory.key_of(Path(__file__).read_bytes(), content), work)


def _imported(tree: ast.AST) -> list[tuple[int, str | None, list[str]]]:
    """Level, module and names of every import in a syntax tree; without names, of the modules."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(0, alias.name, []) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.level, node.module, [alias.name for alias in node.names]))
    return found


def said_digest(source: str) -> str:
    """The sha256 of what Python source says: of its tokens, one a line.

    The same for every version of Python, as a digest of its syntax tree would not be.
    """
    return hashlib.sha256("\n".join(_tokens(source)).encode()).hexdigest()


def _tokens(source: str) -> Iterator[str]:
    """The tokens of source, but comments, empty lines and docstrings; all indents alike."""
    lines = io.StringIO(source).readlines()  # as the tokenizer counts them
    docstrings = _docstrings(source, lines)
    depth, start = 0, (0, 0)  # of an f-string, which Python 3.12 and later take apart
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind.endswith("STRING_START"):
            start = start if depth else token.start
            depth += 1
        elif kind.endswith("STRING_END"):
            depth -= 1
            if not depth:
                yield repr(_between(lines, start, token.end))
        elif depth or kind in ("COMMENT", "NL"):
            continue
        elif any(first <= token.start <= last for first, last in docstrings):
            continue  # with the end of its line
        elif kind in ("INDENT", "DEDENT", "NEWLINE", "ENDMARKER"):
            yield kind
        else:
            yield repr(token.string)


def _docstrings(source: str, lines: Sequence[str]) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Where docstrings begin and end: line and column."""

    def place(line: int, offset: int) -> tuple[int, int]:  # ast counts bytes
        return line, len(lines[line - 1].encode()[:offset].decode())

    found = []
    for node in ast.walk(ast.parse(source)):
        holds = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if holds and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            first = place(text.lineno, text.col_offset)
            found.append((first, place(text.end_lineno, text.end_col_offset)))
    return found


def _between(lines: Sequence[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """The text from one place to another."""
    (first, left), (last, right) = start, end
    if first == last:
        return lines[first - 1][left:right]
    return "".join([lines[first - 1][left:], *lines[first : last - 1], lines[last - 1][:right]])


def _top(module: str) -> str:
    return module.partition(".")[0]


@functools.cache
def _module_files(module: str, root: Path) -> list[Path]:
    """The files under `root` that importing `module` runs: packages' __init__.py and the module."""
    parts = module.split(".")
    files = [root.joinpath(*parts[:n], "__init__.py") for n in range(1, len(parts) + 1)]
    files.append(root.joinpath(*parts[:-1], f"{parts[-1]}.py"))
    return [file for file in files if file.is_file()]
