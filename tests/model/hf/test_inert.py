"""Fields that change nothing are taken at the values that change nothing, and refused at all others."""

import json
from pathlib import Path
from typing import Any

import pytest

from shoestring.errors import ConfigError
from shoestring.model.hf.config import from_hf, to_hf
from shoestring.model.hf.inert import SINGLE_VALUED, is_inert
from shoestring.model.presets import PRESETS

LLAMA, QWEN, MOE = (to_hf(PRESETS[name]) for name in ("smollm2-135m", "qwen3-0.6b", "qwen3-30b-a3b"))


@pytest.mark.parametrize(
    ("base", "fields"),
    [
        (LLAMA, {"is_llama_config": True, "rope_interleaved": False}),  # SmolLM2
        (LLAMA, {"is_qwen2_config": False, "use_reentrant_checkpointing": False, "qk_layer_norms": False}),
        (LLAMA, {"internal_version": "7b"}),  # ALLaM
        (LLAMA, {"max_sequence_length": 2048, "pad_token_id": -1}),  # Llama 1 as it was first converted
        (LLAMA, {"transformers.js_config": {"dtype": {"webgpu": "q4"}}}),
        (LLAMA, {"unsloth_fixed": True, "unsloth_version": "2025.1"}),
        (
            LLAMA,
            {"_flash_attn_2_enabled": True, "use_flash_attention_2": True, "gradient_checkpointing": True},
        ),
        (LLAMA, {"hidden_act": "swish", "rotary_pct": 1.0, "logits_scaling": 1, "residual_multiplier": 1.0}),
        (LLAMA, {"attn_logit_softcapping": None, "num_local_experts": 0, "alibi": False, "layer_map": []}),
        (LLAMA, {"neftune_noise_alpha": 0.0, "z_loss_weight": 1e-4, "image_token_id": 49190}),
        (QWEN, {"use_sliding_window": True, "sliding_window": 4096, "max_window_layers": 28}),
        (QWEN, {"use_sliding_window": True, "sliding_window": 40960, "max_window_layers": 0}),
        (QWEN, {"use_sliding_window": True, "sliding_window": None}),
        (MOE, {"use_qk_norm": True, "qkv_bias": False, "shared_expert_intermediate_size": 0}),  # Qwen3-Coder
        (MOE, {"router_aux_loss_coef": 0.001, "output_router_logits": True, "num_local_experts": 128}),
        (MOE, {"mlp_only_layers": [48, 100], "decoder_sparse_step": 1}),
    ],
)
def test_a_field_without_effect_is_taken(base: dict[str, Any], fields: dict[str, Any]) -> None:
    assert from_hf(base | fields) == from_hf(base)


@pytest.mark.parametrize("name", SINGLE_VALUED)
def test_a_field_that_is_refused_names_the_value_that_would_do(name: str) -> None:
    for value in SINGLE_VALUED[name]:
        assert from_hf(LLAMA | {name: value}) == from_hf(LLAMA)
    with pytest.raises(ConfigError) as caught:
        from_hf(LLAMA | {name: "something else"})
    assert f"{name!r} = 'something else' is not supported: only" in str(caught.value)
    assert repr(SINGLE_VALUED[name][0]) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("norm_type", "layernorm"),
        ("attn_logit_softcapping", 30.0),
        ("parallel_residual", True),
        ("bits", [4]),
    ],
)
def test_an_unknown_field_that_is_switched_on_is_refused(name: str, value: Any) -> None:
    assert not is_inert(name, value)
    with pytest.raises(ConfigError, match=f"'{name}'.*does not know; null, false or 0 would do"):
        from_hf(LLAMA | {name: value})


def test_dense_layers_are_those_that_steps_and_lists_say() -> None:
    """`decoder_sparse_step` is written out as `mlp_only_layers`."""
    config = from_hf(MOE | {"num_hidden_layers": 6, "decoder_sparse_step": 3, "mlp_only_layers": [5]})
    assert config.moe is not None
    assert config.moe.mlp_only_layers == (0, 1, 3, 4, 5)
    assert config.moe_layers == [2]
    assert from_hf(to_hf(config)) == config


def test_attention_factors_of_both_programs_are_one() -> None:
    """R1-0528's distillation writes vLLM's attn_factor; transformers reads attention_factor."""
    published = json.loads((Path(__file__).parent / "published" / "r1-0528-qwen3-8b.json").read_text())
    config = from_hf(published)
    assert config.rope.attention_factor == 1.0
    written = to_hf(config)["rope_scaling"]
    assert written["attention_factor"] == 1.0
    assert written["attn_factor"] == pytest.approx(0.8782488562869419)
    yarn = published["rope_scaling"]
    plain = from_hf(published | {"rope_scaling": {**yarn, "attn_factor": None}})
    assert plain.rope.attention_factor is None
    assert "attention_factor" not in to_hf(plain)["rope_scaling"]
