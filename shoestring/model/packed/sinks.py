"""Sinks that pack a plain checkpoint's matrices, some rows at a time, while they are read."""

from torch import Tensor

from shoestring.kernels.packed import GROUP, OUTPUTS, Bits, pack_into
from shoestring.model.hf.names import Sink


class RowSink:
    """Packs rows of one matrix (F, D)."""

    rows_at_once = OUTPUTS

    def __init__(self, shape: tuple[int, int], bits: Bits, blocks: Tensor) -> None:
        self.shape, self._bits, self._blocks = shape, bits, blocks

    def write(self, first: int, rows: Tensor) -> None:
        panel = first // OUTPUTS
        pack_into(rows, self._bits, self._blocks[panel : panel + -(-len(rows) // OUTPUTS)])


class HeadSink:
    """Packs whole heads of kv_b_proj (H (P + V), C), the keys' part transposed."""

    def __init__(self, nope: int, value_width: int, bits: Bits, key: Tensor, value: Tensor) -> None:
        """`key` are the blocks of (H, C, P), `value` those of (H, V, C)."""
        self._widths, self._bits, self._blocks = [nope, value_width], bits, (key, value)
        self.rows_at_once = nope + value_width
        self.shape = (len(key) * self.rows_at_once, value.shape[-2] * GROUP)

    def write(self, first: int, rows: Tensor) -> None:
        for index, head in enumerate(rows.split(self.rows_at_once), first // self.rows_at_once):
            up_key_PC, up_value_VC = head.split(self._widths)
            pack_into(up_key_PC.T, self._bits, self._blocks[0][index])
            pack_into(up_value_VC, self._bits, self._blocks[1][index])


def feed_forward_sinks(
    gate_up: Tensor, down: Tensor, bits: Bits, width: int, hidden_size: int
) -> dict[str, Sink]:
    """Sinks of a feed-forward's three matrices; gate and up are whole panels, since 32 divides `width`."""
    gate, up = gate_up.chunk(2)
    into, out = (width, hidden_size), (hidden_size, width)
    return {
        "gate_proj.weight": RowSink(into, bits, gate),
        "up_proj.weight": RowSink(into, bits, up),
        "down_proj.weight": RowSink(out, bits, down),
    }
