"""Metadata of strangers' files: each wrong value is one sentence that names its key."""

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shoestring.errors import CheckpointError
from shoestring.model.config import GQAConfig, MoEConfig, RopeConfig
from shoestring.model.gguf.config_reader import read_config
from shoestring.model.gguf.config_writer import write_config
from shoestring.model.gguf.file import GGUFFile, GGUFTensor
from shoestring.model.gguf.names import layout
from shoestring.model.gguf.types import F32
from shoestring.model.presets import TINY

TENSORS = {
    item.name: GGUFTensor(path=Path("m.gguf"), name=item.name, shape=item.shape, type=F32, start=0)
    for item in layout(TINY)
}
ARCH = "deepseek2."


def read(**changes):
    changes = {"deepseek2__" + key: value for key, value in changes.items()}
    return read_file(write_config(TINY), TENSORS, changes)


def read_dense(arch="llama", **changes):
    """A dense model without scaling, with these changes."""
    gqa = GQAConfig(num_key_value_heads=1, head_dim=16, qk_norm=arch == "qwen3", qkv_bias=arch == "qwen2")
    config = replace(
        TINY, model_type=arch, moe=None, attention=gqa, rope=RopeConfig(), num_nextn_predict_layers=0
    )
    tensors = {name: TENSORS[name] for name in ("token_embd.weight", "output.weight")}
    changes = {f"{arch}__{key}": value for key, value in changes.items()}
    return read_file(write_config(config), tensors, changes)


def read_experts(**changes):
    """A Qwen3 model with experts, with these changes."""
    moe = MoEConfig(
        n_routed_experts=4, n_shared_experts=0, num_experts_per_tok=2, moe_intermediate_size=32,
        scoring_func="softmax", topk_method="greedy",
    )  # fmt: skip
    gqa = GQAConfig(num_key_value_heads=1, head_dim=16, qk_norm=True)
    config = replace(
        TINY, model_type="qwen3_moe", moe=moe, attention=gqa, rope=RopeConfig(), num_nextn_predict_layers=0
    )
    tensors = {name: TENSORS[name] for name in ("token_embd.weight", "output.weight")}
    return read_file(write_config(config), tensors, {f"qwen3moe__{key}": v for key, v in changes.items()})


def read_file(metadata, tensors, changes):
    metadata = metadata | {key.replace("__", "."): value for key, value in changes.items()}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    return read_config(GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata=metadata, tensors=tensors))


