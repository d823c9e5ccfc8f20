"""FP8 in the products of a model's blocks, and in none else (V3 section 3.3.1).

Embedding, head, router, norms and the core of attention stay as they are.
"""

from functools import partial

from shoestring.low_precision.formats import E2M1
from shoestring.low_precision.products import Precision, grouped_product, product, swiglu, swiglu_packed
from shoestring.model.layers import MLP, Linear
from shoestring.model.moe import Experts
from shoestring.model.transformer import Transformer

FP4_BLOCK = (1, 32)


def set_precision(model: Transformer, precision: str) -> None:
    """Let a model compute in the precision of a recipe: auto, bf16, fp8, or fp4 for experts in 4 bits."""
    if precision != "auto":
        model.multiply_in_bf16()
    if precision in ("fp8", "fp4"):
        simulate_fp8(model, fp4_experts=precision == "fp4")


def simulate_fp8(model: Transformer, *, fp4_experts: bool = False, block_gradients: bool = False) -> None:
    """Let the products of all blocks, MTP's too, compute in FP8; parameters stay in float32.

    Args:
        fp4_experts: routed experts have weights in e2m1, a scale for each 32 (V4).
        block_gradients: gradients in blocks of 128 x 128, the variant that V3's appendix B.2 warns of.
    """
    model.multiplies_in_fp8 = True
    gradient_block = (128, 128) if block_gradients else None
    plain = Precision(gradient_block=gradient_block)
    after_attention = Precision(gradient_block=gradient_block, keeps_six_bits=True)
    experts = plain
    if fp4_experts:
        experts = Precision(
            weight=E2M1, weight_block=FP4_BLOCK, power_of_two=True, gradient_block=gradient_block
        )
    for name, module in model.model.layers.named_modules():
        if isinstance(module, Linear):
            precision = after_attention if name.endswith("o_proj") else plain
            module.product = partial(product, precision=precision)
        elif isinstance(module, MLP):
            module.activation = swiglu
        elif isinstance(module, Experts):
            module.product = partial(grouped_product, precision=experts)
            module.activation = swiglu_packed
