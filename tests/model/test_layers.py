"""Norms, linear layers, and rotary tables against the formulas transformers uses."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import DeepseekV3Config, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from shoestring.model.config import RopeConfig
from shoestring.model.layers import (
    MLP,
    Linear,
    RMSNorm,
    build_rotation,
    cos_sin_factor,
    inverse_frequencies,
    softmax_scale,
)

ROPES: list[tuple[int, dict[str, Any]]] = [
    (64, {"rope_type": "linear", "factor": 4.0}),
    (128, {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}),
    (
        16,
        {
            "rope_type": "llama3",
            "factor": 3.0,
            "original_max_position_embeddings": 64,
            "low_freq_factor": 2.0,
        },
    ),
    (64, {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096}),
    (64, {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 0.707}),
    (
        64,
        {
            **{"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096},
            **{"mscale": 1.0, "mscale_all_dim": 0.707, "beta_fast": 20.0, "beta_slow": 2.0},
        },
    ),
    (8, {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 3}),  # all pairs turn slowly
    (128, {"rope_type": "yarn", "factor": 1.0, "original_max_position_embeddings": 100}),
]


@pytest.mark.parametrize("theta", [10000.0, 500000.0])
@pytest.mark.parametrize(("width", "rope"), ROPES)
def test_frequencies_are_those_of_transformers(width: int, rope: dict[str, Any], theta: float) -> None:
    high = {"high_freq_factor": 4.0, "low_freq_factor": 1.0} if rope["rope_type"] == "llama3" else {}
    original = rope.get("original_max_position_embeddings", 4096)
    config = LlamaConfig(
        hidden_size=4 * width,
        num_attention_heads=4,
        head_dim=width,
        max_position_embeddings=math.ceil(original * rope["factor"]),
        rope_parameters={**high, **rope, "rope_theta": theta},
    )
    expected, factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config)
    ours = RopeConfig(rope_theta=theta, **rope)
    torch.testing.assert_close(inverse_frequencies(ours, width), expected, rtol=2e-6, atol=0)
    assert cos_sin_factor(ours) == pytest.approx(factor, rel=1e-12)


def test_plain_frequencies() -> None:
    wanted = [10000 ** (-2 * i / 64) for i in range(32)]
    torch.testing.assert_close(inverse_frequencies(RopeConfig(), 64), torch.tensor(wanted))
    assert cos_sin_factor(RopeConfig(factor=40.0, mscale=2.0)) == 1.0  # mscale belongs to YaRN


def test_the_softmax_scale_of_v3() -> None:
    """DeepSeek-V3's own: factor 40 and mscale_all_dim 1 make 0.1 ln 40 + 1, squared, over sqrt(192)."""
    rope = RopeConfig(
        rope_type="yarn", factor=40.0, original_max_position_embeddings=4096, mscale=1.0, mscale_all_dim=1.0
    )
    assert softmax_scale(rope, 192) == pytest.approx((0.1 * math.log(40) + 1) ** 2 / math.sqrt(192))
    assert softmax_scale(RopeConfig(), 192) == pytest.approx(192**-0.5)
    assert DeepseekV3Config().qk_head_dim == 192


@pytest.mark.parametrize("interleave", [True, False])
def test_a_rotation_keeps_lengths_and_sees_only_distances(interleave: bool) -> None:
    rope = RopeConfig(interleave=interleave)
    q, k = torch.randn(1, 1, 1, 12), torch.randn(1, 1, 1, 12)
    scores = []
    for start in (0, 5, 300):
        rotations = [build_rotation(rope, 8, torch.tensor([[start + shift]])) for shift in (0, 7)]
        turned_q, turned_k = rotations[1].apply(q), rotations[0].apply(k)
        torch.testing.assert_close(turned_q.norm(), q.norm())
        assert torch.equal(turned_q[..., :4], q[..., :4])  # dims before the last 8 pass
        scores.append((turned_q * turned_k).sum())
    torch.testing.assert_close(scores[1], scores[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores[2], scores[0], rtol=1e-3, atol=1e-3)


def test_interleaved_and_halved_pairs_are_one_permutation() -> None:
    x, positions = torch.randn(1, 6, 2, 10), torch.arange(6)[None]
    neighbors = build_rotation(RopeConfig(interleave=True), 10, positions).apply(x)
    order = [0, 2, 4, 6, 8, 1, 3, 5, 7, 9]
    halves = build_rotation(RopeConfig(interleave=False), 10, positions).apply(x[..., order])
    torch.testing.assert_close(neighbors[..., order], halves)


def test_every_sequence_has_its_own_positions() -> None:
    x, positions = torch.randn(2, 3, 1, 4), torch.tensor([[0, 1, 2], [7, 8, 9]])
    both = build_rotation(RopeConfig(), 4, positions).apply(x)
    for row in range(2):
        alone = build_rotation(RopeConfig(), 4, positions[row : row + 1]).apply(x[row : row + 1])
        torch.testing.assert_close(both[row], alone[0])


@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_computes_in_its_inputs_precision(bias: bool) -> None:
    layer, x = Linear(8, 5, bias=bias), torch.randn(3, 8)
    assert layer(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(layer(x.bfloat16()).float(), layer(x), rtol=0.05, atol=0.05)
    layer(x.bfloat16()).sum().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_norm_and_feed_forward() -> None:
    norm, mlp, x = RMSNorm(8, 1e-6), MLP(8, 20), torch.randn(3, 8)
    with torch.no_grad():
        norm.weight.copy_(torch.randn(8))
    torch.testing.assert_close(norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight)
    wanted = mlp.down_proj(F.silu(mlp.gate_proj(x)) * mlp.up_proj(x))
    torch.testing.assert_close(mlp(x), wanted)
