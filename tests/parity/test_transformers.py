"""Every family against Hugging Face transformers, both ways: logits, gradients, MTP's hidden states."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from transformers.cache_utils import MtpCache
from transformers.modeling_layers import MtpModel

from shoestring import kernels
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig, RopeConfig
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.folder import load_model, save_model
from shoestring.model.transformer import Transformer

TOLERANCE = 1e-4
IDS = torch.randint(0, 97, (2, 41), generator=torch.Generator().manual_seed(5))

SIZES = {"vocab_size": 97, "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 3}
LATENT = {"kv_lora_rank": 20, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8, "v_head_dim": 10}
EXPERTS = {
    "n_routed_experts": 16,
    "n_shared_experts": 2,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 20,
}
YARN = {
    **{"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 16},
    **{"beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 0.707},
}
LLAMA3 = {
    **{"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "original_max_position_embeddings": 16},
    **{"low_freq_factor": 1.0, "high_freq_factor": 4.0},
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 3.0}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One shape, written once for them and once for us."""

    theirs: Callable[[], Any]
    ours: ModelConfig


def model_config(model_type: Any, attention: Any, rope: dict[str, Any], **rest: Any) -> ModelConfig:
    interleave = rest.pop("interleave", model_type.startswith("deepseek"))
    fields = {"num_attention_heads": 4, "max_position_embeddings": 128, **SIZES, **rest}
    rope_config = RopeConfig(**{"interleave": interleave, **rope})
    return ModelConfig(model_type=model_type, attention=attention, rope=rope_config, **fields)


def v2(q_lora_rank: int | None, rope: dict[str, Any], **routing: Any) -> Family:
    shared = {**SIZES, "num_attention_heads": 4, "max_position_embeddings": 128, "rms_norm_eps": 1e-5}
    routed = {**EXPERTS, "first_k_dense_replace": 1, "routed_scaling_factor": 1.7, **routing}
    moe = MoEConfig(scoring_func="softmax", norm_topk_prob=False, **routed)
    return Family(
        theirs=lambda: transformers.DeepseekV2Config(
            **shared, **LATENT, **routed, q_lora_rank=q_lora_rank, rope_parameters=dict(rope)
        ),
        ours=model_config(
            "deepseek_v2", MLAConfig(q_lora_rank=q_lora_rank, **LATENT), rope, moe=moe, rms_norm_eps=1e-5
        ),
    )


def v3(rope: dict[str, Any], *, bias: bool = False, interleave: bool = True, **routing: Any) -> Family:
    shared = {**SIZES, "num_attention_heads": 4, "max_position_embeddings": 128}
    routed = {
        **EXPERTS,
        "first_k_dense_replace": 1,
        "routed_scaling_factor": 2.5,
        "n_group": 4,
        "topk_group": 2,
    }
    routed |= routing
    mla = MLAConfig(q_lora_rank=24, attention_bias=bias, **LATENT)
    return Family(
        theirs=lambda: transformers.DeepseekV3Config(
            **shared,
            **LATENT,
            **routed,
            num_key_value_heads=4,
            q_lora_rank=24,
            attention_bias=bias,
            rope_interleave=interleave,
            rope_parameters=dict(rope),
            num_nextn_predict_layers=0,
        ),
        ours=model_config("deepseek_v3", mla, rope, interleave=interleave, moe=MoEConfig(**routed)),
    )


def dense(
    model_type: Any, rope: dict[str, Any], *, tied: bool, bias: bool = False, kv_heads: int = 2
) -> Family:
    shared = {**SIZES, "num_attention_heads": 4, "max_position_embeddings": 128, "tie_word_embeddings": tied}
    shared |= {"num_key_value_heads": kv_heads, "rope_parameters": dict(rope)}
    if model_type == "qwen2":
        gqa = GQAConfig(num_key_value_heads=kv_heads, head_dim=12, qkv_bias=True)
        theirs = lambda: transformers.Qwen2Config(**shared)  # noqa: E731
    else:
        gqa = GQAConfig(num_key_value_heads=kv_heads, head_dim=20, qkv_bias=bias, o_bias=bias)
        theirs = lambda: transformers.LlamaConfig(**shared, head_dim=20, attention_bias=bias)  # noqa: E731
    return Family(theirs=theirs, ours=model_config(model_type, gqa, rope, tie_word_embeddings=tied))


