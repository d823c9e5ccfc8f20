"""Make docs/reference.md: the command line, every configuration with its fields, the exit codes."""

import ast
import inspect
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DIFFERENCES = {
    "LLM and SamplingParams": "engine/llm.py",
    "GRPOConfig": "rl/recipe.py",
    "SFTConfig": "train/sft_recipe.py",
    "PreferenceConfig and RewardModelConfig": "preferences/recipe.py",
}
"""Modules whose docstring is a table of names that differ, by their headings."""
EVERYWHERE = ("help", "install_completion", "show_completion")  # options that every typer program has


def reference(package: Path, paths: Iterable[Path]) -> str:
    """The whole page; `paths` are the modules of the package in the order of the map."""
    parts = [
        "# Reference",
        "`make docs` writes this page from the code; a test fails when the two differ.",
        "Commands, the fields of every configuration, differences from vLLM, TRL and PEFT, and exit codes.",
        "## Command line",
        "An argument in square brackets may be left out. `shoestring --help` lists the commands.",
        command_line(),
        "## Configuration",
        "Set a field in a recipe (a TOML file) or on the command line with `--set`. A dot leads to a field "
        "of a field: `--set optim.lr=3e-4`. An unknown name is an error that lists the right ones.",
        configuration(package, paths),
        "## Differences from other libraries",
        "Names are those of vLLM in the engine, of TRL and the papers in reinforcement, of Hugging Face in "
        "models. These are the exceptions, each with its reason.",
        *(differences(package, heading, file) for heading, file in DIFFERENCES.items()),
        "## Exit codes",
        "Every command ends with one of these numbers, for scripts that call it.",
        exit_codes(),
    ]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def command_line() -> str:
    """Every command with its arguments and options, from the typer application."""
    import typer.main

    from shoestring.cli.application import app

    return "\n\n".join(describe_command(typer.main.get_command(app), "shoestring"))


def describe_command(command: Any, name: str) -> list[str]:
    """Markdown for one click command and all below it, in the order they were added."""
    if getattr(command, "hidden", False):
        return []
    below = getattr(command, "commands", {})
    parameters = [
        Parameter(parameter)
        for parameter in command.params
        if parameter.name not in EVERYWHERE and not getattr(parameter, "hidden", False)
    ]
    arguments = [parameter.usage for parameter in parameters if parameter.is_argument]
    usage = " ".join([name, *arguments, *(["COMMAND"] if below else [])])
    text = [f"### `{usage}`", inspect.cleandoc(command.help or "").replace("\f", "")]
    if parameters:
        text.append(
            table(
                ("argument or option", "default", "meaning"),
                [(f"`{p.names}`", p.default, p.help) for p in parameters],
            )
        )
    for child_name, child in below.items():
        text += describe_command(child, f"{name} {child_name}")
    return [part for part in text if part]


class Parameter:
    """A click parameter as text; click's own classes differ between options and arguments."""

    def __init__(self, parameter: Any) -> None:
        self.is_argument = parameter.param_type_name == "argument"
        self.help = " ".join((getattr(parameter, "help", None) or "").split())
        self.default = default_words(parameter.default)
        options = " / ".join([", ".join(parameter.opts), *parameter.secondary_opts])
        if self.is_argument:
            self.names = parameter.metavar or parameter.name.upper()
        elif getattr(parameter, "is_flag", False):
            self.names = options
        else:
            self.names = f"{options} {parameter.metavar or parameter.name.upper()}"
        dots = "..." if parameter.nargs == -1 else ""
        self.usage = self.names + dots if parameter.required else f"[{self.names}{dots}]"


def default_words(value: object) -> str:
    """A default as a user would type it; empty for one that is computed or holds only on this machine."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    words = str(value) if isinstance(value, (str, int, float, Path)) else ""
    return f"`{words}`" if words and not Path(words).is_absolute() else ""


def configuration(package: Path, paths: Iterable[Path]) -> str:
    """Every frozen dataclass named ...Config with its fields, read from the source without importing it."""
    parts = []
    for path in paths:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Config") and is_frozen_dataclass(node):
                parts.append(f"### `{node.name}` ({path.relative_to(package)})")
                parts.append(ast.get_docstring(node) or "")
                parts.append(table(("field", "type", "default", "meaning"), config_fields(node)))
    return "\n\n".join(part for part in parts if part)


def is_frozen_dataclass(node: ast.ClassDef) -> bool:
    return any(
        "dataclass" in text and "frozen=True" in text for text in map(ast.unparse, node.decorator_list)
    )


def config_fields(node: ast.ClassDef) -> list[tuple[str, ...]]:
    """Name, type, default and meaning of each field; the meaning is the string literal after it."""
    rows: list[tuple[str, ...]] = []
    for statement, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign) or not isinstance(statement.target, ast.Name):
            continue
        meaning = ""
        if (
            isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
            and isinstance(after.value.value, str)
        ):
            meaning = " ".join(after.value.value.split())
        default = f"`{default_text(statement.value)}`" if statement.value else "required"
        rows.append((f"`{statement.target.id}`", f"`{ast.unparse(statement.annotation)}`", default, meaning))
    return rows


def default_text(value: ast.expr) -> str:
    """`RopeConfig()` for field(default_factory=RopeConfig); otherwise the source's own words."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) in ("field", "dataclasses.field"):
        for keyword in value.keywords:
            if keyword.arg == "default_factory":
                factory = keyword.value
                return ast.unparse(factory.body if isinstance(factory, ast.Lambda) else factory) + "()" * (
                    not isinstance(factory, ast.Lambda)
                )
            if keyword.arg == "default":
                return ast.unparse(keyword.value)
    return ast.unparse(value)


def differences(package: Path, heading: str, file: str) -> str:
    """The table of differing names in a module's docstring, with the sentences around it."""
    docstring = ast.get_docstring(ast.parse((package / file).read_text(encoding="utf-8"))) or ""
    text = docstring.partition("\n")[2].strip().replace("<think>", "`<think>`")
    return f"### {heading}\n\n{text}"


def exit_codes() -> str:
    """The meaning of each exit status, from the exception tree."""
    from shoestring import errors

    rows: list[tuple[str, ...]] = [("0", "", "the command did all of its work")]
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.ShoestringError)
    ]
    for error in sorted(classes, key=lambda c: c.exit_code):
        rows.append(
            (str(error.exit_code), f"`{error.__name__}`", (inspect.getdoc(error) or "").split("\n")[0])
        )
    rows.append(("130", "", "Ctrl-C before there was anything to save"))
    return table(("status", "error", "meaning"), rows)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A markdown table; a bar inside a cell is escaped."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
