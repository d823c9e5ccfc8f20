"""The rules for the code's English: how a docstring may begin, and which names are bare participles."""

import ast
import re
from collections.abc import Iterator

QUESTION_WORDS = ("What", "How", "Who", "Whom", "Whose", "Why", "Where", "When", "Which")
IRREGULAR = re.compile(
    "asked|begun|bound|broken|brought|built|chosen|done|drawn|found|given|gone|got|heard|held|kept|known|left|lost"
    "|made|meant|met|paid|said|seen|sent|shown|sold|sought|spent|taken|thought|told|unknown|won|written"
)
NOT_PARTICIPLES = {"bed", "embed", "feed", "hundred", "need", "red", "seed", "speed"}
FIELD_TERMS = {
    "chosen",  # the answers of a pair of preferences, with "rejected": columns of TRL's data
    "finished",  # vLLM's RequestOutput
    "packed",  # a format of weights
    "quantized",
    "reduced",  # what an all-reduce returns
    "rejected",
    "speculated",
}


def is_participle(name: str) -> bool:
    """Return whether a name is one bare past participle: `kept`, `_given`; not `kept_rows`, not `seed`."""
    word = name.strip("_").lower()
    if word in FIELD_TERMS | NOT_PARTICIPLES:
        return False
    return bool(IRREGULAR.fullmatch(word) or re.fullmatch(r"[a-z]{2,}ed", word))


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


def first_word(text: str) -> str:
    """The first word of a docstring without the comma after it."""
    return text.split()[0].rstrip(",") if text else ""
