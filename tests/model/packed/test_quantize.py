"""Quantized models: packed while loading, written once, mapped; what fits in memory; what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shoestring.errors import CheckpointError, ConfigError, StorageError
from shoestring.kernels.packed import pack, unpack
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig, RopeConfig
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import save_model
from shoestring.model.memory import weight_bytes
from shoestring.model.packed.block import PackedBlock
from shoestring.model.packed.layers import PackedExperts, PackedLinear, PackedUpProjection
from shoestring.model.packed.quantize import (
    load_for_inference,
    quantize_checkpoint,
)
from shoestring.model.presets import DEMO, TINY
from shoestring.model.transformer import Transformer, initialize

IDS = torch.arange(3, 40)[None]
assert isinstance(DEMO.attention, MLAConfig)
SMALL = replace(DEMO, vocab_size=200, attention=replace(DEMO.attention, kv_lora_rank=64, qk_nope_head_dim=32))
QWEN = replace(
    TINY,
    model_type="qwen2",
    vocab_size=200,
    hidden_size=64,
    intermediate_size=96,
    num_attention_heads=4,
    attention=GQAConfig(num_key_value_heads=2, head_dim=16, qkv_bias=True),
    moe=None,
    rope=RopeConfig(),
    num_nextn_predict_layers=0,
    tie_word_embeddings=True,
)


QWEN3 = replace(
    QWEN,
    model_type="qwen3_moe",
    attention=GQAConfig(num_key_value_heads=2, head_dim=32, qk_norm=True),
    moe=MoEConfig(
        n_routed_experts=6,
        n_shared_experts=0,
        num_experts_per_tok=6,  # all, so that rounding cannot change the choice
        moe_intermediate_size=32,
        mlp_only_layers=(1,),
        scoring_func="softmax",
        topk_method="greedy",
    ),
)


def checkpoint(folder: Path, config: ModelConfig, dtype: torch.dtype = torch.float32) -> Transformer:
    model = initialize(Transformer(config), torch.Generator().manual_seed(0)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_()
    save_model(model, folder, dtype=dtype)
    return model


def logits(model: Transformer) -> torch.Tensor:
    with torch.inference_mode():
        cache = model.new_cache(batch=1, capacity=64)
        return model(IDS, cache).log_softmax(-1)


def divergence(ours: torch.Tensor, reference: torch.Tensor) -> float:
    """Mean KL(reference, ours) in nats."""
    return float((reference.exp() * (reference - ours)).sum(-1).mean())


@pytest.mark.parametrize("config", [SMALL, QWEN, QWEN3], ids=["mla-moe", "gqa-tied", "qwen3-moe"])
@pytest.mark.parametrize(("quantization", "bound"), [("int8", 1e-4), ("int4", 2e-2)])
def test_a_packed_model_stays_close(
    tmp_path: Path, config: ModelConfig, quantization: str, bound: float
) -> None:
    plain = checkpoint(tmp_path / "plain", config)
    packed = load_for_inference(Checkpoint.open(tmp_path / "plain"), quantization)
    assert 0 < divergence(logits(packed), logits(plain)) < bound
    assert not [name for name, p in packed.named_parameters() if p.dim() > 1 and "proj" in name]


@pytest.mark.parametrize(
    "config", [SMALL, QWEN, QWEN3, TINY], ids=["mla-moe", "gqa-tied", "qwen3-moe", "partly"]
)
@pytest.mark.parametrize("quantization", ["int8", "int4"])
def test_a_written_checkpoint_is_mapped_and_gives_the_same_bits(
    tmp_path: Path, config: ModelConfig, quantization: str
) -> None:
    checkpoint(tmp_path / "plain", config)
    quantize_checkpoint(Checkpoint.open(tmp_path / "plain"), tmp_path / "packed", quantization)
    assert Checkpoint.open(tmp_path / "packed").quantization == quantization
    mapped = load_for_inference(Checkpoint.open(tmp_path / "packed"))
    assert torch.equal(
        logits(mapped), logits(load_for_inference(Checkpoint.open(tmp_path / "plain"), quantization))
    )
    in_memory = sum(tensor.nbytes for tensor in mapped.state_dict().values())
    assert weight_bytes(config, quantization) == in_memory


def test_the_weights_are_those_of_the_checkpoint(tmp_path: Path) -> None:
    plain = checkpoint(tmp_path / "plain", SMALL, dtype=torch.bfloat16)
    packed = load_for_inference(Checkpoint.open(tmp_path / "plain"), "int8")
    layer, other = plain.model.layers[1], packed.model.layers[1]
    experts, up = other.mlp.experts, other.self_attn.kv_b_proj
    assert isinstance(experts, PackedExperts)
    assert isinstance(up, PackedUpProjection)
    expected = pack(layer.mlp.experts.gate_up_proj.detach().bfloat16().float(), 8)
    assert torch.equal(experts.gate_up_blocks, expected.blocks)
    latents = torch.randn(1, 5, up.rank)
    with torch.no_grad():
        assert (up(latents) - layer.self_attn.kv_b_proj(latents)).abs().max() < 0.01
    assert torch.equal(other.mlp.gate.weight, layer.mlp.gate.weight.bfloat16().float())


def test_the_head_can_be_asked_for_as_a_matrix(tmp_path: Path) -> None:
    """As scoring a text does, which never holds all logits."""
    plain = checkpoint(tmp_path / "plain", SMALL)
    head = load_for_inference(Checkpoint.open(tmp_path / "plain"), "int4").head_weight_WD
    assert torch.equal(head, unpack(pack(plain.lm_head.weight, 8))[0])


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    checkpoint(tmp_path / "plain", SMALL)
    heard: list[tuple[int, int]] = []
    load_for_inference(
        Checkpoint.open(tmp_path / "plain"), "int4", progress=lambda done, total: heard.append((done, total))
    )
    assert heard[-1][0] == heard[-1][1] > 0
    assert heard == sorted(heard)


def test_fp8_checkpoints_are_packed_too(tmp_path: Path) -> None:
    """One matrix in e4m3 with its scales, as DeepSeek-V3 stores it."""
    from safetensors.torch import load_file, save_file

    checkpoint(tmp_path / "plain", SMALL)
    file = tmp_path / "plain" / "model.safetensors"
    tensors = load_file(file)
    name = "model.layers.0.self_attn.o_proj.weight"
    rows, columns = tensors[name].shape
    tensors[name] = (tensors[name] * 1000).to(torch.float8_e4m3fn)
    wanted = tensors[name].float() / 1000
    tensors[name + "_scale_inv"] = torch.full((-(-rows // 128), -(-columns // 128)), 1e-3)
    save_file(tensors, file)
    path = tmp_path / "plain" / "config.json"
    data = json.loads(path.read_text())
    data["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}
    path.write_text(json.dumps(data))
    packed = load_for_inference(Checkpoint.open(tmp_path / "plain"), "int8").model.layers[0].self_attn.o_proj
    assert isinstance(packed, PackedLinear)
    assert torch.equal(packed.blocks, pack(wanted, 8).blocks)
    assert unpack(pack(wanted, 8)).shape == (1, rows, columns)


def test_a_plain_checkpoint_keeps_its_width(tmp_path: Path) -> None:
    checkpoint(tmp_path / "half", SMALL, dtype=torch.bfloat16)
    checkpoint(tmp_path / "full", SMALL)
    assert load_for_inference(Checkpoint.open(tmp_path / "half")).lm_head.weight.dtype == torch.bfloat16
    assert load_for_inference(Checkpoint.open(tmp_path / "full")).lm_head.weight.dtype == torch.float32


@pytest.mark.parametrize("config", [SMALL, QWEN, QWEN3, TINY], ids=["mla-moe", "tied", "qwen3-moe", "partly"])
def test_a_float32_checkpoint_is_put_in_the_order_of_the_kernels(tmp_path: Path, config: ModelConfig) -> None:
    """In the same memory: a tied head stays the embedding."""
    plain = checkpoint(tmp_path, config)
    ordered = load_for_inference(Checkpoint.open(tmp_path))
    blocks = ordered.model.layers
    assert any(isinstance(module, PackedLinear) for module in blocks.modules())
    assert all(isinstance(block, PackedBlock) for block in blocks) == (config is not TINY)
    assert torch.allclose(logits(ordered), logits(plain), atol=1e-5)
    assert torch.equal(ordered.head_weight_WD, plain.head_weight_WD)
    in_memory = sum(tensor.nbytes for tensor in ordered.state_dict().values())
    assert in_memory < 1.05 * sum(tensor.nbytes for tensor in plain.state_dict().values())  # whole panels


def test_what_is_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path / "plain", SMALL)
    quantize_checkpoint(Checkpoint.open(tmp_path / "plain"), tmp_path / "packed", "int4")
    with pytest.raises(ConfigError, match="is not one of int8, int4"):
        load_for_inference(Checkpoint.open(tmp_path / "plain"), "int2")
    with pytest.raises(ConfigError, match="is int4 already"):
        load_for_inference(Checkpoint.open(tmp_path / "packed"), "int8")
    with pytest.raises(ConfigError, match="is quantized already"):
        quantize_checkpoint(Checkpoint.open(tmp_path / "packed"), tmp_path / "again", "int4")
    with pytest.raises(StorageError, match="already holds weights"):
        quantize_checkpoint(Checkpoint.open(tmp_path / "plain"), tmp_path / "packed", "int4")


@pytest.mark.parametrize("damage", ["bits", "shape", "missing", "short"])
def test_a_damaged_packed_checkpoint_is_refused(tmp_path: Path, damage: str) -> None:
    checkpoint(tmp_path / "plain", SMALL)
    packed = tmp_path / "packed"
    quantize_checkpoint(Checkpoint.open(tmp_path / "plain"), packed, "int4")
    path, weights = packed / "config.json", packed / "model.safetensors"
    data = json.loads(path.read_text())
    if damage == "bits":
        data["quantization_config"]["bits"] = 3
    if damage == "shape":
        data["vocab_size"] = 216
    if damage == "missing":
        data["num_hidden_layers"] += 1
    if damage == "short":
        weights.write_bytes(weights.read_bytes()[:-40])
    path.write_text(json.dumps(data))
    with pytest.raises(CheckpointError):
        load_for_inference(Checkpoint.open(packed))
