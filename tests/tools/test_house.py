"""The figures of the code, on a small package whose figures are known."""

import ast
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

LOOP = """
def train(out):
    '''What trains.'''
    with MetricsLog(out) as metrics, StopRequest() as stop:
        kept = metrics, stop
"""


@pytest.fixture
def tool(monkeypatch):
    """tools/house.py as a module."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    import house

    return house


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a package of three files."""
    for name, text in {
        "__init__.py": '"""The whole."""\n',
        "train.py": LOOP,
        "model/moe.py": "import shoestring.model.moe\n\ndef route(seed): return seed\n",
    }.items():
        path = tmp_path / "shoestring" / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path


def test_the_figures_of_a_small_package(tool, checkout):
    assert tool.source_figures(checkout) == {
        "files": 3,
        "lines": 9,
        "lines of a file: median, p90, longest": "3, 5, 5",
        "lines of a function: median, p90, longest": "4, 4, 4",
        "files in the largest folder": "2 (shoestring)",
        "loops of imports": 1,
        "training loops": 1,
        'docstrings that begin with "What"': 1,
        "docstrings that begin with a question word": 1,
        "participles per 1,000 names": 200.0,
    }


def test_a_function_that_only_logs_is_no_training_loop(tool):
    assert tool.training_loops(ast.parse(LOOP.replace("StopRequest()", "nothing()"))) == 0


def test_a_table_with_a_column_for_each_checkout(tool, checkout, monkeypatch, capsys):
    monkeypatch.setattr(tool, "config_reads", lambda root: 1)
    assert tool.main([str(checkout), str(ROOT)]) == 0
    assert capsys.readouterr().out.startswith("| files | 3 | ")
    assert tool.main([str(checkout), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[str(checkout)]["reads of config.json for a checkpoint"] == 1


def test_reads_of_config_json_are_counted(tool):
    assert tool.config_reads(ROOT) >= 1
