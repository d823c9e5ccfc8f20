"""What we write, the gguf library's own reader reads back."""

import numpy as np
import pytest
import torch

from shoestring.errors import StorageError
from shoestring.model.gguf.quants import quantize
from shoestring.model.gguf.types import BF16, F32, Q8_0
from shoestring.model.gguf.writer import TensorEntry, write_gguf

gguf = pytest.importorskip("gguf")

METADATA = {
    "general.architecture": "llama",
    "a.count": 7,
    "a.large": 2**40,
    "a.number": 0.25,
    "a.flag": True,
    "a.texts": ["x", "ü", ""],
    "a.ids": [1, -2, 3],
    "a.scores": [0.5, -1.0],
}


def test_the_library_reads_values_and_tensors(tmp_path):
    a, b = torch.randn(3, 64), torch.randn(2, 3, 5)
    entries = [
        TensorEntry(name="a", shape=(3, 64), type=Q8_0),
        TensorEntry(name="b", shape=(2, 3, 5), type=F32),
        TensorEntry(name="c", shape=(5,), type=BF16),
    ]
    chunks = [
        [quantize(a[:1], Q8_0, "a"), quantize(a[1:], Q8_0, "a")],
        [quantize(b[0], F32, "b"), quantize(b[1], F32, "b")],
        [quantize(torch.ones(1, 5), BF16, "c")],
    ]
    write_gguf(tmp_path / "m.gguf", METADATA, entries, chunks)
    reader = gguf.GGUFReader(tmp_path / "m.gguf")
    read = {key: field.contents() for key, field in reader.fields.items() if not key.startswith("GGUF.")}
    assert read == METADATA
    found = {t.name: t for t in reader.tensors}
    assert found["a"].tensor_type == gguf.GGMLQuantizationType.Q8_0
    assert np.array_equal(found["a"].data.ravel(), quantize(a, Q8_0, "a").numpy())
    assert np.array_equal(found["b"].data, b.numpy())
    assert found["b"].shape.tolist() == [5, 3, 2]  # GGUF counts dimensions from the last
    assert found["c"].data.view(np.uint16).tolist() == [0x3F80] * 5


def test_an_error_half_way_leaves_nothing(tmp_path):
    def broken():
        yield torch.zeros(8, dtype=torch.uint8)
        raise KeyboardInterrupt

    (tmp_path / "m.gguf").write_bytes(b"older")
    with pytest.raises(KeyboardInterrupt):
        write_gguf(tmp_path / "m.gguf", {}, [TensorEntry(name="a", shape=(8,), type=F32)], [broken()])
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]
    assert (tmp_path / "m.gguf").read_bytes() == b"older"


def test_a_full_disk_is_told_before_anything_is_written(tmp_path):
    entry = TensorEntry(name="a", shape=(2**50,), type=F32)
    with pytest.raises(StorageError, match="no room for"):
        write_gguf(tmp_path / "m.gguf", {}, [entry], [[]])
    assert not list(tmp_path.iterdir())
