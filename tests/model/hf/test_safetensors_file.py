"""The safetensors reader and writer: the library's twin on good files, one sentence on every bad one."""

import json
import os
import random
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring import durable
from shoestring.errors import CheckpointError, StorageError
from shoestring.model.hf.safetensors_file import Entry, read_header, write_file

GOOD = {
    "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
    "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
    "empty": {"dtype": "F16", "shape": [0, 7], "data_offsets": [32, 32]},
}


def file_with(header: Any, data: bytes = bytes(32), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [8], "data_offsets": [0, 32]} | changes}


def test_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_with({"__metadata__": {"format": "pt"}} | GOOD))
    infos = read_header(path)
    start = path.stat().st_size - 32
    assert list(infos) == ["a", "b", "empty"]
    assert [(i.start - start, i.end - start) for i in infos.values()] == [(0, 24), (24, 32), (32, 32)]
    assert infos["b"].shape == (4,)
    assert str(infos["b"]) == "b in x.safetensors"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "0 bytes, fewer than"),
        (b"1234567", "7 bytes, fewer than"),
        (file_with(GOOD, length=10**6), "header claims 1000000 bytes"),
        (file_with(GOOD, length=2**64 - 1), "header claims 18446744073709551615 bytes"),
        (file_with(b'{"a":'), "not valid JSON"),
        (file_with(b"\xff\xfe"), "not valid JSON"),
        (file_with(b"[" * 100_000), "not valid JSON"),
        (file_with(b'{"a":' * 100_000), "not valid JSON"),
        (file_with(b'{"a": ' + b"9" * 10_000 + b"}"), "not valid JSON"),
        (file_with([1, 2]), "not a JSON object"),
        (file_with(b'{"a": 1, "a": 2}'), "a name appears twice"),
        (file_with({"a": 1}), "is not dtype, shape and data_offsets"),
        (file_with({"a": {"dtype": "F32"}}), "is not dtype, shape and data_offsets"),
        (file_with(entry(more=1)), "is not dtype, shape and data_offsets"),
        (file_with(entry(dtype="F31")), "unknown dtype 'F31'"),
        (file_with(entry(dtype=["F32"])), "unknown dtype"),
        (file_with(entry(shape="8")), "not lists of sizes"),
        (file_with(entry(shape=[True] * 8)), "not lists of sizes"),
        (file_with(entry(shape=[-8])), "not lists of sizes"),
        (file_with(entry(shape=[8.0])), "not lists of sizes"),
        (file_with(entry(shape=[2**63])), "not lists of sizes"),
        (file_with(entry(shape=[1] * 65)), "not lists of sizes"),
        (file_with(entry(shape=[2**62, 2**62])), "32 bytes, which is not F32 of shape"),
        (file_with(entry(shape=[7])), "32 bytes, which is not F32 of shape [7]"),
        (file_with(entry(data_offsets=[0])), "not lists of sizes"),
        (file_with(entry(data_offsets=[32, 0])), "-32 bytes, which is not F32"),
        (file_with(entry(), bytes(31)), "its tensors end at byte"),
        (file_with(entry(), bytes(33)), "its tensors end at byte"),
        (file_with(entry(data_offsets=[4, 36]), bytes(36)), "'a' leaves a hole before it"),
        (file_with(entry() | {"b": entry(shape=[4], data_offsets=[16, 32])["a"]}), "'b' overlaps"),
        (file_with({"\x1b[2J": entry()["a"]}), "unprintable tensor name"),
        (file_with(b'{"\\ud800": 1}'), "unprintable tensor name"),
    ],
)
def test_damaged_headers_are_named(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)
    str(caught.value).encode()  # printable on every terminal


def test_what_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot read .*No such file"):
        read_header(tmp_path / "absent.safetensors")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_header(tmp_path)
    os.mkfifo(tmp_path / "pipe.safetensors")  # opening it would wait for ever
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_header(tmp_path / "pipe.safetensors")


