"""The header's reader against valid files, and against every number a stranger can write into one."""

import os
import random
import struct
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from shoestring.errors import CheckpointError
from shoestring.model.gguf.file import MAX_ENTRIES, MAX_ITEMS, GGUFFile, read_rows
from shoestring.model.gguf.quants import quantize
from shoestring.model.gguf.types import F32, Q8_0
from shoestring.model.gguf.writer import TensorEntry, write_gguf


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def key(name: str, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def tensor(name: str, shape: list[int], code: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, code, offset)


def whole(keys: list[bytes], tensors: list[bytes], data: int = 64, version: int = 3) -> bytes:
    header = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)) + b"".join(keys + tensors)
    return header + bytes(-len(header) % 32) + bytes(data)


@pytest.fixture
def opened(tmp_path):
    def open_bytes(content: bytes) -> GGUFFile:
        (tmp_path / "m.gguf").write_bytes(content)
        return GGUFFile.open(tmp_path / "m.gguf")

    return open_bytes


def test_a_valid_file_is_read(tmp_path):
    rows = torch.randn(4, 64)
    entries = [
        TensorEntry(name="q", shape=(2, 2, 64), type=Q8_0),
        TensorEntry(name="v", shape=(64,), type=F32),
    ]
    write_gguf(
        tmp_path / "m.gguf",
        {
            "general.architecture": "llama",
            "a.list": ["x", "y"],
            "a.ids": [3, 4],
            "a.big": 2**33,
            "a.yes": True,
        },
        entries,
        [[quantize(rows, Q8_0, "q")], [quantize(rows[:1], F32, "v")]],
    )
    file = GGUFFile.open(tmp_path / "m.gguf")
    assert file.metadata["a.list"] == ["x", "y"]
    assert file.metadata["a.ids"].tolist() == [3, 4]
    assert (file.metadata["a.big"], file.metadata["a.yes"]) == (2**33, True)
    assert file.num_bytes == (tmp_path / "m.gguf").stat().st_size
    q = file.tensors["q"]
    assert (q.shape, q.num_rows, q.row_bytes, q.type) == ((2, 2, 64), 4, 68, Q8_0)
    with (tmp_path / "m.gguf").open("rb", buffering=0) as raw:
        assert np.array_equal(read_rows(raw, q, 1, 3), quantize(rows[1:3], Q8_0, "q").numpy().reshape(2, 68))


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions_and_any_alignment_are_read(opened, version):
    alignment = key("general.alignment", 4, struct.pack("<I", 8))
    content = b"GGUF" + struct.pack("<IQQ", version, 1, 1) + alignment + tensor("t", [2])
    file = opened(content + bytes(-len(content) % 8) + bytes(8))
    assert file.tensors["t"].start % 8 == 0


