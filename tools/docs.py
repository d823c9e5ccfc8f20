"""Write the documents, or the parts of them, that can be made from the code.

    python tools/docs.py [--check]

docs/reference.md and docs/map.md are made whole. In the other pages the text between two markers is: the
package's folders, the layers, and excerpts of the source. `--check` writes nothing and exits with 1 if a page
is stale, naming each.
"""

import ast
import re
import sys
import textwrap
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import imports
import reference

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "shoestring"
FOLDERS = re.compile(r"(<!-- folders -->\n).*?(<!-- /folders -->)", re.DOTALL)
LAYERS = re.compile(r"(<!-- layers -->\n).*?(<!-- /layers -->)", re.DOTALL)
SOURCE = re.compile(r"<!-- source: (\S+) (\S+) -->\n.*?<!-- /source -->", re.DOTALL)


class PageError(Exception):
    """A page that cannot be made, and the reason in one sentence."""


def modules() -> list[Path]:
    """The package's modules in the order of the map: a folder's own line first, then its files."""
    return sorted(PACKAGE.rglob("*.py"), key=map_order)


def first_line(path: Path) -> str:
    """The first line of a module's docstring: its line in the map."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not docstring:
        raise PageError(f"{path.relative_to(ROOT)} has no docstring; its first line is shown in the map")
    return docstring.split("\n")[0]


# --- docs/map.md --------------------------------------------------------------------------------------------


def map_page() -> str:
    """The whole of docs/map.md."""
    return (
        "# Map of the package\n\n"
        "Every file of `shoestring/` with the first line of its docstring. `make docs` writes this page; a\n"
        "test fails when it differs from the code. More: [architecture.md](architecture.md).\n\n"
        f"```\n{module_map()}\n```\n"
    )


def module_map() -> str:
    """One line per module: its path and the first line of its docstring."""
    names = {path: map_name(path) for path in modules()}
    width = max(map(len, names.values()))
    return "\n".join(f"{names[path]:{width}}  {first_line(path)}" for path in names)


def map_order(path: Path) -> tuple[object, ...]:
    """Sorts a folder's own line first, then its files; files of the package itself before its folders."""
    parts = path.relative_to(PACKAGE).parts
    return (
        len(parts) > 1,
        *((i < len(parts) - 1, "" if p == "__init__.py" else p) for i, p in enumerate(parts)),
    )


def map_name(path: Path) -> str:
    inside = path.relative_to(PACKAGE.parent)
    depth = "  " * (len(inside.parts) - 1)
    return f"{depth[2:]}{inside.parent.name}/" if inside.name == "__init__.py" else f"{depth}{inside.name}"


# --- docs/architecture.md -----------------------------------------------------------------------------------


def filled(text: str) -> str:
    """A page with what stands between its markers made anew; unknown markers are a PageError."""
    for name in re.findall(r"<!-- (\w+)(?:: .*?)? -->", text):
        if name not in ("folders", "layers", "source"):
            raise PageError(f"<!-- {name} --> is no marker; there are folders, layers and source")
    text = FOLDERS.sub(lambda match: f"{match[1]}{folder_table()}\n{match[2]}", text)
    text = LAYERS.sub(lambda match: f"{match[1]}```\n{layer_lines()}\n```\n{match[2]}", text)
    return SOURCE.sub(lambda match: excerpt(match[1], match[2]), text)


def folder_table() -> str:
    """A row for each folder of the package: its path and the first line of its docstring."""
    rows: list[tuple[str, ...]] = []
    for path in modules():
        if path.name == "__init__.py" and path.parent != PACKAGE:
            rows.append((f"`{path.parent.relative_to(ROOT)}/`", first_line(path)))
    return reference.table(("folder", "contents"), rows)


def layer_lines() -> str:
    """The levels of tools/imports.py, the highest first; a star stands behind what imports no torch."""
    levels = sorted(imports.LEVEL.items(), key=lambda item: (-item[1], item[0]))
    lines = []
    for level, items in groupby(levels, key=lambda item: item[1]):
        names = [f"{name}{'*' * (name in imports.WITHOUT_TORCH)}" for name, _ in items if name != "__init__"]
        if names:
            lines.append(f"{level:2}  {'  '.join(names)}")
    return "\n".join(lines)


def excerpt(file: str, name: str) -> str:
    """A class, function or method as it stands in the source, between its markers."""
    path = ROOT / file
    if not path.is_file():
        raise PageError(f"there is no {file} to take {name} from")
    text = path.read_text(encoding="utf-8")
    node: ast.AST | None = ast.parse(text)
    for part in name.split("."):
        node = next((n for n in getattr(node, "body", ()) if getattr(n, "name", None) == part), None)
    if node is None:
        raise PageError(f"{file} has no {name}")
    code = textwrap.dedent(ast.get_source_segment(text, node, padded=True) or "")
    return f"<!-- source: {file} {name} -->\n```python\n{code}\n```\n<!-- /source -->"


PAGES: dict[str, Callable[[str], str]] = {
    "docs/reference.md": lambda text: reference.reference(PACKAGE, modules()),
    "docs/map.md": lambda text: map_page(),
    "docs/architecture.md": filled,
}


def stale(write: bool) -> list[str]:
    """Names of the pages that differ from what is generated; with `write`, they are brought up to date."""
    different = []
    for name, generate in PAGES.items():
        page = ROOT / name
        old = page.read_text(encoding="utf-8") if page.exists() else ""
        new = generate(old)
        if new != old:
            different.append(name)
            if write:
                page.write_text(new, encoding="utf-8")
    return different


def main(arguments: list[str]) -> int:
    """Write or check every page; returns the exit status, 1 for a stale page or one that cannot be made."""
    sys.path.insert(0, str(ROOT))
    check = "--check" in arguments
    try:
        different = stale(write=not check)
    except PageError as problem:
        print(f"docs: {problem}", file=sys.stderr)
        return 1
    words = "stale, run `make docs`" if check else "written"
    print("\n".join(f"docs: {name} {words}" for name in different) or "docs: fresh")
    return int(check and bool(different))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
