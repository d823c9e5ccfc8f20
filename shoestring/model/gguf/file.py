"""One GGUF file: its header is checked as a stranger's before anything in it is used, then read row by row.

The format (version 3): magic, version, counts; keys with typed values; tensor names, shapes, types and
offsets; padding; the tensors. Readers of it were attacked through each of these numbers, so none of them
reaches an allocation or a seek before it was compared with the file's size or a fixed limit.
"""

import math
import stat
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from shoestring.errors import CheckpointError
from shoestring.model.gguf.types import TYPES, StorageType

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_HEADER_BYTES = 100_000_000
MAX_ENTRIES = 1 << 16
"""Keys, and tensors: DeepSeek-V3 has about sixty keys and 1,100 tensors."""
MAX_ITEMS = 2_000_000
"""Array elements in the whole header: the tokens, types and merges of the largest vocabularies."""
MAX_NAME_BYTES = 63
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 1 << 16

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "<u1", 1: "<i1", 2: "<u2", 3: "<i2", 4: "<u4", 5: "<i4",
    6: "<f4", 7: "?", 10: "<u8", 11: "<i8", 12: "<f8",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUFTensor:
    """Where one tensor lies; `shape` is in PyTorch's order (rows last but one, row elements last)."""

    path: Path
    name: str
    shape: tuple[int, ...]
    type: StorageType
    start: int

    @property
    def row_bytes(self) -> int:
        return self.shape[-1] // self.type.block * self.type.block_bytes

    @property
    def num_rows(self) -> int:
        return math.prod(self.shape[:-1])

    @property
    def end(self) -> int:
        return self.start + self.num_rows * self.row_bytes

    def __str__(self) -> str:
        return f"{self.name} in {self.path.name}"


@dataclass(frozen=True, kw_only=True)
class GGUFFile:
    """A checked header: metadata by key, and tensors by name.

    Values are str, bool, int, float, a list of str, or a numpy array of numbers.
    """

    path: Path
    num_bytes: int
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]

    @classmethod
    def open(cls, path: str | Path) -> "GGUFFile":
        """Read the header of `path`; no tensor is read, and little more than the header's size is allocated.

        Raises CheckpointError for a file that is missing, cut short, or breaks the format anywhere.
        """
        path = Path(path)
        size = _file_size(path)
        with _open(path) as file:
            cursor = _Cursor(path, file, min(size, MAX_HEADER_BYTES))
            if cursor.take(4, "the magic number") != MAGIC:
                raise CheckpointError(f"{path} is not a GGUF file: it does not begin with 'GGUF'")
            _check_version(path, cursor.count("<u4"))
            num_tensors, num_keys = cursor.count("<u8"), cursor.count("<u8")
            if max(num_tensors, num_keys) > MAX_ENTRIES:
                raise damaged(
                    path, f"it claims {num_tensors} tensors and {num_keys} keys, more than {MAX_ENTRIES}"
                )
            metadata = _read_metadata(cursor, num_keys)
            infos = [_read_tensor_info(cursor) for _ in range(num_tensors)]
        tensors = _place(path, infos, cursor.position, _alignment(path, metadata))
        _check_layout(path, tensors, size)
        by_name = {tensor.name: tensor for tensor in tensors}
        if len(by_name) != len(tensors):
            raise damaged(path, "a tensor name appears twice")
        return cls(path=path, num_bytes=size, metadata=metadata, tensors=by_name)


def read_rows(file: FileIO, tensor: GGUFTensor, first: int, last: int) -> np.ndarray:
    """The stored bytes of rows `first` to `last`: uint8 (rows, row_bytes)."""
    raw = np.empty((last - first, tensor.row_bytes), dtype=np.uint8)
    view, done = raw.reshape(-1).data, 0
    file.seek(tensor.start + first * tensor.row_bytes)
    while done < len(view):  # one call returns at most 2 GiB on Linux
        count = file.readinto(view[done:])
        if not count:
            raise damaged(tensor.path, f"the file ends inside {tensor.name}")
        done += count
    return raw


def damaged(path: Path, what: str) -> CheckpointError:
    """The error for a file that breaks the format."""
    return CheckpointError(f"{path} is damaged: {what}; download or copy the file again")


