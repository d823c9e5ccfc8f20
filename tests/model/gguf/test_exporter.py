"""The exported file as a whole: types, sources, and what happens when something goes wrong."""

import json
import logging
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shoestring.errors import CheckpointError, ConfigError, StorageError
from shoestring.model.config import GQAConfig, RopeConfig
from shoestring.model.gguf import exporter as gguf_export
from shoestring.model.gguf.exporter import export_gguf
from shoestring.model.gguf.file import GGUFFile
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import save_model
from shoestring.model.presets import DEMO, TINY
from shoestring.model.transformer import Transformer

CONFIG = replace(
    DEMO, num_nextn_predict_layers=0, vocab_size=320,
    attention=replace(DEMO.attention, kv_lora_rank=64, qk_nope_head_dim=32, v_head_dim=32),
)  # fmt: skip


def model_of(config) -> Transformer:
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2)
    return model


def types(path: Path) -> dict[str, str]:
    return {name: tensor.type.name for name, tensor in GGUFFile.open(path).tensors.items()}


@pytest.mark.parametrize(
    ("kind", "matrix", "head"),
    [("f32", "F32", "F32"), ("bf16", "BF16", "BF16"), ("q8_0", "Q8_0", "Q8_0"), ("q4_0", "Q4_0", "Q8_0")],
)
def test_matrices_get_the_type_and_the_rest_stays_float32(kind, matrix, head, tmp_path):
    export_gguf(model_of(CONFIG), tmp_path / "m.gguf", kind)
    found = types(tmp_path / "m.gguf")
    assert found["output.weight"] == head
    assert {found[f"blk.1.{n}.weight"] for n in ("attn_k_b", "ffn_up_exps", "attn_q_a")} == {matrix}
    assert {found[f"blk.1.{n}"] for n in ("attn_norm.weight", "ffn_gate_inp.weight", "exp_probs_b.bias")} == {
        "F32"
    }


def test_a_tied_embedding_is_the_output_matrix(tmp_path):
    export_gguf(model_of(replace(CONFIG, tie_word_embeddings=True)), tmp_path / "m.gguf", "q4_0")
    found = types(tmp_path / "m.gguf")
    assert found["token_embd.weight"] == "Q8_0"
    assert "output.weight" not in found


def test_rows_that_no_block_divides_stay_float32(tmp_path):
    export_gguf(model_of(DEMO), tmp_path / "m.gguf", "q8_0")
    found = types(tmp_path / "m.gguf")
    assert found["blk.0.attn_k_b.weight"] == "F32"  # rows of 24
    assert found["blk.0.attn_output.weight"] == "Q8_0"


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_a_folder_and_its_model_give_the_same_bytes(kind, tmp_path, monkeypatch):
    model = model_of(CONFIG)
    save_model(model, tmp_path / "hf")
    export_gguf(Checkpoint.open(tmp_path / "hf"), tmp_path / "folder.gguf", kind, name="x")
    monkeypatch.setattr(gguf_export, "CHUNK_ELEMENTS", 1000)  # many chunks: the same
    export_gguf(model, tmp_path / "model.gguf", kind, name="x")
    assert (tmp_path / "folder.gguf").read_bytes() == (tmp_path / "model.gguf").read_bytes()


def test_fp8_weights_are_dequantized_on_the_way(tmp_path, monkeypatch):
    """A block of 128 rows is cut by chunks of other sizes."""
    llama = replace(
        TINY, model_type="llama", moe=None, num_nextn_predict_layers=0, rope=RopeConfig(), hidden_size=200,
        attention=GQAConfig(num_key_value_heads=2, head_dim=100), intermediate_size=300,
    )  # fmt: skip
    from safetensors.torch import load_file, save_file

    save_model(model_of(llama), tmp_path / "hf")
    file, config = tmp_path / "hf" / "model.safetensors", tmp_path / "hf" / "config.json"
    tensors = load_file(file)
    plain, name = dict(tensors), "model.layers.1.mlp.down_proj.weight"
    scale = torch.rand(2, 3) + 0.5
    tensors[name] = tensors[name].to(torch.float8_e4m3fn)
    tensors[f"{name}_scale_inv"] = scale
    blocks = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[:200, :300]
    plain[name] = tensors[name].float() * blocks
    save_file(tensors, file)
    settings = {"quant_method": "fp8", "weight_block_size": [128, 128]}
    plain_config = config.read_text()
    config.write_text(json.dumps(json.loads(plain_config) | {"quantization_config": settings}))
    monkeypatch.setattr(gguf_export, "CHUNK_ELEMENTS", 50 * 300)
    export_gguf(Checkpoint.open(tmp_path / "hf"), tmp_path / "fp8.gguf", "f32")
    save_file(plain, file)
    config.write_text(plain_config)
    export_gguf(Checkpoint.open(tmp_path / "hf"), tmp_path / "plain.gguf", "f32")
    assert (tmp_path / "fp8.gguf").read_bytes() == (tmp_path / "plain.gguf").read_bytes()


def test_mtp_modules_are_left_out_aloud(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        export_gguf(model_of(TINY), tmp_path / "m.gguf", "f32")
    assert "leaving out 1 MTP modules" in caplog.text
    assert not [name for name in types(tmp_path / "m.gguf") if name.startswith("blk.3.")]


def test_wrong_types_and_weights_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"no GGUF type 'q5_k'; the types are f32, bf16, q8_0, q4_0"):
        export_gguf(Checkpoint.open(tmp_path), tmp_path / "m.gguf", "q5_k")
    model = model_of(CONFIG)
    save_model(model, tmp_path / "hf")
    data = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(data | {"num_hidden_layers": 5}))
    with pytest.raises(CheckpointError, match=r"model\.layers\.4\.input_layernorm\.weight is missing"):
        export_gguf(Checkpoint.open(tmp_path / "hf"), tmp_path / "m.gguf")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(data | {"intermediate_size": 99}))
    with pytest.raises(CheckpointError, match=r"gate_proj\.weight has shape .* and config\.json asks for"):
        export_gguf(Checkpoint.open(tmp_path / "hf"), tmp_path / "m.gguf")
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_failure_half_way_leaves_nothing(error, tmp_path, monkeypatch):
    calls = []

    def failing(rows, kind, name):
        calls.append(name)
        if len(calls) == 9:
            raise error
        return torch.zeros(kind.num_bytes(rows.numel()), dtype=torch.uint8)

    monkeypatch.setattr(gguf_export, "quantize", failing)
    with pytest.raises((KeyboardInterrupt, StorageError)):
        export_gguf(model_of(CONFIG), tmp_path / "m.gguf")
    assert not list(tmp_path.iterdir())


def test_only_a_few_rows_are_held_at_a_time(tmp_path, monkeypatch):
    """An embedding of 4 MB passes in pieces of 64 kB (torch's memory is not traced: count the pieces)."""
    sizes = []
    quantize = gguf_export.quantize

    def watched(rows, kind, name):
        sizes.append(rows.numel())
        return quantize(rows, kind, name)

    monkeypatch.setattr(gguf_export, "quantize", watched)
    monkeypatch.setattr(gguf_export, "CHUNK_ELEMENTS", 1 << 14)
    save_model(model_of(replace(CONFIG, vocab_size=8192)), tmp_path / "hf")
    tracemalloc.start()
    export_gguf(Checkpoint.open(tmp_path / "hf"), tmp_path / "m.gguf", "bf16")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert max(sizes) <= 1 << 14
    assert peak < 2_000_000
