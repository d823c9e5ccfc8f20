"""The generator of the reference, the map and the plan's marks, on a small package of its own."""

import ast
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def docs(monkeypatch, tmp_path):
    """tools/docs.py as a module that looks at a checkout in tmp_path."""
    spec = importlib.util.spec_from_file_location("docs_tool_alone", ROOT / "tools" / "docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "PACKAGE", tmp_path / "shoestring")
    for name, text in {
        "__init__.py": '"""The whole."""',
        "zeta.py": '"""Last letter."""',
        "model/__init__.py": '"""The model."""',
        "model/moe.py": '"""Experts.\n\nMore words."""',
        "model/cpu/__init__.py": '"""Deep."""',
        "model/cpu/fast.py": '"""Fast."""',
    }.items():
        path = tmp_path / "shoestring" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return module


def test_the_map_has_a_line_for_each_module(docs):
    assert docs.module_map().splitlines() == [
        "shoestring/    The whole.",
        "  zeta.py      Last letter.",
        "  model/       The model.",
        "    moe.py     Experts.",
        "    cpu/       Deep.",
        "      fast.py  Fast.",
    ]


def test_the_readme_keeps_everything_but_its_map(docs):
    text = docs.readme("# A\n<!-- map -->\nold\n<!-- /map -->\nB \\1\n")
    assert text.startswith("# A\n<!-- map -->\n```\nshoestring/")
    assert text.endswith("```\n<!-- /map -->\nB \\1\n")
    assert docs.readme(text) == text


def test_a_missing_marker_or_docstring_is_a_problem(docs, tmp_path):
    with pytest.raises(docs.Problem, match="map"):
        docs.readme("# no markers")
    with pytest.raises(docs.Problem, match="rooms"):
        docs.architecture("# no markers")
    (tmp_path / "shoestring" / "zeta.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(docs.Problem, match=r"zeta\.py has no docstring"):
        docs.module_map()


def test_the_plan_marks_what_exists(docs):
    plan = ". shoestring/\n+   alpha.py  gone\n.   model/\n.     m*.py   x\n.   zeta.py\n"
    marked = docs.architecture(f"<!-- rooms -->\n```\n{plan}```\n<!-- /rooms -->")
    assert [line[0] for line in marked.splitlines()[2:7]] == ["+", ".", "+", "+", "+"]
    assert docs.architecture(marked) == marked
    assert "+   model/" in marked


def test_config_fields_with_their_meaning(docs):
    code = '''
@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """How weights move."""

    lr: float
    """Peak
    learning rate."""
    betas: tuple[float, float] | None = (0.9, 0.95)
    inner: InnerConfig = field(default_factory=InnerConfig)
    names: list[str] = field(default_factory=lambda: ["a"])
'''
    node = ast.parse(code).body[0]
    assert docs.is_frozen_dataclass(node)
    assert docs.config_fields(node) == [
        ("`lr`", "`float`", "required", "Peak learning rate."),
        ("`betas`", "`tuple[float, float] | None`", "`(0.9, 0.95)`", ""),
        ("`inner`", "`InnerConfig`", "`InnerConfig()`", ""),
        ("`names`", "`list[str]`", "`['a']`", ""),
    ]


def test_a_bar_in_a_table_is_escaped(docs):
    assert docs.table(("a",), [("x | y",)]).splitlines()[-1] == "| x \\| y |"


def test_the_command_line_with_its_options(docs):
    import typer
    import typer.main

    app, group = typer.Typer(), typer.Typer()

    @app.command()
    def train(
        recipe: str = typer.Argument(..., help="A recipe."),
        seed: int = typer.Option(0, "--seed", "-s", help="Every run's seed."),
        quiet: bool = typer.Option(False, "--quiet", help="Say less."),
    ) -> None:
        """Train a model."""

    @group.command("check")
    def check(path: str = typer.Argument("", help="A folder.")) -> None:
        """Check a template."""

    app.add_typer(group, name="template", help="Chat templates.")
    text = "\n\n".join(docs.describe_command(typer.main.get_command(app), "shoestring"))
    assert "### `shoestring train RECIPE`\n\nTrain a model." in text
    assert "| `--seed, -s SEED` | `0` | Every run's seed. |" in text
    assert "| `--quiet` | `false` | Say less. |" in text
    assert "### `shoestring template COMMAND`\n\nChat templates." in text
    assert "### `shoestring template check [PATH]`" in text


def test_exit_codes_come_from_the_tree(docs):
    text = docs.exit_codes()
    assert "| 3 | `ThresholdError` | Everything ran, but" in text
    assert text.splitlines()[-1].startswith("| 130 |")


def test_check_names_what_is_stale_and_writes_nothing(docs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(docs, "PAGES", {"README.md": docs.readme})
    page = tmp_path / "README.md"
    page.write_text("<!-- map -->\n<!-- /map -->\n", encoding="utf-8")
    before = list(sys.path)
    assert docs.main(["--check"]) == 1
    assert "README.md stale" in capsys.readouterr().out
    assert "zeta" not in page.read_text(encoding="utf-8")
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    sys.path[:] = before
