"""The adapter of one matrix: its low-rank factors, and what they add to the output of a layer."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from shoestring import kernels


@dataclass(frozen=True)
class LowRank:
    """The change of a matrix (out, in), or a stack of them (E, out, in), to W + scale * B A.

    This is LoRA (arXiv 2106.09685, section 4.1). With a magnitude, each row of the sum is scaled to the
    length that its entry says (DoRA, arXiv 2402.09353, equation 5).
    """

    lora_A: Tensor
    """(..., rank, in)."""
    lora_B: Tensor
    """(..., out, rank)."""
    scale: float
    magnitude: Tensor | None = None
    """(out,); None without DoRA."""

    def matrix(self) -> Tensor:
        """The sum that is added to the weight."""
        return self.scale * (self.lora_B @ self.lora_A)

    def scaled(self, total: Tensor, first: int = 0) -> Tensor:
        """Rows of W + matrix(), of which the first is row `first`, with the lengths of the magnitude."""
        if self.magnitude is None:
            return total
        lengths = self.magnitude[first : first + len(total)]
        return total * (lengths / total.norm(dim=-1))[:, None]

    def apply(self, weight: Tensor) -> Tensor:
        """The whole weight with the adapter, in the weight's precision."""
        return self.scaled(weight.float() + self.matrix()).to(weight.dtype)


class AdaptedLayer(Protocol):
    """A layer whose matrices can have adapters."""

    adapter_slots: ClassVar[Mapping[str, str]]
    """The attribute with the adapter of each of its matrices."""

    def matrix_shape(self, parameter: str) -> tuple[int, ...]:
        """(out, in), or (E, out, in) of a stack."""


class Adapter(nn.Module):
    """Trainable factors of one matrix or a stack, in float32; new ones change nothing, since B is zero."""

    magnitude: nn.Parameter | None

    def __init__(
        self,
        shape: tuple[int, ...],
        rank: int,
        scale: float,
        *,
        use_rslora: bool = False,
        device: torch.device | None = None,
    ) -> None:
        """`use_rslora` says only by which rule `scale` was made; it is written to PEFT's file."""
        super().__init__()
        *stack, rows, columns = shape
        self.scale, self.use_rslora, self.is_on = scale, use_rslora, True
        self.lora_A = nn.Parameter(torch.zeros(*stack, rank, columns, device=device))
        self.lora_B = nn.Parameter(torch.zeros(*stack, rows, rank, device=device))
        self.register_parameter("magnitude", None)

    @property
    def low_rank(self) -> LowRank:
        return LowRank(self.lora_A, self.lora_B, self.scale, self.magnitude)

    def keep_lengths(self, weight: Tensor) -> None:
        """Begin DoRA: the magnitude is trained from the lengths of the weight's rows on."""
        self.magnitude = nn.Parameter(weight.detach().float().norm(dim=-1))

    def forward(
        self, x: Tensor, y: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """`y`, a linear layer's output for `x`, with the adapter; DoRA reads the layer's weight and bias.

        The lengths of the rows count as constants in the backward pass (arXiv 2402.09353, section 4.3).
        """
        if not self.is_on:
            return y
        low = self.scale * kernels.linear(x, self.lora_A)
        if self.magnitude is None and torch.is_grad_enabled():  # in place: no product keeps its output
            y.view(-1, y.shape[-1]).addmm_(low.flatten(0, -2), self.lora_B.T.to(y.dtype))
            return y
        change = kernels.linear(low, self.lora_B)
        if self.magnitude is None:
            return y + change
        assert weight is not None
        with torch.no_grad():
            lengths = (weight.float() + self.low_rank.matrix()).norm(dim=-1)
        factor = (self.magnitude / lengths).to(y.dtype)
        offset = torch.zeros((), dtype=y.dtype, device=y.device) if bias is None else bias.to(y.dtype)
        return factor * (y - offset + change) + offset

    def grouped(self, rows_MD: Tensor, y_MF: Tensor, ends_E: Tensor) -> Tensor:
        """`y`, the outputs of stacked experts for rows that are sorted by expert, with the adapter."""
        if not self.is_on:
            return y_MF
        low_MR = self.scale * kernels.grouped_linear(rows_MD, self.lora_A, ends_E)
        return y_MF + kernels.grouped_linear(low_MR, self.lora_B, ends_E)


def adapted(weight: Tensor, adapter: Adapter | None) -> Tensor:
    """The weight as its adapter changes it."""
    return weight if adapter is None or not adapter.is_on else adapter.low_rank.apply(weight)
