"""A change of a module reaches the scripts that use it, and no others."""

import sys
from importlib.util import spec_from_file_location

import pytest

from lossgeo.digest import code_digests, factory_digests, module_digests, said_digest

SOURCES = {
    "train.py": "import numpy\nfrom lib.deep import thing\n",
    "plot.py": "def main():\n    import lib.drawing\n",
    "table.py": "from lib import columns\n",
    "alone.py": "import json\n",
    "lib/__init__.py": "",
    "lib/deep.py": "from lib.base import x\n",
    "lib/base.py": "import lib.deep  # a circle\nx = 1\n",
    "lib/drawing.py": "y = 1\n",
    "lib/columns.py": "z = 1\n",
}

REACHED = {
    "train.py": {"train.py", "lib/__init__.py", "lib/deep.py", "lib/base.py"},
    "plot.py": {"plot.py", "lib/__init__.py", "lib/drawing.py"},
    "table.py": {"table.py", "lib/__init__.py", "lib/columns.py"},
    "alone.py": {"alone.py"},
}


@pytest.fixture
def project(tmp_path):
    """Write the sources, some of them changed, into a folder of their own."""

    def make(name: str, **changes: str):
        root = tmp_path / name
        for path, text in (SOURCES | changes).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        return root

    return make


@pytest.mark.parametrize("script", REACHED)
def test_imports_are_followed_through_modules_functions_and_packages(project, script):
    root = project("a")
    found = code_digests(root / script, root)
    assert set(found) == REACHED[script]
    for path, digest in found.items():
        assert digest == said_digest((root / path).read_text())


@pytest.mark.parametrize("changed", ["lib/__init__.py", "lib/base.py", "lib/drawing.py", "plot.py"])
def test_a_changed_module_changes_those_who_reach_it_and_nobody_else(project, changed):
    before, after = project("before"), project("after", **{changed: "changed = 1\n"})
    for script, reached in REACHED.items():
        same = code_digests(before / script, before) == code_digests(after / script, after)
        assert same == (changed not in reached)


def test_what_is_installed_is_not_part_of_the_project(project):
    root = project("a")
    assert not any("numpy" in path for path in code_digests(root / "train.py", root))


def test_the_folder_does_not_matter(project):
    """Paths are relative: two checkouts of one state agree."""
    a, b = project("a"), project("b")
    assert code_digests(a / "train.py", a) == code_digests(b / "train.py", b)


def test_a_users_module_is_followed_too(project):
    root = project("a")
    assert set(module_digests("lib.deep", root)) == {
        "lib/__init__.py",
        "lib/deep.py",
        "lib/base.py",
    }


def test_a_module_from_elsewhere_has_no_digests(project):
    assert module_digests("torchvision.models", project("a")) == {}


def test_a_subpackage_runs_every_init_above_it(project):
    root = project(
        "a", **{"lib/sub/__init__.py": "", "lib/sub/leaf.py": "", "use.py": "import lib.sub.leaf"}
    )
    assert set(code_digests(root / "use.py", root)) == {
        "use.py",
        "lib/__init__.py",
        "lib/sub/__init__.py",
        "lib/sub/leaf.py",
    }


def test_relative_imports_are_followed(project):
    """Packages of users are often written so."""
    root = project(
        "a",
        **{
            "nets/__init__.py": "",
            "nets/big.py": "from .parts import x\nfrom . import more",
            "nets/parts.py": "x = 1",
            "nets/more.py": "y = 1",
        },
    )
    assert set(module_digests("nets.big", root)) == {
        "nets/__init__.py",
        "nets/big.py",
        "nets/parts.py",
        "nets/more.py",
    }


SAYS = '''"""What it is."""
import a


def f(x):
    """It adds.

    Twice.
    """
    text = f"one {x + 1}"  # a comment

    return """two

lines""" + text
'''
THE_SAME = {
    "a comment more": SAYS.replace("import a", "# why\nimport a"),
    "no comment": SAYS.replace("  # a comment", ""),
    "another docstring": SAYS.replace("Twice.", "Thrice, ''."),
    "no docstring": SAYS.replace('"""What it is."""\n', ""),
    "empty lines": SAYS.replace("import a\n", "import a\n\n\n"),
    "another indent": SAYS.replace("\n    ", "\n  "),
}
ANOTHER = {
    "a name": SAYS.replace("import a", "import b"),
    "a number": SAYS.replace("x + 1", "x + 2"),
    "a string": SAYS.replace("one", "none"),
    "an empty line in a string": SAYS.replace("two\n\n", "two\n"),
    "a comment's mark in a string": SAYS.replace("one {", "one # {"),
    "less indented": SAYS.replace("    return", "x ="),
}


