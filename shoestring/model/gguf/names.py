"""Tensor names and layouts of llama.cpp, and the Hugging Face tensors that each GGUF tensor is made of.

The names are those of llama.cpp's llama, qwen2, qwen3, qwen3moe and deepseek2. Three kinds of tensors have
another layout than Hugging Face's: routed experts are stacked; kv_b is split into keys (transposed, ready to
absorb the query) and values; where llama.cpp rotates neighbors, heads trained on halves are reordered.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig

ROPE_FACTORS = "rope_freqs.weight"
"""Divisors of the frequencies: llama.cpp's form of Llama 3's rope scaling, for llama only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadRows:
    """Selection of rows per head: heads have `size` rows each, and of each the rows `index` are written."""

    size: int
    index: Sequence[int]
    transpose: bool = False
    """Write the selected rows of each head as columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorLayout:
    """One GGUF tensor: its shape in PyTorch's order, and the Hugging Face tensors that are stacked in it."""

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    source_shape: tuple[int, ...]
    heads: HeadRows | None = None


def layout(config: ModelConfig, *, split_kv_b: bool = True) -> Iterator[TensorLayout]:
    """GGUF tensors of the main layers in llama.cpp's order, without MTP modules.

    It yields one at a time, so that an import compares each with the file before a wrong size uses memory.
    `split_kv_b=False` is for deepseek2 files made before llama.cpp absorbed kv_b.
    """
    embedding = (config.vocab_size, config.hidden_size)
    yield _plain("token_embd.weight", "model.embed_tokens.weight", *embedding)
    for index in range(config.num_hidden_layers):
        yield from _layer(config, index, split_kv_b)
    yield _plain("output_norm.weight", "model.norm.weight", config.hidden_size)
    if not config.tie_word_embeddings:
        yield _plain("output.weight", "lm_head.weight", *embedding)


def _layer(config: ModelConfig, index: int, split_kv_b: bool) -> Iterator[TensorLayout]:
    hf, gguf = f"model.layers.{index}.", f"blk.{index}."
    size = config.hidden_size
    yield _plain(f"{gguf}attn_norm.weight", f"{hf}input_layernorm.weight", size)
    if isinstance(config.attention, MLAConfig):
        yield from _mla(config, config.attention, f"{hf}self_attn.", gguf, split_kv_b)
    else:
        yield from _gqa(config, config.attention, f"{hf}self_attn.", gguf)
    yield _plain(f"{gguf}ffn_norm.weight", f"{hf}post_attention_layernorm.weight", size)
    if config.is_moe_layer(index):
        yield from _moe(config, f"{hf}mlp.", gguf)
    else:
        yield from _mlp(f"{hf}mlp.", gguf, "", size, config.intermediate_size)


def _mla(config: ModelConfig, mla: MLAConfig, hf: str, gguf: str, split_kv_b: bool) -> Iterator[TensorLayout]:
    size, heads, rank = config.hidden_size, config.num_attention_heads, mla.kv_lora_rank
    nope, rope, value = mla.qk_nope_head_dim, mla.qk_rope_head_dim, mla.v_head_dim
    has_halves = not config.rope.interleave
    q_heads = _halves_to_pairs(nope, rope) if has_halves else None
    q_rows = heads * (nope + rope)
    if mla.q_lora_rank is None:
        yield _plain(f"{gguf}attn_q.weight", f"{hf}q_proj.weight", q_rows, size, heads=q_heads)
    else:
        yield _plain(f"{gguf}attn_q_a.weight", f"{hf}q_a_proj.weight", mla.q_lora_rank, size)
        yield _plain(f"{gguf}attn_q_a_norm.weight", f"{hf}q_a_layernorm.weight", mla.q_lora_rank)
        yield _plain(f"{gguf}attn_q_b.weight", f"{hf}q_b_proj.weight", q_rows, mla.q_lora_rank, heads=q_heads)
    yield _plain(
        f"{gguf}attn_kv_a_mqa.weight",
        f"{hf}kv_a_proj_with_mqa.weight",
        rank + rope,
        size,
        heads=_halves_to_pairs(rank, rope) if has_halves else None,
    )
    yield _plain(f"{gguf}attn_kv_a_norm.weight", f"{hf}kv_a_layernorm.weight", rank)
    kv_b, rows = f"{hf}kv_b_proj.weight", nope + value
    if split_kv_b:
        for letter, shape, head_rows in (
            ("k", (heads, rank, nope), HeadRows(size=rows, index=range(nope), transpose=True)),
            ("v", (heads, value, rank), HeadRows(size=rows, index=range(nope, rows))),
        ):
            yield TensorLayout(
                name=f"{gguf}attn_{letter}_b.weight",
                shape=shape,
                sources=(kv_b,),
                source_shape=(heads * rows, rank),
                heads=head_rows,
            )
    else:
        yield _plain(f"{gguf}attn_kv_b.weight", kv_b, heads * rows, rank)
    yield _plain(f"{gguf}attn_output.weight", f"{hf}o_proj.weight", size, heads * value)


