"""Walks see who is called with the thing; the package's own walks are short."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]

MODULE = """
def first(thing, other=0): return second([thing])
def second(things): return third(other=things[0])
def third(*, other): return fourth(0)
def fourth(number): return [item for item in (number,)]
"""


@pytest.fixture
def tool(monkeypatch):
    """tools/walks.py as a module."""
    monkeypatch.syspath_prepend(ROOT / "tools")
    import walks

    return walks


@pytest.fixture
def module(tool, tmp_path, monkeypatch):
    """Four functions in a package of their own; the last one never gets what the first one is given."""
    path = tmp_path / "four.py"
    path.write_text(MODULE)
    spec = importlib.util.spec_from_file_location("four", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(tool, "PACKAGE", f"{tmp_path}/")
    return module


@dataclass(frozen=True)
class Parcel:
    ids: tuple[int, ...]
    rows: np.ndarray


def take(walk, function, thing):
    with walk.watched():
        function(thing)
    return walk.stops


PARCEL = Parcel((1, 2), np.zeros((4, 3)))


@pytest.mark.parametrize(
    "thing", [PARCEL, (1, 2), [PARCEL], "a few words", torch.from_numpy(PARCEL.rows)[1:]]
)
def test_the_thing_its_ids_and_its_arrays_are_followed(tool, module, thing):
    walk = tool.Walk(("Parcel",), values={"a few words"})
    take(walk, module.first, PARCEL)
    assert walk.stops == {"four.py": ["first", "second", "third"]}
    again = tool.Walk(walk.forms, values=walk.values, _arrays=walk._arrays)
    assert take(again, module.first, thing) == walk.stops


@pytest.mark.parametrize(
    "thing", [{"a": {"b": {"c": PARCEL}}}, "other words", (1, 3), PARCEL.rows.ravel(), 0]
)
def test_something_else_is_not(tool, module, thing):
    assert take(tool.Walk(("Parcel",), values={"a few words"}), module.first, thing) == {}


def test_a_path_inside_a_folder_is_the_folder(tool, module, tmp_path):
    walk = tool.Walk((), folder=str(tmp_path))
    assert take(walk, module.first, tmp_path / "x.json")
    assert not take(tool.Walk((), folder=str(tmp_path)), module.first, tmp_path.parent)


def test_the_profile_is_taken_off_again(tool):
    with tool.Walk(()).watched():
        assert sys.getprofile() is not None
    assert sys.getprofile() is None


@pytest.fixture(scope="module")
def walks():
    """The package's own walks."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        import walks
    finally:
        sys.path.remove(str(ROOT / "tools"))
    return walks.take_walks(list(walks.WALKS))


@pytest.mark.parametrize(
    ("name", "most"), [("request", 9), ("batch", 6), ("question", 16), ("checkpoint", 10)]
)
def test_the_walks_are_short(walks, name, most):
    assert len(walks[name].stops) <= most, list(walks[name].stops)


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("request", "engine/llm.py", "engine/output.py"),
        ("batch", "train/pretrain.py", "model/transformer.py"),
        ("question", "tasks/task.py", "rl/update.py"),
        ("checkpoint", "model/hf/checkpoint.py", "model/hf/weights.py"),
    ],
)
def test_the_walks_go_from_one_end_to_the_other(walks, name, first, last):
    stops = list(walks[name].stops)
    assert stops[0] == first
    assert last in stops
