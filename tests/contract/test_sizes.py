"""Everything stays small enough to read: limits for files, functions, classes, folders and the tests."""

import ast
from collections import Counter

import pytest

FILE_LINES = 400
FUNCTION_LINES = 60
CLASS_LINES = 250
PARAMETERS = 8
OPTIONS = 9  # parameters of a verb: its arguments and flags
CONFIG_FIELDS = 25
INIT_LINES = 20
FOLDER_FILES = 20
FOLDER_LINES = {  # of the Python files directly in a folder: a little above their size today
    "shoestring": 1_560,
    "shoestring/cli": 1_300,
    "shoestring/cli/verbs": 2_400,
    "shoestring/cli/verbs/costs": 600,
    "shoestring/cli/verbs/training": 1_700,
    "shoestring/cost": 1_800,
    "shoestring/data": 3_200,
    "shoestring/distill": 2_000,
    "shoestring/data/chat": 620,
    "shoestring/data/fetch": 480,
    "shoestring/data/forms": 1_200,
    "shoestring/engine": 3_800,
    "shoestring/engine/cohort": 260,
    "shoestring/engine/constrain": 1_760,
    "shoestring/engine/conversation": 350,
    "shoestring/engine/offline": 1_400,
    "shoestring/evals": 1_900,
    "shoestring/evals/references": 300,
    "shoestring/kernels": 2_850,
    "shoestring/low_precision": 420,
    "shoestring/model": 2_500,
    "shoestring/model/gguf": 2_160,
    "shoestring/model/gguf/vocabulary": 620,
    "shoestring/model/hf": 2_400,
    "shoestring/model/packed": 900,
    "shoestring/preferences": 2_000,
    "shoestring/receipts": 900,
    "shoestring/remote": 900,
    "shoestring/rl": 2_800,
    "shoestring/rows": 1_000,
    "shoestring/sandbox": 950,
    "shoestring/serve": 2_000,
    "shoestring/serve/admission": 1_100,
    "shoestring/serve/accounts": 1_560,
    "shoestring/serve/backends": 2_450,
    "shoestring/serve/chats": 1_850,
    "shoestring/serve/dialects": 2_640,
    "shoestring/serve/gate": 760,
    "shoestring/serve/ledger": 1_150,
    "shoestring/serve/models": 700,
    "shoestring/serve/pages": 260,
    "shoestring/serve/routes/page": 900,
    "shoestring/serve/routes": 1_750,
    "shoestring/serve/routes/account": 400,
    "shoestring/serve/routes/admin": 520,
    "shoestring/serve/routes/deepl": 950,
    "shoestring/serve/storage": 950,
    "shoestring/serve/storage/migrations": 30,
    "shoestring/serve/storage/migrations/versions": 550,
    "shoestring/serve/translate": 2_000,
    "shoestring/serve/training": 1_100,
    "shoestring/tasks": 3_400,
    "shoestring/tasks/custom": 1_550,
    "shoestring/tasks/instructions": 420,
    "shoestring/tasks/values": 2_350,
    "shoestring/tokenizer": 1_500,
    "shoestring/tokenizer/chat": 1_950,
    "shoestring/train": 3_500,
    "shoestring/train/report": 1_500,
    "shoestring/train/runs": 1_400,
}
TEST_LINES = 64_000  # as long as the package at most: beyond that, tests repeat each other


def lines(node: ast.AST) -> int:
    return node.end_lineno - node.lineno + 1


def too_big(path: str, tree: ast.AST) -> list[str]:
    """One sentence for each function, class or signature that is over its limit."""
    sentences = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            if lines(node) > FUNCTION_LINES:
                sentences.append(f"{path}: {node.name} has {lines(node)} lines, not {FUNCTION_LINES}")
            most = OPTIONS if path.startswith("shoestring/cli/verbs/") else PARAMETERS
            if parameters(node) > most:
                sentences.append(f"{path}: {node.name} takes {parameters(node)} parameters, not {most}")
        if isinstance(node, ast.ClassDef):
            if lines(node) > CLASS_LINES:
                sentences.append(f"{path}: class {node.name} has {lines(node)} lines, not {CLASS_LINES}")
            if node.name.endswith("Config") and fields(node) > CONFIG_FIELDS:
                sentences.append(f"{path}: {node.name} has {fields(node)} fields, not {CONFIG_FIELDS}")
    return sentences


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Parameters of a function, without self and cls; a typer command's flags count like the rest."""
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    return len([a for a in arguments if a.arg not in ("self", "cls")])


def fields(node: ast.ClassDef) -> int:
    return sum(isinstance(statement, ast.AnnAssign) for statement in node.body)


def init_lines(tree: ast.Module) -> int:
    """Lines of an __init__.py, where re-exporting a list of names counts as one however it is wrapped."""
    return sum(1 if isinstance(s, (ast.ImportFrom, ast.Assign)) else lines(s) for s in tree.body)


def test_no_file_is_too_long(everything):
    long = {str(s): len(s.text.splitlines()) for s in everything}
    assert not {path: count for path, count in long.items() if count > FILE_LINES}


def test_no_function_class_or_signature_is_too_big(everything):
    sources = [s for s in everything if s.path.parts[0] != "tests"]
    assert not [sentence for s in sources for sentence in too_big(str(s), s.tree)]


def test_init_files_are_nearly_empty(package):
    inits = {str(s): init_lines(s.tree) for s in package if s.path.name == "__init__.py"}
    assert not {path: count for path, count in inits.items() if count > INIT_LINES}


def test_no_folder_holds_more_than_one_takes_in_at_a_glance(root):
    files = [path for path in (root / "shoestring").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    built = root / "shoestring" / "serve" / "pages" / "app"  # nobody reads it: ui/ is its source
    files = [path for path in files if path.parent != built]
    counts = Counter(str(path.parent.relative_to(root)) for path in files)
    assert not {folder: count for folder, count in counts.items() if count > FOLDER_FILES}


def test_every_folder_stays_within_its_lines(package):
    counts = Counter[str]()
    for source in package:
        counts[str(source.path.parent)] += len(source.text.splitlines())
    assert counts.keys() == FOLDER_LINES.keys(), "a new folder gets its limit here"
    assert not {folder: count for folder, count in counts.items() if count > FOLDER_LINES[folder]}


def test_the_tests_are_no_longer_than_the_package(everything):
    assert sum(len(s.text.splitlines()) for s in everything if s.path.parts[0] == "tests") <= TEST_LINES


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("def f():\n" + "    pass\n" * 60, "61 lines"),
        ("class C:\n" + "    x = 1\n" * 250, "251 lines"),
        ("class C:\n    def f(self, a, b, c, d, e, f, g, *, h, i): pass", "9 parameters"),
        ("class XConfig:\n" + "".join(f"    f{i}: int\n" for i in range(26)), "26 fields"),
    ],
)
def test_what_is_too_big_is_seen(code, words):
    (sentence,) = too_big("x.py", ast.parse(code))
    assert words in sentence
