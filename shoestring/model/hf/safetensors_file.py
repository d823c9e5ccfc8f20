"""One safetensors file: checks of an untrusted header, reading of tensors in place, atomic writing.

The format is eight bytes of header length, a JSON header, and the tensors' bytes. The file is read directly
and not mapped, for three reasons: a damaged header never reaches native code, a file that is cut short while
it is read gives an error message and not a bus error, and the bytes go straight into the parameter.
"""

import json
import math
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from shoestring.durable import write_stream
from shoestring.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors specification."""

DTYPE_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One tensor to write."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def item_bytes(self) -> int:
        return DTYPE_BYTES[self.dtype]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.item_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor of a file; `start` and `end` are byte positions."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.name} in {self.path.name}"


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file by name, in the file's order.

    Raises CheckpointError for a file that is missing, truncated, or whose header breaks the specification:
    lengths beyond the file, unknown dtypes, sizes that disagree, overlaps, holes, duplicate names.
    """
    size = file_size(path)
    if size < 8:
        raise _damaged(path, f"it has {size} bytes, fewer than a safetensors header")
    with _open(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise _damaged(path, f"its header claims {length} bytes, and the file has {size}")
        header = _parse(path, file.read(length))
    data_start = 8 + length
    header.pop("__metadata__", None)
    tensors = [_tensor_info(path, name, entry, data_start) for name, entry in header.items()]
    tensors.sort(key=lambda info: (info.start, info.end))
    _check_layout(path, tensors, data_start, size)
    return {info.name: info for info in tensors}


def read_into(file: FileIO, target: memoryview, position: int, info: TensorInfo) -> None:
    """Fill `target` (bytes) from `position` of an unbuffered file."""
    file.seek(position)
    bytes_read = 0
    while bytes_read < len(target):  # one read call returns at most 2 GiB on Linux
        count = file.readinto(target[bytes_read:])
        if not count:
            raise _damaged(info.path, f"the file ends inside {info.name}")
        bytes_read += count


def write_file(path: Path, entries: Iterable[Entry], chunks: Iterable[memoryview]) -> None:
    """Write tensors in order; `chunks` are their bytes, back to back, in pieces of any size.

    The file appears under its name only when it is complete and on the disk. Raises StorageError.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers refuses files without it
    position = 0
    for entry in entries:
        end = position + entry.num_bytes
        header[entry.name] = {"dtype": entry.dtype, "shape": entry.shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the data starts on a multiple of 8 bytes

    def write(file: BinaryIO) -> None:
        file.write(len(text).to_bytes(8, "little") + text)
        for chunk in chunks:
            file.write(chunk)

    write_stream(path, write, needed_bytes=8 + len(text) + position)


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None


def file_size(path: Path) -> int:
    """Size of a file in bytes. Raises CheckpointError for one that is missing or not a regular file."""
    try:
        status = path.stat()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise CheckpointError(f"{path} is not a regular file")
    return status.st_size


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    def without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("a name appears twice")
        return result

    try:
        header = json.loads(text.decode(), object_pairs_hook=without_duplicates)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"its header is not valid JSON ({error})") from None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    return header


def _tensor_info(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    label = name[:200]
    if not name.isprintable():  # it will stand in messages: no control sequences, no half characters
        raise _damaged(path, f"it holds the unprintable tensor name {label!r}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"the entry of {label!r} is not dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BYTES:
        raise _damaged(path, f"{label!r} has the unknown dtype {str(dtype)[:40]!r}")
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2:
        raise _damaged(path, f"{label!r} has a shape or data_offsets that are not lists of sizes")
    start, end = offsets
    if end - start != math.prod(shape) * DTYPE_BYTES[dtype]:
        raise _damaged(path, f"{label!r} says {end - start} bytes, which is not {dtype} of shape {shape}")
    return TensorInfo(
        path=path, name=name, dtype=dtype, shape=tuple(shape), start=data_start + start, end=data_start + end
    )


def _sizes(value: Any) -> bool:
    """Return whether `value` is a short list of counts below 2**63 (True and False are not counts)."""
    return (
        isinstance(value, list) and len(value) <= 64 and all(type(n) is int and 0 <= n < 2**63 for n in value)
    )


def _check_layout(path: Path, tensors: list[TensorInfo], data_start: int, size: int) -> None:
    position = data_start
    for info in tensors:
        if info.start != position:
            kind = "overlaps the tensor before it" if info.start < position else "leaves a hole before it"
            raise _damaged(path, f"{info.name[:200]!r} {kind}")
        position = info.end
    if position != size:
        raise _damaged(path, f"its tensors end at byte {position} and the file at {size}")


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {what}; download or copy the file again")
