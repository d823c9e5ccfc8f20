"""Imports (docs/architecture.md): only downwards, wherever they stand, through no wall, never in a loop."""

import ast
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from imports import LEVEL, WITHOUT_TORCH, import_graph, import_loops, imported

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
# Inside a part: files directly in a folder, and the folders beside or below it that they may not import.
WALLS = {
    "shoestring/model": ("shoestring.model.hf", "shoestring.model.packed", "shoestring.model.gguf"),
    "shoestring/model/hf": ("shoestring.model.packed", "shoestring.model.gguf"),
    "shoestring/model/packed": ("shoestring.model.gguf",),
    "shoestring/model/gguf": ("shoestring.model.packed",),
}
FORBIDDEN = ("transformers", "datasets", "requests", "httpx")


def part_of(path: Path) -> str:
    """The part of shoestring/model/moe.py is model; of shoestring/config.py, config."""
    return path.parts[1].removesuffix(".py")


def wrong_imports(path: Path, tree: ast.AST) -> list[str]:
    """One sentence for each import that does not point down."""
    part, wrong = part_of(path), []
    for name in (name for node in ast.walk(tree) for name in imported(node)):
        if name.startswith("."):
            wrong.append(f"{path}: relative import {name}")
        top, _, rest = name.partition(".")
        target = rest.split(".")[0]
        if top != "shoestring" or target in ("", "__version__", part):
            continue
        if target not in LEVEL or part not in LEVEL:
            wrong.append(f"{path}: {name}: give the part its level in tools/imports.py")
        elif LEVEL[target] >= LEVEL[part]:
            wrong.append(f"{path}: {part} may not import {target}")
    return wrong


def through_walls(path: Path, tree: ast.AST) -> list[str]:
    """One sentence for each import that passes a wall inside a part."""
    names = {name for node in ast.walk(tree) for name in imported(node)}
    forbidden = list(WALLS.get(str(path.parent), ()))
    if part_of(path) != "engine":
        forbidden.append("shoestring.engine.constrain")
    wrong = {name for name in names if name.startswith(tuple(forbidden))}
    if str(path.parent) == "shoestring/train/report":
        above = {name for name in names if name.startswith("shoestring.train.")}
        wrong |= {name for name in above if not name.startswith("shoestring.train.report.")}
    return [f"{path} may not import {name}" for name in sorted(wrong)]


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


SERVICE = {
    *("alembic", "altcha", "argon2", "joserfc", "fastapi", "h11", "httpx2", "limits", "opentelemetry"),
    *("prometheus_client", "pydantic", "pyotp", "segno", "sqlalchemy", "starlette", "uvicorn"),
}
"""Libraries of the service, which its files import at the top; nobody else may."""


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


def test_walls_inside_a_part_hold(package):
    assert not [sentence for source in package for sentence in through_walls(source.path, source.tree)]


def test_no_modules_import_each_other(package):
    assert import_loops(import_graph({source.path: source.tree for source in package})) == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("shoestring/model/hf/weights.py", "from shoestring.model.packed.layers import PackedLinear"),
        ("shoestring/model/hf/weights.py", "def f():\n    from shoestring.model import gguf"),
        ("shoestring/model/lora.py", "from shoestring.model.hf.peft import save_adapter"),
        ("shoestring/evals/passk.py", "import shoestring.engine.constrain.lark"),
        ("shoestring/train/report/receipt.py", "from shoestring.train.step import StepStats"),
    ],
)
def test_an_import_through_a_wall_is_seen(path, code):
    assert len(through_walls(Path(path), ast.parse(code))) == 1


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("shoestring/model/gguf/exporter.py", "from shoestring.model.hf.shards import find_tensors"),
        ("shoestring/engine/engine.py", "import shoestring.engine.constrain.lark"),
        ("shoestring/train/report/receipt.py", "from shoestring.train.report.energy import Energy"),
    ],
)
def test_an_import_inside_the_walls_is_fine(path, code):
    assert through_walls(Path(path), ast.parse(code)) == []


def test_parts_without_torch_have_none(package):
    wrong = [
        str(source)
        for source in package
        if part_of(source.path) in WITHOUT_TORCH
        and "torch" in tops([name for node in ast.walk(source.tree) for name in imported(node)])
    ]
    assert not wrong


def test_the_command_line_imports_torch_only_inside_a_verb(package):
    wrong = [str(s) for s in package if part_of(s.path) == "cli" and "torch" in tops(top_level(s.tree))]
    assert not wrong


def test_slow_libraries_are_imported_lazily(package):
    for source in package:
        names = tops(top_level(source.tree)) & {*LAZY, *SERVICE}
        assert not names - (SERVICE if part_of(source.path) == "serve" else set()), source


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
    names = {str(s): tops([n for node in ast.walk(s.tree) for n in imported(node)]) for s in package}
    assert not {path: names[path] & set(FORBIDDEN) for path in names if names[path] & set(FORBIDDEN)}
