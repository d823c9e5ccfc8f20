"""Rows of one file, each with its place: jsonl, a JSON array, csv, parquet or arrow, also compressed.

No content of a file is fatal here: a row that cannot be read comes with a `problem`, and a damaged file ends
with one. Limits: a line has at most 16 MiB, a JSON array 1 GiB, a row group of parquet 4 GiB.
"""

import csv
import io
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoestring.errors import DataError
from shoestring.rows.arrow import arrow_values
from shoestring.rows.streams import COMPRESSIONS, file_type, open_stream, seekable

LINE_TYPES, TABLE_TYPES, ARROW_TYPES = (
    (".jsonl", ".ndjson", ".json"),
    (".csv", ".tsv"),
    (".parquet", ".arrow"),
)
ROW_TYPES = (*LINE_TYPES, *TABLE_TYPES, *ARROW_TYPES)
"""Types of files that hold rows, each also with `.gz` or `.zst`."""
LINE_BYTES = 16 << 20
ARRAY_BYTES = 1 << 30
DELIMITERS = (",", ";", "\t")
NOT_UTF8 = "it is not UTF-8; save the file as UTF-8"
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One object of a file, or the reason why it cannot be read."""

    place: str
    """`talks.jsonl line 12`, to begin a sentence with."""
    values: Mapping[str, Any] = field(default_factory=dict)
    problem: str = ""


def read_rows(path: Path, *, columns: Sequence[str] = (), name: str = "") -> Iterator[Row]:
    """Rows of one file in order, those that cannot be read with their problem.

    A file that is damaged half-way gives the rows before the damage, then a row with the problem. `columns`
    are the only ones that are read of parquet and arrow, of which the first has to be there (empty: all).
    `name` is what places call the file (empty: its path).
    Raises MissingDependencyError without pyarrow for what needs it.
    """
    kind, name = file_type(path.name), name or str(path)
    try:
        with open_stream(path) as stream:
            if kind in ARROW_TYPES:
                yield from _arrow_rows(stream, kind, name, columns)
            elif kind in TABLE_TYPES:
                yield from _table_rows(stream, name)
            elif _begins_array(stream):
                yield from _array_rows(stream, name)
            else:
                yield from _line_rows(stream, name)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        yield Row(place=name, problem=_reason(error))


def require_rows(path: Path, *, name: str = "") -> Iterator[Row]:
    """Rows of one file in order; DataError naming file and line for the first that cannot be read."""
    if not path.is_file():  # reading a pipe could wait forever
        raise DataError(f"there is no file {path}")
    if file_type(path.name) not in ROW_TYPES:
        raise DataError(
            f"{path} is none of {', '.join(ROW_TYPES)} (each also with {' or '.join(COMPRESSIONS)}); "
            "convert it to one of them"
        )
    for row in read_rows(path, name=name):
        if row.problem:
            raise DataError(f"{row.place}: {row.problem}")
        yield row


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return NOT_UTF8
    return (getattr(error, "strerror", None) or str(error).splitlines() or [type(error).__name__])[0][:200]


def _lines(stream: io.BufferedReader, name: str) -> Iterator[tuple[str, bytes | None]]:
    """Place and bytes of each line; None in place of one that is too long."""
    number = 0
    while line := stream.readline(LINE_BYTES + 1):
        number += 1
        is_long = len(line) > LINE_BYTES
        while len(line) > LINE_BYTES and not line.endswith(b"\n"):
            line = stream.readline(LINE_BYTES + 1)
        yield f"{name} line {number}", None if is_long else line


def _line_rows(stream: io.BufferedReader, name: str) -> Iterator[Row]:
    """One object a line; empty lines are passed over."""
    for place, line in _lines(stream, name):
        if line is None:
            yield Row(place=place, problem=f"it is longer than {LINE_BYTES:,} bytes")
        elif line.strip() not in (b"", b"\xef\xbb\xbf"):
            try:
                yield _row(place, json.loads(line.decode("utf-8-sig")))
            except UnicodeDecodeError:
                yield Row(place=place, problem=NOT_UTF8)
            except (ValueError, RecursionError):
                yield Row(
                    place=place, problem="it is not JSON; a file has one object a line, or is one array"
                )


def _begins_array(stream: io.BufferedReader) -> bool:
    return stream.peek(64)[:64].removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _array_rows(stream: io.BufferedReader, name: str) -> Iterator[Row]:
    """The objects of one JSON array, each with the line on which it begins."""
    data = stream.read(ARRAY_BYTES + 1)
    if len(data) > ARRAY_BYTES:
        raise ValueError(
            f"the array has more than {ARRAY_BYTES:,} bytes; write it as jsonl, one object a line"
        )
    text, decode = data.decode("utf-8-sig"), json.JSONDecoder().raw_decode
    place = _skip(text, text.index("[") + 1)
    line, is_open = 1 + text.count("\n", 0, place), text[place : place + 1] != "]"
    while is_open:
        try:
            value, end = decode(text, place)
        except (ValueError, RecursionError):
            yield Row(place=f"{name} line {line}", problem="it is not JSON")
            return
        yield _row(f"{name} line {line}", value)
        end = _skip(text, end)
        is_open = text[end : end + 1] == ","
        after = _skip(text, end + 1) if is_open else end
        line += text.count("\n", place, after)
        place = after
    if text[place : place + 1] != "]" or text[place + 1 :].strip():
        yield Row(place=f"{name} line {line}", problem="the array does not end here as JSON has it, in one ]")


def _skip(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place


def _row(place: str, value: object) -> Row:
    if not isinstance(value, dict):
        return Row(place=place, problem="it is not an object with names and values")
    return Row(place=place, values=value)


def _table_rows(stream: io.BufferedReader, name: str) -> Iterator[Row]:
    """Rows of csv or tsv by the names in its first line; a cell may hold line breaks within quotes."""
    csv.field_size_limit(LINE_BYTES)  # 128 KiB otherwise, less than some texts
    first = stream.peek(1 << 16).split(b"\n", 1)[0].decode("utf-8-sig", errors="replace")
    reader = csv.reader(_texts(stream, name), delimiter=max(DELIMITERS, key=first.count), strict=True)
    number, header = 1, None
    try:
        for cells in reader:
            place, number = f"{name} line {number}", reader.line_num + 1
            if header is None:
                header = cells
                if len(set(header)) < len(header):
                    raise ValueError(f"the first line names a column twice: {', '.join(header)[:100]}")
            elif len(cells) == len(header):
                yield Row(place=place, values=dict(zip(header, cells, strict=True)))
            elif cells:
                problem = f"it has {len(cells)} cells, and the first line names {len(header)} columns"
                yield Row(place=place, problem=problem)
    except csv.Error as error:
        yield Row(place=f"{name} line {number}", problem=f"it is not csv: {error}")


def _texts(stream: io.BufferedReader, name: str) -> Iterator[str]:
    for place, line in _lines(stream, name):
        if line is None:
            raise ValueError(f"{place} is longer than {LINE_BYTES:,} bytes")
        yield line.decode("utf-8-sig")


def _arrow_rows(stream: io.BufferedReader, kind: str, name: str, columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    with seekable(stream) as file:
        for part in arrow_values(file, kind, name, columns):
            if isinstance(part, str):
                yield Row(place=f"{name} row {number + 1}", problem=part)
                continue
            for values in part:
                number += 1
                yield Row(place=f"{name} row {number}", values=values)
