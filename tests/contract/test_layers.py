"""Who may import whom (docs/architecture.md): only downwards, wherever the import stands."""

import ast
from pathlib import Path

import pytest

LEVEL = {
    **dict.fromkeys(("errors",), -1),
    **dict.fromkeys(("durable",), 0),
    **dict.fromkeys(("child", "config", "device", "figures"), 1),
    **dict.fromkeys(("kernels", "tokenizer", "sandbox"), 2),
    **dict.fromkeys(("model", "remote", "tasks"), 3),
    **dict.fromkeys(("data",), 4),
    **dict.fromkeys(("engine", "train", "plan"), 5),
    **dict.fromkeys(("distill", "evals"), 6),
    **dict.fromkeys(("rl", "serve"), 7),
    **dict.fromkeys(("cli",), 8),
    **dict.fromkeys(("__init__",), 9),  # the package's own door: hands out names when they are asked for
}
WITHOUT_TORCH = ("child", "errors", "durable", "config", "remote", "sandbox", "tokenizer", "tasks", "plan")
# What an extra installs: one file each, and lazily.
OPTIONAL = ("matplotlib", "pyarrow", "gguf", "lm_eval", "math_verify", "reasoning_gym")
LAZY = (
    *OPTIONAL,
    "httpx2",
    "huggingface_hub",
    "llguidance",
    "pydantic",
    "tokenizers",
    "tomli_w",
)  # slow to import: never at the top
FORBIDDEN = ("transformers", "datasets", "requests", "httpx")


def imported(node: ast.AST) -> list[str]:
    """Dotted names that one statement imports; a relative import gives a name that starts with a dot."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + f"{node.module or ''}.{alias.name}" for alias in node.names]
    return []


def room_of(path: Path) -> str:
    """The room of shoestring/model/moe.py is model; of shoestring/config.py, config."""
    return path.parts[1].removesuffix(".py")


def wrong_imports(path: Path, tree: ast.AST) -> list[str]:
    """One sentence for each import that does not point down."""
    room, wrong = room_of(path), []
    for name in (name for node in ast.walk(tree) for name in imported(node)):
        if name.startswith("."):
            wrong.append(f"{path}: relative import {name}")
        top, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if top != "shoestring" or target in ("", "__version__", room):
            continue
        if target not in LEVEL or room not in LEVEL:
            wrong.append(f"{path}: {name}: give the room its level here and in docs/architecture.md")
        elif LEVEL[target] >= LEVEL[room]:
            wrong.append(f"{path}: {room} may not import {target}")
    return wrong


def top_level(tree: ast.Module) -> list[str]:
    """Names imported when the module is; what stands under `if TYPE_CHECKING` is not."""
    names, waiting = [], list(tree.body)
    while waiting:
        node = waiting.pop()
        names += imported(node)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
        else:
            waiting += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]
    return names


def tops(names: list[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_imports_point_down(package):
    assert not [wrong for source in package for wrong in wrong_imports(source.path, source.tree)]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("shoestring/model/moe.py", "from shoestring.train import step"),
        ("shoestring/model/moe.py", "def f():\n    import shoestring.data.loader"),
        ("shoestring/evals/passk.py", "from shoestring.serve.app import app"),
        ("shoestring/train/step.py", "from shoestring import engine"),
        ("shoestring/train/step.py", "from . import losses"),
        ("shoestring/train/step.py", "from ..model import moe"),
        ("shoestring/attic/x.py", "import shoestring.errors"),
    ],
)
def test_an_import_upwards_or_sideways_is_seen(path, code):
    assert len(wrong_imports(Path(path), ast.parse(code))) == 1


@pytest.mark.parametrize(
    "code",
    ["import torch", "from shoestring.kernels import rotate", "from shoestring.model import moe, config"],
)
def test_an_import_downwards_is_fine(code):
    assert wrong_imports(Path("shoestring/model/moe.py"), ast.parse(code)) == []


def test_rooms_without_torch_have_none(package):
    wrong = [
        str(source)
        for source in package
        if room_of(source.path) in WITHOUT_TORCH
        and "torch" in tops([name for node in ast.walk(source.tree) for name in imported(node)])
    ]
    assert not wrong


def test_the_command_line_imports_torch_only_inside_a_verb(package):
    wrong = [str(s) for s in package if room_of(s.path) == "cli" and "torch" in tops(top_level(s.tree))]
    assert not wrong


def test_slow_libraries_are_imported_lazily(package):
    wrong = {str(s): sorted(tops(top_level(s.tree)) & set(LAZY)) for s in package}
    assert not {path: names for path, names in wrong.items() if names}


def test_lazily_placed_imports_are_told_from_eager_ones():
    code = "import a\nif TYPE_CHECKING:\n    import b\ntry:\n    import c\nfinally: x\ndef f():\n    import d"
    assert tops(top_level(ast.parse(code))) == {"a", "c"}


@pytest.mark.parametrize("library", OPTIONAL)
def test_an_optional_library_is_used_in_one_file(package, library):
    users = [
        str(s) for s in package if library in tops([n for node in ast.walk(s.tree) for n in imported(node)])
    ]
    assert len(users) <= 1


def test_the_tests_oracles_are_not_used_by_the_package(package):
    used = {str(s): tops([n for node in ast.walk(s.tree) for n in imported(node)]) for s in package}
    assert not {path: names & set(FORBIDDEN) for path, names in used.items() if names & set(FORBIDDEN)}
