"""Packed blocks: the short way over pages gives the bits of the long one; what is packed, and what stays."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from shoestring import kernels
from shoestring.engine.paged_cache import PagedCache, PagedView, RowIndex, cache_specs
from shoestring.kernels.packed import LEAST_SCALE
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig
from shoestring.model.hf.names import sinks
from shoestring.model.memory import PAGE_SIZE
from shoestring.model.moe import Router
from shoestring.model.packed.block import PackedBlock, PackedMTPBlock, _feed_forward, pack_structure
from shoestring.model.presets import DEMO, TINY
from shoestring.model.transformer import Features, Transformer

assert isinstance(DEMO.attention, MLAConfig)
V3 = replace(
    DEMO,
    vocab_size=100,
    attention=replace(DEMO.attention, q_lora_rank=64, kv_lora_rank=64, qk_nope_head_dim=32),
    num_nextn_predict_layers=1,
)
LITE_MOE = MoEConfig(
    n_routed_experts=8,
    n_shared_experts=2,
    num_experts_per_tok=3,
    moe_intermediate_size=32,
    first_k_dense_replace=1,
    scoring_func="softmax",
    topk_method="greedy",
    norm_topk_prob=False,
)
LITE = replace(V3, attention=replace(V3.attention, q_lora_rank=None), moe=LITE_MOE)
QWEN = replace(
    TINY,
    model_type="qwen2",
    vocab_size=100,
    hidden_size=64,
    intermediate_size=96,
    num_attention_heads=4,
    attention=GQAConfig(num_key_value_heads=2, head_dim=16, qkv_bias=True),
    moe=None,
    num_nextn_predict_layers=0,
)
QWEN3 = replace(
    QWEN,
    model_type="qwen3_moe",
    attention=GQAConfig(num_key_value_heads=2, head_dim=32, qk_norm=True),
    moe=replace(LITE_MOE, n_shared_experts=0, first_k_dense_replace=0, mlp_only_layers=(1,)),
)
CONFIGS = pytest.mark.parametrize(
    "config", [V3, LITE, QWEN, QWEN3], ids=["mla", "mla-without-q-rank", "gqa", "gqa-norms"]
)
SPANS = ([(0, 0, 40), (1, 0, 1)], [(0, 40, 41), (1, 1, 3), (2, 0, 33)], [(0, 41, 42), (1, 3, 4), (2, 33, 34)])
"""Steps of three sequences: a prompt in pieces, decoding beside it."""


class Unpaged:
    """A paged layer that does not say so."""

    pages = None

    def __init__(self, layer) -> None:
        self.append, self.attend, self.attend_latent = layer.append, layer.attend, layer.attend_latent


def packed(config: ModelConfig, seed: int = 0) -> Transformer:
    with torch.device("meta"):
        model = pack_structure(Transformer(config), 4)
    model = model.to_empty(device="cpu").eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if tensor.dtype == torch.uint8:  # small scales: the last 32 bytes are 16 words of 16 bits
                tensor.random_(0, 256, generator=generator)
                words = tensor[..., -32:].view(torch.int16)
                scales = 1e-6 + torch.rand(words.shape, generator=generator) * 0.01
                is_int8 = name.startswith("lm_head")
                bits = scales.half().view(torch.int16) if is_int8 else _words_of(scales)
                words.copy_(bits)
            else:
                tensor.normal_(1.0 if "norm" in name else 0.0, 0.3, generator=generator)
    return model


def _words_of(scales: torch.Tensor) -> torch.Tensor:
    """Words of 4-bit groups with about these scales and any zeros: see kernels/packed.scales_and_zeros."""
    return ((scales.view(torch.int32) - LEAST_SCALE) >> 12).to(torch.int16)


def index(spans: list[tuple[int, int, int]]) -> RowIndex:
    tables = torch.arange(9, dtype=torch.int32).view(3, 3).flip(0).contiguous()
    owner = torch.tensor([s for s, start, end in spans for _ in range(start, end)])
    position = torch.tensor([p for _, start, end in spans for p in range(start, end)])
    slot = tables[owner, position // PAGE_SIZE].long() * PAGE_SIZE + position % PAGE_SIZE
    return RowIndex(position[None], slot, tables, owner.int(), (position + 1).int())


def run(model: Transformer, *, paged: bool) -> tuple[list[Features], list[Tensor]]:
    """Hidden states of all steps, the MTP module's after them, and what the cache holds then."""
    config, found = model.config, []
    specs = cache_specs(config, len(model.model.layers))
    cache = PagedCache(specs, num_pages=9, dtype=torch.float32, device=torch.device("cpu"))
    with torch.inference_mode():
        for spans in SPANS:
            rows = index(spans)
            view = cache.at(rows)
            if not paged:
                view = PagedView([Unpaged(layer) for layer in view.layers])
            ids = rows.positions_BT * 7 % config.vocab_size
            found.append(model.features(ids, view, rows.positions_BT))
            if config.num_nextn_predict_layers:
                hidden = found[-1].hidden_BTD
                found.append(model.mtp_features(hidden, ids, 0, view, rows.positions_BT))
    return found, [tensor for entries in cache.entries for tensor in entries.values()]


