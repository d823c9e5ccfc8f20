"""The code's English: docstrings begin with a verb or a noun, and names say what a value is."""

import ast
import re
from collections import Counter
from collections.abc import Iterator

import pytest

QUESTION_WORDS = ("What", "How", "Who", "Whom", "Whose", "Why", "Where", "When", "Which")
IRREGULAR = frozenset(
    [
        "asked",
        "begun",
        "bound",
        "broken",
        "brought",
        "built",
        "chosen",
        "done",
        "drawn",
        "found",
        "given",
        "gone",
        "got",
        "heard",
        "held",
        "kept",
        "known",
        "left",
        "lost",
        "made",
        "meant",
        "met",
        "paid",
        "said",
        "seen",
        "sent",
        "shown",
        "sold",
        "sought",
        "spent",
        "taken",
        "thought",
        "told",
        "unknown",
        "won",
        "written",
    ]
)
NOT_PARTICIPLES = {"bed", "embed", "feed", "hundred", "need", "red", "seed", "speed"}
FIELD_TERMS = {
    "finished",  # vLLM's RequestOutput
    "packed",  # a format of weights
    "quantized",
    "reduced",  # what an all-reduce returns
    "speculated",
}
MOST_PER_THOUSAND = 2.0


def is_participle(name: str) -> bool:
    """Whether a name is one bare past participle: `kept`, `wanted`, `_given`; not `kept_rows`, not `seed`."""
    word = name.strip("_").lower()
    if word in FIELD_TERMS | NOT_PARTICIPLES:
        return False
    return word in IRREGULAR or re.fullmatch(r"[a-z]{2,}ed", word) is not None


def bindings(tree: ast.AST) -> Iterator[str]:
    """Every name that the code binds: variables, parameters, fields and attributes of self."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.ctx, ast.Store)
            and isinstance(node.value, ast.Name)
            and node.value.id == "self"
        ):
            yield node.attr


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring, those under fields and constants included."""
    for node in ast.walk(tree):
        body = getattr(node, "body", ())
        for statement in body if isinstance(body, list) else ():
            value = statement.value if isinstance(statement, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield statement.lineno, value.value.strip()


def test_no_docstring_begins_with_a_question_word(package):
    wrong = [
        f"{source}:{line}: {text.splitlines()[0]}"
        for source in package
        for line, text in docstrings(source.tree)
        if text and text.split()[0].rstrip(",") in QUESTION_WORDS
    ]
    assert not wrong


def test_names_are_nouns(package):
    names = [name for source in package for name in bindings(source.tree)]
    participles = Counter(name for name in names if is_participle(name))
    assert participles.total() / len(names) * 1000 < MOST_PER_THOUSAND, participles.most_common(30)


@pytest.mark.parametrize("name", ["kept", "wanted", "_given", "found", "asked", "added"])
def test_a_participle_is_seen(name):
    assert is_participle(name)


@pytest.mark.parametrize("name", ["seed", "kept_rows", "num_skipped", "weights", "finished", "is_closed"])
def test_a_noun_is_not_one(name):
    assert not is_participle(name)


def test_bindings_and_docstrings_are_found():
    fields = 'class A:\n    """Doc."""\n    x: int\n    """Field."""\n'
    tree = ast.parse(fields + "    def f(self, y):\n        self.z = w = y\n")
    assert set(bindings(tree)) == {"x", "self", "y", "z", "w"}
    assert [text for _, text in docstrings(tree)] == ["Doc.", "Field."]
