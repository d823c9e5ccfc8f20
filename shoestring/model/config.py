"""ModelConfig: the shape of a model in Hugging Face's names, grouped by the part that uses them."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal

ModelType = Literal["deepseek_v3", "deepseek_v2", "qwen2", "qwen3", "qwen3_moe", "llama"]


@dataclass(frozen=True, kw_only=True)
class MLAConfig:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1)."""

    q_lora_rank: int | None
    """Rank of the query latent; None projects queries directly (V2-Lite)."""
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    attention_bias: bool = False

    @property
    def qk_head_dim(self) -> int:
        return self.qk_nope_head_dim + self.qk_rope_head_dim


@dataclass(frozen=True, kw_only=True)
class GQAConfig:
    """Grouped-query attention, as in Llama, Qwen2 and Qwen3."""

    num_key_value_heads: int
    head_dim: int
    qkv_bias: bool = False
    o_bias: bool = False
    qk_norm: bool = False
    """RMSNorm of every head's query and key before they are rotated (Qwen3, arXiv 2505.09388, section 2)."""


@dataclass(frozen=True, kw_only=True)
class MoEConfig:
    """DeepSeekMoE (V2 section 2.2; V3, arXiv 2412.19437, section 2.1.2), and Qwen3's simpler experts."""

    n_routed_experts: int
    n_shared_experts: int
    num_experts_per_tok: int
    moe_intermediate_size: int
    first_k_dense_replace: int = 0
    """The first k layers keep a dense feed-forward."""
    moe_layer_freq: int = 1
    mlp_only_layers: tuple[int, ...] = ()
    """Further layers with a dense feed-forward."""
    scoring_func: Literal["softmax", "sigmoid"] = "sigmoid"
    topk_method: Literal["greedy", "group_limited_greedy", "noaux_tc"] = "noaux_tc"
    """noaux_tc (V3) chooses by score plus balance bias, the others by score alone."""
    n_group: int = 1
    topk_group: int = 1
    norm_topk_prob: bool = True
    routed_scaling_factor: float = 1.0


@dataclass(frozen=True, kw_only=True)
class RopeConfig:
    """Rotary embedding; `rope_type` and its fields as in Hugging Face's `rope_scaling`."""

    rope_theta: float = 10000.0
    rope_type: Literal["default", "linear", "llama3", "yarn"] = "default"
    interleave: bool = False
    """True rotates neighbors (x0, x1), as DeepSeek does; False rotates (x_i, x_{i + dim/2})."""
    factor: float = 1.0
    attention_factor: float | None = None
    """YaRN's factor on cos and sin; None: from `factor` and the mscales."""
    original_max_position_embeddings: int | None = None
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    mscale: float | None = None
    mscale_all_dim: float | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A model's shape. `attention` and `moe` choose its parts; nothing is inferred from names or sizes."""

    model_type: ModelType
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    """Width of the dense feed-forward layers."""
    num_hidden_layers: int
    num_attention_heads: int
    attention: MLAConfig | GQAConfig
    moe: MoEConfig | None = None
    rope: RopeConfig = field(default_factory=RopeConfig)
    rms_norm_eps: float = 1e-6
    max_position_embeddings: int = 4096
    tie_word_embeddings: bool = False
    num_nextn_predict_layers: int = 0
    """Multi-token-prediction modules after the last layer (V3 section 2.2)."""
    initializer_range: float = 0.02
    bos_token_id: int | None = None
    eos_token_id: int | tuple[int, ...] | None = None
    pad_token_id: int | None = None

    def is_moe_layer(self, index: int) -> bool:
        """Return whether layer `index` routes to experts; MTP modules (from num_hidden_layers on) do."""
        moe = self.moe
        if moe is None or index < moe.first_k_dense_replace or index in moe.mlp_only_layers:
            return False
        return index % moe.moe_layer_freq == 0

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The ids in `eos_token_id`: none, one or several."""
        eos = self.eos_token_id
        return eos if isinstance(eos, tuple) else () if eos is None else (eos,)

    def with_end_tokens(self, ids: Iterable[int]) -> "ModelConfig":
        """The config with these ids among its end tokens, except for ids outside the vocabulary."""
        new = tuple(i for i in dict.fromkeys(ids) if i not in self.eos_token_ids and i < self.vocab_size)
        end_ids = (*self.eos_token_ids, *new)
        return replace(self, eos_token_id=end_ids if len(end_ids) > 1 else end_ids[0]) if new else self

    @property
    def moe_layers(self) -> list[int]:
        """The main layers that route to experts."""
        return [index for index in range(self.num_hidden_layers) if self.is_moe_layer(index)]
