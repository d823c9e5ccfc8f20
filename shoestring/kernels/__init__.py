"""One function per operation; each picks its implementation once per device and precision, and says which."""

from shoestring.kernels.ops import (
    causal_attention,
    combine,
    cross_entropy_rows,
    dispatch,
    grouped_linear,
    linear_cross_entropy,
    rms_norm,
    rotate,
    swiglu,
    swiglu_packed,
)

__all__ = [
    "causal_attention",
    "combine",
    "cross_entropy_rows",
    "dispatch",
    "grouped_linear",
    "linear_cross_entropy",
    "rms_norm",
    "rotate",
    "swiglu",
    "swiglu_packed",
]
