"""The process that fetches and quantizes."""

import json

import pytest

from shoestring.model.hf.hub import resolve
from shoestring.serve.models import worker


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_it_says_how_far_it_is(tmp_path, capsys):
    assert worker.main(["quantize", str(resolve("mini")), str(tmp_path / "small"), "int8"]) == 0
    messages = lines(capsys)
    assert messages[-1]["bytes"] == messages[-1]["total"] > 0
    assert [message["bytes"] for message in messages] == sorted(message["bytes"] for message in messages)


def test_bytes_that_come_are_counted(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(worker, "PULSE_S", 0.01)
    (tmp_path / "old").write_bytes(b"x" * 5)

    def work():
        (tmp_path / "new").write_bytes(b"x" * 7)
        worker.threading.Event().wait(0.1)

    worker.watch(tmp_path, work)
    assert {"bytes": 7} in lines(capsys)


@pytest.mark.parametrize("arguments", [["pull", "org/name"], ["quantize", "/nowhere", "x", "int4"]])
def test_a_failure_is_one_sentence(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert worker.main(arguments) == 1
    assert len(lines(capsys)[-1]["failure"]) > 10