def qwen3(rope: dict[str, Any], *, tied: bool = False, bias: bool = False, **experts: Any) -> Family:
    """Dense, or with experts; heads are wider together than hidden_size."""
    shared = {**SIZES, "num_attention_heads": 4, "max_position_embeddings": 128, "tie_word_embeddings": tied}
    shared |= {
        "num_key_value_heads": 2,
        "rope_parameters": dict(rope),
        "head_dim": 20,
        "attention_bias": bias,
    }
    gqa = GQAConfig(num_key_value_heads=2, head_dim=20, qkv_bias=bias, o_bias=bias, qk_norm=True)
    if not experts:
        ours = model_config("qwen3", gqa, rope, tie_word_embeddings=tied)
        return Family(theirs=lambda: transformers.Qwen3Config(**shared), ours=ours)
    routed = {"num_experts_per_tok": 4, "moe_intermediate_size": 20}
    dense_layers = experts.pop("dense", ())
    moe = MoEConfig(
        n_routed_experts=16,
        n_shared_experts=0,
        scoring_func="softmax",
        topk_method="greedy",
        norm_topk_prob=experts["norm_topk_prob"],
        mlp_only_layers=dense_layers,
        **routed,
    )
    return Family(
        theirs=lambda: transformers.Qwen3MoeConfig(**shared, **routed, **experts, num_experts=16),
        ours=model_config("qwen3_moe", gqa, rope, moe=moe, tie_word_embeddings=tied),
    )


PLAIN = {"rope_type": "default", "rope_theta": 10000.0}
GROUPS = {"topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2}
FAMILIES = {
    "v2-greedy": v2(24, PLAIN, topk_method="greedy"),
    "v2-groups": v2(24, PLAIN, **GROUPS),
    "v2-lite": v2(None, PLAIN, topk_method="greedy"),
    "v2-lite-groups": v2(None, PLAIN, **GROUPS),
    "v2-yarn": v2(24, YARN, **GROUPS),
    "v2-lite-yarn": v2(None, {**YARN, "mscale": 0.707}, topk_method="greedy"),
    "v3": v3(PLAIN),
    "v3-yarn": v3(YARN),
    "v3-yarn-one-mscale": v3({**YARN, "mscale": None, "mscale_all_dim": None}),
    "v3-halves": v3({**YARN, "mscale_all_dim": 1.0}, interleave=False),
    "v3-bias": v3(YARN, bias=True),
    "v3-unnormalized": v3(PLAIN, norm_topk_prob=False),
    "v3-one-group": v3(PLAIN, n_group=1, topk_group=1),
    "qwen2-tied": dense("qwen2", {**PLAIN, "rope_theta": 1e6}, tied=True),
    "qwen2": dense("qwen2", PLAIN, tied=False, kv_heads=1),
    "qwen2-yarn": dense("qwen2", {**YARN, "mscale": None, "mscale_all_dim": None}, tied=False),
    "qwen3-tied": qwen3({**PLAIN, "rope_theta": 1e6}, tied=True),
    "qwen3-bias": qwen3(PLAIN, bias=True),
    "qwen3-yarn": qwen3({**YARN, "mscale": None, "mscale_all_dim": None, "attention_factor": 1.3}),
    "qwen3-moe": qwen3(PLAIN, norm_topk_prob=True),
    "qwen3-moe-unnormalized": qwen3(PLAIN, norm_topk_prob=False, mlp_only_layers=[1], dense=(1,)),
    "qwen3-moe-steps": qwen3(
        LLAMA3, norm_topk_prob=True, decoder_sparse_step=2, mlp_only_layers=[0], dense=(0, 2), bias=True
    ),
    "llama": dense("llama", PLAIN, tied=False, kv_heads=4),
    "llama3": dense("llama", LLAMA3, tied=False),
    "llama-linear": dense("llama", LINEAR, tied=True),
    "llama-bias": dense("llama", LLAMA3, tied=False, bias=True, kv_heads=1),
}


@torch.no_grad()
def scramble(model: torch.nn.Module) -> None:
    """Values that leave no tensor out: no norm weight is one, no bias zero, and routing is far from ties."""
    generator = torch.Generator().manual_seed(11)
    for name, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if name.endswith("e_score_correction_bias"):
            tensor.copy_(noise * 0.2)
        elif tensor.dim() == 1:
            tensor.copy_(noise * 0.2 + (1.0 if "norm" in name else 0.0))
        else:
            tensor.copy_(noise * (1.0 if "embed" in name else tensor.shape[-1] ** -0.5))


def ours(config: ModelConfig) -> Transformer:
    model = Transformer(config)
    scramble(model)
    return model


def theirs(folder: Path, mtp_modules: int = 0) -> Any:
    """Their model of a folder, in which nothing is missing and nothing but MTP is left over."""
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, dtype=torch.float32
    )
    assert not report["missing_keys"]
    assert not report["mismatched_keys"]
    layers = {int(name.split(".")[2]) for name in report["unexpected_keys"]}
    assert layers == set(range(model.config.num_hidden_layers, model.config.num_hidden_layers + mtp_modules))
    return model