@pytest.mark.parametrize("name", THE_SAME)
def test_comments_docstrings_and_layout_say_nothing(name):
    assert THE_SAME[name] != SAYS
    assert said_digest(THE_SAME[name]) == said_digest(SAYS)


@pytest.mark.parametrize("name", ANOTHER)
def test_whatever_else_changes_says_something_else(name):
    assert said_digest(ANOTHER[name]) != said_digest(SAYS)


def test_a_body_that_is_a_docstring_alone_has_none_to_say():
    assert said_digest('def f():\n    """Nothing."""\n') == said_digest('def f():\n    """."""\n')
    assert said_digest("x = 'a' 'b'  # c\n") != said_digest("x = 'ab'\n")


def test_the_digest_does_not_depend_on_the_version_of_python():
    """As Python 3.11, 3.12 and 3.13 give it; f-strings are taken apart from 3.12 on."""
    assert said_digest("x = f'{y:{z}} {f\"{w}\"}' # c\n").startswith("a460dbc1c3048696")


def test_lines_and_columns_are_those_of_the_tokenizer():
    """A form feed ends no line; ast counts bytes where the tokenizer counts letters."""
    one, other = ("x = 0 # \x0c\ny = f'{a}xx'\n", "x = 0 # \x0c\ny = f'{a}yy'\n")
    assert said_digest(one) != said_digest(other)
    one, other = ('class A:\n "éééééé"; x = 1\n', 'class A:\n "éééééé"; x = 2\n')
    assert said_digest(one) != said_digest(other)


@pytest.mark.parametrize(
    "content", ["\ufeffx = 1\n".encode(), "# -*- coding: latin-1 -*-\nx = 'é'\n".encode("latin-1")]
)
def test_source_in_any_encoding_has_a_digest(tmp_path, content):
    (tmp_path / "mine.py").write_bytes(content)
    assert set(code_digests(tmp_path / "mine.py", tmp_path)) == {"mine.py"}


@pytest.fixture
def folders(project, tmp_path):
    """A working directory, one that is not there, a folder of the user's, installed packages."""
    mine, installed = project("mine"), project("site-packages")
    (mine / "lib" / "deep.py").write_text("import alone\n")
    (installed / "lib" / "deep.py").write_text("import alone, lib.base\n")
    (tmp_path / "empty").mkdir()
    return [tmp_path / "empty", tmp_path / "not there", mine, installed]


def test_a_factory_is_followed_where_it_is_found_first(folders):
    found = factory_digests("lib.deep", folders)
    assert set(found) == {"lib/__init__.py", "lib/deep.py", "alone.py"}
    assert found["lib/deep.py"] == said_digest("import alone")
    (folders[0] / "lib.py").write_text("")
    assert set(factory_digests("lib", folders)) == {"lib.py"}
    assert factory_digests("nowhere", folders) == {}


def test_a_package_of_the_same_name_without_the_module_is_passed_over(folders):
    (folders[0] / "lib").mkdir()
    (folders[0] / "lib" / "__init__.py").write_text("another = 1\n")
    found = factory_digests("lib.deep", folders)
    assert found["lib/__init__.py"] == said_digest("")


def test_a_factory_is_followed_from_folder_to_folder(folders):
    (folders[0] / "my_models.py").write_text("from lib import base\n")
    found = factory_digests("my_models", folders)
    assert set(found) >= {"my_models.py", "lib/__init__.py", "lib/base.py"}


def test_of_an_installed_factory_its_own_package_alone_is_followed(folders):
    found = factory_digests("lib.deep", [folders[0], folders[3]])
    assert set(found) == {"lib/__init__.py", "lib/deep.py", "lib/base.py"}
    (folders[0] / "my_models.py").write_text("import lib.base, json\n")
    assert set(factory_digests("my_models", [folders[0], folders[3]])) == {"my_models.py"}


def test_a_factory_is_followed_where_only_an_import_finds_it(project, monkeypatch):
    """As in an editable installation, whose finder knows where the source is."""
    source = project("source")

    class Finder:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == "lib":
                return spec_from_file_location(name, source / "lib" / "__init__.py")

    monkeypatch.setattr("sys.meta_path", [Finder, *sys.meta_path])
    assert set(factory_digests("lib.deep", [])) == {"lib/__init__.py", "lib/deep.py", "lib/base.py"}
    assert "lib" not in sys.modules
