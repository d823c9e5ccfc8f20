"""YaRN's temperature and the factor that it gives cos and sin (arXiv 2309.00071), without PyTorch."""

import math

from shoestring.model.config import RopeConfig


def yarn_mscale(factor: float, mscale: float) -> float:
    """YaRN's temperature: 0.1 mscale ln(factor) + 1 (V3 section 4.3; V2 uses mscale 0.707)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0


def cos_sin_factor(rope: RopeConfig) -> float:
    """YaRN's factor on cos and sin; 1 with DeepSeek's equal mscales."""
    if rope.rope_type != "yarn":
        return 1.0
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim)
    return yarn_mscale(rope.factor, 1.0)
