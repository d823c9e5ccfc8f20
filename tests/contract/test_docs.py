"""Generated pages are fresh, the plan in docs/architecture.md is true, and every module says what it does."""

import ast
import importlib.util
import re
import sys

import pytest


@pytest.fixture(scope="module")
def docs(root):
    """tools/docs.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_tool", root / "tools" / "docs.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["docs_tool"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["docs/reference.md", "README.md", "docs/architecture.md"])
def test_generated_pages_are_fresh(docs, root, name):
    page = (root / name).read_text(encoding="utf-8")
    assert docs.PAGES[name](page) == page, f"{name} is stale: run `make docs`"


def test_the_plan_lists_every_module(docs, root, package):
    plan = docs.ROOMS.search((root / "docs" / "architecture.md").read_text(encoding="utf-8"))[2]
    listed = {path for path, _ in docs.planned_paths(plan.splitlines())}
    whole = {path for path in listed if not any(other.startswith(f"{path}/") for other in listed)}
    modules = {s.path for s in package if s.path.name != "__init__.py"}
    by_folder = {m for m in modules if any(str(parent) in whole for parent in m.parents)}
    by_pattern = {m for m in modules for path in listed if "*" in path and (root / m) in root.glob(path)}
    missing = {str(m) for m in modules - by_folder - by_pattern} - listed
    assert not missing, "give these their line in docs/architecture.md, then `make docs`"


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

    drawn = dict(re.findall(r"(\w+) +(\d+)  ", errors.__doc__))
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.ShoestringError)
    ]
    assert drawn == {error.__name__: str(error.exit_code) for error in classes}
