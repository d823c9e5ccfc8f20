"""MLA and GQA: what each caches per token, attention in full, and attention over the cache."""

from torch import Tensor, nn

from shoestring import kernels
from shoestring.model.adapter import adapted
from shoestring.model.cache import CacheSpec, LayerCache
from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig
from shoestring.model.layers import Linear, RMSNorm, Rotation, softmax_scale

LATENT_NORM_EPS = 1e-6  # fixed in every published DeepSeek model


class UpProjection(Linear):
    """kv_b_proj: from latents to every head's keys and values, or absorbed into queries and outputs."""

    def __init__(self, mla: MLAConfig, heads: int) -> None:
        self.heads, self.nope, self.value_width = heads, mla.qk_nope_head_dim, mla.v_head_dim
        super().__init__(mla.kv_lora_rank, heads * (self.nope + self.value_width), bias=False)

    def absorb(self, q_BTHP: Tensor) -> Tensor:
        """Queries for latents instead of keys (V2 section 2.1.2): (B, T, H, C)."""
        up_key_HPC = self._halves()[0]
        return kernels.linear_stack(q_BTHP.flatten(0, 1), up_key_HPC.transpose(1, 2)).unflatten(
            0, q_BTHP.shape[:2]
        )

    def expand(self, mixed_BTHC: Tensor) -> Tensor:
        """Each head's value from its mix of latents: (B, T, H, V)."""
        up_value_HVC = self._halves()[1]
        return kernels.linear_stack(mixed_BTHC.flatten(0, 1), up_value_HVC).unflatten(0, mixed_BTHC.shape[:2])

    def _halves(self) -> tuple[Tensor, Tensor]:
        """The matrices of keys (H, P, C) and of values (H, V, C)."""
        weight_HKC = adapted(self.weight, self.adapter).unflatten(0, (self.heads, -1))
        up_key_HPC, up_value_HVC = weight_HKC.split([self.nope, self.value_width], 1)
        return up_key_HPC, up_value_HVC


class MLA(nn.Module):
    """Multi-head latent attention (arXiv 2405.04434, section 2.1): keys and values from one small latent.

    `attend_full` expands the latent to full keys and values; `attend_cached` absorbs the expansion into the
    queries and outputs (section 2.1.2), so that it reads only the latents. Both compute the same function.
    """

    def __init__(self, config: ModelConfig, mla: MLAConfig) -> None:
        super().__init__()
        heads, size = config.num_attention_heads, config.hidden_size
        self.mla, self.num_heads = mla, heads
        self.scale = softmax_scale(config.rope, mla.qk_head_dim)
        if mla.q_lora_rank is None:
            self.q_proj = Linear(size, heads * mla.qk_head_dim, bias=False)
        else:
            self.q_a_proj = Linear(size, mla.q_lora_rank, bias=mla.attention_bias)
            self.q_a_layernorm = RMSNorm(mla.q_lora_rank, LATENT_NORM_EPS)
            self.q_b_proj = Linear(mla.q_lora_rank, heads * mla.qk_head_dim, bias=False)
        latent_width = mla.kv_lora_rank + mla.qk_rope_head_dim
        self.kv_a_proj_with_mqa = Linear(size, latent_width, bias=mla.attention_bias)
        self.kv_a_layernorm = RMSNorm(mla.kv_lora_rank, LATENT_NORM_EPS)
        self.kv_b_proj = UpProjection(mla, heads)
        self.o_proj = Linear(heads * mla.v_head_dim, size, bias=mla.attention_bias)

    @staticmethod
    def cache_spec(config: ModelConfig) -> CacheSpec:
        """The normalized latent and the rotated key that all heads share."""
        assert isinstance(config.attention, MLAConfig)
        return {"latent": (config.attention.kv_lora_rank,), "k_rope": (config.attention.qk_rope_head_dim,)}

    def forward(
        self,
        x_BTD: Tensor,
        rotation: Rotation,
        cache: LayerCache | None = None,
        segments_S2: Tensor | None = None,
    ) -> Tensor:
        q_BTHD = self._queries(x_BTD)
        latent_BTC, k_rope_BTR = self._latent(x_BTD)
        if cache is None:
            return self.attend_full(q_BTHD, latent_BTC, k_rope_BTR, rotation, segments_S2)
        cache.append(latent=latent_BTC, k_rope=rotation.apply(k_rope_BTR[:, :, None])[:, :, 0])
        return self.attend_cached(rotation.apply(q_BTHD), cache)

    def attend_full(
        self,
        q_BTHD: Tensor,
        latent_BTC: Tensor,
        k_rope_BTR: Tensor,
        rotation: Rotation,
        segments_S2: Tensor | None = None,
    ) -> Tensor:
        """Training: expand the latents to keys and values of every head."""
        kv_BTHU = self.kv_b_proj(latent_BTC).unflatten(-1, (self.num_heads, -1))
        angles = (rotation.cos_NA, rotation.sin_NA, rotation.interleave)
        out_BTHV = kernels.expanded_attention(q_BTHD, kv_BTHU, k_rope_BTR, *angles, self.scale, segments_S2)
        return self.o_proj(out_BTHV.flatten(2))

    def attend_cached(self, q_BTHD: Tensor, cache: LayerCache) -> Tensor:
        """Serving: the new tokens against all latents, without expanding them."""
        widths = [self.mla.qk_nope_head_dim, self.mla.qk_rope_head_dim]
        q_nope_BTHP, q_rope_BTHR = q_BTHD.split(widths, dim=-1)
        q_latent_BTHC = self.kv_b_proj.absorb(q_nope_BTHP)
        mixed_BTHC = cache.attend_latent(q_latent_BTHC, q_rope_BTHR, self.scale)
        return self.o_proj(self.kv_b_proj.expand(mixed_BTHC).flatten(2))

    def _queries(self, x_BTD: Tensor) -> Tensor:
        """Every head's queries, not rotated yet."""
        if self.mla.q_lora_rank is None:
            q = self.q_proj(x_BTD)
        else:
            q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(x_BTD)))
        return q.unflatten(-1, (self.num_heads, self.mla.qk_head_dim))

    def _latent(self, x_BTD: Tensor) -> tuple[Tensor, Tensor]:
        """The normalized latent, and the keys' shared part, not rotated yet."""
        widths = [self.mla.kv_lora_rank, self.mla.qk_rope_head_dim]
        latent_BTC, k_rope_BTR = self.kv_a_proj_with_mqa(x_BTD).split(widths, dim=-1)
        return self.kv_a_layernorm(latent_BTC), k_rope_BTR


