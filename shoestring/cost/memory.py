"""Memory of one process of this program, for training and for serving: predicted from the shape alone.

bench/memory.py compares the predictions with the largest resident memory that a machine measures.
"""

from dataclasses import dataclass

from shoestring.cost.activations import layer_bytes
from shoestring.cost.matrices import block
from shoestring.model.config import ModelConfig
from shoestring.model.cost import parameters
from shoestring.model.memory import Quantization, weight_bytes

HEAD_ROWS = 512
"""Tokens whose logits are in memory at once (kernels/ops.py)."""
UPDATE_COPIES = 7
"""Copies of the matrices of one shape that Muon's update makes, as bench/memory.py measures."""
TRAINING_PROGRAMS = 330_000_000
"""Python, PyTorch and this program's modules, as measured on Linux."""
SERVING_PROGRAMS = 255_000_000
"""The same without what gradients need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingMemory:
    """Bytes of a process that trains in float32."""

    weights: int
    gradients: int
    moments: int
    activations: int
    head: int
    """Logits of some rows, and the gradient of the head before it is added."""
    optimizer: int
    """Copies that an update makes."""
    programs: int = TRAINING_PROGRAMS

    @property
    def total(self) -> int:
        backward = self.activations + self.head
        return self.weights + self.gradients + self.moments + max(backward, self.optimizer) + self.programs


def training_memory(
    config: ModelConfig, *, tokens: int, muon: bool = False, gradient_checkpointing: bool = False
) -> TrainingMemory:
    """The memory of steps of `tokens` tokens at a time, whose weights are all trained."""
    count = parameters(config)
    total = count.total + count.mtp
    layers = range(config.num_hidden_layers + config.num_nextn_predict_layers)
    matrices = [matrix for index in layers for matrix in block(config, index) if matrix.kind != "router"]
    orthogonal = sum(matrix.stored for matrix in matrices) if muon else 0
    groups: dict[tuple[int, int], int] = {}
    for matrix in matrices if muon else ():
        shape = (matrix.outputs, matrix.inputs)
        groups[shape] = groups.get(shape, 0) + matrix.stored
    heads = 1 + config.num_nextn_predict_layers
    logits = 2 * min(tokens, HEAD_ROWS) * config.vocab_size
    width = config.vocab_size * config.hidden_size
    return TrainingMemory(
        weights=4 * total,
        gradients=4 * total,
        moments=8 * (total - orthogonal) + 4 * orthogonal,
        activations=tokens * layer_bytes(config, 4, gradient_checkpointing=gradient_checkpointing),
        head=4 * (logits + heads * width),
        optimizer=4 * UPDATE_COPIES * max(groups.values(), default=0),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingMemory:
    """Bytes of a process that serves a model on a processor."""

    weights: int
    cache: int
    """Once it is full; a page that nothing was written to takes no memory yet."""
    programs: int = SERVING_PROGRAMS

    @property
    def total(self) -> int:
        return self.programs + self.weights + self.cache


def serving_memory(
    config: ModelConfig, *, quantization: Quantization | None = None, cache: int
) -> ServingMemory:
    """The memory of an engine with a cache of so many bytes; without quantization weights are float32."""
    return ServingMemory(weights=weight_bytes(config, quantization, bytes_per_weight=4), cache=cache)
