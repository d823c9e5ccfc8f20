"""Rows of a file that grows, and of one that somebody broke."""

import json

from shoestring.serve.training import rows as module
from shoestring.serve.training.rows import Rows


def test_only_what_is_new_is_read(tmp_path):
    path = tmp_path / "m.jsonl"
    rows = Rows(tmp_path, "m.jsonl")
    assert rows.read() == ([], False)
    path.write_text('{"step": 1}\n{"step"')
    assert rows.read() == ([{"step": 1}], True)
    with path.open("a") as file:
        file.write(': 2}\n{"step": 3}\n')
    assert rows.read() == ([{"step": 2}, {"step": 3}], False)
    assert rows.read() == ([], False)


def test_a_file_in_its_place_is_read_from_its_beginning(tmp_path):
    path, other = tmp_path / "m.jsonl", tmp_path / "other"
    path.write_text('{"step": 1}\n{"step": 2}\n')
    rows = Rows(tmp_path, "m.jsonl")
    rows.read()
    other.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n')
    other.rename(path)
    assert rows.read() == ([{"step": 1}, {"step": 2}, {"step": 3}], True)
    path.write_text('{"step": 7}\n')
    assert rows.read() == ([{"step": 7}], True)


def test_broken_lines_are_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 1000)
    wrong = ["", "{", "[]", "null", '{"step": "1"}', '{"step": true}', '{"step": -1}', '{"step": 1e99}']
    wrong += ["[" * 900, json.dumps({"step": 5, "x": "y" * 1000}), "\x00\xff"]
    (tmp_path / "m.jsonl").write_bytes("\n".join([*wrong, '{"step": 9}', ""]).encode("latin-1"))
    assert Rows(tmp_path, "m.jsonl").read()[0] == [{"step": 9}]


def test_a_line_without_an_end_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 1000)
    monkeypatch.setattr(module, "MAX_READ_BYTES", 4000)
    (tmp_path / "m.jsonl").write_text("x" * 9000 + '\n{"step": 9}\n')
    rows = Rows(tmp_path, "m.jsonl")
    assert [row for _ in range(4) for row in rows.read()[0]] == [{"step": 9}]
