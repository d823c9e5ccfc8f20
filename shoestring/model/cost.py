"""Costs of a model, exactly, from its config alone: parameters, FLOPs per token, cache bytes per token.

Counted are matrix products, two FLOPs per multiply-add: projections, experts, router, output head, and
the two products of attention over exactly the keys a causal mask leaves. Not counted: embedding look-ups,
which cost nothing, and norms, rotary embedding, softmax and activations, which are linear in the width.
"""

from dataclasses import dataclass

from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """Parameter counts; MTP modules are counted apart from `total` and `active`, as DeepSeek does."""

    total: int
    active: int
    """Parameters that one token uses: of the experts only its own; embedding and head included."""
    embedding: int
    head: int
    """0 when the head is the embedding."""
    mtp: int
    """All MTP modules, without the embedding and head they share with the main model."""
    mtp_active: int


def parameters(config: ModelConfig) -> Parameters:
    """Numbers of trainable parameters; V3's balance bias is a buffer and not one of them."""
    layers = range(config.num_hidden_layers)
    embedding = config.vocab_size * config.hidden_size
    head = 0 if config.tie_word_embeddings else embedding
    outside = embedding + head + config.hidden_size  # the final norm
    mtp = range(config.num_hidden_layers, config.num_hidden_layers + config.num_nextn_predict_layers)
    return Parameters(
        total=outside + sum(_block(config, i, active=False) for i in layers),
        active=outside + sum(_block(config, i, active=True) for i in layers),
        embedding=embedding,
        head=head,
        mtp=sum(_mtp_module(config, i, active=False) for i in mtp),
        mtp_active=sum(_mtp_module(config, i, active=True) for i in mtp),
    )


def cache_bytes_per_token(
    config: ModelConfig, bytes_per_element: int = 2, num_layers: int | None = None
) -> int:
    """Bytes of the cache for each token of context, over `num_layers` layers (None: those of the main model).

    MLA caches the latent and one rope key (V2 section 2.1.3), GQA keys and values of every KV head.
    """
    attention = config.attention
    if isinstance(attention, MLAConfig):
        elements = attention.kv_lora_rank + attention.qk_rope_head_dim
    else:
        elements = 2 * attention.num_key_value_heads * attention.head_dim
    layers = config.num_hidden_layers if num_layers is None else num_layers
    return layers * elements * bytes_per_element


def forward_flops(config: ModelConfig, seq_len: int, *, mtp: bool = False) -> int:
    """FLOPs of one causal forward pass over one sequence of `seq_len` tokens.

    2 * seq_len * (active matrix weights, head included) + layers * pairs * 2 * heads * (qk dim + v dim),
    where pairs = seq_len * (seq_len + 1) / 2. With `mtp`, each MTP module adds projection, block, head.
    """
    pairs = seq_len * (seq_len + 1) // 2
    layers = config.num_hidden_layers + (config.num_nextn_predict_layers if mtp else 0)
    return 2 * seq_len * _matrix_weights(config, mtp=mtp) + layers * pairs * _expanded_flops_per_pair(config)


def train_flops_per_token(config: ModelConfig, seq_len: int, *, mtp: bool = True) -> float:
    """FLOPs to train on one token of a sequence of `seq_len`: the forward pass, and twice that backward.

    A model with MTP modules trains them too unless `mtp` is False. Recomputation is not counted.
    """
    return 3 * forward_flops(config, seq_len, mtp=mtp) / seq_len


def decode_flops_per_token(config: ModelConfig, context: int) -> int:
    """FLOPs to produce one token that attends to `context` cached tokens, itself included.

    MLA in its absorbed form (V2 section 2.1.2): queries are moved into the latent, so each key costs
    2 * heads * (2 * kv rank + rope dim), and kv_b_proj is applied once per token, not once per key.
    """
    attention, heads = config.attention, config.num_attention_heads
    if isinstance(attention, MLAConfig):
        per_key = 2 * heads * (2 * attention.kv_lora_rank + attention.qk_rope_head_dim)
    else:
        per_key = 2 * heads * 2 * attention.head_dim
    return 2 * _matrix_weights(config, mtp=False) + config.num_hidden_layers * context * per_key


