"""Rows of one file: every kind of file, every place, and no content that is fatal."""

import csv
import gzip
import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import DataError, MissingDependencyError
from shoestring.rows import read, streams
from shoestring.rows.read import read_rows, require_rows

pa = pytest.importorskip("pyarrow")

ROWS = [{"q": 'grüße\r\n,;"', "a": "1"}, {"q": "深度求索", "a": "2\n3"}]


def parquet(rows) -> bytes:
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def arrow(rows, new=pa.ipc.new_stream) -> bytes:
    table, out = pa.Table.from_pylist(rows), io.BytesIO()
    with new(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


def table(rows, delimiter=",") -> bytes:
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, ["q", "a"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def lines(rows) -> bytes:
    return "\r\n\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


FILES = {
    "a.jsonl": lines(ROWS),
    "b.ndjson": lines(ROWS) + b"\n",
    "c.json": lines(ROWS),
    "d.json": json.dumps(ROWS).encode(),
    "e.jsonl": b" \n " + json.dumps(ROWS, indent=4, ensure_ascii=False).encode() + b"\n",
    "f.csv": table(ROWS),
    "g.csv": table(ROWS, ";"),
    "h.tsv": table(ROWS, "\t"),
    "i.parquet": parquet(ROWS),
    "j.arrow": arrow(ROWS),
    "k.ARROW": arrow(ROWS, pa.ipc.new_file),
}


def compressed(name: str, data: bytes) -> bytes:
    if name.endswith(".gz"):
        return gzip.compress(data)
    return pa.compress(data, codec="zstd", asbytes=True) if name.endswith(".zst") else data


@pytest.mark.parametrize("end", ["", ".gz", ".zst"])
@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file_gives_the_same_rows(tmp_path, name, end):
    path = tmp_path / (name + end)
    path.write_bytes(compressed(path.name, FILES[name]))
    assert [dict(row.values) for row in require_rows(path)] == ROWS


@pytest.mark.parametrize("name", ["a.jsonl", "d.json", "f.csv"])
def test_a_byte_order_mark_is_not_part_of_a_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + FILES[name])
    assert [dict(row.values) for row in require_rows(path)] == ROWS


def places(path) -> list[str]:
    return [row.place.removeprefix(f"{path} ") for row in require_rows(path)]


def test_places_are_lines_on_which_a_row_begins_or_numbers_of_rows(tmp_path):
    for name, expected in {
        "a.jsonl": ["line 1", "line 3"],
        "d.json": ["line 1", "line 1"],
        "e.jsonl": ["line 3", "line 7"],
        "f.csv": ["line 2", "line 4"],
        "i.parquet": ["row 1", "row 2"],
    }.items():
        path = tmp_path / name
        path.write_bytes(FILES[name])
        assert places(path) == expected, name


@pytest.mark.parametrize(
    ("name", "data", "place", "problem"),
    [
        ("a.jsonl", b'{"a": 1}\n{', "line 2", "it is not JSON"),
        ("a.jsonl", b'{"a": 1}\n\n[1]', "line 3", "it is not an object"),
        ("a.jsonl", b'{"a": "\xff"}', "line 1", "it is not UTF-8"),
        ("a.jsonl", '{"a": 1}'.encode("utf-16"), "line 1", "it is not UTF-8"),
        ("a.jsonl", b"\n" + b"x" * 300, "line 2", "it is longer than 200 bytes"),
        ("a.json", b'{"a": 1,\n"b": 2}', "line 1", "it is not JSON; a file has one object a line"),
        ("a.json", b'[{"a": 1},\n 7]', "line 2", "it is not an object"),
        ("a.json", b'[{"a": 1},\n {"a": }]', "line 2", "it is not JSON"),
        ("a.json", b'[{"a": 1}\n', "line 2", "the array does not end here"),
        ("a.json", b'[{"a": 1}]\n[', "line 1", "the array does not end here"),
        ("a.json", b"[" * 100_000, "line 1", "it is not JSON"),
        ("a.json", b"[" + b'{"a": 1},' * 30 + b"]", "", "more than 200 bytes; write it as jsonl"),
        ("a.csv", b"a,b\n1,2\n1\n", "line 3", "it has 1 cells, and the first line names 2"),
        ("a.csv", b"a,b\n1,2,3\n", "line 2", "it has 3 cells"),
        ("a.csv", b"a,a\n1,2\n", "", "names a column twice: a, a"),
        ("a.csv", b'a,b\n1,"2\n3\n', "line 2", "it is not csv"),
        ("a.csv", b"a,b\n1," + b"x" * 300, "", "line 2 is longer than 200 bytes"),
        ("a.csv", b"a,b\n1,\xe9\n", "", "it is not UTF-8"),
        ("a.parquet", b"PAR1" + bytes(50) + b"PAR1", "", "it is damaged, or no parquet file"),
        ("a.arrow", b"ARROW1" + bytes(50), "", "it is damaged, or no arrow file"),
        ("a.arrow", b"", "", "it is damaged, or no arrow file"),
        ("a.jsonl.gz", b"no gzip", "", "gzip"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 30, mtime=0)[:-9], "", "end-of-stream"),
        ("a.jsonl.zst", b"no zst", "", "ZSTD"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, monkeypatch, name, data, place, problem):
    monkeypatch.setattr(read, "LINE_BYTES", 200)
    monkeypatch.setattr(read, "ARRAY_BYTES", 200 if len(data) < 1000 else 1 << 20)
    path = tmp_path / name
    path.write_bytes(data)
    bad = [row for row in read_rows(path) if row.problem]
    assert bad
    assert bad[0].place == f"{path} {place}".strip()
    assert problem in bad[0].problem
    with pytest.raises(DataError, match="a\\."):
        list(require_rows(path))


def test_rows_after_a_bad_line_are_read(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{\n{"a": 2}')
    assert [row.values.get("a") for row in read_rows(path)] == [1, None, 2]
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1,2\n3\n4,5\n")
    assert [row.values.get("a") for row in read_rows(path)] == ["1", None, "4"]


@given(st.sampled_from(sorted(FILES)), st.binary(max_size=60), st.integers(0, 400))
def test_no_bytes_do_more_than_become_a_problem(tmp_path_factory, name, noise, place):
    data = FILES[name]
    path = tmp_path_factory.mktemp("rows") / name
    path.write_bytes(data[:place] + noise + data[place + len(noise) :])
    for row in read_rows(path):
        assert row.place.startswith(str(path))


@pytest.mark.parametrize("end", [".gz", ".zst"])
def test_a_file_that_expands_too_far_is_stopped_early(tmp_path, monkeypatch, end):
    monkeypatch.setattr(streams, "EXPANSION_SLACK_BYTES", 10_000)
    path = tmp_path / f"a.jsonl{end}"
    path.write_bytes(compressed(path.name, (b'{"a": "' + b"b" * 1000 + b'"}\n') * 30_000))
    rows = list(read_rows(path))
    assert len(rows) < 8_000
    assert "it expands to more than" in rows[-1].problem


def test_only_the_columns_asked_for_are_read_and_the_first_has_to_be_there(tmp_path):
    for name in ("i.parquet", "j.arrow"):
        path = tmp_path / name
        path.write_bytes(FILES[name])
        assert [dict(row.values) for row in read_rows(path, columns=("a", "z"))] == [
            {"a": "1"},
            {"a": "2\n3"},
        ]
        (row,) = read_rows(path, columns=("z", "a"))
        assert row.problem == "no column 'z'; it has q, a"


def test_nested_values_of_parquet_are_lists_and_objects(tmp_path):
    rows = [{"messages": [{"role": "user", "content": "a", "tool_calls": None}], "n": 3}]
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet(rows))
    assert [dict(row.values) for row in require_rows(path)] == rows


def test_other_files_and_missing_ones_are_sentences(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        list(require_rows(tmp_path / "none.jsonl"))
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"a.xlsx is none of .jsonl, .*\.parquet"):
        list(require_rows(tmp_path / "a.xlsx"))


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "a.jsonl.zst"])
def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch, name):
    (tmp_path / name).write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        list(read_rows(tmp_path / name))
