"""Reader of GGUF files: the whole header is checked before use, then tensors are read row by row.

The format (version 3): magic, version, counts; keys with typed values; tensor names, shapes, types and
offsets; padding; the tensors. Each of these numbers has been used to attack programs that read such files,
so each is compared with the file size or a fixed limit before an allocation or a seek depends on it.
"""

import math
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from shoestring.errors import CheckpointError
from shoestring.model.gguf.types import TYPES, StorageType
from shoestring.model.hf.safetensors_file import file_size

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_HEADER_BYTES = 100_000_000
MAX_ENTRIES = 1 << 16
"""Most keys, and most tensors: DeepSeek-V3 has about sixty keys and 1,100 tensors."""
MAX_ITEMS = 2_000_000
"""Most array elements in the header: enough for tokens, types and merges of the largest vocabularies."""
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
    """Location of one tensor in a file; `shape` is in PyTorch's order: the last number is a row's length."""

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
    """Header of a GGUF file, checked: metadata by key, and tensors by name.

    Values are str, bool, int, float, a list of str, or a numpy array of numbers.
    """

    path: Path
    num_bytes: int
    metadata: dict[str, Any]
    tensors: dict[str, GGUFTensor]

    @classmethod
    def open(cls, path: str | Path) -> "GGUFFile":
        """Read the header of `path`, with little more memory than its size; no tensor is read.

        Raises CheckpointError for a file that is missing, incomplete or against the format.
        """
        path = Path(path)
        size = file_size(path)
        with _open(path) as file:
            cursor = _Cursor(path, file, min(size, MAX_HEADER_BYTES))
            if cursor.read(4, "the magic number") != MAGIC:
                raise CheckpointError(f"{path} is not a GGUF file: it does not begin with 'GGUF'")
            _check_version(path, cursor.count("<u4"))
            num_tensors, num_keys = cursor.count("<u8"), cursor.count("<u8")
            if max(num_tensors, num_keys) > MAX_ENTRIES:
                raise format_error(
                    path, f"it has {num_tensors} tensors and {num_keys} keys, more than {MAX_ENTRIES}"
                )
            metadata = _read_metadata(cursor, num_keys)
            infos = [_read_tensor_info(cursor) for _ in range(num_tensors)]
        tensors = _place(path, infos, cursor.position, _alignment(path, metadata))
        _check_layout(path, tensors, size)
        by_name = {tensor.name: tensor for tensor in tensors}
        if len(by_name) != len(tensors):
            raise format_error(path, "a tensor name appears twice")
        return cls(path=path, num_bytes=size, metadata=metadata, tensors=by_name)


def read_rows(file: FileIO, tensor: GGUFTensor, first: int, last: int) -> np.ndarray:
    """Read the bytes of rows `first` to `last` (without `last`): uint8 (rows, row_bytes)."""
    raw = np.empty((last - first, tensor.row_bytes), dtype=np.uint8)
    view, position = raw.reshape(-1).data, 0
    file.seek(tensor.start + first * tensor.row_bytes)
    while position < len(view):  # one call returns at most 2 GiB on Linux
        count = file.readinto(view[position:])
        if not count:
            raise format_error(tensor.path, f"the file ends inside {tensor.name}")
        position += count
    return raw


def format_error(path: Path, reason: str) -> CheckpointError:
    """Error for a file that is against the format."""
    return CheckpointError(f"{path} is damaged: {reason}; download or copy the file again")


