"""FLOPs of Muon's Newton-Schulz, by the shapes of the matrices that it makes orthogonal."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from shoestring.cost.matrices import block
from shoestring.cost.step import Adapters
from shoestring.model.config import ModelConfig


class Stack(NamedTuple):
    """Matrices of one shape."""

    number: int
    rows: int
    columns: int


def newton_schulz(stacks: Iterable[Stack], steps: int) -> int:
    """FLOPs of `steps` steps: of an m x n matrix with m <= n each makes X X^T, its square, and a product.

    That is 4 m^2 n + 2 m^3, and 20 m^2 n + 10 m^3 in five steps.
    """
    total = 0
    for number, rows, columns in stacks:
        short, long = min(rows, columns), max(rows, columns)
        total += steps * number * (4 * short**2 * long + 2 * short**3)
    return total


def stacks(config: ModelConfig, *, depths: int = 0, adapters: Adapters | None = None) -> Iterator[Stack]:
    """The matrices of Muon: those of the layers and of `depths` MTP modules, without the routers.

    Every expert is one of them, whether a token came to it or not, and its gate and up are two.
    """
    for index in range(config.num_hidden_layers + depths):
        for matrix in block(config, index):
            if matrix.kind == "router":
                continue
            if adapters is not None:
                if adapters.has(matrix):
                    yield Stack(matrix.count, adapters.rank, matrix.inputs)
                    yield Stack(matrix.count, matrix.outputs, adapters.rank)
                continue
            parts = 2 if matrix.name == "experts.gate_up_proj" else 1
            yield Stack(parts * matrix.count, matrix.outputs // parts, matrix.inputs)
