"""Named model shapes: published models of DeepSeek, Qwen and SmolLM, and small ones of our own."""

from dataclasses import replace

from shoestring.model.config import GQAConfig, MLAConfig, ModelConfig, MoEConfig, RopeConfig

# Sources: the config.json published with each model; DeepSeek-V2 (arXiv 2405.04434) section 3.1.2 and
# appendix B; DeepSeek-V3 (arXiv 2412.19437) section 4.2; DeepSeek-R1 (arXiv 2501.12948) section 2.4.


def _deepseek_yarn(mscale: float) -> RopeConfig:
    return RopeConfig(
        rope_type="yarn",
        interleave=True,
        factor=40.0,
        original_max_position_embeddings=4096,
        mscale=mscale,
        mscale_all_dim=mscale,
    )


DEEPSEEK_V2_LITE = ModelConfig(
    model_type="deepseek_v2",
    vocab_size=102400,
    hidden_size=2048,
    intermediate_size=10944,
    num_hidden_layers=27,
    num_attention_heads=16,
    attention=MLAConfig(
        q_lora_rank=None, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
    ),
    moe=MoEConfig(
        n_routed_experts=64,
        n_shared_experts=2,
        num_experts_per_tok=6,
        moe_intermediate_size=1408,
        first_k_dense_replace=1,
        scoring_func="softmax",
        topk_method="greedy",
        norm_topk_prob=False,
    ),
    rope=_deepseek_yarn(0.707),
    max_position_embeddings=163840,
    bos_token_id=100000,
    eos_token_id=100001,
)

DEEPSEEK_V2 = replace(
    DEEPSEEK_V2_LITE,
    hidden_size=5120,
    intermediate_size=12288,
    num_hidden_layers=60,
    num_attention_heads=128,
    attention=MLAConfig(
        q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
    ),
    moe=MoEConfig(
        n_routed_experts=160,
        n_shared_experts=2,
        num_experts_per_tok=6,
        moe_intermediate_size=1536,
        first_k_dense_replace=1,
        scoring_func="softmax",
        topk_method="group_limited_greedy",
        n_group=8,
        topk_group=3,
        norm_topk_prob=False,
        routed_scaling_factor=16.0,
    ),
)

DEEPSEEK_V3 = ModelConfig(
    model_type="deepseek_v3",
    vocab_size=129280,
    hidden_size=7168,
    intermediate_size=18432,
    num_hidden_layers=61,
    num_attention_heads=128,
    attention=MLAConfig(
        q_lora_rank=1536, kv_lora_rank=512, qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128
    ),
    moe=MoEConfig(
        n_routed_experts=256,
        n_shared_experts=1,
        num_experts_per_tok=8,
        moe_intermediate_size=2048,
        first_k_dense_replace=3,
        n_group=8,
        topk_group=4,
        routed_scaling_factor=2.5,
    ),
    rope=_deepseek_yarn(1.0),
    max_position_embeddings=163840,
    num_nextn_predict_layers=1,
    bos_token_id=0,
    eos_token_id=1,
)

V3_12M = ModelConfig(
    model_type="deepseek_v3",
    vocab_size=4096,
    hidden_size=256,
    intermediate_size=704,
    num_hidden_layers=6,
    num_attention_heads=4,
    attention=MLAConfig(
        q_lora_rank=96, kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32
    ),
    moe=MoEConfig(
        n_routed_experts=16,
        n_shared_experts=1,
        num_experts_per_tok=4,
        moe_intermediate_size=128,
        first_k_dense_replace=1,
        routed_scaling_factor=2.0,  # sqrt(top k) keeps the routed sum at one expert's scale
    ),
    rope=RopeConfig(interleave=True),
    num_nextn_predict_layers=1,
)

DEMO = replace(
    V3_12M,
    hidden_size=128,
    intermediate_size=352,
    num_hidden_layers=4,
    attention=MLAConfig(
        q_lora_rank=64, kv_lora_rank=48, qk_nope_head_dim=24, qk_rope_head_dim=8, v_head_dim=24
    ),
    moe=MoEConfig(
        n_routed_experts=8,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=96,
        first_k_dense_replace=1,
        routed_scaling_factor=1.4,
    ),
)

TINY = replace(
    V3_12M,
    vocab_size=256,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=3,
    num_attention_heads=2,
    attention=MLAConfig(
        q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8
    ),
    moe=MoEConfig(
        n_routed_experts=8,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        first_k_dense_replace=1,
        n_group=2,
        topk_group=1,
    ),
    max_position_embeddings=256,
)

R1_MINI = replace(
    DEMO,
    vocab_size=544,
    num_hidden_layers=3,
    attention=MLAConfig(
        q_lora_rank=None, kv_lora_rank=32, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32
    ),
    max_position_embeddings=512,
)

R1_MINI_SMALL = replace(
    R1_MINI,
    hidden_size=64,
    intermediate_size=192,
    moe=MoEConfig(
        n_routed_experts=8,
        n_shared_experts=1,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        first_k_dense_replace=1,
        routed_scaling_factor=1.4,
    ),
)