def largest_difference(a: torch.Tensor, b: torch.Tensor) -> float:
    assert a.shape == b.shape
    return (a.double() - b.double()).abs().max().item()


@pytest.mark.parametrize("name", FAMILIES)
def test_their_checkpoint_in_our_model(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    reference = transformers.AutoModelForCausalLM.from_config(family.theirs()).eval()
    scramble(reference)
    reference.save_pretrained(tmp_path)
    model = load_model(Checkpoint.open(tmp_path))
    tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    assert replace(model.config, **tokens) == family.ours
    with torch.no_grad():
        logits = reference(IDS).logits
        difference = largest_difference(model(IDS), logits)
    print(f"largest difference {difference:.1e}")  # shown by pytest -rP
    assert logits.std() > 0.3  # or the tolerance would say little
    assert difference < TOLERANCE


@pytest.mark.parametrize("name", FAMILIES)
def test_our_checkpoint_in_their_model(name: str, tmp_path: Path) -> None:
    model = ours(FAMILIES[name].ours)
    save_model(model, tmp_path)
    reference = theirs(tmp_path)
    with torch.no_grad():
        difference = largest_difference(model(IDS), reference(IDS).logits)
    print(f"largest difference {difference:.1e}")  # shown by pytest -rP
    assert difference < TOLERANCE


def our_gradients(model: Transformer) -> dict[str, torch.Tensor]:
    """Of the mean next-token loss, by parameter name."""
    hidden_ND = model.features(IDS[:, :-1]).hidden_BTD.flatten(0, 1)
    targets_N = IDS[:, 1:].flatten()
    weights_N = torch.full(targets_N.shape, 1 / len(targets_N))
    kernels.linear_cross_entropy(hidden_ND, model.head_weight_WD, targets_N, weights_N)[0].backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    "name", ["v3-bias", "v2-lite-groups", "qwen2-tied", "llama3", "qwen3-tied", "qwen3-moe"]
)
def test_gradients_of_the_loss(name: str, tmp_path: Path) -> None:
    model = ours(FAMILIES[name].ours)
    save_model(model, tmp_path)
    reference = theirs(tmp_path)
    logits = reference(IDS[:, :-1]).logits
    F.cross_entropy(logits.flatten(0, 1), IDS[:, 1:].flatten()).backward()
    expected = {name: parameter.grad for name, parameter in reference.named_parameters()}
    gradients = our_gradients(model)
    assert gradients.keys() == expected.keys()
    worst = 0.0
    for key, gradient in gradients.items():
        assert gradient.any(), key
        worst = max(worst, largest_difference(gradient, expected[key]) / expected[key].abs().max().item())
    print(f"largest difference {worst:.1e}")  # shown by pytest -rP
    assert worst < TOLERANCE  # of each tensor's largest gradient


def test_hidden_states_of_mtp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their MTP runs one position later than ours, which changes nothing: rope sees differences."""
    model = ours(replace(FAMILIES["v3-yarn"].ours, num_nextn_predict_layers=2))
    save_model(model, tmp_path)
    reference = theirs(tmp_path, mtp_modules=2)
    # They look for DeepSeek-V3's own layer 61; here MTP begins at layer 3.
    monkeypatch.setattr(reference, "_keys_to_ignore_on_load_unexpected", [r"model\.layers\.[34]\."])
    mtp = MtpModel.from_pretrained(reference).eval()
    with torch.no_grad():
        hidden_BTD = model.features(IDS).hidden_BTD
        state = reference.model(IDS).last_hidden_state
        for depth in range(2):
            length = IDS.shape[1] - 1 - depth
            next_ids_BT = IDS[:, depth + 1 :]
            hidden_BTD = model.mtp_features(hidden_BTD[:, :length], next_ids_BT, depth).hidden_BTD
            positions = torch.arange(depth + 1, depth + 1 + length)[None]
            cache = MtpCache(config=mtp.config)
            state = mtp.forward_layer(depth, state[:, :length], positions, cache, input_ids=next_ids_BT)
            difference = largest_difference(hidden_BTD, state)
            print(f"largest difference at depth {depth}: {difference:.1e}")
            assert difference < TOLERANCE
            assert hidden_BTD.std() > 0.3
