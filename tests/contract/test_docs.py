"""Documents that cannot lie: generated pages are fresh, and what is named in the others exists."""

import ast
import re
import shlex
import sys
from dataclasses import is_dataclass
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import typer.main

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import docs
from shoestring.cli.application import app
from shoestring.cost.plan import PlanConfig
from shoestring.distill.distill import DistillConfig
from shoestring.evals.passk import TaskEvalConfig
from shoestring.preferences.recipe import PreferenceConfig, RewardModelConfig
from shoestring.rl.recipe import GRPOConfig
from shoestring.serve.config import ServiceConfig
from shoestring.serve.routes.admin.accounts import AccountChange
from shoestring.train.pretrain_recipe import PretrainConfig
from shoestring.train.sft_recipe import SFTConfig

README_LINES = 200
PATH = re.compile(r"\b(?:(?:shoestring|tests|tools|bench|recipes|docs)/[\w./-]*\w|\w+/[\w/]+\.py)")
RECIPES = {
    "pretrain": PretrainConfig,
    "sft": SFTConfig,
    "prefer": PreferenceConfig,
    "reward-model": RewardModelConfig,
    "rl": GRPOConfig,
    "distill": DistillConfig,
    "eval": TaskEvalConfig,
    "serve": ServiceConfig,
    "plan": PlanConfig,
}


@pytest.fixture(scope="module")
def pages(root) -> dict[str, str]:
    """The documents by their paths, without the log: what was true on a day stays as it was."""
    paths = [root / "README.md", *(root / "docs").glob("*.md")]
    return {str(p.relative_to(root)): p.read_text(encoding="utf-8") for p in paths if p.name != "LOG.md"}


@pytest.fixture(scope="module")
def commands(pages) -> list[list[str]]:
    """The words of every `shoestring` command in a code block of a document, and in its text."""
    texts = [text for name, text in pages.items() if name not in ("docs/map.md", "docs/reference.md")]
    lines = [line for text in texts for line in text.splitlines() if line.startswith("shoestring ")]
    inline = [command for text in texts for command in re.findall(r"`(shoestring [^`]*)`", text)]
    return [shlex.split(line, comments=True)[1:] for line in lines + inline]


@pytest.mark.parametrize("name", docs.PAGES)
def test_generated_pages_are_fresh(root, name):
    page = (root / name).read_text(encoding="utf-8")
    assert docs.PAGES[name](page) == page, f"{name} is stale: run `make docs`"


def test_the_readme_is_short(pages):
    assert len(pages["README.md"].splitlines()) < README_LINES


def test_files_named_in_the_documents_exist(root, pages):
    paths = {(page, path) for page, text in pages.items() for path in PATH.findall(text)}
    places = (root, root / "shoestring")  # `model/moe.py` is shoestring/model/moe.py
    assert not {(page, path) for page, path in paths if not any((place / path).exists() for place in places)}
    assert len(paths) > 60


def test_commands_in_the_documents_have_their_verbs_and_options(commands):
    wrong = [" ".join(words) for words in commands if words and not is_real(words)]
    assert not wrong
    assert len(commands) > 20


def is_real(words: list[str]) -> bool:
    """Whether a command's verb exists and takes all its options."""
    command = typer.main.get_command(app)
    verbs = [word for word in words if not word.startswith("-")]
    while verbs and hasattr(command, "commands"):
        if verbs[0] not in command.commands:
            return verbs[0].isupper()  # a placeholder such as VERB
        command = command.commands[verbs.pop(0)]
    options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    return {word.partition("=")[0] for word in words if word.startswith("--")} <= options


def test_settings_in_the_documents_have_their_fields(commands):
    pairs = [(words[0], pair) for words in commands for pair in pairwise(words)]
    settings = [(verb, value) for verb, (option, value) in pairs if option == "--set"]
    assert len(settings) > 4
    changes = [value.partition("=")[0] for verb, value in settings if verb == "admin"]
    assert set(changes) <= AccountChange.model_fields.keys()
    recipes = [(verb, value) for verb, value in settings if verb != "admin"]
    assert not [(verb, value) for verb, value in recipes if not has_field(RECIPES[verb], value)]


def has_field(cls: type, setting: str) -> bool:
    """Whether `lora.rank=16` names a field of a dataclass, or a field of its field."""
    name, _, rest = setting.partition("=")[0].partition(".")
    hint = get_type_hints(cls).get(name)
    inner = next((each for each in (hint, *get_args(hint)) if is_dataclass(each)), None)
    return hint is not None and (not rest or inner is None or has_field(inner, rest))


def test_the_readmes_python_imports_what_exists(pages):
    blocks = re.findall(r"```python\n(.*?)```", pages["README.md"], re.DOTALL)
    imports = [n for block in blocks for n in ast.parse(block).body if isinstance(n, ast.ImportFrom)]
    assert imports
    for node in imports:
        assert not [a.name for a in node.names if not hasattr(import_module(node.module), a.name)]


def test_every_module_says_what_it_does_in_one_plain_line(everything):
    wrong = {}
    for source in (s for s in everything if s.path.parts[0] != "tests"):
        first = (ast.get_docstring(source.tree) or "").split("\n")[0]
        if not first.endswith((".", "`", ":", "?")) or len(first) < 15:
            wrong[str(source)] = first
    assert not wrong


def test_links_in_the_documents_lead_somewhere(root):
    pages = [root / "README.md", *(root / "docs").glob("*.md")]
    dead = []
    for page in pages:
        for target in re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text(encoding="utf-8")):
            if not (page.parent / target).exists():
                dead.append(f"{page.name}: {target}")
    assert not dead


def test_the_exception_tree_is_drawn_as_it_is():
    from shoestring import errors

    codes = dict(re.findall(r"(\w+) +(\d+)  ", errors.__doc__))
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.ShoestringError)
    ]
    assert codes == {error.__name__: str(error.exit_code) for error in classes}