def _distilled_qwen(
    vocab_size: int, hidden_size: int, intermediate_size: int, layers: int, heads: tuple[int, int]
) -> ModelConfig:
    """R1-Distill-Qwen on Qwen2.5-Math (1.5B, 7B); `heads` are query and KV heads."""
    return ModelConfig(
        model_type="qwen2",
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads[0],
        attention=GQAConfig(num_key_value_heads=heads[1], head_dim=128, qkv_bias=True),
        max_position_embeddings=131072,
        bos_token_id=151643,
        eos_token_id=151643,
    )


def _on_qwen2_5(config: ModelConfig) -> ModelConfig:
    """The rope and norms of Qwen2.5, which the 14B and 32B students start from, not from Qwen2.5-Math."""
    return replace(config, rope=RopeConfig(rope_theta=1_000_000.0), rms_norm_eps=1e-5)


def _distilled_llama(hidden_size: int, intermediate_size: int, layers: int, heads: int) -> ModelConfig:
    """R1-Distill-Llama: from Llama-3.1-8B and Llama-3.3-70B-Instruct."""
    return ModelConfig(
        model_type="llama",
        vocab_size=128256,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        attention=GQAConfig(num_key_value_heads=8, head_dim=128),
        rope=RopeConfig(
            rope_theta=500_000.0, rope_type="llama3", factor=8.0, original_max_position_embeddings=8192
        ),
        rms_norm_eps=1e-5,
        max_position_embeddings=131072,
        bos_token_id=128000,
        eos_token_id=128001,
    )


def _qwen3(
    hidden_size: int, intermediate_size: int, layers: int, heads: tuple[int, int], *, tied: bool = False
) -> ModelConfig:
    """Qwen3 (arXiv 2505.09388, tables 1 and 2); `heads` are query and KV heads."""
    return ModelConfig(
        model_type="qwen3",
        vocab_size=151936,
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=layers,
        num_attention_heads=heads[0],
        attention=GQAConfig(num_key_value_heads=heads[1], head_dim=128, qk_norm=True),
        rope=RopeConfig(rope_theta=1_000_000.0),
        max_position_embeddings=40960,
        tie_word_embeddings=tied,
        bos_token_id=151643,
        eos_token_id=151645,
    )


R1_0528_QWEN3_8B = replace(
    _qwen3(4096, 12288, 36, (32, 8)),
    rope=RopeConfig(
        rope_theta=1_000_000.0,
        rope_type="yarn",
        factor=4.0,
        original_max_position_embeddings=32768,
        attention_factor=1.0,  # cos and sin as they are: its attn_factor undoes YaRN's temperature
    ),
    max_position_embeddings=131072,
)

QWEN3_30B_A3B = replace(
    _qwen3(2048, 6144, 48, (32, 4)),
    model_type="qwen3_moe",
    moe=MoEConfig(
        n_routed_experts=128,
        n_shared_experts=0,
        num_experts_per_tok=8,
        moe_intermediate_size=768,
        scoring_func="softmax",
        topk_method="greedy",
    ),
)

SMOLLM2_135M = ModelConfig(
    model_type="llama",
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    attention=GQAConfig(num_key_value_heads=3, head_dim=64),
    rope=RopeConfig(rope_theta=100_000.0),
    rms_norm_eps=1e-5,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
    initializer_range=0.041666666666666664,
    bos_token_id=0,
    eos_token_id=0,
)

PRESETS: dict[str, ModelConfig] = {
    "tiny": TINY,
    "demo": DEMO,
    "v3-12m": V3_12M,
    "r1-mini": R1_MINI,
    "r1-mini-small": R1_MINI_SMALL,
    "deepseek-v2-lite": DEEPSEEK_V2_LITE,
    "deepseek-v2": DEEPSEEK_V2,
    "deepseek-v3": DEEPSEEK_V3,
    "deepseek-r1": DEEPSEEK_V3,
    "r1-distill-qwen-1.5b": _distilled_qwen(151936, 1536, 8960, 28, (12, 2)),
    "r1-distill-qwen-7b": _distilled_qwen(152064, 3584, 18944, 28, (28, 4)),
    "r1-distill-qwen-14b": _on_qwen2_5(_distilled_qwen(152064, 5120, 13824, 48, (40, 8))),
    "r1-distill-qwen-32b": _on_qwen2_5(_distilled_qwen(152064, 5120, 27648, 64, (40, 8))),
    "r1-distill-llama-8b": _distilled_llama(4096, 14336, 32, 32),
    "r1-distill-llama-70b": _distilled_llama(8192, 28672, 80, 64),
    "r1-0528-qwen3-8b": R1_0528_QWEN3_8B,
    "qwen3-0.6b": _qwen3(1024, 3072, 28, (16, 8), tied=True),
    "qwen3-30b-a3b": QWEN3_30B_A3B,
    "smollm2-135m": SMOLLM2_135M,
}
"""The names of shapes without weights, which `--model` accepts."""
