"""The generator of the map, the folders, the layers and the excerpts, on a small package of its own."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOE = '''"""Experts.

More words."""

class Router:
    def route(self):
        return 1
'''


@pytest.fixture
def docs(monkeypatch, tmp_path):
    """tools/docs.py as a module that looks at a checkout in tmp_path."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    import docs

    monkeypatch.setattr(docs, "ROOT", tmp_path)
    monkeypatch.setattr(docs, "PACKAGE", tmp_path / "shoestring")
    for name, text in {
        "__init__.py": '"""The whole."""',
        "zeta.py": '"""Last letter."""',
        "model/__init__.py": '"""The model."""',
        "model/moe.py": MOE,
        "model/cpu/__init__.py": '"""Deep."""',
        "model/cpu/fast.py": '"""Fast."""',
    }.items():
        path = tmp_path / "shoestring" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return docs


def test_the_map_has_a_line_for_each_module(docs):
    assert docs.module_map().splitlines() == [
        "shoestring/    The whole.",
        "  zeta.py      Last letter.",
        "  model/       The model.",
        "    moe.py     Experts.",
        "    cpu/       Deep.",
        "      fast.py  Fast.",
    ]
    assert f"```\n{docs.module_map()}\n```\n" in docs.map_page()


def test_a_module_without_docstring_is_a_problem(docs, tmp_path):
    (tmp_path / "shoestring" / "zeta.py").write_text("x = 1\n", encoding="utf-8")
    with pytest.raises(docs.PageError, match=r"zeta\.py has no docstring"):
        docs.module_map()


def test_a_page_keeps_everything_but_what_is_between_its_markers(docs):
    text = docs.filled("# A\n<!-- folders -->\nold\n<!-- /folders -->\nB \\1\n")
    assert text.startswith("# A\n<!-- folders -->\n| folder | contents |\n")
    assert "| `shoestring/model/` | The model. |\n| `shoestring/model/cpu/` | Deep. |\n" in text
    assert text.endswith("<!-- /folders -->\nB \\1\n")
    assert docs.filled(text) == text


def test_the_layers_stand_from_the_highest_to_the_lowest(docs, monkeypatch):
    monkeypatch.setattr(docs.imports, "LEVEL", {"errors": -1, "train": 5, "engine": 5, "__init__": 9})
    monkeypatch.setattr(docs.imports, "WITHOUT_TORCH", ("errors",))
    assert docs.layer_lines().splitlines() == [" 5  engine  train", "-1  errors*"]


def test_an_excerpt_is_the_source_as_it_is(docs):
    marker = "<!-- source: shoestring/model/moe.py Router.route -->"
    text = docs.filled(f"A\n{marker}\n```python\nstale\n```\n<!-- /source -->\nB\n")
    code = "```python\ndef route(self):\n    return 1\n```"
    assert text == f"A\n{marker}\n{code}\n<!-- /source -->\nB\n"
    assert docs.filled(text) == text


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("source: shoestring/model/moe.py Router.choose", "moe.py has no Router.choose"),
        ("source: shoestring/model/gone.py f", "no shoestring/model/gone.py"),
        ("rooms", "rooms"),
    ],
)
def test_a_marker_that_stands_for_nothing_is_a_problem(docs, marker, words):
    with pytest.raises(docs.PageError, match=words):
        docs.filled(f"<!-- {marker} -->\n<!-- /source -->\n")


def test_check_names_what_is_stale_and_writes_nothing(docs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(docs, "PAGES", {"page.md": docs.filled})
    page = tmp_path / "page.md"
    page.write_text("<!-- folders -->\n<!-- /folders -->\n", encoding="utf-8")
    before = list(sys.path)
    assert docs.main(["--check"]) == 1
    assert "page.md stale" in capsys.readouterr().out
    assert "model" not in page.read_text(encoding="utf-8")
    assert docs.main([]) == 0
    assert docs.main(["--check"]) == 0
    sys.path[:] = before
