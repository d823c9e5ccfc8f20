import gzip
import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.data.readers import cut_stream, read_rows
from shoestring.errors import MissingDependencyError
from shoestring.rows import read as read_module
from shoestring.rows import streams


def read(path, limit=1 << 20):
    found = list(read_rows(path, text_field="text", license_field="license", limit_bytes=limit))
    return [row.text for row in found if not row.problem], [row.problem for row in found if row.problem]


def write(path, data):
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.txt", "a.md", "a.py", "a.txt.gz", "A.PY.GZ"])
def test_text_files_come_whole(tmp_path, name):
    path = tmp_path / name
    data = "\ufeffgrüße\r\n深度求索\n".encode()
    path.write_bytes(gzip.compress(data) if name.lower().endswith(".gz") else data)
    assert read(path) == (["grüße\r\n深度求索\n"], [])


@given(st.text(alphabet=st.sampled_from("aé深😀\n"), max_size=400), st.integers(8, 60))
def test_pieces_add_up_to_the_text_and_stay_small(text, limit):
    parts = list(cut_stream(io.BytesIO(text.encode()), limit))
    assert b"".join(parts) == text.encode()
    assert "".join(part.decode() for part in parts) == text
    assert all(0 < len(part) <= limit for part in parts)


def test_a_long_text_is_cut_at_a_blank_line(tmp_path):
    path = write(tmp_path / "a.txt", b"x" * 600 + b"\n\n" + b"y" * 600 + b"\n")
    assert read(path, limit=1024) == (["x" * 600 + "\n\n", "y" * 600 + "\n"], [])
    path = write(tmp_path / "a.jsonl", json.dumps({"text": "x" * 600 + "\n\n" + "y" * 600}).encode())
    assert read(path, limit=1024) == (["x" * 600 + "\n\n", "y" * 600], [])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"caf\xe9", "not UTF-8"),
        (b"\xff\xfe\x41\x00", "NUL"),
        (b"ab\0cd", "NUL"),
        (b"\xed\xa0\x80", "not UTF-8"),
    ],
)
def test_what_is_no_text_is_a_problem_not_a_crash(tmp_path, data, reason):
    texts, problems = read(write(tmp_path / "a.txt", data))
    assert texts == []
    assert len(problems) == 1
    assert reason in problems[0]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_jsonl_rows_survive_bad_neighbors(tmp_path, name):
    lines = [
        b'{"text": "one", "license": "MIT"}',
        b"{broken",
        b"",
        b'{"content": "x", "id": 3}',
        b'{"text": 5}',
        b'"text"',
        b'{"text": "\\ud800"}',
        b'{"text": "a\\u0000b"}',
        b"[" * 200_000,
        b'{"text": ' + b"9" * 5000 + b"}",
        b'{"text": "\xff"}',
        b'{"text": "two", "license": 7}',
    ]
    path = write(tmp_path / name, b"\n".join(lines))
    found = list(read_rows(path, text_field="text", license_field="license", limit_bytes=1 << 20))
    assert [(row.text, row.license) for row in found if not row.problem] == [("one", "MIT"), ("two", None)]
    assert len([row for row in found if row.problem]) == 9
    assert "no string field 'text' in a row; it has content, id" in [row.problem for row in found]


def test_a_giant_line_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(read_module, "LINE_BYTES", 100)
    path = write(tmp_path / "a.jsonl", b'{"text": "' + b"x" * 950 + b'"}\n{"text": "small"}\n')
    assert read(path) == (["small"], ["it is longer than 100 bytes"])


def test_a_gzip_bomb_is_stopped_early(tmp_path, monkeypatch):
    monkeypatch.setattr(streams, "EXPANSION_SLACK_BYTES", 10_000)
    path = write(tmp_path / "a.txt.gz", b"x" * 30_000_000)
    texts, problems = read(path)
    assert sum(map(len, texts)) < 5_000_000
    assert len(problems) == 1
    assert "expands to more than" in problems[0]


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-9], lambda d: b"no gzip", lambda d: d[:40] + b"\0" * 20 + d[60:]]
)
def test_a_damaged_gzip_is_a_problem(tmp_path, damage):
    text = "".join(str(i) for i in range(2000)).encode()
    path = tmp_path / "a.txt.gz"
    path.write_bytes(damage(gzip.compress(text)))
    assert len(read(path)[1]) == 1


def test_a_file_that_went_away_is_a_problem(tmp_path):
    assert read(tmp_path / "gone.txt") == ([], ["No such file or directory"])


@pytest.mark.parametrize("name", ["a.parquet", "a.parquet.gz"])
def test_parquet(tmp_path, name):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(
        pa.table({"text": ["one", None, "two"], "license": ["MIT", "MIT", None], "id": [1, 2, 3]}), out
    )
    path = write(tmp_path / name, out.getvalue())
    found = list(read_rows(path, text_field="text", license_field="license", limit_bytes=1 << 20))
    assert [(row.text, row.license) for row in found if not row.problem] == [("one", "MIT"), ("two", None)]
    assert [row.problem for row in found if row.problem] == [
        "no string field 'text' in a row; it has text, license"
    ]
    (missing,) = read_rows(path, text_field="body", license_field="license", limit_bytes=1 << 20)
    assert missing.problem == "no column 'body'; it has text, license, id"


def test_a_damaged_parquet_file_is_a_problem(tmp_path):
    pytest.importorskip("pyarrow")
    texts, problems = read(write(tmp_path / "a.parquet", b"PAR1" + bytes(50) + b"PAR1"))
    assert texts == []
    assert len(problems) == 1


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        read(write(tmp_path / "a.parquet", b"PAR1"))