class GQA(nn.Module):
    """Grouped-query attention (arXiv 2305.13245), with Qwen2's biases or Qwen3's norms by the config."""

    def __init__(self, config: ModelConfig, gqa: GQAConfig) -> None:
        super().__init__()
        self.num_heads, self.gqa = config.num_attention_heads, gqa
        self.scale = softmax_scale(config.rope, gqa.head_dim)
        q_width, kv_width = config.num_attention_heads * gqa.head_dim, gqa.num_key_value_heads * gqa.head_dim
        self.q_proj = Linear(config.hidden_size, q_width, bias=gqa.qkv_bias)
        self.k_proj = Linear(config.hidden_size, kv_width, bias=gqa.qkv_bias)
        self.v_proj = Linear(config.hidden_size, kv_width, bias=gqa.qkv_bias)
        self.o_proj = Linear(q_width, config.hidden_size, bias=gqa.o_bias)
        if gqa.qk_norm:
            self.q_norm = RMSNorm(gqa.head_dim, config.rms_norm_eps)
            self.k_norm = RMSNorm(gqa.head_dim, config.rms_norm_eps)

    @staticmethod
    def cache_spec(config: ModelConfig) -> CacheSpec:
        """Rotated keys, and values, of every key head."""
        assert isinstance(config.attention, GQAConfig)
        shape = (config.attention.num_key_value_heads, config.attention.head_dim)
        return {"key": shape, "value": shape}

    def forward(
        self,
        x_BTD: Tensor,
        rotation: Rotation,
        cache: LayerCache | None = None,
        segments_S2: Tensor | None = None,
    ) -> Tensor:
        width = self.gqa.head_dim
        q_BTHD, k_BTGD, v_BTGD = (
            proj(x_BTD).unflatten(-1, (-1, width)) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.gqa.qk_norm:
            q_BTHD, k_BTGD = self.q_norm(q_BTHD), self.k_norm(k_BTGD)
        q_BTHD, k_BTGD = rotation.apply(q_BTHD), rotation.apply(k_BTGD)
        if cache is None:
            return self.attend_full(q_BTHD, k_BTGD, v_BTGD, segments_S2)
        cache.append(key=k_BTGD, value=v_BTGD)
        return self.attend_cached(q_BTHD, cache)

    def attend_full(
        self, q_BTHD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, segments_S2: Tensor | None = None
    ) -> Tensor:
        """Training."""
        out_BTHD = kernels.causal_attention(q_BTHD, k_BTGD, v_BTGD, self.scale, segments_S2)
        return self.o_proj(out_BTHD.flatten(2))

    def attend_cached(self, q_BTHD: Tensor, cache: LayerCache) -> Tensor:
        """Serving: the new tokens against all keys."""
        return self.o_proj(cache.attend(q_BTHD, self.scale).flatten(2))


def attention_class(config: ModelConfig) -> type[MLA] | type[GQA]:
    """The attention that `config.attention` describes."""
    return MLA if isinstance(config.attention, MLAConfig) else GQA


def build_attention(config: ModelConfig) -> MLA | GQA:
    """A freshly initialized attention for `config`."""
    if isinstance(config.attention, MLAConfig):
        return MLA(config, config.attention)
    return GQA(config, config.attention)
