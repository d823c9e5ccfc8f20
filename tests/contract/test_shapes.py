"""Shape suffixes: every letter of a name such as scores_BHTS is in the legend of shoestring.model."""

import ast
import re
from collections.abc import Iterator

import pytest

from shoestring import model

SUFFIX = re.compile(r"_*[a-z][a-z0-9_]*_([A-Z0-9]*[A-Z][A-Z0-9]*)")
PEFT_NAMES = {"lora_A", "lora_B"}


def legend() -> list[str]:
    """The letters that shoestring/model/__init__.py explains."""
    return re.findall(r"  ([A-Z])  \S", model.__doc__ or "")


def names(tree: ast.AST) -> Iterator[str]:
    """Variables, parameters, attributes and keywords."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, (ast.arg, ast.keyword)) and node.arg:
            yield node.arg


def suffix(name: str) -> str:
    """The shape in a name; empty if it has none."""
    match = SUFFIX.fullmatch(name)
    return match[1] if match and name not in PEFT_NAMES else ""


def test_a_letter_has_one_meaning():
    assert len(legend()) == len(set(legend())) > 10


def test_every_letter_of_a_shape_is_in_the_legend(package):
    letters = {*legend(), *"0123456789"}
    pairs = ((name, source) for source in package for name in names(source.tree))
    unknown = {name: str(source) for name, source in pairs if set(suffix(name)) - letters}
    assert not unknown


def test_every_letter_of_the_legend_is_used(package):
    letters = {letter for source in package for name in names(source.tree) for letter in suffix(name)}
    assert set(legend()) <= letters


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("scores_BHTS", "BHTS"),
        ("_x_N1", "N1"),
        ("penalties_N3", "N3"),
        ("lora_A", ""),
        ("IGNORE_INDEX", ""),
        ("x", ""),
    ],
)
def test_a_shape_is_read_from_a_name(name, shape):
    assert suffix(name) == shape
