"""Experts in config.json: DeepSeek's fields, and Qwen3's."""

from typing import Any

from shoestring.errors import ConfigError
from shoestring.model.config import ModelConfig, MoEConfig
from shoestring.model.hf.fields import Fields


def read_moe(fields: Fields, model_type: str, layers: int) -> MoEConfig | None:
    """The experts of a config.json; None for a dense model. ConfigError for a missing or impossible field."""
    if model_type.startswith("deepseek"):
        return _read_deepseek(fields, model_type)
    return _read_qwen(fields, layers) if model_type == "qwen3_moe" else None


def write_moe(config: ModelConfig) -> dict[str, Any]:
    """The fields of `config.moe`. ConfigError for experts that models of this type cannot have."""
    if config.model_type.startswith("deepseek"):
        return _write_deepseek(config.moe)
    return _write_qwen(config.moe) if config.model_type == "qwen3_moe" else {}


def _read_deepseek(fields: Fields, model_type: str) -> MoEConfig | None:
    v3 = model_type == "deepseek_v3"
    n_group = fields.size("n_group", 1)
    values = {
        "n_shared_experts": fields.size("n_shared_experts", 0, least=0, most=2**16),
        "num_experts_per_tok": fields.size("num_experts_per_tok", None),
        "moe_intermediate_size": fields.size("moe_intermediate_size", None),
        "first_k_dense_replace": fields.size("first_k_dense_replace", 0, least=0),
        "moe_layer_freq": fields.size("moe_layer_freq", 1),
        # transformers leaves out what its class for this model_type always does
        "scoring_func": fields.choice("scoring_func", ("softmax", "sigmoid"), "sigmoid" if v3 else "softmax"),
        "topk_method": fields.choice(
            "topk_method", ("greedy", "group_limited_greedy", "noaux_tc"), "noaux_tc" if v3 else "greedy"
        ),
        "n_group": n_group,
        "topk_group": fields.size("topk_group", n_group),
        "norm_topk_prob": fields.flag("norm_topk_prob", v3),
        "routed_scaling_factor": fields.number("routed_scaling_factor", 1.0),
    }
    experts = fields.size("n_routed_experts", None, most=2**16)
    if experts is None:
        return None  # a dense model of this family
    for name in ("num_experts_per_tok", "moe_intermediate_size"):
        if values[name] is None:
            raise ConfigError(f"{fields.where} lacks {name}; a model with n_routed_experts needs it")
    return MoEConfig(n_routed_experts=experts, **values)


def _write_deepseek(moe: MoEConfig | None) -> dict[str, Any]:
    if moe is None:
        return {"n_routed_experts": None}
    if moe.mlp_only_layers:
        raise ConfigError(
            f"mlp_only_layers = {list(moe.mlp_only_layers)}: Hugging Face's DeepSeek has only "
            "first_k_dense_replace for dense layers; use qwen3_moe"
        )
    names = (
        "n_routed_experts n_shared_experts num_experts_per_tok moe_intermediate_size first_k_dense_replace "
        "moe_layer_freq scoring_func topk_method n_group topk_group norm_topk_prob routed_scaling_factor"
    )
    return {name: getattr(moe, name) for name in names.split()}


def _read_qwen(fields: Fields, layers: int) -> MoEConfig | None:
    """Qwen3's experts: a softmax over all, no shared ones; `decoder_sparse_step` becomes dense layers."""
    experts = fields.size("num_experts", None, least=0, most=2**16)
    if experts is None:
        experts = fields.size("num_local_experts", least=0, most=2**16)  # transformers 5 writes either
    else:
        fields.must_be("num_local_experts", experts)
    step = fields.size("decoder_sparse_step", 1)
    dense = fields.indices("mlp_only_layers")
    fields.must_be("shared_expert_intermediate_size", 0)
    per_token, width = fields.size("num_experts_per_tok", 8), fields.size("moe_intermediate_size", 768)
    normalized = fields.flag("norm_topk_prob", False)
    if not experts:
        return None
    return MoEConfig(
        n_routed_experts=experts,
        n_shared_experts=0,
        num_experts_per_tok=per_token,
        moe_intermediate_size=width,
        mlp_only_layers=tuple(i for i in range(layers) if i in dense or (i + 1) % step),
        scoring_func="softmax",
        topk_method="greedy",
        norm_topk_prob=normalized,
    )


def _write_qwen(moe: MoEConfig | None) -> dict[str, Any]:
    if moe is None:
        return {"num_experts": 0}
    like = MoEConfig(
        n_routed_experts=moe.n_routed_experts,
        n_shared_experts=0,
        num_experts_per_tok=moe.num_experts_per_tok,
        moe_intermediate_size=moe.moe_intermediate_size,
        mlp_only_layers=moe.mlp_only_layers,
        scoring_func="softmax",
        topk_method="greedy",
        norm_topk_prob=moe.norm_topk_prob,
    )
    if moe != like:
        raise ConfigError(
            "Hugging Face's qwen3_moe routes by a softmax over all experts, has no groups, scaling or shared "
            "experts, and lists its dense layers in mlp_only_layers; use deepseek_v3"
        )
    names = "num_experts_per_tok moe_intermediate_size norm_topk_prob"
    return {name: getattr(moe, name) for name in names.split()} | {
        "num_experts": moe.n_routed_experts,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(moe.mlp_only_layers),
    }
