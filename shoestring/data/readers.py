"""Readers for the texts of one file: txt, md, py, jsonl or parquet, each also with .gz.

No content of a file is fatal: a text that cannot be read becomes a `Row` with a `problem`. Limits: a gzip
file may expand to 100 times its size plus 16 MiB, a jsonl line has at most 16 MiB, a parquet row group 4 GiB.
"""

import gzip
import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from shoestring.data.sources import file_type
from shoestring.errors import MissingDependencyError

GZIP_RATIO = 100
GZIP_SLACK_BYTES = 16 << 20
LINE_BYTES = 16 << 20
ROW_GROUP_BYTES = 4 << 30


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
    kind = file_type(path.name)
    try:
        with _open(path) as stream:
            if kind == ".jsonl":
                rows = _json_rows(stream, text_field, license_field)
            elif kind == ".parquet":
                rows = _parquet_rows(stream, text_field, license_field)
            else:
                rows = (Row(text=_decode(data)) for data in cut_stream(stream, limit_bytes))
            for row in rows:
                yield from _cut_row(row, limit_bytes)
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


class _LimitedGzip(io.RawIOBase):
    """A gzip stream that stops with OSError once it has expanded too far."""

    def __init__(self, stream: gzip.GzipFile, limit: int) -> None:
        self.stream, self.limit, self.bytes_left = stream, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self.stream.readinto(buffer)
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise OSError(f"expands to more than {self.limit:,} bytes")
        return count

    def close(self) -> None:
        self.stream.close()
        super().close()


def _open(path: Path) -> BinaryIO:
    if path.suffix.lower() != ".gz":
        return open(path, "rb")
    limit = GZIP_SLACK_BYTES + GZIP_RATIO * path.stat().st_size
    return io.BufferedReader(_LimitedGzip(gzip.GzipFile(path), limit), 1 << 16)


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


def _json_rows(stream: BinaryIO, text_field: str, license_field: str) -> Iterator[Row]:
    missing_field = ""
    while line := stream.readline(LINE_BYTES + 1):
        if len(line) > LINE_BYTES:
            while line and not line.endswith(b"\n"):
                line = stream.readline(LINE_BYTES)
            yield Row(problem=f"a line is longer than {LINE_BYTES:,} bytes")
            continue
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield Row(problem="a line is not JSON")
            continue
        if isinstance(value, dict) and isinstance(value.get(text_field), str):
            yield _row(value[text_field], value.get(license_field))
            continue
        missing_field = missing_field or f"no string field {text_field!r} in a line{_field_names(value)}"
        yield Row(problem=missing_field)


def _field_names(value: object) -> str:
    if not isinstance(value, dict) or not value:
        return ""
    return "; it has " + ", ".join(name[:40] for name in list(value)[:8])


def _row(text: str, license: object) -> Row:
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell half a surrogate pair
        return Row(problem="a text is not valid Unicode")
    if "\0" in text:
        return Row(problem="a text holds NUL characters")
    return Row(text=text, license=license[:100] if isinstance(license, str) and license else None)


def _parquet_rows(stream: BinaryIO, text_field: str, license_field: str) -> Iterator[Row]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise MissingDependencyError(
            "reading parquet files needs pyarrow: pip install 'shoestring-llm[data]'"
        ) from None
    with tempfile.TemporaryFile() as seekable:
        if isinstance(stream, io.BufferedReader) and isinstance(stream.raw, _LimitedGzip):
            shutil.copyfileobj(stream, seekable)
            stream = cast(BinaryIO, seekable)
        table = parquet.ParquetFile(stream)
        names = table.schema_arrow.names
        if text_field not in names:
            raise ValueError(f"no column {text_field!r}; it has {', '.join(map(str, names[:20]))}")
        columns = [name for name in dict.fromkeys((text_field, license_field)) if name in names]
        for group in range(table.num_row_groups):
            if table.metadata.row_group(group).total_byte_size > ROW_GROUP_BYTES:
                yield Row(problem=f"a row group is larger than {ROW_GROUP_BYTES:,} bytes")
                continue
            for batch in table.iter_batches(batch_size=256, row_groups=[group], columns=columns):
                yield from (_parquet_row(row, text_field, license_field) for row in batch.to_pylist())


def _parquet_row(row: dict[str, Any], text_field: str, license_field: str) -> Row:
    if not isinstance(row[text_field], str):
        return Row(problem=f"no string in column {text_field!r} of a row")
    return _row(row[text_field], row.get(license_field))
