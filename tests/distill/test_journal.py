"""The journal: whatever happens while writing, what was whole is read again."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.distill.journal import Journal
from shoestring.errors import ConfigError, DataError
from shoestring.remote.collector import ChatReply


def fill(path):
    with Journal(path, {"teacher": "t", "top_p": 0.95}, resume=False) as journal:
        for i in range(3):
            journal.add(
                ChatReply(id=f"p{i % 2}", text=f"text {i}\n\u2028", finish_reason="stop", tokens=i, cost=0.5)
            )
        journal.judge(1, 1.0, None)
        journal.judge(0, None, "timeout")
        journal.charge(2.0)
        journal.charge(1.0)
    return path


def test_what_was_written_is_read(tmp_path):
    path = fill(tmp_path / "deep" / "j.jsonl")
    with Journal(path, {"teacher": "t", "top_p": 0.95}, resume=True) as journal:
        assert [(r.id, r.text, r.tokens, r.reward, r.fault) for r in journal.records] == [
            ("p0", "text 0\n\u2028", 0, None, "timeout"),
            ("p1", "text 1\n\u2028", 1, 1.0, None),
            ("p0", "text 2\n\u2028", 2, None, None),
        ]
        assert journal.counts == {"p0": 2, "p1": 1}
        assert journal.cost == 2.0


def test_cut_anywhere_the_whole_rows_remain_and_writing_goes_on(tmp_path):
    data = fill(tmp_path / "whole.jsonl").read_bytes()
    path = tmp_path / "j.jsonl"
    for size in range(0, len(data) + 1, 5):
        path.write_bytes(data[:size])
        rows = data[:size].count(b"\n")
        with Journal(path, {"teacher": "t", "top_p": 0.95}, resume=True) as journal:
            assert len(journal.records) == min(max(rows - 1, 0), 3)
            journal.add(ChatReply(id="new", text="x", finish_reason="stop"))
        with Journal(path, {"teacher": "t", "top_p": 0.95}, resume=True) as journal:
            assert journal.counts["new"] == 1


def test_another_collection_is_refused(tmp_path):
    path = fill(tmp_path / "j.jsonl")
    with pytest.raises(ConfigError, match="--resume"):
        Journal(path, {"teacher": "t", "top_p": 0.95}, resume=False)
    with pytest.raises(ConfigError, match="teacher = 't', not 'u'"):
        Journal(path, {"teacher": "u", "top_p": 0.95}, resume=True)


@settings(max_examples=20)
@given(st.binary(max_size=40).filter(lambda line: b"\n" not in line))
def test_a_wrong_row_in_the_middle_is_named(tmp_path_factory, line):
    path = tmp_path_factory.mktemp("j") / "j.jsonl"
    lines = fill(path).read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], b"[" + line, *lines[2:], b""]))
    with pytest.raises(DataError, match="line 3 is not a row"):
        Journal(path, {"teacher": "t", "top_p": 0.95}, resume=True)


@pytest.mark.parametrize("row", ['{"verdict": 99, "reward": 1.0, "fault": null}', '{"id": "x"}', "{}", "3"])
def test_rows_that_mean_nothing_are_named(tmp_path, row):
    path = fill(tmp_path / "j.jsonl")
    with open(path, "a") as file:
        file.write(row + "\n")
    with pytest.raises(DataError, match="is not a row"):
        Journal(path, {"teacher": "t", "top_p": 0.95}, resume=True)
