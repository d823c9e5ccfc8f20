"""bench/all.py: medians with their spread, what got slower, and the table of the results."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "bench" / "all.py"


@pytest.fixture(scope="module")
def bench():
    spec = importlib.util.spec_from_file_location("bench_all", PATH)
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def rows(bench, *ratios, name="one stream"):
    return bench.summary({name: [bench.Figure(name, "another", ratio * 10, 10, 2.0) for ratio in ratios]})


def test_the_middle_round_counts_and_the_others_are_its_spread(bench):
    (row,) = rows(bench, 3.0, 1.0, 2.0)
    assert (row["ratio"], row["least"], row["largest"], row["rounds"]) == (2.0, 1.0, 3.0, 3)
    assert "2.00x (1.00 to 3.00), goal 2x: met" in bench.line(row)


def test_only_what_lost_more_than_both_spreads_got_slower(bench):
    before = rows(bench, 2.0, 2.2, 2.4)
    assert bench.slower(rows(bench, 1.9, 2.0, 2.1), before) == []
    assert bench.slower(rows(bench, 1.7, 1.8, 1.9), before) == ["one stream: 2.20x before, 1.80x now"]
    assert bench.slower(rows(bench, 0.1, name="new"), before) == []


def test_the_table_has_a_column_for_each_kind_of_machine(bench):
    record = {"A": rows(bench, 2.0), "B": rows(bench, 1.0) + rows(bench, 3.0, name="prompt")}
    text = bench.table(record)
    assert text.splitlines()[0] == "| | A | B |"
    assert text.splitlines()[3] == "| prompt |  | 30 and 10 of another: **3.00x** (goal 2x) |"


def test_the_record_is_written_between_its_markers(bench, monkeypatch, tmp_path):
    results, record = tmp_path / "results.md", tmp_path / "record.json"
    results.write_text(f"before\n{bench.BEGIN}old\n{bench.END}after\n")
    monkeypatch.setattr(bench, "RESULTS", results)
    monkeypatch.setattr(bench, "RECORD", record)
    bench.write({"A": rows(bench, 2.0)})
    text = results.read_text()
    assert text.startswith("before\n" + bench.BEGIN)
    assert text.endswith(bench.END + "after\n")
    assert "old" not in text
    assert "2.00x" in text


def test_a_bench_without_its_competitor_is_left_out(bench, capsys):
    class Arguments:
        minutes, rounds, only, llama_python = 1.0, 2, "engine", None

    assert bench.measure(Arguments) == {}
    assert capsys.readouterr().out == "left out: engine, give --llama-python\n"
