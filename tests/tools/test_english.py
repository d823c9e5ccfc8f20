"""Participles, bindings and docstrings are told from everything else."""

import ast
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    """tools/english.py as a module."""
    monkeypatch.syspath_prepend(TOOLS)
    import english

    return english


@pytest.mark.parametrize("name", ["kept", "wanted", "_given", "found", "asked", "added"])
def test_a_participle_is_seen(tool, name):
    assert tool.is_participle(name)


@pytest.mark.parametrize("name", ["seed", "kept_rows", "num_skipped", "weights", "finished", "is_closed"])
def test_a_noun_is_not_one(tool, name):
    assert not tool.is_participle(name)


def test_bindings_and_docstrings_are_found(tool):
    fields = 'class A:\n    """Doc."""\n    x: int\n    """Field."""\n'
    tree = ast.parse(fields + "    def f(self, y):\n        self.z = w = y\n")
    assert set(tool.bindings(tree)) == {"x", "self", "y", "z", "w"}
    assert [text for _, text in tool.docstrings(tree)] == ["Doc.", "Field."]


def test_the_first_word_of_a_docstring(tool):
    assert tool.first_word("What, if anything") == "What"
    assert tool.first_word("") == ""
