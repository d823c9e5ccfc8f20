"""Commands, configurations and exit codes as tables, on small ones made for it."""

import ast
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def tool(monkeypatch):
    """tools/reference.py as a module."""
    monkeypatch.syspath_prepend(TOOLS)
    import reference

    return reference


def test_config_fields_with_their_meaning(tool):
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
    assert tool.is_frozen_dataclass(node)
    assert tool.config_fields(node) == [
        ("`lr`", "`float`", "required", "Peak learning rate."),
        ("`betas`", "`tuple[float, float] | None`", "`(0.9, 0.95)`", ""),
        ("`inner`", "`InnerConfig`", "`InnerConfig()`", ""),
        ("`names`", "`list[str]`", "`['a']`", ""),
    ]


def test_a_bar_in_a_table_is_escaped(tool):
    assert tool.table(("a",), [("x | y",)]).splitlines()[-1] == "| x \\| y |"


def test_the_command_line_with_its_options(tool):
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
    text = "\n\n".join(tool.describe_command(typer.main.get_command(app), "shoestring"))
    assert "### `shoestring train RECIPE`\n\nTrain a model." in text
    assert "| `--seed, -s SEED` | `0` | Every run's seed. |" in text
    assert "| `--quiet` | `false` | Say less. |" in text
    assert "### `shoestring template COMMAND`\n\nChat templates." in text
    assert "### `shoestring template check [PATH]`" in text


def test_exit_codes_come_from_the_tree(tool):
    text = tool.exit_codes()
    assert "| 3 | `ThresholdError` | A figure misses" in text
    assert text.splitlines()[-1].startswith("| 130 |")


def test_differences_are_what_a_docstring_says_after_its_first_line(tool, tmp_path):
    (tmp_path / "llm.py").write_text('"""An LLM.\n\n| Name |\n|---|\n| <think> |\n"""\n')
    assert tool.differences(tmp_path, "LLM", "llm.py") == "### LLM\n\n| Name |\n|---|\n| `<think>` |"