WRONG = {
    "lacks": ({"block_count": None}, "lacks the key deepseek2.block_count"),
    "text": ({"block_count": "three"}, "block_count = three is not a whole number"),
    "a flag": ({"block_count": True}, "block_count = True is not a whole number"),
    "a list": ({"attention__head_count": np.array([2, 4])}, r"head_count = \[2 4\] is not a whole number"),
    "zero": ({"embedding_length": 0}, "embedding_length = 0 is not"),
    "negative": ({"embedding_length": -5}, "embedding_length = -5 is not"),
    "too many layers": ({"block_count": 2**30}, "block_count = 1073741824 is not"),
    "too many experts": (
        {"expert_count": 2**16, "block_count": 4096},
        "expert_count = 65536 is not possible",
    ),
    "nan": ({"rope__freq_base": float("nan")}, "freq_base = nan is not a number"),
    "infinite": ({"expert_weights_scale": float("inf")}, "expert_weights_scale = inf is not a number"),
    "a number as flag": ({"expert_weights_norm": 1}, "expert_weights_norm = 1 is not true or false"),
    "gating": ({"expert_gating_func": 9}, "expert_gating_func = 9 is not one of 0, 1, 2"),
    "rope": ({"rope__scaling__type": "longrope"}, "type = longrope is not one of none, linear, yarn"),
    "rope wider than the head": ({"rope__dimension_count": 16}, "key_length_mla = 16 is not"),
    "huge heads": ({"attention__key_length_mla": 2**26}, "key_length_mla = 67108864 is not"),
    "groups": ({"expert_group_count": 3}, "n_group = 3 must divide n_routed_experts = 8"),
    "top k": ({"expert_used_count": 99}, "num_experts_per_tok = 99 must be 1 to 4"),
    "only MTP layers": ({"nextn_predict_layers": 3}, "num_hidden_layers = 0 must be at least 1"),
    "small theta": ({"rope__freq_base": 0.5}, "rope_theta = 0.5 must be above 1"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_is_named(case):
    changes, words = WRONG[case]
    with pytest.raises(CheckpointError, match=words) as caught:
        read(**changes)
    assert str(caught.value).startswith("m.gguf")


def test_another_architecture_is_named():
    file = GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata={"general.architecture": "mamba"}, tensors={})
    with pytest.raises(
        CheckpointError, match="of architecture 'mamba'; supported are deepseek2, llama, qwen2"
    ):
        read_config(file)
    with pytest.raises(CheckpointError, match="does not name its general"):
        read_config(replace(file, metadata={}))


def test_mtp_layers_are_not_counted():
    assert read(nextn_predict_layers=1).num_hidden_layers == TINY.num_hidden_layers - 1


def test_old_files_have_the_heads_own_sizes():
    config = read(
        attention__key_length_mla=None, attention__value_length_mla=None,
        attention__key_length=16, attention__value_length=8,
    )  # fmt: skip
    assert config.attention == TINY.attention


def test_any_values_give_a_model_or_a_sentence():
    chance = random.Random(0)
    values = [
        0,
        1,
        2,
        3,
        7,
        8,
        -1,
        2**31,
        2**63,
        0.0,
        -1.5,
        1e300,
        True,
        False,
        "",
        "yarn",
        "none",
        ["x"],
        np.arange(3),
    ]
    keys = [key for key in write_config(TINY) if key.startswith(ARCH)]
    for _ in range(3000):
        metadata = write_config(TINY)
        for key in chance.sample(keys, chance.randint(1, 3)):
            metadata[key] = chance.choice(values)
        try:
            read_config(GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata=metadata, tensors=TENSORS))
        except CheckpointError as error:
            assert str(error).startswith("m.gguf")  # noqa: PT017


def test_a_configuration_is_read_without_torch():
    code = "import sys, shoestring.model.gguf.config_reader; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


UNKNOWN = {
    "llama": {
        "logit_scale": 0.5,
        "embedding_scale": 12.0,
        "residual_scale": 0.22,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "attention.clamp_kqv": 8.0,
        "attention.max_alibi_bias": 8.0,
        "attention.causal": False,
        "attention.sliding_window": 16,
        "attention.scale": 0.5,
        "attention.relative_buckets_count": 32,
        "use_parallel_residual": True,
        "hidden_activation": "gelu",
        "pooling_type": 1,
        "rope.dimension_sections": np.array([16, 24, 24, 0]),
        "rope.scaling.attn_factor": 1.5,
        "rope.scaling.alpha": 1000.0,
        "expert_count": 8,
        "swiglu_clamp_exp": np.array([0.0, 7.0]),
        "some.new.key": 1,
    },
    "qwen3": {"full_attention_interval": 4, "n_deepstack_layers": 3, "ssm.conv_kernel": 4},
    "qwen2": {"rope.scaling.yarn_log_multiplier": 0.1, "tensor_data_layout": "transposed"},
}


@pytest.mark.parametrize(("arch", "key"), [(arch, key) for arch in UNKNOWN for key in UNKNOWN[arch]])
def test_a_key_that_changes_the_model_is_refused_by_name(arch, key):
    scaled = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0} if "yarn_log" in key else {}
    with pytest.raises(CheckpointError, match=rf"{arch}\.{key} = ") as caught:
        read_dense(arch, **scaled, **{key: UNKNOWN[arch][key]})
    assert "is not supported: only" in str(caught.value) or "is not supported in" in str(caught.value)


