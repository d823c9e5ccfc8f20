"""Quantization bit for bit against the gguf library, an independent implementation."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as np_st

from shoestring.errors import CheckpointError, MissingDependencyError
from shoestring.model.gguf.quants import dequantize, quantize
from shoestring.model.gguf.types import BF16, F16, F32, Q4_0, Q8_0, TYPES, StorageType

gguf = pytest.importorskip("gguf")
WRITTEN = (F32, BF16, Q8_0, Q4_0)


def library_bytes(rows: np.ndarray, kind: StorageType) -> np.ndarray:
    return gguf.quants.quantize(rows, gguf.GGMLQuantizationType(kind.code)).view(np.uint8).ravel()


def test_block_sizes_are_the_librarys():
    for kind in TYPES.values():
        number = gguf.GGMLQuantizationType[kind.name]
        assert (number, *gguf.GGML_QUANT_SIZES[number]) == (kind.code, kind.block, kind.block_bytes)


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.name)
def test_random_rows_become_the_librarys_bytes(kind):
    rows = torch.randn(40, 96, generator=torch.Generator().manual_seed(0)) * 0.1
    stored = quantize(rows, kind, "w").numpy()
    assert np.array_equal(stored, library_bytes(rows.numpy(), kind))
    raw = stored.reshape(40, -1)
    read = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(kind.code))
    assert np.array_equal(dequantize(raw, kind).numpy(), read)


@pytest.mark.parametrize("kind", [Q8_0, Q4_0], ids=lambda kind: kind.name)
@settings(max_examples=100)
@given(
    rows=np_st.arrays(
        np.float32,
        (2, 32),
        elements=st.one_of(
            st.integers(-256, 256).map(lambda n: n / 2),  # halves, ties and zeros
            # Not so small that the library's 1 / scale overflows.
            st.floats(-1e4, 1e4, width=32, allow_subnormal=False).filter(lambda x: x == 0 or abs(x) > 1e-30),
        ),
    )
)
def test_any_block_becomes_the_librarys_bytes(kind, rows):
    assert np.array_equal(quantize(torch.from_numpy(rows), kind, "w").numpy(), library_bytes(rows, kind))


def test_the_largest_error_is_half_a_step():
    rows = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))
    read = dequantize(quantize(rows, Q8_0, "w").numpy().reshape(64, -1), Q8_0)
    step = rows.abs().amax(dim=1, keepdim=True) / 127
    assert ((read - rows).abs() <= 0.51 * step + 1e-3 * rows.abs()).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("kind", [Q8_0, Q4_0], ids=lambda kind: kind.name)
def test_what_no_scale_can_hold_is_refused_by_name(kind, bad):
    rows = torch.zeros(1, 64)
    rows[0, 40] = bad
    with pytest.raises(CheckpointError, match=r"model\.norm has infinite, NaN or too large"):
        quantize(rows, kind, "model.norm")


@pytest.mark.parametrize("name", ["Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"])
def test_other_types_are_read_by_the_library(name):
    kind = next(kind for kind in TYPES.values() if kind.name == name)
    raw = np.zeros((3, 2 * kind.block_bytes), dtype=np.uint8)
    assert dequantize(raw, kind).shape == (3, 2 * kind.block)


def test_without_the_library_the_sentence_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(MissingDependencyError, match=r"Q6_K weights needs the gguf library"):
        dequantize(np.zeros((1, 210), dtype=np.uint8), TYPES[14])
    assert dequantize(np.zeros((1, 34), dtype=np.uint8), Q8_0).shape == (1, 32)


def test_f16_is_read():
    values = np.array([[0.5, -2.0, 65504.0]], dtype=np.float16)
    assert dequantize(values.view(np.uint8), F16).tolist() == [[0.5, -2.0, 65504.0]]
