"""A task whose verifier misbehaves as the reply tells it to, loadable in a child process like ours."""

import json
from pathlib import Path

import pytest

from shoestring.tasks import load

MISBEHAVING = """
import os, subprocess, sys, time
from dataclasses import dataclass
from shoestring.tasks.task import Task


@dataclass(frozen=True)
class Misbehaving(Task):
    is_pure: bool = False
    broken: str = ""

    name = "misbehaving"

    def prepare(self):
        if self.broken == "slow":
            time.sleep(1.2)
        elif self.broken:
            raise RuntimeError(self.broken)

    def reward(self, example, text):
        if text == "hang":
            time.sleep(60)
        if text == "spin":
            while True:
                pass
        if text == "hang with a process":
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
            time.sleep(60)
        if text == "die":
            os._exit(3)
        if text == "leave":
            sys.exit(0)
        if text == "recurse":
            return self.reward(example, text)
        if text == "raise":
            raise KeyError("\\x1b[31m" + "x" * 10**7)
        if text == "print":
            print("y" * 10**6)
            os.write(1, b"z" * 10**6)
            sys.stdin.read()
        if text == "huge":
            return "1" * 10**7
        odd = {"nan": float("nan"), "inf": float("inf"), "true": True, "text": "1.0", "list": [1.0],
               "object": object(), "none": None, "big": 10**400, "right": 1}
        return odd.get(text, len(text) / 10**7)
"""


@pytest.fixture
def misbehaving(tmp_path, monkeypatch):
    """The name of the task: `right` earns 1, and many other words make trouble."""
    (tmp_path / "misbehaving_task.py").write_text(MISBEHAVING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(load.TASKS, "misbehaving", "misbehaving_task:Misbehaving")
    return "misbehaving"


FEWEST_VERDICTS = 500


@pytest.fixture
def verdicts():
    """The table of a task's verdicts, which people have read, as rows."""

    def table(name: str) -> list[dict]:
        folder = Path(__file__).parent / "verdicts"
        with open(folder / f"{name}.jsonl", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        assert len({json.dumps(row) for row in rows}) == len(rows) >= FEWEST_VERDICTS
        kinds = json.loads((folder / "kinds.json").read_text(encoding="utf-8"))[name]
        assert {row["kind"] for row in rows} == set(kinds)
        return rows

    return table