class _Cursor:
    """Reads a header from its beginning; never past `limit`, and never more than is there."""

    def __init__(self, path: Path, file: BinaryIO, limit: int) -> None:
        self.path, self.position, self.items = path, 0, 0
        self._file, self._limit = file, limit

    @property
    def left(self) -> int:
        return self._limit - self.position

    def take(self, length: int, what: str) -> bytes:
        if length > self.left:
            raise damaged(self.path, f"{what} reaches past the end of the file or of the longest header")
        data = self._file.read(length)
        if len(data) != length:
            raise damaged(self.path, f"the file ends inside {what}")
        self.position += length
        return data

    def count(self, kind: str) -> int:
        """An unsigned number: "<u4" or "<u8"."""
        return int.from_bytes(self.take(int(kind[2]), "a number of the header"), "little")

    def text(self, what: str, most: int | None = None) -> str:
        length = self.count("<u8")
        if most is not None and length > most:
            raise damaged(self.path, f"{what} has {length} bytes, more than {most}")
        try:
            return self.take(length, what).decode()
        except UnicodeDecodeError:
            raise damaged(self.path, f"{what} is not UTF-8") from None

    def value(self, kind: int, what: str) -> Any:
        if kind == _STRING:
            return self.text(what)
        if kind == _ARRAY:
            return self._array(what)
        return self._numbers(kind, 1, what)[0].item()

    def _array(self, what: str) -> Any:
        kind, length = self.count("<u4"), self.count("<u8")
        self.items += length
        if self.items > MAX_ITEMS:
            raise damaged(self.path, f"{what} claims {length} elements; all arrays may have {MAX_ITEMS}")
        if kind == _STRING:
            return [self.text(what) for _ in range(length)]
        return self._numbers(kind, length, what)

    def _numbers(self, kind: int, length: int, what: str) -> np.ndarray:
        if kind not in _SCALARS:
            raise damaged(self.path, f"{what} has the unknown value type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        raw = np.frombuffer(self.take(length * dtype.itemsize, what), dtype=np.uint8)
        return raw.view(dtype) if dtype.kind != "b" else raw != 0


def _read_metadata(cursor: _Cursor, num_keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = cursor.text("a key", 1 << 10)
        if not key.isprintable() or not key or key in metadata:  # it will stand in messages
            raise damaged(cursor.path, f"the key {key[:100]!r} is empty, unprintable or appears twice")
        metadata[key] = cursor.value(cursor.count("<u4"), f"the value of {key[:100]!r}")
    return metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class _Info:
    name: str
    shape: tuple[int, ...]
    type: StorageType
    offset: int


def _read_tensor_info(cursor: _Cursor) -> _Info:
    name = cursor.text("a tensor name", MAX_NAME_BYTES)
    if not name or not name.isprintable():
        raise damaged(cursor.path, f"it holds the unprintable tensor name {name!r}")
    dimensions = cursor.count("<u4")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise damaged(cursor.path, f"{name} has {dimensions} dimensions")
    shape = tuple(cursor.count("<u8") for _ in range(dimensions))[::-1]
    code, offset = cursor.count("<u4"), cursor.count("<u8")
    if code not in TYPES:
        known = ", ".join(kind.name for kind in TYPES.values())
        raise CheckpointError(f"{cursor.path}: {name} is of GGML type {code}; read are {known}")
    kind = TYPES[code]
    if min(shape) < 1 or math.prod(shape) >= 2**63 or shape[-1] % kind.block:
        raise damaged(cursor.path, f"{name} has the shape {list(shape)}, which {kind.name} cannot have")
    return _Info(name=name, shape=shape, type=kind, offset=offset)


def _alignment(path: Path, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise damaged(path, f"general.alignment is {str(alignment)[:40]}, not a power of two")
    return alignment


def _place(path: Path, infos: list[_Info], header_end: int, alignment: int) -> list[GGUFTensor]:
    data_start = -(-header_end // alignment) * alignment
    for info in infos:
        if info.offset % alignment:
            raise damaged(path, f"{info.name} starts at {info.offset}, no multiple of {alignment}")
    return [
        GGUFTensor(
            path=path, name=info.name, shape=info.shape, type=info.type, start=data_start + info.offset
        )
        for info in infos
    ]


def _check_layout(path: Path, tensors: list[GGUFTensor], size: int) -> None:
    position = 0
    for tensor in sorted(tensors, key=lambda tensor: tensor.start):
        if tensor.start < position:
            raise damaged(path, f"{tensor.name} overlaps the tensor before it")
        position = tensor.end
        if position > size:
            raise damaged(path, f"{tensor.name} ends at byte {position} and the file at {size}")


def _check_version(path: Path, version: int) -> None:
    if version in VERSIONS:
        return
    if version & 0xFFFF == 0:
        raise CheckpointError(f"{path} is a big-endian GGUF; convert it on the machine that wrote it")
    raise CheckpointError(f"{path} is of GGUF version {version}; versions 2 and 3 are read")


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=1 << 20)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None


def _file_size(path: Path) -> int:
    try:
        status = path.stat()
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
    if not stat.S_ISREG(status.st_mode):  # opening a named pipe would wait for ever
        raise CheckpointError(f"{path} is not a regular file")
    return status.st_size
