"""The package's source, parsed once for all contract tests."""

import ast
import gc
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Source:
    """One Python file: where it is, its text and its syntax tree."""

    path: Path
    text: str
    tree: ast.Module

    def __str__(self) -> str:
        return str(self.path)


def read(folder: str) -> list[Source]:
    sources = []
    gc.disable()  # trees are millions of objects without a cycle
    for path in sorted((ROOT / folder).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        sources.append(Source(path=path.relative_to(ROOT), text=text, tree=ast.parse(text)))
    gc.freeze()  # they stay
    gc.enable()
    return sources


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def package() -> list[Source]:
    """Every module of the package."""
    return read("shoestring")


@pytest.fixture(scope="session")
def everything(package: list[Source]) -> list[Source]:
    """Every Python file we keep: package, tests, tools, benchmarks."""
    return package + [source for folder in ("tests", "tools", "bench") for source in read(folder)]
