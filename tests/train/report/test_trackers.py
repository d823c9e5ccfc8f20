"""Trackers of a run: what each library is told, that a resumed run goes on, and that none ends a run.

The libraries are not among those that the tests install: small modules with the same calls stand for them.
"""

import json
import logging
import sys
import types
from pathlib import Path
from typing import ClassVar

import pytest

from shoestring.errors import ConfigError, MissingDependencyError
from shoestring.train.report.trackers import FILE, Trackers, check_names

FAKES = {
    "trackio": """
calls = []
class Run:
    def log(self, figures, step): calls.append(("log", step, figures))
    def finish(self): calls.append(("finish",))
def init(**settings):
    print("* a greeting on stdout")
    calls.append(("init", settings))
    return Run()
""",
    "tensorboard": "",
}
FAKES["wandb"] = FAKES["trackio"]


class Writer:
    """SummaryWriter's calls that are used."""

    calls: ClassVar[list[tuple]] = []

    def __init__(self, folder, purge_step=None):
        self.calls.append(("start", Path(folder).name, purge_step))

    def add_text(self, name, text, step):
        self.calls.append(("text", name, json.loads(text), step))

    def add_scalar(self, name, value, step):
        self.calls.append(("scalar", name, value, step))

    def close(self):
        self.calls.append(("close",))


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """The calls that each library got, by its name."""
    for name, text in FAKES.items():
        (tmp_path / f"{name}.py").write_text(text)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    Writer.calls = []
    import trackio
    import wandb

    yield {"trackio": trackio.calls, "wandb": wandb.calls, "tensorboard": Writer.calls}
    for name in FAKES:
        sys.modules.pop(name, None)


ROW = {
    "step": 3,
    "loss": 0.5,
    "batch": 4,
    "violations": [1.0],
    "phase": "constant",
    "bad": float("nan"),
    "x": None,
}


def test_every_tracker_gets_settings_and_the_numbers_of_each_row(libraries, tmp_path, capsys):
    out = tmp_path / "my-run"
    with Trackers(("tensorboard", "trackio", "wandb"), out, {"seed": 7}, 0) as trackers:
        trackers.log(3, ROW)
    numbers = {"loss": 0.5, "batch": 4.0}
    run_id = json.loads((out / FILE).read_text())["id"]
    start, logged, finish = libraries["trackio"]
    assert (logged, finish) == (("log", 3, numbers), ("finish",))
    assert start[1]["name"] == f"my-run-{run_id}"
    assert start[1]["config"] == {"seed": 7}
    start, logged, finish = libraries["wandb"]
    assert (logged, finish) == (("log", 3, numbers), ("finish",))
    assert (start[1]["id"], start[1]["name"], start[1]["dir"]) == (run_id, "my-run", str(out))
    assert libraries["tensorboard"] == [
        ("start", "tensorboard", None),
        ("text", "settings", {"seed": 7}, 0),
        ("scalar", "loss", 0.5, 3),
        ("scalar", "batch", 4.0, 3),
        ("close",),
    ]
    assert capsys.readouterr().out == ""  # --json promises one document


def test_nothing_is_sent_by_default(libraries, tmp_path, monkeypatch):
    import os

    with Trackers(("wandb",), tmp_path / "run", {}, 0):
        assert os.environ["WANDB_MODE"] == "offline"
    monkeypatch.setenv("WANDB_MODE", "online")
    with Trackers(("wandb",), tmp_path / "run", {}, 0):
        assert os.environ["WANDB_MODE"] == "online"


def test_a_resumed_run_goes_on_in_the_same_place_and_a_new_one_does_not(libraries, tmp_path):
    for step in (0, 5, 0):
        with Trackers(("trackio", "wandb", "tensorboard"), tmp_path / "run", {}, step):
            pass
    first, resumed, new = (call[1]["id"] for call in libraries["wandb"] if call[0] == "init")
    assert first == resumed != new
    names = [call[1] for call in libraries["trackio"] if call[0] == "init"]
    assert names[0]["name"] == names[1]["name"] != names[2]["name"]
    assert {settings["resume"] for settings in names} == {"allow"}
    assert [call[2] for call in libraries["tensorboard"] if call[0] == "start"] == [None, 6, None]


@pytest.mark.parametrize("content", ["", "[]", '{"id": "../../x"}', '{"id": 3}'])
def test_a_damaged_id_is_made_anew(libraries, tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with Trackers(("wandb",), tmp_path, {}, 5):
        pass
    assert libraries["wandb"][0][1]["id"].isalnum()


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_warned_of_once_and_the_others_go_on(
    libraries, tmp_path, monkeypatch, caplog, call
):
    import trackio

    def broken(*_, **__):
        raise ConnectionError("no such host")

    monkeypatch.setattr(*((trackio, "init") if call == "init" else (trackio.Run, call)), broken)
    with caplog.at_level(logging.WARNING), Trackers(("trackio", "wandb"), tmp_path, {}, 0) as trackers:
        trackers.log(1, {"loss": 1.0})
        trackers.log(2, {"loss": 2.0})
    (message,) = caplog.messages
    assert message == "trackio gets no more figures of this run: ConnectionError: no such host"
    assert [entry[0] for entry in libraries["wandb"]] == ["init", "log", "log", "finish"]


def test_a_missing_library_is_said_before_anything_starts(libraries, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name != "trackio" or None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'shoestring-llm\[trackio\]'"):
        Trackers(("wandb", "trackio"), tmp_path, {}, 0)
    assert libraries["wandb"] == []


def test_a_run_without_trackers_leaves_nothing(tmp_path):
    with Trackers((), tmp_path, {}, 0) as trackers:
        trackers.log(1, {"loss": 1.0})
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_name_lists_those_that_there_are():
    check_names(("wandb", "tensorboard"))
    with pytest.raises(ConfigError, match="report_to has 'mlflow'; it takes tensorboard, trackio, wandb"):
        check_names(("mlflow",))