def _expanded_flops_per_pair(config: ModelConfig) -> int:
    """FLOPs of the score and the weighted value of one query and one key, over all heads of a layer."""
    attention = config.attention
    if isinstance(attention, MLAConfig):
        return 2 * config.num_attention_heads * (attention.qk_head_dim + attention.v_head_dim)
    return 2 * config.num_attention_heads * 2 * attention.head_dim


def _matrix_weights(config: ModelConfig, *, mtp: bool) -> int:
    """Weights of the matrix products of one token: no look-ups, norms or biases, but the head."""
    width = config.hidden_size
    head = config.vocab_size * width
    modules = config.num_nextn_predict_layers if mtp else 0
    layers = range(config.num_hidden_layers + modules)
    attention, _ = _attention(config)
    blocks = sum(attention + _feed_forward(config, i, active=True) for i in layers)
    return head + blocks + modules * (2 * width * width + head)  # eh_proj, and the head once more


def _block(config: ModelConfig, index: int, *, active: bool) -> int:
    matrices, vectors = _attention(config)
    return matrices + vectors + _feed_forward(config, index, active=active) + 2 * config.hidden_size


def _mtp_module(config: ModelConfig, index: int, *, active: bool) -> int:
    width = config.hidden_size
    own = 2 * width * width + 3 * width  # eh_proj; enorm, hnorm and shared_head.norm
    return own + _block(config, index, active=active)


def _attention(config: ModelConfig) -> tuple[int, int]:
    """Numbers of weights in matrices, and in norms and biases, of one attention."""
    if isinstance(config.attention, MLAConfig):
        return _mla(config, config.attention)
    return _gqa(config, config.attention)


def _mla(config: ModelConfig, mla: MLAConfig) -> tuple[int, int]:
    width, heads = config.hidden_size, config.num_attention_heads
    kv_width = mla.kv_lora_rank + mla.qk_rope_head_dim
    matrices = width * kv_width + mla.kv_lora_rank * heads * (mla.qk_nope_head_dim + mla.v_head_dim)
    matrices += heads * mla.v_head_dim * width
    vectors = mla.kv_lora_rank  # kv_a_layernorm
    biases = kv_width + width
    if mla.q_lora_rank is None:
        matrices += width * heads * mla.qk_head_dim
    else:
        matrices += mla.q_lora_rank * (width + heads * mla.qk_head_dim)
        vectors += mla.q_lora_rank  # q_a_layernorm
        biases += mla.q_lora_rank
    return matrices, vectors + (biases if mla.attention_bias else 0)


def _gqa(config: ModelConfig, gqa: GQAConfig) -> tuple[int, int]:
    q_width = config.num_attention_heads * gqa.head_dim
    kv_width = gqa.num_key_value_heads * gqa.head_dim
    biases = (q_width + 2 * kv_width) * gqa.qkv_bias + config.hidden_size * gqa.o_bias
    norms = 2 * gqa.head_dim * gqa.qk_norm
    return config.hidden_size * (2 * q_width + 2 * kv_width), biases + norms


def _feed_forward(config: ModelConfig, index: int, *, active: bool) -> int:
    moe = config.moe
    if moe is None or not config.is_moe_layer(index):
        return 3 * config.hidden_size * config.intermediate_size
    return _experts(moe, config.hidden_size, active=active)


def _experts(moe: MoEConfig, width: int, *, active: bool) -> int:
    experts = moe.num_experts_per_tok if active else moe.n_routed_experts
    router = moe.n_routed_experts * width
    return router + (experts + moe.n_shared_experts) * 3 * width * moe.moe_intermediate_size
