import json
import logging
import math
import resource

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import DataError, StorageError
from shoestring.train.report.metrics import MetricsLog, read


def write(path, steps, resume_step=None) -> None:
    with MetricsLog(path, resume_step) as metrics:
        for step in steps:
            metrics.log(step, {"loss": 1 / (step + 1), "phase": "constant"})


def test_rows_are_on_disk_before_the_log_is_closed(tmp_path):
    metrics = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    metrics.log(1, {"loss": torch.tensor(2.5), "load": torch.tensor([0.25, 0.75]), "step": 9})
    metrics.sync()
    assert read(metrics.path) == [{"step": 1, "loss": 2.5, "load": [0.25, 0.75]}]
    metrics.close()


@settings(max_examples=40)
@given(st.integers(0, 12), st.integers(0, 12), st.binary(max_size=20))
def test_a_resumed_log_equals_an_unbroken_one(tmp_path_factory, saved, lost, torn):
    folder = tmp_path_factory.mktemp("log")
    write(folder / "whole", range(1, 15))
    write(folder / "broken", range(1, saved + lost + 1))
    with open(folder / "broken", "ab") as file:
        file.write(torn.replace(b"\n", b"").replace(b"\r", b""))
    write(folder / "broken", range(saved + 1, 15), resume_step=saved)
    assert (folder / "broken").read_bytes() == (folder / "whole").read_bytes()


def test_resuming_without_a_log_starts_one_and_a_fresh_run_starts_over(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write(path, [5, 6], resume_step=4)
    assert [row["step"] for row in read(path)] == [5, 6]
    write(path, [1])
    assert [row["step"] for row in read(path)] == [1]


def test_resuming_drops_unreadable_lines_and_says_so(tmp_path, caplog):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n\0\0\0\n{"step": 2}\n' + b"[" * 100_000 + b"\n")
    with pytest.raises(DataError, match="line 2"):
        read(path)
    with caplog.at_level(logging.WARNING):
        write(path, [3], resume_step=2)
    assert [row["step"] for row in read(path)] == [1, 2, 3]
    assert "line 2" in caplog.text


def test_numbers_json_does_not_have_survive(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as metrics:
        metrics.log(1, {"a": math.nan, "b": math.inf, "c": -math.inf, "d": [math.nan]})
    json.loads(path.read_text(), parse_constant=lambda word: pytest.fail(word))
    row = read(path)[0]
    assert math.isnan(row["a"])
    assert row["b"] == math.inf
    assert row["c"] == -math.inf


@pytest.mark.parametrize(
    "last", [b'{"step": 2, "lo', b'{"step": 2}', b"\xff\n", b"[1]\n", b'{"step": "x"}\n']
)
def test_a_torn_last_line_is_left_out(tmp_path, last):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + last)
    assert read(path) == [{"step": 1}]


def test_no_such_log(tmp_path):
    with pytest.raises(DataError, match="absent"):
        read(tmp_path / "absent")


def test_a_full_disk_leaves_whole_rows(tmp_path):
    path = tmp_path / "metrics.jsonl"
    metrics = MetricsLog(path)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        metrics.log(1, {"text": "x" * 50})
        with pytest.raises(StorageError, match="no room"):
            metrics.log(2, {"text": "x" * 50})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    metrics.log(2, {})
    metrics.close()
    assert [row["step"] for row in read(path)] == [1, 2]
    assert path.read_bytes().count(b"\n") == 2
