"""llama.cpp's tensor names and layouts: which Hugging Face tensors make each GGUF tensor, and how.

The names are those of llama.cpp's llama, qwen2 and deepseek2 architectures. Three kinds of tensors are laid
out otherwise than Hugging Face's: routed experts are stacked; kv_b is split into keys (transposed, ready to
absorb the query) and values; where llama.cpp rotates neighbors, heads trained on halves are reordered.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig

ROPE_FACTORS = "rope_freqs.weight"
"""llama only: what divides each frequency, llama.cpp's form of Llama 3's rope scaling."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """The source is cut into groups of `rows`; of each group the rows `index` are taken, in that order."""

    rows: int
    index: Sequence[int]
    transpose: bool = False
    """Write each group's taken rows as columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorLayout:
    """One GGUF tensor: its shape (PyTorch's order), and the Hugging Face tensors it is made of, stacked."""

    name: str
    shape: tuple[int, ...]
    sources: tuple[str, ...]
    source_shape: tuple[int, ...]
    heads: Heads | None = None


def layout(config: ModelConfig, *, split_kv_b: bool = True) -> Iterator[TensorLayout]:
    """Every GGUF tensor of the main layers, in llama.cpp's order; MTP modules are not among them.

    One at a time, so that an import can compare each with the file before a hostile size costs memory.
    `split_kv_b=False` is the form of deepseek2 files from before llama.cpp absorbed kv_b.
    """
    embedding = (config.vocab_size, config.hidden_size)
    yield _plain("token_embd.weight", "model.embed_tokens.weight", *embedding)
    for index in range(config.num_hidden_layers):
        yield from _layer(config, index, split_kv_b)
    yield _plain("output_norm.weight", "model.norm.weight", config.hidden_size)
    if not config.tie_word_embeddings:
        yield _plain("output.weight", "lm_head.weight", *embedding)


def _layer(config: ModelConfig, index: int, split_kv_b: bool) -> Iterator[TensorLayout]:
    ours, theirs = f"model.layers.{index}.", f"blk.{index}."
    size = config.hidden_size
    yield _plain(f"{theirs}attn_norm.weight", f"{ours}input_layernorm.weight", size)
    if isinstance(config.attention, MLAConfig):
        yield from _mla(config, config.attention, f"{ours}self_attn.", theirs, split_kv_b)
    else:
        yield from _gqa(config, config.attention, f"{ours}self_attn.", theirs)
    yield _plain(f"{theirs}ffn_norm.weight", f"{ours}post_attention_layernorm.weight", size)
    if config.is_moe_layer(index):
        yield from _moe(config, f"{ours}mlp.", theirs)
    else:
        yield from _mlp(f"{ours}mlp.", theirs, "", size, config.intermediate_size)


def _mla(
    config: ModelConfig, mla: MLAConfig, ours: str, theirs: str, split_kv_b: bool
) -> Iterator[TensorLayout]:
    size, heads, rank = config.hidden_size, config.num_attention_heads, mla.kv_lora_rank
    nope, rope, value = mla.qk_nope_head_dim, mla.qk_rope_head_dim, mla.v_head_dim
    turned = not config.rope.interleave
    q_heads = _halves_to_pairs(nope, rope) if turned else None
    q_rows = heads * (nope + rope)
    if mla.q_lora_rank is None:
        yield _plain(f"{theirs}attn_q.weight", f"{ours}q_proj.weight", q_rows, size, heads=q_heads)
    else:
        yield _plain(f"{theirs}attn_q_a.weight", f"{ours}q_a_proj.weight", mla.q_lora_rank, size)
        yield _plain(f"{theirs}attn_q_a_norm.weight", f"{ours}q_a_layernorm.weight", mla.q_lora_rank)
        yield _plain(
            f"{theirs}attn_q_b.weight", f"{ours}q_b_proj.weight", q_rows, mla.q_lora_rank, heads=q_heads
        )
    yield _plain(
        f"{theirs}attn_kv_a_mqa.weight",
        f"{ours}kv_a_proj_with_mqa.weight",
        rank + rope,
        size,
        heads=_halves_to_pairs(rank, rope) if turned else None,
    )
    yield _plain(f"{theirs}attn_kv_a_norm.weight", f"{ours}kv_a_layernorm.weight", rank)
    kv_b, rows = f"{ours}kv_b_proj.weight", nope + value
    if split_kv_b:
        for letter, shape, taken in (
            ("k", (heads, rank, nope), Heads(rows=rows, index=range(nope), transpose=True)),
            ("v", (heads, value, rank), Heads(rows=rows, index=range(nope, rows))),
        ):
            yield TensorLayout(
                name=f"{theirs}attn_{letter}_b.weight",
                shape=shape,
                sources=(kv_b,),
                source_shape=(heads * rows, rank),
                heads=taken,
            )
    else:
        yield _plain(f"{theirs}attn_kv_b.weight", kv_b, heads * rows, rank)
    yield _plain(f"{theirs}attn_output.weight", f"{ours}o_proj.weight", size, heads * value)


