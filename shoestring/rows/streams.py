"""The bytes of a file, also of one that is compressed: gz and zst, with a limit to what they expand to."""

import gzip
import io
import shutil
import tempfile
from pathlib import Path
from typing import IO, Any

from shoestring.rows.arrow import open_zst

COMPRESSIONS = (".gz", ".zst")
EXPANSION_RATIO = 100
EXPANSION_SLACK_BYTES = 16 << 20
"""A compressed file may expand to EXPANSION_RATIO times its size and so many bytes more."""


def file_type(name: str) -> str:
    """Suffix in lower case without that of a compression: `.jsonl` for `a.jsonl` and for `a.JSONL.gz`."""
    lower = name.lower()
    for suffix in COMPRESSIONS:
        lower = lower.removesuffix(suffix)
    return Path(lower).suffix


def open_stream(path: Path) -> io.BufferedReader:
    """Open the content of a file for reading, decompressed.

    Raises OSError for a file that cannot be opened and, while it is read, for one that is damaged or that
    expands too far; MissingDependencyError for zst without pyarrow.
    """
    compression = path.suffix.lower()
    if compression not in COMPRESSIONS:
        return open(path, "rb")
    limit = EXPANSION_SLACK_BYTES + EXPANSION_RATIO * path.stat().st_size
    stream: Any = gzip.GzipFile(path) if compression == ".gz" else open_zst(path)
    return io.BufferedReader(_Limited(stream, limit), 1 << 16)


def seekable(stream: io.BufferedReader) -> IO[bytes]:
    """The stream itself, or for a compressed one a temporary file with its content."""
    if stream.seekable():
        return stream
    copy = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the caller)
    shutil.copyfileobj(stream, copy)
    copy.seek(0)
    return copy


class _Limited(io.RawIOBase):
    """A decompressed stream that stops with OSError once it has expanded too far."""

    def __init__(self, stream: Any, limit: int) -> None:
        self.stream, self.limit, self.bytes_left = stream, limit, limit

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = int(self.stream.readinto(buffer))
        self.bytes_left -= count
        if self.bytes_left < 0:
            raise OSError(f"it expands to more than {self.limit:,} bytes")
        return count

    def close(self) -> None:
        self.stream.close()
        super().close()
