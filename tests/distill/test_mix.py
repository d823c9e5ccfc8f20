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
    own, general = write(tmp_path / "a", "v", 30), write(tmp_path / "b", "g", 50)
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
    own, general = write(tmp_path / "a", "v", 30), write(tmp_path / "b", "g", 4)
    (tmp_path / "b").write_text(general.read_text().rstrip() + "\n\n")
    assert mix([own], [general], tmp_path / "out") == {"verified": 30, "general": 4}
    assert len(names(tmp_path / "out")) == 34


def test_refusals(tmp_path):
    own = write(tmp_path / "a", "v", 3)
    with pytest.raises(DataError, match="nothing"):
        mix([own], [tmp_path / "nothing"], tmp_path / "out")
    (tmp_path / "text").write_text("{}\nhello\n")
    with pytest.raises(DataError, match="text line 2"):
        mix([own], [tmp_path / "text"], tmp_path / "out")
    with pytest.raises(ConfigError, match="ratio"):
        mix([own], [own], tmp_path / "out", ratio=0)
