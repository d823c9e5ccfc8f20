"""Writer of GGUF files: a header from metadata and tensor entries, then the tensors, chunk by chunk."""

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from shoestring.durable import write_stream
from shoestring.model.gguf.file import DEFAULT_ALIGNMENT, MAGIC
from shoestring.model.gguf.types import StorageType

VERSION = 3

_U32, _I32, _F32, _BOOL, _STRING, _ARRAY, _U64 = 4, 5, 6, 7, 8, 9, 10


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEntry:
    """Tensor to write; `shape` is in PyTorch's order."""

    name: str
    shape: tuple[int, ...]
    type: StorageType

    @property
    def num_bytes(self) -> int:
        return self.type.num_bytes(math.prod(self.shape))


def write_gguf(
    path: Path,
    metadata: Mapping[str, Any],
    entries: Sequence[TensorEntry],
    chunks: Iterable[Iterable[torch.Tensor]],
) -> None:
    """Write a file; `chunks` has, for each entry in order, its bytes (uint8) in pieces of any size.

    The file appears under its name only when it is complete and on the disk. Raises StorageError.
    """
    header = _header(metadata, entries)
    needed_bytes = len(header) + sum(_aligned_size(entry.num_bytes) for entry in entries)

    def write(file: BinaryIO) -> None:
        file.write(header)
        for entry, pieces in zip(entries, chunks, strict=True):
            size = 0
            for piece in pieces:
                size += file.write(piece.numpy().data)
            assert size == entry.num_bytes, f"{entry.name}: {size} of {entry.num_bytes} bytes"
            file.write(bytes(_aligned_size(size) - size))

    write_stream(path, write, needed_bytes=needed_bytes)


def _header(metadata: Mapping[str, Any], entries: Sequence[TensorEntry]) -> bytes:
    parts = [MAGIC, struct.pack("<IQQ", VERSION, len(entries), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _typed_value(value)]
    offset = 0
    for entry in entries:
        parts += [_text(entry.name), struct.pack("<I", len(entry.shape))]
        parts.append(struct.pack(f"<{len(entry.shape)}Q", *reversed(entry.shape)))
        parts.append(struct.pack("<IQ", entry.type.code, offset))
        offset += _aligned_size(entry.num_bytes)
    header = b"".join(parts)
    return header + bytes(_aligned_size(len(header)) - len(header))


def _typed_value(value: Any) -> bytes:
    """Bytes of a value after its type: uint32 or uint64, float32, lists of int32 or float32, ..."""
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _U32, value) if value < 2**32 else struct.pack("<IQ", _U64, value)
    if isinstance(value, float):
        return struct.pack("<If", _F32, value)
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if all(isinstance(item, str) for item in value):
        return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + b"".join(map(_text, value))
    if any(isinstance(item, float | np.floating) for item in value):
        return struct.pack(f"<IIQ{len(value)}f", _ARRAY, _F32, len(value), *value)
    return struct.pack(f"<IIQ{len(value)}i", _ARRAY, _I32, len(value), *value)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _aligned_size(size: int) -> int:
    return -(-size // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT
