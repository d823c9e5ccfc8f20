"""docs/walks.md: every file and function in it exists, and every call is made where the page says."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

WALKS = ("A request", "A training batch", "A question")
STEPS = 8
PLACE = re.compile(r"`([\w/]+\.py)` `([\w.]+)`")


@dataclass(frozen=True)
class Step:
    """A row of a walk: a function, and the function that calls it."""

    walk: str
    file: str
    name: str
    caller_file: str
    caller: str

    def __str__(self) -> str:
        return f"{self.walk}: {self.file} {self.name}"


def steps(text: str) -> Iterator[Step]:
    """The rows of the page's tables, in order."""
    walk = ""
    for line in text.splitlines():
        if line.startswith("## "):
            walk = line.removeprefix("## ")
        elif re.match(r"\| \d", line):
            (file, name), (caller_file, caller) = PLACE.findall(line)
            yield Step(walk, file, name, caller_file, caller)


def definition(tree: ast.AST, name: str) -> ast.AST | None:
    """The class, function or method of a qualified name."""
    node: ast.AST | None = tree
    for part in name.split("."):
        node = next((n for n in getattr(node, "body", ()) if getattr(n, "name", None) == part), None)
    return node


def calls(node: ast.AST, name: str) -> bool:
    """Whether a function calls something of this name, alone or as an attribute."""
    last = name.rpartition(".")[2]
    functions = [n.func for n in ast.walk(node) if isinstance(n, ast.Call)]
    return any(last == getattr(f, "id", getattr(f, "attr", None)) for f in functions)


def wrong_steps(text: str, trees: dict[str, ast.AST]) -> list[str]:
    """One sentence for each step that the code does not take."""
    sentences, files = [], set()
    for step in steps(text):
        if step.file not in trees or definition(trees[step.file], step.name) is None:
            sentences.append(f"{step}: there is no such function")
            continue
        caller = definition(trees.get(step.caller_file, ast.Module([], [])), step.caller)
        if caller is None or not calls(caller, step.name):
            sentences.append(f"{step}: {step.caller_file} {step.caller} does not call it")
        if (step.walk, step.caller_file) not in files and (step.walk, "") in files:
            sentences.append(f"{step}: {step.caller_file} is on no earlier step of the walk")
        files |= {(step.walk, ""), (step.walk, step.file), (step.walk, step.caller_file)}
    return sentences


@pytest.fixture
def trees(package) -> dict[str, ast.AST]:
    """Syntax trees of the package by path inside it."""
    return {str(source.path).removeprefix("shoestring/"): source.tree for source in package}


def test_the_walks_are_those_that_the_code_takes(root, trees):
    text = (root / "docs" / "walks.md").read_text(encoding="utf-8")
    assert not wrong_steps(text, trees)
    assert [step.walk for step in steps(text)] == [walk for walk in WALKS for _ in range(STEPS)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("| 1 | x | `a.py` `f` | `b.py` `C.g` |", None),
        ("| 1 | x | `a.py` `gone` | `b.py` `C.g` |", "no such function"),
        ("| 1 | x | `a.py` `f` | `b.py` `C.h` |", "b.py C.h does not call it"),
        ("| 1 | x | `a.py` `f` | `b.py` `C.g` |\n| 2 | x | `b.py` `C.g` | `c.py` `k` |", "no earlier step"),
    ],
)
def test_a_step_that_is_not_taken_is_seen(row, words):
    sources = {
        "a.py": "def f(): pass",
        "b.py": "class C:\n    def g(self): return a.f()\n    def h(self): return f",
        "c.py": "def k(): C().g()",
    }
    sentences = wrong_steps(f"## W\n{row}", {file: ast.parse(text) for file, text in sources.items()})
    assert (sentences == []) if words is None else (words in sentences[-1])
