"""Cost from a config alone: published figures, the models' own parameters, FLOPs counted while they run."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig, RopeConfig
from shoestring.model.cost import (
    cache_bytes_per_token,
    decode_flops_per_token,
    forward_flops,
    parameters,
    train_flops_per_token,
)
from shoestring.model.hf.config import to_hf
from shoestring.model.presets import PRESETS
from shoestring.model.transformer import Transformer

V3 = PRESETS["deepseek-v3"]

TINY_V3 = replace(PRESETS["tiny"], num_nextn_predict_layers=2)
TINY_V2 = replace(
    TINY_V3,
    model_type="deepseek_v2",
    num_nextn_predict_layers=0,
    attention=MLAConfig(
        q_lora_rank=None, kv_lora_rank=24, qk_nope_head_dim=12, qk_rope_head_dim=8, v_head_dim=16
    ),
    moe=MoEConfig(
        n_routed_experts=6,
        n_shared_experts=2,
        num_experts_per_tok=3,
        moe_intermediate_size=24,
        first_k_dense_replace=1,
        scoring_func="softmax",
        topk_method="greedy",
        norm_topk_prob=False,
    ),
)
TINY_QWEN = ModelConfig(
    model_type="qwen2",
    vocab_size=300,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    attention=GQAConfig(num_key_value_heads=2, head_dim=8, qkv_bias=True),
)
TINY = {
    "v3": TINY_V3,
    "v3-biases": replace(
        TINY_V3, attention=replace(PRESETS["tiny"].attention, attention_bias=True), tie_word_embeddings=True
    ),
    "v2": TINY_V2,
    "qwen2": TINY_QWEN,
    "qwen2-tied": replace(TINY_QWEN, tie_word_embeddings=True),
    "llama": replace(
        TINY_QWEN,
        model_type="llama",
        attention=GQAConfig(num_key_value_heads=3, head_dim=16, qkv_bias=True, o_bias=True),
    ),
}
NORMED = GQAConfig(num_key_value_heads=2, head_dim=16, qk_norm=True)
TINY["qwen3"] = replace(TINY_QWEN, model_type="qwen3", attention=NORMED)
TINY["qwen3-moe"] = replace(
    TINY["qwen3"],
    model_type="qwen3_moe",
    moe=replace(TINY_V2.moe, n_shared_experts=0, first_k_dense_replace=0, mlp_only_layers=(1,)),  # type: ignore
)


@pytest.mark.parametrize(
    ("name", "total", "active", "cache_bytes"),
    [  # DeepSeek-V2 and V3 reports, computed from their configs; cache bytes as in bfloat16
        ("deepseek-v2-lite", 15.71e9, 2.66e9, 31_104),
        ("deepseek-v2", 235.74e9, 21.38e9, 69_120),
        ("deepseek-v3", 671.03e9, 37.55e9, 70_272),
        ("r1-distill-qwen-1.5b", 1.78e9, 1.78e9, 28_672),
        ("r1-distill-llama-8b", 8.03e9, 8.03e9, 131_072),
        ("r1-distill-llama-70b", 70.55e9, 70.55e9, 327_680),
        ("r1-0528-qwen3-8b", 8.19e9, 8.19e9, 147_456),
        ("qwen3-30b-a3b", 30.53e9, 3.35e9, 98_304),
        ("smollm2-135m", 0.135e9, 0.135e9, 23_040),
    ],
)
def test_published_models(name: str, total: float, active: float, cache_bytes: int) -> None:
    count = parameters(PRESETS[name])
    assert count.total == pytest.approx(total, abs=5e6)  # the last digit of the stated figure
    assert count.active == pytest.approx(active, abs=5e6)
    assert cache_bytes_per_token(PRESETS[name]) == cache_bytes
    assert cache_bytes_per_token(PRESETS[name], bytes_per_element=1) * 2 == cache_bytes


def test_the_parts_of_v3_are_those_its_readme_states() -> None:
    """README_WEIGHTS: 36.6B active with the head and without the embedding; MTP 11.5B of its own and 1.5B
    active with the head, both without the projection eh_proj."""
    count, eh_proj = parameters(V3), 2 * 7168 * 7168
    assert count.embedding == count.head == 129_280 * 7168
    assert count.active - count.embedding == pytest.approx(36.6e9, abs=5e7)
    assert count.mtp - eh_proj == pytest.approx(11.5e9, abs=5e7)
    assert count.mtp_active - eh_proj + count.head == pytest.approx(1.5e9, abs=5e7)
    without = parameters(replace(V3, num_nextn_predict_layers=0))
    assert (without.total, without.active, without.mtp) == (count.total, count.active, 0)


@pytest.mark.parametrize("name", TINY)
def test_parameters_are_those_of_the_model(name: str) -> None:
    with torch.device("meta"):
        model = Transformer(TINY[name])
    count = parameters(TINY[name])
    assert count.total + count.mtp == sum(p.numel() for p in model.parameters())
    mtp_layers = model.model.layers[TINY[name].num_hidden_layers :]
    assert count.mtp == sum(p.numel() for p in mtp_layers.parameters())


@pytest.mark.parametrize("name", ["v3", "v2", "qwen2", "qwen2-tied", "qwen3", "qwen3-moe", "llama"])
def test_forward_flops_are_those_transformers_executes(name: str) -> None:
    """Exactly, by torch's own counter, which sees the whole T x T square where we count the causal half."""
    transformers = pytest.importorskip("transformers")
    from torch.utils.flop_counter import FlopCounterMode

    config, tokens = replace(TINY[name], num_nextn_predict_layers=0), 24
    settings = to_hf(config)
    theirs: Any = transformers.AutoConfig.for_model(**settings)
    theirs._attn_implementation = theirs._experts_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(theirs)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.arange(tokens)[None])
    attention = config.attention
    mla = isinstance(attention, MLAConfig)
    widths = attention.qk_head_dim + attention.v_head_dim if mla else 2 * attention.head_dim
    masked_pairs = tokens * (tokens - 1) // 2
    masked = config.num_hidden_layers * masked_pairs * 2 * config.num_attention_heads * widths
    rotary = counter.get_total_flops() - forward_flops(config, tokens) - masked
    rope_width = attention.qk_rope_head_dim if mla else attention.head_dim
    assert rotary in (0, tokens * rope_width)  # they multiply positions and frequencies as matrices


