"""Mixing: three to one, all of one's own, deterministic."""

import json

import pytest

from shoestring.distill.mix import mix
from shoestring.errors import ConfigError, DataError


def write(path, name, count):
    path.write_text("".join(json.dumps({"messages": [], "n": f"{name}{i}"}) + "\n" for i in range(count)))
    return path


def names(path):
    return [json.loads(line)["n"] for line in path.read_text().splitlines()]


def test_three_to_one(tmp_path):
    own, general = write(tmp_path / "a.jsonl", "v", 30), write(tmp_path / "b.jsonl", "g", 50)
    assert mix([own], [general], tmp_path / "out") == {"verified": 30, "general": 10}
    mixed = names(tmp_path / "out")
    assert sorted(n for n in mixed if n[0] == "v") == sorted(names(own))
    taken = [n for n in mixed if n[0] == "g"]
    assert len(set(taken)) == 10
    assert mixed != sorted(mixed)
    mix([own], [general], tmp_path / "again")
    assert names(tmp_path / "again") == mixed
    mix([own], [general], tmp_path / "other", seed=1)
    assert names(tmp_path / "other") != mixed


def test_too_few_general_ones_are_taken_once(tmp_path):
    own, general = write(tmp_path / "a.jsonl", "v", 30), write(tmp_path / "b.jsonl", "g", 4)
    (tmp_path / "b.jsonl").write_text(general.read_text().rstrip() + "\n\n")
    assert mix([own], [general], tmp_path / "out") == {"verified": 30, "general": 4}
    assert len(names(tmp_path / "out")) == 34


def test_refusals(tmp_path):
    own = write(tmp_path / "a.jsonl", "v", 3)
    with pytest.raises(DataError, match="nothing"):
        mix([own], [tmp_path / "nothing.jsonl"], tmp_path / "out")
    (tmp_path / "text.jsonl").write_text("{}\nhello\n")
    with pytest.raises(DataError, match=r"text.jsonl line 2"):
        mix([own], [tmp_path / "text.jsonl"], tmp_path / "out")
    with pytest.raises(ConfigError, match="ratio"):
        mix([own], [own], tmp_path / "out", ratio=0)


def test_general_ones_may_have_any_form_and_file(tmp_path):
    own = write(tmp_path / "a.jsonl", "v", 3)
    (tmp_path / "general").mkdir()
    (tmp_path / "general" / "b.csv").write_text("n,instruction,output\ng0,hi,hello\n")
    assert mix([own], [str(tmp_path / "general")], tmp_path / "out") == {"verified": 3, "general": 1}
    rows = [json.loads(line) for line in (tmp_path / "out").read_text().splitlines()]
    assert {"n": "g0", "instruction": "hi", "output": "hello"} in rows
