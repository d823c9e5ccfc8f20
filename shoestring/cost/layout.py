"""Memory of each device of a cluster in training, by the degrees of its layout, and what then fits."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shoestring.cost.activations import layer_bytes
from shoestring.cost.matrices import block
from shoestring.cost.published import Hardware
from shoestring.errors import ConfigError
from shoestring.model.config import ModelConfig
from shoestring.model.cost import parameters

STATE_BYTES = 16
"""Of a parameter: weight and gradient in bfloat16, a float32 copy and Adam's moments (arXiv 1910.02054)."""
HEAD_ROWS = 512
"""Tokens whose logits are in memory at once (kernels/ops.py)."""
DRIVER_BYTES = 3e9
"""CUDA's context, the communication buffers and what the allocator cannot use: assumed."""
MOST_DEVICES = 4096


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Degrees by which a model is spread over devices."""

    data: int = 1
    """Copies of everything."""
    shard: int = 1
    """Devices that share the weights, gradients and moments of one copy (FSDP)."""
    expert: int = 1
    """Devices, of those, over which the experts are spread."""
    pipeline: int = 1
    """Parts of the layers."""

    def __post_init__(self) -> None:
        for name in ("data", "shard", "expert", "pipeline"):
            if getattr(self, name) < 1:
                raise ConfigError(f"layout.{name} = {getattr(self, name)} must be at least 1")
        if self.expert > self.data * self.shard:
            raise ConfigError(
                f"layout.expert = {self.expert} is more than the {self.data * self.shard} devices of "
                "layout.data x layout.shard, over which the experts are spread"
            )

    @property
    def devices(self) -> int:
        return self.data * self.shard * self.pipeline


def device_memory(
    config: ModelConfig, layout: Layout, *, seq_len: int, micro_batch: int, gradient_checkpointing: bool
) -> dict[str, float]:
    """Bytes of the fullest device by part: the first of a pipeline, which waits for the others' gradients."""
    count = parameters(config)
    total = count.total + count.mtp
    depth = range(config.num_hidden_layers + config.num_nextn_predict_layers)
    experts = sum(m.stored for index in depth for m in block(config, index) if m.kind == "experts")
    own = (total - experts) / layout.shard + experts / max(layout.expert, layout.shard)
    tokens = seq_len * micro_batch
    activations = tokens * layer_bytes(config, 2, gradient_checkpointing=gradient_checkpointing)
    parts = {
        "weights, gradients, moments": STATE_BYTES * own / layout.pipeline,
        "layer gathered whole": 2.0 * 2 * _largest_layer(config, layout) if layout.shard > 1 else 0.0,
        "activations": float(activations),
        "logits": 6.0 * min(tokens, HEAD_ROWS) * config.vocab_size,
        "driver": DRIVER_BYTES,
    }
    return parts | {"total": sum(parts.values())}


def _largest_layer(config: ModelConfig, layout: Layout) -> float:
    """Parameters of the largest layer as a device holds it for a pass: its own experts, all of the rest."""
    return max(
        sum(m.stored / (layout.expert if m.kind == "experts" else 1) for m in block(config, index))
        for index in range(config.num_hidden_layers)
    )


def largest_micro_batch(
    config: ModelConfig, layout: Layout, machine: Hardware, *, seq_len: int, gradient_checkpointing: bool
) -> int:
    """Rows that fit at a time; 0 where not even one does."""

    def total(rows: int) -> float:
        return device_memory(
            config, layout, seq_len=seq_len, micro_batch=rows, gradient_checkpointing=gradient_checkpointing
        )["total"]

    if total(1) > machine.memory_bytes:
        return 0
    rows = 1
    while rows < 1024 and total(2 * rows) <= machine.memory_bytes:
        rows *= 2
    return rows


def layouts(config: ModelConfig) -> Iterator[Layout]:
    """Layouts of one copy: of the fewest devices first, and of these of the shortest pipeline."""
    powers = [2**exponent for exponent in range(13)]
    experts = config.moe.n_routed_experts if config.moe else 1
    rows = [
        Layout(shard=shard, pipeline=pipeline, expert=min(shard, experts))
        for shard in powers
        for pipeline in powers
        if shard * pipeline <= MOST_DEVICES and pipeline <= config.num_hidden_layers
    ]
    yield from sorted(rows, key=lambda layout: (layout.devices, layout.pipeline))


def smallest_layout(
    config: ModelConfig, machine: Hardware, *, seq_len: int, gradient_checkpointing: bool
) -> dict[str, Any] | None:
    """The fewest devices that hold a copy and a row; None where no layout does."""
    for layout in layouts(config):
        rows = largest_micro_batch(
            config, layout, machine, seq_len=seq_len, gradient_checkpointing=gradient_checkpointing
        )
        if rows:
            return {"layout": layout, "devices": layout.devices, "micro_batch": rows}
    return None