INERT = {
    "logit_scale": 1.0,
    "residual_scale": 0.0,
    "attention.causal": True,
    "attention.sliding_window": 256,
    "attention.scale": 0.25,
    "attention.layer_norm_epsilon": 1e-5,
    "attention.clamp_kqv": 0.0,
    "use_parallel_residual": False,
    "hidden_activation": "silu",
    "rope.scaling.finetuned": True,
    "rope.scaling.type": "none",
    "rope.scale_linear": 1.0,
    "rope.scaling.original_context_length": 64,
    "rope.dimension_sections": np.zeros(4, np.int32),
    "expert_count": 0,
    "expert_used_count": 0,
    "tensor_data_layout": "Meta AI original pth",
    "swiglu_clamp_exp": np.zeros(3, np.float32),
    "attention.head_count_kv": np.array([1, 1, 1]),
    "feed_forward_length": np.full(3, TINY.intermediate_size),
    "interleave_moe_layer_step": 1,
}


@pytest.mark.parametrize("key", INERT)
def test_a_key_that_changes_nothing_is_taken(key):
    assert read_dense(**{key: INERT[key]}) == read_dense()


def test_a_factor_without_a_type_is_linear():
    linear = replace(read_dense().rope, rope_type="linear", factor=4.0)
    assert read_dense(rope__scaling__factor=4.0).rope == linear
    assert read_dense("qwen2", rope__scaling__factor=4.0).rope == linear
    assert read_dense(rope__scale_linear=4.0).rope == linear
    assert read_dense(rope__scale_linear=2.0, rope__scaling__factor=4.0).rope == linear
    assert read_dense(rope__scaling__type="none", rope__scaling__factor=4.0) == read_dense()
    with pytest.raises(CheckpointError, match=r"rope\.scaling\.type = linear is not supported for deepseek2"):
        read(rope__scaling__type=None, rope__scaling__factor=4.0)


def test_yarn_without_its_length_takes_the_contexts():
    rope = read_dense(rope__scaling__type="yarn", rope__scaling__factor=4.0).rope
    assert rope.original_max_position_embeddings == TINY.max_position_embeddings
    twice = read_dense(
        rope__scaling__type="yarn", rope__scaling__factor=4.0, rope__scaling__attn_factor=2.0
    ).rope
    assert twice.attention_factor == pytest.approx(2 * (1 + 0.1 * np.log(4)))
    with pytest.raises(CheckpointError, match=r"attn_factor = 2\.0 is not supported"):
        read(rope__scaling__type="yarn", rope__scaling__factor=4.0, rope__scaling__attn_factor=2.0)
    with pytest.raises(CheckpointError, match=r"yarn_ext_factor = 0\.5 is not supported"):
        read(rope__scaling__type="yarn", rope__scaling__factor=4.0, rope__scaling__yarn_ext_factor=0.5)


def test_groups_and_gates_of_experts():
    assert read(expert_weights_scale=0.0).moe.routed_scaling_factor == 1.0
    assert read_experts(expert_group_count=1, expert_weights_norm=True) == read_experts()
    for key, value in (
        ("expert_group_count", 2),
        ("expert_gating_func", 2),
        ("expert_weights_norm", False),
        ("expert_weights_scale", 2.5),
        ("expert_shared_count", 1),
        ("leading_dense_block_count", 1),
        ("expert_shared_feed_forward_length", 64),
    ):
        with pytest.raises(CheckpointError, match=f"qwen3moe.{key} = "):
            read_experts(**{key: value})
    with pytest.raises(CheckpointError, match="expert_shared_feed_forward_length = 7"):
        read(expert_shared_feed_forward_length=7)


def test_a_file_that_is_no_model_is_refused():
    file = GGUFFile(path=Path("m.gguf"), num_bytes=0, metadata=write_config(TINY), tensors=TENSORS)
    for key, value, words in (
        ("general.type", "adapter", "holds no model but general.type = 'adapter'"),
        ("general.type", "mmproj", "holds no model"),
        ("general.quantization_version", 1, "quantization_version = 1 is not supported: only 2"),
    ):
        with pytest.raises(CheckpointError, match=words):
            read_config(replace(file, metadata=file.metadata | {key: value}))
