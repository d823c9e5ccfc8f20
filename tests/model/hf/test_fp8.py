"""FP8 block-scaled weights: dequantized exactly as stored, every other quantization refused by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch

from shoestring.errors import CheckpointError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.config import save_config
from shoestring.model.hf.names import stored_views
from shoestring.model.hf.weights import load_weights, save_weights
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer, initialize

TINY = PRESETS["tiny"]


def build() -> Transformer:
    return initialize(Transformer(TINY), torch.Generator().manual_seed(0))


def on_meta() -> Transformer:
    with torch.device("meta"):
        return Transformer(TINY)


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Apply `change` to the tensors of model.safetensors, with the library's own reader and writer."""
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    safetensors.torch.save_file(tensors, path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save_weights(build(), folder)
    save_config(TINY, folder)
    return folder


def quantize(weight: torch.Tensor, block: int) -> tuple[torch.Tensor, torch.Tensor]:
    """An independent, slow FP8 block quantizer."""
    rows, columns = weight.shape
    scale = torch.empty(-(-rows // block), -(-columns // block))
    stored = torch.empty_like(weight, dtype=torch.float8_e4m3fn)
    for i in range(scale.shape[0]):
        for j in range(scale.shape[1]):
            part = slice(i * block, (i + 1) * block), slice(j * block, (j + 1) * block)
            scale[i, j] = weight[part].abs().max() / 448
            stored[part] = (weight[part] / scale[i, j]).to(torch.float8_e4m3fn)
    return stored, scale


FP8 = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [12, 12], "activation_scheme": "dynamic"}


def to_fp8(folder: Path) -> dict[str, torch.Tensor]:
    """Quantize the projections of a saved model, in blocks of 12 that leave edges; returns their meaning."""
    meant: dict[str, torch.Tensor] = {}

    def change(tensors: dict[str, torch.Tensor]) -> None:
        for name in [n for n in tensors if "_proj" in n]:
            tensors[name], scale = quantize(tensors[name], 12)
            tensors[name + "_scale_inv"] = scale
            wide = scale.repeat_interleave(12, 0).repeat_interleave(12, 1)
            rows, columns = tensors[name].shape
            meant[name] = tensors[name].float() * wide[:rows, :columns]

    rewrite(folder, change)
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": FP8}
    (folder / "config.json").write_text(json.dumps(config))
    return meant


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fp8_blocks_are_dequantized(dtype: torch.dtype, saved: Path) -> None:
    meant = to_fp8(saved)
    assert len(meant) > 60
    loaded = on_meta()
    load_weights(loaded, Checkpoint.open(saved), dtype=dtype)
    views = stored_views(loaded)
    assert all(torch.equal(views[name], tensor.to(dtype)) for name, tensor in meant.items())
    original = stored_views(build())
    worst = max(
        ((views[n].float() - original[n]).abs().max() / original[n].abs().max()).item() for n in meant
    )
    assert worst < 0.05  # e4m3 keeps three bits of mantissa


def edit_config(folder: Path, settings: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": settings}
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"quant_method": "gptq"}, "quant_method 'gptq'; only 'fp8'"),
        ("int8", "quant_method 'int8'; only 'fp8'"),
        (FP8 | {"fmt": "e5m2"}, "fmt 'e5m2'; only 'e4m3'"),
        (FP8 | {"weight_block_size": [0, 12]}, "weight_block_size [0, 12]"),
        (FP8 | {"weight_block_size": None}, "weight_block_size None"),
        (FP8 | {"weight_block_size": [128, 128]}, "which cannot scale"),
        (None, "is FP8 and config.json has no quantization_config"),
    ],
)
def test_other_quantizations_are_refused_by_name(settings: object, said: str, saved: Path) -> None:
    to_fp8(saved)
    edit_config(saved, settings)
    with pytest.raises(CheckpointError) as caught:
        load_weights(on_meta(), Checkpoint.open(saved))
    assert said in str(caught.value)


def test_a_scale_that_is_missing(saved: Path) -> None:
    to_fp8(saved)
    rewrite(saved, lambda t: t.pop("model.layers.0.mlp.up_proj.weight_scale_inv"))
    with pytest.raises(
        CheckpointError, match=r"is FP8 without its model\.layers\.0\.mlp\.up_proj\.weight_scale_inv"
    ):
        load_weights(on_meta(), Checkpoint.open(saved))