@CONFIGS
def test_both_ways_give_the_same_bits(config: ModelConfig) -> None:
    model = packed(config)
    (short, kept), (long, kept_long) = run(model, paged=True), run(model, paged=False)
    assert all(block._halves is not None for block in model.model.layers)  # it was the short way
    assert all(map(torch.equal, kept, kept_long))
    for ours, theirs in zip(short, long, strict=True):
        assert ours.hidden_BTD.isfinite().all()
        assert torch.equal(ours.hidden_BTD, theirs.hidden_BTD)
        assert ours.routings.keys() == theirs.routings.keys()
        for layer, routing in ours.routings.items():
            assert torch.equal(routing.experts_NK, theirs.routings[layer].experts_NK)
            assert torch.equal(routing.weights_NK, theirs.routings[layer].weights_NK)
            assert torch.equal(routing.scores_NE, theirs.routings[layer].scores_NE)


def hidden(model: Transformer) -> Tensor:
    return run(model, paged=True)[0][-1].hidden_BTD


@pytest.mark.parametrize("assign", [True, False])
def test_new_weights_are_seen(assign: bool) -> None:
    model, other = packed(LITE), packed(LITE, seed=1)
    before, wanted = hidden(model), hidden(other)
    assert not torch.equal(before, wanted)
    model.load_state_dict(other.state_dict(), assign=assign)
    assert torch.equal(hidden(model), wanted)
    for tensor in model.state_dict().values():
        tensor.zero_()
    assert not torch.equal(hidden(model), wanted)


def test_copies_and_moves_stand_on_their_own() -> None:
    model = packed(LITE)
    before = hidden(model)
    twin = copy.deepcopy(model)
    model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.zero_()
    assert torch.equal(hidden(twin), before)
    assert not torch.equal(hidden(model), before)


def test_a_block_is_packed_whole_or_stays() -> None:
    blocks = packed(V3).model.layers
    assert [type(block) for block in blocks] == [PackedBlock] * V3.num_hidden_layers + [PackedMTPBlock]
    with torch.device("meta"):
        plain, partly = Transformer(V3), pack_structure(Transformer(replace(V3, intermediate_size=100)), 4)
    assert not sinks(plain)
    assert sinks(partly)
    dense = [layer for layer in range(V3.num_hidden_layers) if not V3.is_moe_layer(layer)]
    assert dense
    assert not any(isinstance(partly.model.layers[layer], PackedBlock) for layer in dense)
    assert isinstance(partly.model.layers[-1], PackedBlock)


@pytest.mark.parametrize("scoring", ["softmax", "sigmoid"])
@pytest.mark.parametrize("method", ["greedy", "group_limited_greedy", "noaux_tc"])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("groups", [(1, 1), (4, 2), (2, 2)])
@pytest.mark.parametrize("ties", [False, True])
def test_both_ways_route_with_the_same_bits(scoring, method, normalize, groups, ties) -> None:
    rule = {"scoring_func": scoring, "topk_method": method, "norm_topk_prob": normalize}
    moe = replace(LITE_MOE, n_group=groups[0], topk_group=groups[1], routed_scaling_factor=2.5, **rule)
    block = packed(replace(LITE, moe=moe)).model.layers[-1]
    gate, norm = block.mlp.gate, block.post_attention_layernorm
    if ties:  # equal experts in pairs, in each group and across groups
        gate.weight.data[1::2] = gate.weight.data[::2]
        gate.weight.data[4:] = gate.weight.data[:4]
        if method == "noaux_tc":
            gate.e_score_correction_bias.fill_(0.125)
    with torch.inference_mode():
        x = torch.randn(50, LITE.hidden_size, generator=torch.Generator().manual_seed(0))
        whole = kernels.feed_forward_layer(x, _feed_forward(block)).routing
        alone = gate(norm(x))
        again = gate(norm(x), whole.experts_NK)
    for name in ("experts_NK", "weights_NK", "scores_NE"):
        assert torch.equal(getattr(whole, name), getattr(alone, name))
        assert torch.equal(getattr(again, name), getattr(alone, name))
    assert isinstance(gate, Router)
    assert max(len(row.unique()) for row in alone.scores_NE) <= (2 if ties else 8)


@CONFIGS
def test_experts_that_an_earlier_pass_chose_are_taken(config: ModelConfig) -> None:
    model, ids = packed(config), torch.arange(20)[None]
    with torch.inference_mode():
        plain = model.features(ids)
        experts = {layer: routing.experts_NK.flip(-1) for layer, routing in plain.routings.items()}
        again = model.features(ids, experts=experts)
        if experts:
            other = {layer: (experts_NK + 1) % 8 for layer, experts_NK in experts.items()}
            assert not torch.equal(model.features(ids, experts=other).hidden_BTD, plain.hidden_BTD)
    for layer, routing in again.routings.items():
        assert torch.equal(routing.experts_NK, experts[layer])
        assert torch.equal(routing.weights_NK, plain.routings[layer].weights_NK.flip(-1))
    torch.testing.assert_close(again.hidden_BTD, plain.hidden_BTD, rtol=1e-4, atol=1e-5)
