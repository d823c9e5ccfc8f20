"""Bytes from a config alone: those of the built model at every quantization, and what fits."""

from dataclasses import replace

import pytest
import torch

from shoestring.errors import ConfigError
from shoestring.kernels import packed
from shoestring.model import memory
from shoestring.model.config import GQAConfig, MLAConfig, MoEConfig
from shoestring.model.memory import BITS, RESERVE_BYTES, Memory, choose_quantization, weight_bytes
from shoestring.model.packed.quantize import packed_model
from shoestring.model.presets import DEMO, PRESETS, TINY
from shoestring.model.transformer import Transformer

SMALL = replace(DEMO, attention=replace(DEMO.attention, kv_lora_rank=64, qk_nope_head_dim=32))  # type: ignore[arg-type]
QWEN = replace(
    TINY,
    model_type="qwen2",
    hidden_size=64,
    intermediate_size=96,
    num_attention_heads=4,
    attention=GQAConfig(num_key_value_heads=2, head_dim=16, qkv_bias=True),
    moe=None,
    num_nextn_predict_layers=0,
    tie_word_embeddings=True,
)
V2 = MoEConfig(
    n_routed_experts=6,
    n_shared_experts=2,
    num_experts_per_tok=3,
    moe_intermediate_size=48,
    scoring_func="softmax",
    topk_method="greedy",
)
DIRECT = MLAConfig(q_lora_rank=None, kv_lora_rank=40, qk_nope_head_dim=32, qk_rope_head_dim=8, v_head_dim=20)
SHAPES = {
    "mla": SMALL,
    "gqa-tied": QWEN,
    "groups divide nothing": replace(QWEN, hidden_size=40, intermediate_size=50),
    "eh_proj alone": replace(TINY, hidden_size=48, num_nextn_predict_layers=2),
    "down_proj alone": replace(QWEN, hidden_size=40, tie_word_embeddings=False),
    "gate_proj and up_proj alone": replace(TINY, intermediate_size=100),
    "shared experts, not routed ones": replace(SMALL, moe=V2, tie_word_embeddings=True, vocab_size=203),
    "no query latent, biases": replace(SMALL, attention=replace(DIRECT, attention_bias=True)),
    "balance bias": replace(SMALL, attention=replace(DIRECT, kv_lora_rank=64, v_head_dim=32)),
    "qwen3": replace(QWEN, attention=GQAConfig(num_key_value_heads=2, head_dim=32, qk_norm=True)),
    "qwen3 with experts": replace(
        QWEN,
        attention=GQAConfig(num_key_value_heads=2, head_dim=32, qk_norm=True),
        moe=replace(V2, n_shared_experts=0, moe_intermediate_size=32, mlp_only_layers=(1,)),
    ),
    "llama": replace(QWEN, attention=GQAConfig(num_key_value_heads=1, head_dim=34, o_bias=True)),
}
BUILT = {name: PRESETS[name] for name in PRESETS if PRESETS[name].num_hidden_layers < 30} | SHAPES


@pytest.mark.parametrize("name", BUILT)
@pytest.mark.parametrize("quantization", BITS)
def test_quantized_weights_are_counted_to_the_byte(name: str, quantization: memory.Quantization) -> None:
    """The oracle is the model itself, built on the meta device."""
    model = packed_model(BUILT[name], quantization)
    tensors = model.state_dict().values()
    assert weight_bytes(BUILT[name], quantization) == sum(tensor.nbytes for tensor in tensors)


@pytest.mark.parametrize("name", SHAPES)
def test_weights_that_are_not_quantized(name: str) -> None:
    config = SHAPES[name]
    with torch.device("meta"):
        parameters = [p.numel() for p in Transformer(config).parameters()]
    assert weight_bytes(config) == 2 * sum(parameters)
    assert weight_bytes(config, bytes_per_weight=4) == 4 * sum(parameters)


def test_the_layout_is_the_kernels() -> None:
    assert (memory.GROUP, memory.PANEL) == (packed.GROUP, packed.OUTPUTS)
    assert memory.PANEL * memory.SCALE_BYTES == packed.SCALE_BYTES


def test_what_fits_is_chosen() -> None:
    sizes = [weight_bytes(SMALL, quantization) for quantization in (None, "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True)
    for size, quantization in zip(sizes, (None, "int8", "int4"), strict=True):
        assert choose_quantization(SMALL, size + RESERVE_BYTES + 1000, 1000) == quantization
    with pytest.raises(ConfigError, match="at 4 bits with its cache"):
        choose_quantization(SMALL, 1000, 1000)


def test_memory_is_said_in_gigabytes() -> None:
    need = Memory(weights=2_000_000_000, cache=300_000_000)
    assert need.total == 3_000_000_000
    assert str(need) == "3.0 GB (weights 2.0, cache 0.3, programs 0.7)"


@pytest.mark.parametrize(("tokens", "pages"), [(0, 0), (1, 1), (32, 1), (33, 2)])
def test_a_cache_is_whole_pages(tokens: int, pages: int) -> None:
    assert memory.pages_for(tokens) == pages
    assert memory.cache_bytes(TINY, tokens, 4, 2) == pages * memory.page_bytes(TINY, 4, 2)


def test_a_token_reads_its_own_experts_only() -> None:
    sparse, dense = PRESETS["deepseek-v2-lite"], PRESETS["r1-distill-qwen-1.5b"]
    assert memory.read_bytes_per_token(dense, 1000) == 1000
    assert memory.read_bytes_per_token(sparse, 1000) == pytest.approx(169, abs=1)