def test_thousands_of_damaged_files(tmp_path: Path) -> None:
    """Bit flips, cuts, insertions, repeats: a header or a CheckpointError, never slow, nothing else."""
    rng, path = random.Random(0), tmp_path / "x.safetensors"
    base, survivors, slowest = file_with(GOOD), 0, 0.0
    for _ in range(2_000):
        data = bytearray(base)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(data)) if rng.random() < 0.5 else min(rng.randrange(60), len(data) - 1)
            kind = rng.randrange(5)
            if kind == 0:
                data[place] ^= 1 << rng.randrange(8)
            elif kind == 1:
                data[place] = rng.choice(b'0123456789"{}[],:-eE.\\nutf\x00\xff')
            elif kind == 2:
                del data[place : place + rng.randint(1, 8)]
            elif kind == 3:
                data[place:place] = rng.choice([b"9", b"-", b"1e9", b'"a":', b"[", b"{", b"null", b"true"])
            else:
                data += data[place : place + 16]
            data = data or bytearray(b"\0")
        path.write_bytes(data)
        begin = time.process_time()
        try:
            infos = read_header(path)
        except CheckpointError:
            infos = {}
        slowest = max(slowest, time.process_time() - begin)
        survivors += bool(infos)
        assert all(0 < i.start <= i.end <= len(data) for i in infos.values())
    assert slowest < 10.0  # seconds: quadratic work would take minutes
    assert survivors < 1000  # damage in the data, or in names, is not the header's to find


@given(st.binary(max_size=200), st.integers(0, 250))
@settings(max_examples=200, deadline=None)
def test_arbitrary_bytes(tmp_path_factory: pytest.TempPathFactory, text: bytes, length: int) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.safetensors"
    path.write_bytes(file_with(text, b"", length=length))
    try:
        assert read_header(path) == {}  # only an empty header can fit
    except CheckpointError as error:
        assert str(path) in str(error)  # noqa: PT017 - either outcome is right


def test_a_large_header_is_quick(tmp_path: Path) -> None:
    """10,000 tensors, all of which overlap the first: more than any published shard holds."""
    one = {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_with({f"t{i}": one for i in range(10_000)}, bytes(1)))
    begin = time.process_time()
    with pytest.raises(CheckpointError):
        read_header(path)
    assert time.process_time() - begin < 10.0  # seconds: comparing all pairs would take minutes


def test_the_library_reads_what_we_write(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(3, dtype=np.float16)}
    entries = [
        Entry(name="b", dtype="F32", shape=(2, 3)),
        Entry(name="a", dtype="F16", shape=(3,)),
        Entry(name="none", dtype="F16", shape=(0, 2)),
    ]
    write_file(path, entries, [memoryview(arrays["b"]).cast("B"), memoryview(arrays["a"]).cast("B")])
    read = safetensors.numpy.load_file(path)
    assert set(read) == {"a", "b", "none"}
    assert all(np.array_equal(read[name], arrays[name]) for name in arrays)
    with safetensors.safe_open(path, "np") as file:
        assert file.metadata() == {"format": "pt"}
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]  # no temporary file is left


def test_we_read_what_the_library_writes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    arrays = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.arange(3, dtype=np.int64)}
    safetensors.numpy.save_file(arrays, path, metadata={"k": "v"})
    infos = read_header(path)
    data = path.read_bytes()
    for name, array in arrays.items():
        assert infos[name].shape == array.shape
        assert data[infos[name].start : infos[name].end] == array.tobytes()


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways it shows: the free space is too small, and the system says so while writing."""
    path = tmp_path / "x.safetensors"
    entries = [Entry(name="a", dtype="U8", shape=(100,))]
    usage = durable.shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(durable.shutil, "disk_usage", lambda _: usage._replace(free=50))
        with pytest.raises(
            StorageError, match=r"no room for .*x\.safetensors: about \d+ bytes needed, 50 free"
        ):
            write_file(path, entries, [memoryview(bytes(100))])

    def chunks() -> Any:
        yield memoryview(bytes(10))
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="no room"):
        write_file(path, entries, chunks())
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    write_file(path, [Entry(name="a", dtype="U8", shape=(2,))], [memoryview(b"ab")])
    before = path.read_bytes()

    def chunks() -> Any:
        yield memoryview(b"c")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(path, [Entry(name="a", dtype="U8", shape=(2,))], chunks())
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]
