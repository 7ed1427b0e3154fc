"""docs/api.md from the docstrings and signatures of what is public.

    python docs/api.py

Read from the source, without importing it.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
HEAD = """# The library in a notebook

*Written by `make examples` from the docstrings.*

```python
import lossgeo
```

"""


def markdown() -> str:
    """The page."""
    face, results = (
        (ROOT / "scripts" / "lossgeo" / f"{name}.py").read_text() for name in ("face", "results")
    )
    (objective,) = (node for node in _classes(face) if node.name == "Objective")
    parts = [HEAD, *_class(objective, face, "lossgeo.Objective")]
    parts += ["## Results\n\n", _prose(ast.get_docstring(ast.parse(results)) or "")]
    for node in _classes(results):
        parts += _class(node, results, node.name)
    return re.sub(r"\n{3,}", "\n\n", "".join(parts)).rstrip() + "\n"


def _classes(source: str) -> list[ast.ClassDef]:
    return [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]


def _class(node: ast.ClassDef, source: str, name: str) -> Iterator[str]:
    """A class: what it is, its fields, its public methods."""
    methods = {m.name: m for m in node.body if isinstance(m, ast.FunctionDef)}
    yield f"## {name}\n\n"
    if "__init__" in methods:
        yield _signature(name, methods["__init__"])
    yield _prose(ast.get_docstring(node) or "")
    fields = [child for child in node.body if isinstance(child, ast.AnnAssign)]
    lines = source.splitlines()
    if fields:
        stated = "\n".join(lines[field.lineno - 1].strip() for field in fields)
        yield f"```python\n{stated}\n```\n\n"
    for method in methods.values():
        text = ast.get_docstring(method)
        if method.name.startswith("_") or not text:
            continue
        is_property = any(ast.unparse(d) == "property" for d in method.decorator_list)
        yield f"### {name.rpartition('.')[2]}.{method.name}\n\n"
        if not is_property:
            yield _signature(method.name, method)
        yield _prose(text)


def _signature(name: str, method: ast.FunctionDef) -> str:
    """name(argument: type = default, ...) -> type, an argument a line where it is long."""
    node = method.args
    node.args = node.args[1:]
    returned = f" -> {ast.unparse(method.returns)}" if method.returns and name[0].islower() else ""
    returned = "" if returned == " -> None" else returned
    stated = re.sub(r"(?<! )=(?=\S)", " = ", ast.unparse(node))
    if len(name) + len(stated) + len(returned) > 90:
        pieces = re.split(r", (?![^\[]*\])", stated)
        stated = "\n" + "".join(f"    {piece},\n" for piece in pieces)
    text = f"{name}({stated}){returned}".replace("'", '"')
    return f"```python\n{text}\n```\n\n"


def _prose(text: str) -> str:
    """A docstring as Markdown: `name: meaning` paragraphs become a list."""
    out = []
    for line in text.splitlines():
        if found := re.match(r"([a-z_]+(?:, [a-z_]+)*): (.*)", line):
            out.append(f"- **{found[1]}**: {found[2]}")
        else:
            out.append(line)
    return "\n".join(out) + "\n\n"


if __name__ == "__main__":
    PAGE.write_text(markdown())
