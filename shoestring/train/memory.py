"""Memory of a training step, from a model's shape: the tokens that go through it together."""

import os

import torch

from shoestring.cost.activations import activation_bytes
from shoestring.device import Runtime
from shoestring.model.config import ModelConfig

MOST_TOKENS = 16_384
LEAST_TOKENS = 256
CPU_BYTES = 2_000_000_000
"""Most bytes of activations on a CPU, where larger passes are no faster."""


def micro_tokens(config: ModelConfig, runtime: Runtime, *, gradient_checkpointing: bool) -> int:
    """Tokens of a forward pass whose activations fit: an eighth of a machine's memory, a half of a GPU's.

    The memory is that of the machine, not what is free: so it is the same at every start.
    """
    if runtime.device.type == "cuda":
        budget = torch.cuda.get_device_properties(runtime.device).total_memory // 2
    else:
        budget = min(_machine_bytes() // 8, CPU_BYTES)
    size = runtime.compute_dtype.itemsize
    tokens = budget // activation_bytes(config, size, gradient_checkpointing=gradient_checkpointing)
    return max(LEAST_TOKENS, min(tokens, MOST_TOKENS))


def _machine_bytes() -> int:
    """Memory of the machine; 8 GB where it does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 8_000_000_000