class _Cursor:
    """Reads a header from its beginning, and never past `limit` or the end of the file."""

    def __init__(self, path: Path, file: BinaryIO, limit: int) -> None:
        self.path, self.position, self.items = path, 0, 0
        self._file, self._limit = file, limit

    def read(self, length: int, name: str) -> bytes:
        if length > self._limit - self.position:
            raise format_error(self.path, f"{name} reaches past the end of the file or of the longest header")
        data = self._file.read(length)
        if len(data) != length:
            raise format_error(self.path, f"the file ends inside {name}")
        self.position += length
        return data

    def count(self, kind: str) -> int:
        """Read an unsigned number: "<u4" or "<u8"."""
        return int.from_bytes(self.read(int(kind[2]), "a number of the header"), "little")

    def text(self, name: str, most: int | None = None) -> str:
        length = self.count("<u8")
        if most is not None and length > most:
            raise format_error(self.path, f"{name} has {length} bytes, more than {most}")
        try:
            return self.read(length, name).decode()
        except UnicodeDecodeError:
            raise format_error(self.path, f"{name} is not UTF-8") from None

    def value(self, kind: int, name: str) -> Any:
        if kind == _STRING:
            return self.text(name)
        if kind == _ARRAY:
            return self._array(name)
        return self._numbers(kind, 1, name)[0].item()

    def _array(self, name: str) -> Any:
        kind, length = self.count("<u4"), self.count("<u8")
        self.items += length
        if self.items > MAX_ITEMS:
            raise format_error(
                self.path,
                f"{name} has {length} elements; all arrays together may have {MAX_ITEMS}",
            )
        if kind == _STRING:
            return [self.text(name) for _ in range(length)]
        return self._numbers(kind, length, name)

    def _numbers(self, kind: int, length: int, name: str) -> np.ndarray:
        if kind not in _SCALARS:
            raise format_error(self.path, f"{name} has the unknown value type {kind}")
        dtype = np.dtype(_SCALARS[kind])
        raw = np.frombuffer(self.read(length * dtype.itemsize, name), dtype=np.uint8)
        return raw.view(dtype) if dtype.kind != "b" else raw != 0


def _read_metadata(cursor: _Cursor, num_keys: int) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for _ in range(num_keys):
        key = cursor.text("a key", 1 << 10)
        if not key.isprintable() or not key or key in metadata:  # it appears in messages
            raise format_error(cursor.path, f"the key {key[:100]!r} is empty, unprintable or appears twice")
        metadata[key] = cursor.value(cursor.count("<u4"), f"the value of {key[:100]!r}")
    return metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class _TensorInfo:
    name: str
    shape: tuple[int, ...]
    type: StorageType
    offset: int


def _read_tensor_info(cursor: _Cursor) -> _TensorInfo:
    name = cursor.text("a tensor name", MAX_NAME_BYTES)
    if not name or not name.isprintable():
        raise format_error(cursor.path, f"it has the unprintable tensor name {name!r}")
    dimensions = cursor.count("<u4")
    if not 1 <= dimensions <= MAX_DIMENSIONS:
        raise format_error(cursor.path, f"{name} has {dimensions} dimensions")
    shape = tuple(cursor.count("<u8") for _ in range(dimensions))[::-1]
    code, offset = cursor.count("<u4"), cursor.count("<u8")
    if code not in TYPES:
        names = ", ".join(kind.name for kind in TYPES.values())
        raise CheckpointError(f"{cursor.path}: {name} is of GGML type {code}; supported are {names}")
    kind = TYPES[code]
    if min(shape) < 1 or math.prod(shape) >= 2**63 or shape[-1] % kind.block:
        raise format_error(cursor.path, f"{name} has the shape {list(shape)}, which {kind.name} cannot have")
    return _TensorInfo(name=name, shape=shape, type=kind, offset=offset)


def _alignment(path: Path, metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 1 <= alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise format_error(path, f"general.alignment is {str(alignment)[:40]}, not a power of two")
    return alignment


def _place(path: Path, infos: list[_TensorInfo], header_end: int, alignment: int) -> list[GGUFTensor]:
    data_start = -(-header_end // alignment) * alignment
    for info in infos:
        if info.offset % alignment:
            raise format_error(
                path, f"{info.name} starts at {info.offset}, which is not a multiple of {alignment}"
            )
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
            raise format_error(path, f"{tensor.name} overlaps the tensor before it")
        position = tensor.end
        if position > size:
            raise format_error(path, f"{tensor.name} ends at byte {position} and the file at {size}")


def _check_version(path: Path, version: int) -> None:
    if version in VERSIONS:
        return
    if version & 0xFFFF == 0:
        raise CheckpointError(f"{path} is a big-endian GGUF; convert it on the machine that wrote it")
    raise CheckpointError(f"{path} is of GGUF version {version}; versions 2 and 3 are supported")


def _open(path: Path) -> BinaryIO:
    try:
        return path.open("rb", buffering=1 << 20)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror}") from None
