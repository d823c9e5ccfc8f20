"""MLA and GQA: cached decoding, absorbed or grouped, is the full computation; the cache spec holds."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from shoestring.model.attention import GQA, MLA, attention_class, build_attention
from shoestring.model.cache import DenseLayerCache, causal_softmax
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, RopeConfig
from shoestring.model.cost import cache_bytes_per_token
from shoestring.model.layers import Rotation, build_rotation
from shoestring.model.presets import PRESETS

YARN = RopeConfig(
    rope_type="yarn",
    interleave=True,
    factor=4.0,
    original_max_position_embeddings=16,
    mscale=1.0,
    mscale_all_dim=0.707,
)
WIDE = MLAConfig(
    q_lora_rank=24,
    kv_lora_rank=20,
    qk_nope_head_dim=12,
    qk_rope_head_dim=8,
    v_head_dim=10,
    attention_bias=True,
)
BASE = replace(PRESETS["tiny"], hidden_size=40, num_attention_heads=4, rope=YARN)
HALVES = replace(BASE, rope=RopeConfig())
CONFIGS = {
    "mla": replace(BASE, attention=WIDE),
    "mla-direct": replace(BASE, attention=replace(WIDE, q_lora_rank=None, attention_bias=False)),
    "mla-one-head": replace(BASE, num_attention_heads=1, attention=WIDE),
    "gqa": replace(HALVES, attention=GQAConfig(num_key_value_heads=2, head_dim=10, qkv_bias=True)),
    "gqa-all-heads": replace(HALVES, attention=GQAConfig(num_key_value_heads=4, head_dim=6, o_bias=True)),
    "gqa-norms": replace(HALVES, attention=GQAConfig(num_key_value_heads=2, head_dim=14, qk_norm=True)),
    "mqa": replace(HALVES, attention=GQAConfig(num_key_value_heads=1, head_dim=8)),
}
B, T = 2, 23


def build(config: ModelConfig) -> MLA | GQA:
    torch.manual_seed(3)
    attention = build_attention(config)
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.normal_(1.0 if parameter.dim() == 1 else 0.0, 0.3)
    return attention


def rotation(config: ModelConfig, start: int, length: int) -> Rotation:
    kind = config.attention
    width = kind.qk_rope_head_dim if isinstance(kind, MLAConfig) else kind.head_dim
    return build_rotation(config.rope, width, torch.arange(start, start + length).expand(B, -1))


def new_cache(config: ModelConfig) -> DenseLayerCache:
    spec = attention_class(config).cache_spec(config)
    return DenseLayerCache(spec, batch=B, capacity=T, dtype=torch.float32, device=torch.device("cpu"))


@pytest.mark.parametrize("pieces", [[1] * T, [T], [10, *[1] * 13], [5, 9, 1, 8], [1, 22]])
@pytest.mark.parametrize("name", CONFIGS)
def test_cached_decoding_is_the_full_computation(name: str, pieces: list[int]) -> None:
    config = CONFIGS[name]
    attention, x_BTD, cache = build(config), torch.randn(B, T, config.hidden_size), new_cache(config)
    with torch.no_grad():
        full = attention(x_BTD, rotation(config, 0, T))
        parts = []
        for length in pieces:
            start = cache.length
            parts.append(attention(x_BTD[:, start : start + length], rotation(config, start, length), cache))
    assert cache.length == T
    difference = (torch.cat(parts, dim=1) - full).abs().max().item()
    print(f"largest difference {difference:.1e} of values up to {full.abs().max():.1f}")
    assert difference < 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_attend_cached_is_attend_full(name: str) -> None:
    """The two forms side by side, on the same queries and keys, gradients of the input included."""
    config = CONFIGS[name]
    attention = build(config)
    x_BTD = torch.randn(B, T, config.hidden_size, requires_grad=True)
    seen: dict[str, Any] = {}
    attention.attend_full = lambda *arguments: seen.setdefault("arguments", arguments)[0].flatten(2)  # type: ignore
    attention(x_BTD, rotation(config, 0, T))
    del attention.attend_full
    queries, *entries = seen["arguments"][:3]
    if attention_class(config) is MLA:
        turn = seen["arguments"][3].apply
        queries, entries[1] = turn(queries), turn(entries[1][:, :, None])[:, :, 0]
    cache = new_cache(config)
    cache.append(
        **dict(zip(attention_class(config).cache_spec(config), [e.detach() for e in entries], strict=True))
    )
    full, cached = attention.attend_full(*seen["arguments"]), attention.attend_cached(queries, cache)
    torch.testing.assert_close(cached, full, rtol=0, atol=1e-4)
    upstream = torch.randn_like(full)
    ours, wanted = (
        torch.autograd.grad(out, seen["arguments"][0], upstream, retain_graph=True)[0]
        for out in (cached, full)
    )
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_the_cache_spec_is_what_is_cached(name: str) -> None:
    config = CONFIGS[name]
    spec = attention_class(config).cache_spec(config)
    kept: dict[str, torch.Tensor] = {}

    class Spy(DenseLayerCache):
        def append(self, **entries_BT: torch.Tensor) -> None:
            kept.update(entries_BT)
            super().append(**entries_BT)

    cache = Spy(spec, batch=B, capacity=T, dtype=torch.float32, device=torch.device("cpu"))
    build(config)(torch.randn(B, T, config.hidden_size), rotation(config, 0, T), cache)
    assert {name: tensor.shape for name, tensor in kept.items()} == {n: (B, T, *s) for n, s in spec.items()}
    numbers = sum(torch.Size(shape).numel() for shape in spec.values())
    assert cache_bytes_per_token(config, 4) == config.num_hidden_layers * numbers * 4


@pytest.mark.parametrize(("length", "total"), [(1, 1), (1, 6), (4, 4), (3, 7)])
def test_the_causal_softmax(length: int, total: int) -> None:
    scores = torch.randn(2, length, total)
    probability = causal_softmax(scores, 0.7)
    for query in range(length):
        seen = total - length + query + 1
        torch.testing.assert_close(probability[:, query, :seen], (scores[:, query, :seen] * 0.7).softmax(-1))
        assert not probability[:, query, seen:].any()


def test_a_config_chooses_the_attention() -> None:
    assert isinstance(build_attention(CONFIGS["mla"]), MLA)
    assert isinstance(build_attention(CONFIGS["gqa"]), GQA)
    names = set(dict(build_attention(CONFIGS["mla-direct"]).named_parameters()))
    assert names == {
        f"{n}.weight" for n in ["q_proj", "kv_a_proj_with_mqa", "kv_a_layernorm", "kv_b_proj", "o_proj"]
    }