def _gqa(config: ModelConfig, gqa: GQAConfig, hf: str, gguf: str) -> Iterator[TensorLayout]:
    size, width = config.hidden_size, gqa.head_dim
    q_rows, kv_rows = config.num_attention_heads * width, gqa.num_key_value_heads * width
    # llama.cpp rotates pairs for llama and halves for Qwen, as Hugging Face does for both.
    pairs = _halves_to_pairs(0, width) if config.model_type == "llama" else None
    for letter, rows, heads in (("q", q_rows, pairs), ("k", kv_rows, pairs), ("v", kv_rows, None)):
        yield _plain(f"{gguf}attn_{letter}.weight", f"{hf}{letter}_proj.weight", rows, size, heads=heads)
        if gqa.qk_norm and letter != "v":
            yield _plain(f"{gguf}attn_{letter}_norm.weight", f"{hf}{letter}_norm.weight", width)
        if gqa.qkv_bias:
            yield _plain(f"{gguf}attn_{letter}.bias", f"{hf}{letter}_proj.bias", rows, heads=heads)
    yield _plain(f"{gguf}attn_output.weight", f"{hf}o_proj.weight", size, q_rows)
    if gqa.o_bias:
        yield _plain(f"{gguf}attn_output.bias", f"{hf}o_proj.bias", size)


def _moe(config: ModelConfig, hf: str, gguf: str) -> Iterator[TensorLayout]:
    moe, size = config.moe, config.hidden_size
    assert moe is not None
    experts, width = moe.n_routed_experts, moe.moe_intermediate_size
    yield _plain(f"{gguf}ffn_gate_inp.weight", f"{hf}gate.weight", experts, size)
    if moe.topk_method == "noaux_tc":
        yield _plain(f"{gguf}exp_probs_b.bias", f"{hf}gate.e_score_correction_bias", experts)
    for kind, shape in (("gate", (width, size)), ("down", (size, width)), ("up", (width, size))):
        yield TensorLayout(
            name=f"{gguf}ffn_{kind}_exps.weight",
            shape=(experts, *shape),
            sources=tuple(f"{hf}experts.{expert}.{kind}_proj.weight" for expert in range(experts)),
            source_shape=shape,
        )
    if moe.n_shared_experts:
        yield from _mlp(f"{hf}shared_experts.", gguf, "_shexp", size, width * moe.n_shared_experts)


def _mlp(hf: str, gguf: str, suffix: str, size: int, width: int) -> Iterator[TensorLayout]:
    for kind, shape in (("gate", (width, size)), ("down", (size, width)), ("up", (width, size))):
        yield _plain(f"{gguf}ffn_{kind}{suffix}.weight", f"{hf}{kind}_proj.weight", *shape)


def _plain(name: str, source: str, *shape: int, heads: HeadRows | None = None) -> TensorLayout:
    return TensorLayout(name=name, shape=shape, sources=(source,), source_shape=shape, heads=heads)


def _halves_to_pairs(prefix: int, width: int) -> HeadRows:
    """Rows per head: `prefix` rows that stay, then `width` rows whose two halves are interleaved."""
    half = width // 2
    pairs = (prefix + j * half + i for i in range(half) for j in (0, 1))
    return HeadRows(size=prefix + width, index=(*range(prefix), *pairs))
