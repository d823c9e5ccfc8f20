"""Readers for the texts of one file: txt, md, py, jsonl or parquet, each also with .gz or .zst.

No content of a file is fatal: a text that cannot be read becomes a `Row` with a `problem`. The limits are
those of `rows/streams.py` and `rows/read.py`.
"""

import io
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from shoestring.rows import read as rows
from shoestring.rows.streams import file_type, open_stream


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A text with its license if it names one, or the reason why the text cannot be read."""

    text: str = ""
    license: str | None = None
    problem: str | None = None


def read_rows(path: Path, *, text_field: str, license_field: str, limit_bytes: int) -> Iterator[Row]:
    """Texts of one file in order; a text over `limit_bytes` is cut into several rows, at a blank line.

    A file that is damaged half-way gives the rows before the damage, then a row with the problem.
    """
    if file_type(path.name) in rows.ROW_TYPES:
        for row in rows.read_rows(path, columns=(text_field, license_field)):
            text = Row(problem=row.problem) if row.problem else _row(row.values, text_field, license_field)
            yield from _cut_row(text, limit_bytes)
        return
    try:
        with open_stream(path) as stream:
            for data in cut_stream(stream, limit_bytes):
                yield Row(text=_decode(data))
    except UnicodeDecodeError:
        yield Row(problem="not UTF-8")
    except (OSError, EOFError, zlib.error, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0] or type(error).__name__
        yield Row(problem=reason[:200])


def cut_stream(stream: BinaryIO, limit: int) -> Iterator[bytes]:
    """Cut a stream into parts of at most `limit` bytes: at a blank line, else a newline, else a character."""
    data = stream.read(limit + 1)
    while len(data) > limit:
        end = _cut_position(data, limit)
        yield data[:end]
        data = data[end:]
        data += stream.read(limit + 1 - len(data))
    if data:
        yield data


def _cut_position(data: bytes, limit: int) -> int:
    for mark in (b"\n\n", b"\n"):
        position = data.rfind(mark, limit // 2, limit)
        if position >= 0:
            return position + len(mark)
    end = limit
    while data[end] & 0xC0 == 0x80 and end > limit - 4:  # a UTF-8 character has at most 4 bytes
        end -= 1
    return end


def _decode(data: bytes) -> str:
    if b"\0" in data:
        raise ValueError("it holds NUL bytes, so it is not text")
    return data.decode("utf-8-sig")


def _cut_row(row: Row, limit: int) -> Iterator[Row]:
    if len(row.text) * 4 <= limit or row.problem:  # a character has at most 4 bytes
        yield row
        return
    for data in cut_stream(io.BytesIO(row.text.encode()), limit):
        yield Row(text=data.decode(), license=row.license)


def _row(values: Mapping[str, Any], text_field: str, license_field: str) -> Row:
    text, license = values.get(text_field), values.get(license_field)
    if not isinstance(text, str):
        names = ", ".join(str(name)[:40] for name in list(values)[:8])
        return Row(
            problem=f"no string field {text_field!r} in a row" + (f"; it has {names}" if names else "")
        )
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair
        return Row(problem="a text is not valid Unicode")
    if "\0" in text:
        return Row(problem="a text holds NUL characters")
    return Row(text=text, license=license[:100] if isinstance(license, str) and license else None)
