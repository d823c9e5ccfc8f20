"""quantization_config: written and read back, and damaged or foreign settings."""

from typing import Any

import pytest

from shoestring.errors import CheckpointError
from shoestring.model.hf.quantization import read_fp8_block_size, read_quantization, write_quantization
from shoestring.model.memory import BITS, Quantization

FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 64]}


@pytest.mark.parametrize("quantization", BITS)
def test_what_is_written_is_read(quantization: Quantization) -> None:
    assert read_quantization(write_quantization(quantization)) == quantization


@pytest.mark.parametrize("settings", [None, {}, "int8", [], FP8, {"quant_method": "gptq", "bits": 4}])
def test_other_checkpoints_are_not_packed(settings: Any) -> None:
    assert read_quantization(settings) is None


@pytest.mark.parametrize("change", [{"bits": 3}, {"bits": None}, {"group_size": 64}])
def test_damaged_settings_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=r"config.json has a quantization_config that this version"):
        read_quantization(write_quantization("int4") | change)


def test_the_earlier_form_of_four_bits_is_refused_with_the_way_out() -> None:
    settings = write_quantization("int4")
    del settings["zero_point"]
    with pytest.raises(CheckpointError, match=r"earlier version.*quantize again from the checkpoint"):
        read_quantization(settings)


def test_fp8_block_sizes() -> None:
    assert read_fp8_block_size(None) is None
    assert read_fp8_block_size(FP8) == (128, 64)
    assert read_fp8_block_size({"quant_method": "fp8", "weight_block_size": [1, 1]}) == (1, 1)


@pytest.mark.parametrize(
    "settings",
    [
        write_quantization("int8"),
        {},
        7,
        FP8 | {"fmt": "e5m2"},
        FP8 | {"weight_block_size": [128]},
        FP8 | {"weight_block_size": [True, 128]},
        FP8 | {"weight_block_size": [2**20, 128]},
        FP8 | {"weight_block_size": "128"},
    ],
)
def test_other_quantizations_have_no_block_size(settings: Any) -> None:
    with pytest.raises(CheckpointError, match=r"config.json says"):
        read_fp8_block_size(settings)
