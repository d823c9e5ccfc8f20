"""config.json in and out: the published configs, round trips, and one clear sentence for everything else."""

import contextlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.errors import CheckpointError, ConfigError
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, ModelType, MoEConfig, RopeConfig
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.config import from_hf, save_config, to_hf
from shoestring.model.presets import PRESETS

PUBLISHED: dict[str, dict[str, Any]] = {
    path.stem: json.loads(path.read_text())
    for path in sorted(Path(__file__).with_name("published").glob("*.json"))
}
"""The config.json of each published model, by preset name; R1's is V3's."""

V3, V2 = PUBLISHED["deepseek-v3"], PUBLISHED["deepseek-v2"]
QWEN, LLAMA = PUBLISHED["r1-distill-qwen-7b"], PUBLISHED["r1-distill-llama-8b"]
QWEN3, QWEN3_MOE, SMOLLM2 = (PUBLISHED[name] for name in ("qwen3-0.6b", "qwen3-30b-a3b", "smollm2-135m"))
YARN = V3["rope_scaling"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configs_are_the_presets(name: str) -> None:
    assert from_hf(PUBLISHED[name]) == PRESETS[name]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_the_round_trip(name: str, tmp_path: Path) -> None:
    save_config(PRESETS[name], tmp_path, dtype="bfloat16")
    assert Checkpoint.open(tmp_path).config == PRESETS[name]
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == "bfloat16"


@pytest.mark.parametrize("name", PRESETS)
def test_transformers_reads_what_we_write_and_we_read_what_it_writes(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    # With CI set in the environment transformers' records reach the root logger too: twice here.
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", False)
    logging.getLogger("transformers").addHandler(caplog.handler)
    save_config(PRESETS[name], tmp_path, dtype="bfloat16")
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    logging.getLogger("transformers").removeHandler(caplog.handler)
    warnings = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    has_factor = PRESETS[name].rope.attention_factor is not None  # attn_factor is for vLLM
    unread = "Unrecognized keys in `rope_parameters` for 'rope_type'='yarn': {'attn_factor'}"
    assert warnings == ([unread] if has_factor else [])
    assert theirs.num_hidden_layers == PRESETS[name].num_hidden_layers
    assert theirs.rope_parameters["rope_theta"] == PRESETS[name].rope.rope_theta
    assert theirs.rope_parameters["rope_type"] == PRESETS[name].rope.rope_type
    theirs.save_pretrained(tmp_path / "theirs")
    assert "rope_parameters" in json.loads((tmp_path / "theirs" / "config.json").read_text())
    assert Checkpoint.open(tmp_path / "theirs").config == PRESETS[name]


@pytest.mark.parametrize(
    "family",
    [
        *["DeepseekV3Config", "DeepseekV2Config", "Qwen2Config"],
        *["Qwen3Config", "Qwen3MoeConfig", "LlamaConfig"],
    ],
)
def test_every_field_transformers_knows_is_read_or_inert(family: str, tmp_path: Path) -> None:
    """Including those it writes only on request: `to_dict` holds them all."""
    transformers = pytest.importorskip("transformers")
    deepseek = {"num_experts_per_tok": 4} if family.startswith("Deepseek") else {}  # V2's default is none
    theirs = getattr(transformers, family)(dtype="bfloat16", **deepseek)
    config = from_hf(json.loads(theirs.to_json_string(use_diff=False)))
    assert config.hidden_size == theirs.hidden_size


ranks = st.integers(1, 64)
rope_types = st.sampled_from(["default", "linear", "llama3", "yarn"])


@st.composite
def ropes(draw: st.DrawFn, *, interleave: bool) -> RopeConfig:
    kind = draw(rope_types)
    rope = RopeConfig(rope_theta=draw(st.floats(2, 1e7)), interleave=interleave, rope_type=kind)
    if kind == "default":
        return rope
    rope = replace(rope, factor=draw(st.floats(1, 64)))
    if kind == "linear":
        return rope
    rope = replace(rope, original_max_position_embeddings=draw(st.integers(1, 8192)))
    if kind == "llama3":
        return replace(
            rope, low_freq_factor=draw(st.floats(0.5, 2)), high_freq_factor=draw(st.floats(2.5, 8))
        )
    mscale = draw(st.none() | st.floats(0.1, 2))
    return replace(
        rope,
        beta_fast=draw(st.floats(16, 64)),
        mscale=mscale,
        mscale_all_dim=mscale,
        attention_factor=draw(st.none() | st.floats(0.5, 2)),
    )


@st.composite
def moes(draw: st.DrawFn, topk_methods: list[str]) -> MoEConfig:
    groups, per_group = draw(st.integers(1, 4)), draw(st.integers(2, 8))
    topk_group = draw(st.integers(1, groups))
    return MoEConfig(
        n_routed_experts=groups * per_group,
        n_shared_experts=draw(st.integers(0, 2)),
        num_experts_per_tok=draw(st.integers(1, topk_group * per_group)),
        moe_intermediate_size=draw(ranks),
        first_k_dense_replace=draw(st.integers(0, 3)),
        scoring_func=draw(st.sampled_from(["softmax", "sigmoid"])),
        topk_method=draw(st.sampled_from(topk_methods)),
        n_group=groups,
        topk_group=topk_group,
        norm_topk_prob=draw(st.booleans()),
        routed_scaling_factor=draw(st.floats(0.5, 16)),
    )


@st.composite
def softmax_moes(draw: st.DrawFn) -> MoEConfig:
    """Experts that qwen3_moe can express."""
    experts = draw(st.integers(1, 32))
    return MoEConfig(
        n_routed_experts=experts,
        n_shared_experts=0,
        num_experts_per_tok=draw(st.integers(1, experts)),
        moe_intermediate_size=draw(ranks),
        mlp_only_layers=tuple(sorted(draw(st.sets(st.integers(0, 2))))),
        scoring_func="softmax",
        topk_method="greedy",
        norm_topk_prob=draw(st.booleans()),
    )


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    model_type = draw(st.sampled_from(list(get_args(ModelType))))
    v3 = model_type == "deepseek_v3"
    heads = draw(st.sampled_from([1, 2, 4]))
    if model_type.startswith("deepseek"):
        attention: MLAConfig | GQAConfig = MLAConfig(
            q_lora_rank=draw(st.none() | ranks),
            kv_lora_rank=draw(ranks),
            qk_nope_head_dim=draw(ranks),
            qk_rope_head_dim=2 * draw(ranks),
            v_head_dim=draw(ranks),
            attention_bias=draw(st.booleans()),
        )
        moe = draw(st.none() | moes(["greedy", "group_limited_greedy"] + ["noaux_tc"] * v3))
    else:
        bias = model_type == "qwen2" or draw(st.booleans())
        attention = GQAConfig(
            num_key_value_heads=draw(st.sampled_from([h for h in (1, 2, 4) if heads % h == 0])),
            head_dim=2 * draw(ranks),
            qkv_bias=bias,
            o_bias=bias and model_type != "qwen2",
            qk_norm=model_type in ("qwen3", "qwen3_moe"),
        )
        moe = draw(st.none() | softmax_moes()) if model_type == "qwen3_moe" else None
    token = st.integers(0, 100)
    return ModelConfig(
        model_type=model_type,
        vocab_size=draw(st.integers(1, 200_000)),
        hidden_size=draw(ranks),
        intermediate_size=draw(ranks),
        num_hidden_layers=draw(st.integers(3, 80)),
        num_attention_heads=heads,
        attention=attention,
        moe=moe,
        rope=draw(ropes(interleave=draw(st.booleans()) if v3 else model_type == "deepseek_v2")),
        rms_norm_eps=draw(st.sampled_from([1e-5, 1e-6])),
        max_position_embeddings=draw(st.integers(1, 200_000)),
        tie_word_embeddings=draw(st.booleans()),
        num_nextn_predict_layers=draw(st.integers(0, 2)) if v3 else 0,
        initializer_range=draw(st.floats(0.001, 0.1)),
        bos_token_id=draw(st.none() | token),
        eos_token_id=draw(st.none() | token | st.lists(token, min_size=1, max_size=3).map(tuple)),
        pad_token_id=draw(st.none() | token),
    )


@given(configs())
@settings(max_examples=150, deadline=None)
def test_any_config_survives_the_round_trip(config: ModelConfig) -> None:
    assert from_hf(json.loads(json.dumps(to_hf(config)))) == config


@pytest.mark.parametrize(
    ("base", "change", "said"),
    [
        (V3, {"model_type": "kimi_k2"}, "model_type 'kimi_k2' is not supported; this code runs deepseek_v3"),
        (V3, {"model_type": None}, "model_type 'None' is not supported"),
        (V3, {"index_topk": 2048}, "'index_topk' = 2048 is a field this code does not know"),
        (V3, {"hidden_act": "gelu"}, "'hidden_act' = 'gelu' is not supported: only 'silu'"),
        (V3, {"attention_dropout": 0.1}, "'attention_dropout' = 0.1"),
        (V3, {"hidden_size": None}, "lacks hidden_size"),
        (V3, {"hidden_size": "7168"}, "'hidden_size' = '7168' must be a whole number"),
        (V3, {"hidden_size": 7168.0}, "'hidden_size' = 7168.0 must be a whole number"),
        (V3, {"hidden_size": True}, "must be a whole number"),
        (V3, {"hidden_size": 10**30}, "must be a whole number from 1 to"),
        (V3, {"num_hidden_layers": 10**6}, "'num_hidden_layers' = 1000000 must be a whole number from 1 to"),
        (V3, {"num_key_value_heads": 8}, "'num_key_value_heads' = 8 is not supported: only 128"),
        (V3, {"topk_method": "random"}, "'topk_method' = 'random' must be one of greedy"),
        (V3, {"n_group": 7}, "n_group = 7 must divide n_routed_experts = 256"),
        (V3, {"topk_group": 9}, "topk_group = 9 must be 1 to n_group = 8"),
        (V3, {"num_experts_per_tok": 129}, "num_experts_per_tok = 129 must be 1 to 128"),
        (V3, {"num_experts_per_tok": None}, "lacks num_experts_per_tok"),
        (V3, {"qk_rope_head_dim": 63}, "qk_rope_head_dim = 63 must be even"),
        (V3, {"rope_scaling": YARN | {"type": "dynamic"}}, "'type' = 'dynamic' must be one of default"),
        (V3, {"rope_scaling": YARN | {"attention_factor": 1.5, "attn_factor": 2}}, "disagree; keep one"),
        (
            LLAMA,
            {"rope_scaling": LLAMA["rope_scaling"] | {"attention_factor": 1.5}},
            "'attention_factor' = 1.5",
        ),
        (V3, {"rope_scaling": YARN | {"factor": float("nan")}}, "'factor' = nan must be a number"),
        (V3, {"rope_scaling": YARN | {"short_factor": [1]}}, "rope_scaling: 'short_factor'"),
        (V3, {"rope_scaling": [1]}, "'rope_scaling' = [1] must be an object"),
        (V3, {"rope_parameters": {"rope_type": "default"}}, "rope_scaling and rope_parameters disagree"),
        (V3, {"eos_token_id": []}, "must be a token id or a list of them"),
        (V3, {"eos_token_id": [1, -1]}, "must be a token id or a list of them"),
        (V2, {"num_nextn_predict_layers": 1}, "'num_nextn_predict_layers' = 1 is not supported"),
        (
            QWEN,
            {"use_sliding_window": True, "max_window_layers": 21},
            "'use_sliding_window' = True is not supp",
        ),
        (QWEN3_MOE, {"use_sliding_window": True, "sliding_window": 4096}, "'use_sliding_window' = True"),
        (QWEN3, {"use_qk_norm": False}, "'use_qk_norm' = False is not supported: only True is"),
        (LLAMA, {"use_qk_norm": True}, "'use_qk_norm' = True is not supported: only False is"),
        (LLAMA, {"rope_interleaved": True}, "'rope_interleaved' = True is not supported: only False is"),
        (LLAMA, {"residual_multiplier": 0.22}, "'residual_multiplier' = 0.22 is not supported: only 1 is"),
        (LLAMA, {"position_embedding_type": "alibi"}, "'alibi' is not supported: only 'rope' or 'rotary' is"),
        (LLAMA, {"attn_logit_softcapping": 50.0}, "null, false or 0 would do"),
        (LLAMA, {"quantization": {"bits": 4, "group_size": 64}}, "'quantization'"),
        (QWEN3_MOE, {"shared_expert_intermediate_size": 768}, "'shared_expert_intermediate_size' = 768"),
        (QWEN3_MOE, {"mlp_only_layers": [0.5]}, "'mlp_only_layers' = [0.5] must be a list of whole numbers"),
        (QWEN3_MOE, {"num_experts": None}, "lacks num_local_experts"),
        (QWEN3_MOE, {"num_experts_per_tok": 129}, "num_experts_per_tok = 129 must be 1 to 128"),
        (QWEN, {"layer_types": ["sliding_attention"]}, "'layer_types'"),
        (QWEN, {"num_key_value_heads": 3}, "num_key_value_heads = 3 must divide num_attention_heads = 28"),
        (LLAMA, {"mlp_bias": True}, "'mlp_bias' = True"),
        (LLAMA, {"rope_theta": 0}, "rope_theta = 0.0 must be above 1"),
        (LLAMA, {"num_local_experts": 8}, "'num_local_experts'"),
        (LLAMA, {"evil": "x" * 10_000}, "'evil'"),
    ],
)
def test_what_cannot_run_is_refused_by_name(base: dict[str, Any], change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_hf(base | change, where="folder/config.json")
    assert said in str(caught.value)
    assert str(caught.value).startswith("folder/config.json")
    assert len(str(caught.value)) < 400


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(list(PUBLISHED.values())), st.data())
@settings(max_examples=300, deadline=None)
def test_hostile_values_end_in_a_sentence(base: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(base)))
    with contextlib.suppress(ConfigError):
        assert from_hf(base | {name: data.draw(json_values)}).model_type == base["model_type"]


def test_several_end_tokens_and_optional_fields() -> None:
    config = from_hf(LLAMA | {"eos_token_id": [128001, 128008, 128009]})
    assert config.eos_token_id == (128001, 128008, 128009)
    assert config.attention == GQAConfig(num_key_value_heads=8, head_dim=128)
    tied = from_hf(QWEN | {"tie_word_embeddings": True, "head_dim": 64})
    assert tied.tie_word_embeddings
    assert tied.attention == GQAConfig(num_key_value_heads=4, head_dim=64, qkv_bias=True)


def test_a_shape_without_a_name_is_refused_when_saved() -> None:
    gqa = GQAConfig(num_key_value_heads=2, head_dim=16)
    for config, said in [
        (replace(PRESETS["tiny"], attention=gqa), "deepseek_v3 cannot express this model"),
        (replace(PRESETS["tiny"], model_type="llama", attention=gqa), "llama cannot express this model"),
        (replace(PRESETS["tiny"], model_type="deepseek_v2"), "deepseek_v2 has no MTP modules"),
        (replace(PRESETS["r1-distill-qwen-7b"], attention=gqa), "qwen2 has biases on q, k and v"),
        (replace(PRESETS["r1-distill-qwen-7b"], model_type="llama"), "llama has biases"),
        (replace(PRESETS["smollm2-135m"], rope=RopeConfig(interleave=True)), "llama rotates halves"),
        (replace(PRESETS["qwen3-0.6b"], model_type="llama"), "llama has no norms of queries and keys"),
        (replace(PRESETS["smollm2-135m"], model_type="qwen3"), "qwen3 has norms of queries and keys; use"),
        (replace(PRESETS["qwen3-0.6b"], moe=PRESETS["qwen3-30b-a3b"].moe), "qwen3 cannot express this"),
        (replace(PRESETS["qwen3-30b-a3b"], moe=PRESETS["deepseek-v3"].moe), "qwen3_moe routes by a softmax"),
    ]:
        with pytest.raises(ConfigError, match=said):
            to_hf(config)


def test_a_file_that_is_not_a_config(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(CheckpointError, match=r"there is no config\.json in"):
        _ = Checkpoint.open(tmp_path).config
    for text, said in [
        ("{", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ("[" * 100_000, "not valid JSON"),
    ]:
        path.write_text(text)
        with pytest.raises(CheckpointError, match=said):
            _ = Checkpoint.open(tmp_path).config
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        _ = Checkpoint.open(tmp_path).config