def _gqa(config: ModelConfig, gqa: GQAConfig, ours: str, theirs: str) -> Iterator[TensorLayout]:
    size, width = config.hidden_size, gqa.head_dim
    q_rows, kv_rows = config.num_attention_heads * width, gqa.num_key_value_heads * width
    # llama.cpp rotates pairs for llama and halves for qwen2, as Hugging Face does for both.
    turned = _halves_to_pairs(0, width) if config.model_type == "llama" else None
    for letter, rows, heads in (("q", q_rows, turned), ("k", kv_rows, turned), ("v", kv_rows, None)):
        yield _plain(f"{theirs}attn_{letter}.weight", f"{ours}{letter}_proj.weight", rows, size, heads=heads)
        if gqa.qkv_bias:
            yield _plain(f"{theirs}attn_{letter}.bias", f"{ours}{letter}_proj.bias", rows, heads=heads)
    yield _plain(f"{theirs}attn_output.weight", f"{ours}o_proj.weight", size, q_rows)
    if gqa.o_bias:
        yield _plain(f"{theirs}attn_output.bias", f"{ours}o_proj.bias", size)


def _moe(config: ModelConfig, ours: str, theirs: str) -> Iterator[TensorLayout]:
    moe, size = config.moe, config.hidden_size
    assert moe is not None
    experts, width = moe.n_routed_experts, moe.moe_intermediate_size
    yield _plain(f"{theirs}ffn_gate_inp.weight", f"{ours}gate.weight", experts, size)
    if moe.topk_method == "noaux_tc":
        yield _plain(f"{theirs}exp_probs_b.bias", f"{ours}gate.e_score_correction_bias", experts)
    for kind, shape in (("gate", (width, size)), ("down", (size, width)), ("up", (width, size))):
        yield TensorLayout(
            name=f"{theirs}ffn_{kind}_exps.weight",
            shape=(experts, *shape),
            sources=tuple(f"{ours}experts.{expert}.{kind}_proj.weight" for expert in range(experts)),
            source_shape=shape,
        )
    if moe.n_shared_experts:
        yield from _mlp(f"{ours}shared_experts.", theirs, "_shexp", size, width * moe.n_shared_experts)


def _mlp(ours: str, theirs: str, suffix: str, size: int, width: int) -> Iterator[TensorLayout]:
    for kind, shape in (("gate", (width, size)), ("down", (size, width)), ("up", (width, size))):
        yield _plain(f"{theirs}ffn_{kind}{suffix}.weight", f"{ours}{kind}_proj.weight", *shape)


def _plain(name: str, source: str, *shape: int, heads: Heads | None = None) -> TensorLayout:
    return TensorLayout(name=name, shape=shape, sources=(source,), source_shape=shape, heads=heads)


def _halves_to_pairs(fixed: int, width: int) -> Heads:
    """Heads of `fixed` rows that stay and `width` rows whose two halves become neighbors."""
    half = width // 2
    pairs = (fixed + j * half + i for i in range(half) for j in (0, 1))
    return Heads(rows=fixed + width, index=(*range(fixed), *pairs))