@pytest.mark.parametrize(
    ("name", "published", "tolerance"),
    [  # GFLOP per trained token at 4096 tokens: "Insights into DeepSeek-V3", ISCA 2025, table 2
        ("deepseek-v2", 155e9, 0.005),
        ("deepseek-v3", 250e9, 0.005),
    ],
)
def test_training_flops_of_published_runs(name: str, published: float, tolerance: float) -> None:
    assert train_flops_per_token(PRESETS[name], 4096, mtp=False) == pytest.approx(published, rel=tolerance)


def test_training_flops_of_dense_competitors() -> None:
    """The same table's dense rows. Llama's agrees to about 1%, half its causal attention. Qwen-72B's
    (394) is below 6 FLOPs per weight outside the embeddings (421), so it cannot hold all products."""
    llama_405b = ModelConfig(
        model_type="llama",
        vocab_size=128_256,
        hidden_size=16_384,
        intermediate_size=53_248,
        num_hidden_layers=126,
        num_attention_heads=128,
        attention=GQAConfig(num_key_value_heads=8, head_dim=128),
        rope=RopeConfig(rope_theta=500_000.0),
    )
    assert parameters(llama_405b).total == pytest.approx(405.85e9, rel=1e-4)
    assert cache_bytes_per_token(llama_405b) == 516_096
    assert train_flops_per_token(llama_405b, 4096) == pytest.approx(2448e9, rel=0.015)

    qwen_72b = ModelConfig(
        model_type="qwen2",
        vocab_size=152_064,
        hidden_size=8192,
        intermediate_size=29_568,
        num_hidden_layers=80,
        num_attention_heads=64,
        attention=GQAConfig(num_key_value_heads=8, head_dim=128, qkv_bias=True),
    )
    count = parameters(qwen_72b)
    assert cache_bytes_per_token(qwen_72b) == 327_680
    outside = 6 * (count.total - count.embedding - count.head)
    assert 394e9 < outside < train_flops_per_token(qwen_72b, 4096) < 394e9 * 1.14


def test_mtp_is_counted_when_it_is_trained() -> None:
    """One more block, its projection, the head once more: about 4% of V3."""
    extra = train_flops_per_token(V3, 4096) - train_flops_per_token(V3, 4096, mtp=False)
    shared_head = 6 * parameters(V3).head
    assert extra > 6 * parameters(V3).mtp_active * 0.99 + shared_head
    assert extra / train_flops_per_token(V3, 4096, mtp=False) == pytest.approx(0.0407, abs=0.0005)


@pytest.mark.parametrize("name", TINY)
def test_training_is_three_forwards_and_causal_attention_grows_with_its_square(name: str) -> None:
    config = TINY[name]
    assert train_flops_per_token(config, 8, mtp=False) * 8 == 3 * forward_flops(config, 8)
    one, two, four = (forward_flops(config, n) / n for n in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one))  # per token: (n + 1) / 2 keys


def test_decoding_one_token() -> None:
    """With expanded keys a token costs what the forward pass adds for it; absorbed, each key costs more."""
    llama = TINY["llama"]
    assert decode_flops_per_token(llama, 9) == forward_flops(llama, 9) - forward_flops(llama, 8)
    for config in (TINY_V3, V3):
        mla = config.attention
        assert isinstance(mla, MLAConfig)
        per_key = decode_flops_per_token(config, 1001) - decode_flops_per_token(config, 1000)
        heads, layers = config.num_attention_heads, config.num_hidden_layers
        assert per_key == 2 * layers * heads * (2 * mla.kv_lora_rank + mla.qk_rope_head_dim)
        assert decode_flops_per_token(config, 0) == forward_flops(config, 1) - 2 * layers * heads * (
            mla.qk_head_dim + mla.v_head_dim
        )
