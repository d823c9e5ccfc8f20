"""The graph of imports and its loops, on a few modules of a package of their own."""

import ast
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    """tools/imports.py as a module."""
    monkeypatch.syspath_prepend(TOOLS)
    import imports

    return imports


@pytest.fixture
def graph(tool):
    """The imports of modules of the package `p`, given by their paths."""

    def make(sources):
        return tool.import_graph({Path("p", path): ast.parse(text) for path, text in sources.items()})

    return make


def test_modules_and_names_inside_them_are_the_same_import(graph):
    sources = {"a.py": "from p.b import c, d\nimport p.b.c", "b/c.py": "x = 1", "b/__init__.py": "d = 1"}
    assert graph(sources) == {"p.a": {"p.b", "p.b.c"}, "p.b.c": set(), "p.b": set()}


def test_a_lazy_import_closes_a_loop(tool, graph):
    sources = {"a.py": "from p import b", "b.py": "from p.c import f", "c.py": "def f():\n    import p.a"}
    assert tool.import_loops(graph(sources)) == [["p.a", "p.b", "p.c"]]


def test_without_a_way_back_there_is_no_loop(tool, graph):
    sources = {"a.py": "from p import b, c", "b.py": "import p.c", "c.py": "import os"}
    assert tool.import_loops(graph(sources)) == []


def test_the_packages_own_init_is_no_module_of_the_graph(graph):
    assert graph({"__init__.py": "", "a.py": "from p import x"}) == {"p.a": set()}