GOOD = tensor("t", [4, 4])
REFUSED = {
    "empty": (b"", "reaches past the end"),
    "not gguf": (b"GGML" + bytes(40), "does not begin with 'GGUF'"),
    "version": (whole([], [GOOD], version=1), "of GGUF version 1"),
    "big endian": (whole([], [GOOD], version=3 << 24), "big-endian"),
    "tensor count": (b"GGUF" + struct.pack("<IQQ", 3, 2**63, 0), f"more than {MAX_ENTRIES}"),
    "key count": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), f"more than {MAX_ENTRIES}"),
    "missing keys": (b"GGUF" + struct.pack("<IQQ", 3, 0, 9), "past the end"),
    "key length": (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**62), "more than 1024"),
    "text length": (whole([text("k") + struct.pack("<IQ", 8, 2**62)], []), "past the end"),
    "array length": (whole([text("k") + struct.pack("<IIQ", 9, 0, 2**62)], []), f"may have {MAX_ITEMS}"),
    "array of arrays": (whole([text("k") + struct.pack("<IIQ", 9, 9, 1)], []), "unknown value type 9"),
    "array beyond the file": (whole([text("k") + struct.pack("<IIQ", 9, 12, 10**6)], []), "past the end"),
    "many arrays": (
        whole([key(f"k{n}", 9, struct.pack("<IQ", 0, 10**6) + bytes(10**6)) for n in range(3)], []),
        f"may have {MAX_ITEMS}",
    ),
    "value type": (whole([key("k", 77, b"")], []), "unknown value type 77"),
    "key twice": (whole([key("k", 7, b"\1"), key("k", 7, b"\1")], []), "appears twice"),
    "key with escapes": (whole([key("k\x1b[2J", 7, b"\1")], []), "unprintable"),
    "not utf-8": (whole([struct.pack("<Q", 2) + b"\xff\xfe" + bytes(5)], []), "not UTF-8"),
    "alignment 0": (whole([key("general.alignment", 4, struct.pack("<I", 0))], [GOOD]), "not a power of two"),
    "alignment 3": (whole([key("general.alignment", 4, struct.pack("<I", 3))], [GOOD]), "not a power of two"),
    "alignment text": (whole([key("general.alignment", 8, text("x"))], [GOOD]), "not a power of two"),
    "tensor name": (whole([], [tensor("t" * 64, [4])]), "64 bytes, more than 63"),
    "tensor twice": (whole([], [GOOD, tensor("t", [4], offset=64)], 128), "appears twice"),
    "no dimensions": (whole([], [text("t") + struct.pack("<IIQ", 0, 0, 0)]), "has 0 dimensions"),
    "many dimensions": (whole([], [text("t") + struct.pack("<I", 2**31)]), "dimensions"),
    "a dimension of 0": (whole([], [tensor("t", [4, 0])]), "cannot have"),
    "overflowing shape": (whole([], [tensor("t", [2**32, 2**32])]), "cannot have"),
    "type": (whole([], [tensor("t", [4], code=99)]), "of GGML type 99"),
    "cut block": (whole([], [tensor("t", [33], code=8)]), r"shape \[33\], which Q8_0 cannot have"),
    "unaligned": (whole([], [tensor("t", [4], offset=3)]), "not a multiple of 32"),
    "beyond the file": (whole([], [tensor("t", [4, 5])]), "and the file at"),
    "far beyond": (whole([], [tensor("t", [4], offset=2**63)]), "and the file at"),
    "overlap": (whole([], [GOOD, tensor("u", [4], offset=32)]), "overlaps"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_breaks_the_format_is_refused_in_one_sentence(opened, case):
    content, words = REFUSED[case]
    with pytest.raises(CheckpointError, match=words) as caught:
        opened(content)
    assert "\n" not in str(caught.value)
    assert "m.gguf" in str(caught.value)


def test_claims_allocate_nothing(opened):
    claims = [
        REFUSED[case][0] for case in ("tensor count", "text length", "array length", "array beyond the file")
    ]
    tracemalloc.start()
    for content in claims:
        with pytest.raises(CheckpointError):
            opened(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20  # the read buffer


def test_a_file_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="cannot read"):
        GGUFFile.open(tmp_path / "none.gguf")
    with pytest.raises(CheckpointError, match="not a regular file"):
        GGUFFile.open(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="not a regular file"):
        GGUFFile.open(tmp_path / "pipe")


def test_a_file_cut_short_while_it_is_read_is_a_sentence(opened, tmp_path):
    file = opened(whole([], [GOOD]))
    os.truncate(tmp_path / "m.gguf", file.num_bytes - 16)
    with (
        (tmp_path / "m.gguf").open("rb", buffering=0) as raw,
        pytest.raises(CheckpointError, match="ends inside t"),
    ):
        read_rows(raw, file.tensors["t"], 0, 4)


def outcome(read: Callable[[], GGUFFile]) -> str:
    try:
        file = read()
    except CheckpointError as error:
        return "refused" if str(error).isprintable() else f"unprintable: {error!r}"
    return "read" if all(t.end <= file.num_bytes for t in file.tensors.values()) else "beyond the end"


def test_random_damage_is_refused_or_read(opened):
    """Never another exception, whatever byte is wrong and wherever the file ends."""
    keys = [key("general.architecture", 8, text("llama")), key("n", 9, struct.pack("<IQII", 4, 2, 5, 6))]
    content = whole([*keys, key("f", 6, bytes(4))], [GOOD, tensor("q", [32, 2], code=8, offset=64)], 64 + 68)
    chance = random.Random(0)
    outcomes = set()
    for _ in range(1500):
        broken = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            broken[chance.randrange(len(content) - 132)] = chance.choice(
                [0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)]
            )
        if chance.random() < 0.3:
            del broken[chance.randrange(len(broken)) :]
        outcomes.add(outcome(partial(opened, bytes(broken))))
    assert outcomes == {"read", "refused"}


def test_the_path_may_be_text(tmp_path):
    (tmp_path / "m.gguf").write_bytes(whole([], [GOOD]))
    assert GGUFFile.open(str(tmp_path / "m.gguf")).path == Path(tmp_path / "m.gguf")
