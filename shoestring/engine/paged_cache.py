"""The paged cache's tensors behind the cache protocol, sized from the attention's own cache spec."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from shoestring import kernels
from shoestring.engine.pages import PAGE_SIZE
from shoestring.model.attention import attention_class
from shoestring.model.cache import CacheSpec
from shoestring.model.config import ModelConfig


@dataclass(frozen=True, slots=True)
class RowIndex:
    """Where the N rows of one pass stand: position, slot to write, page table, how many keys they see."""

    positions_BT: Tensor
    """(1, N) int64."""
    slot_N: Tensor
    """int64: page * PAGE_SIZE + offset."""
    tables_BM: Tensor
    sequence_N: Tensor
    lengths_N: Tensor


class PagedCache:
    """For each layer and each entry of its spec one tensor (pages, PAGE_SIZE, ...)."""

    def __init__(
        self, specs: Sequence[CacheSpec], *, num_pages: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.num_pages = num_pages
        # Zeros cost no memory on Linux before they are written.
        self.entries = [
            {
                name: torch.zeros(num_pages, PAGE_SIZE, *shape, dtype=dtype, device=device)
                for name, shape in spec.items()
            }
            for spec in specs
        ]

    def at(self, index: RowIndex) -> "PagedView":
        """This cache as the rows of one pass see it."""
        return PagedView([PagedLayer(entries, index) for entries in self.entries])

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for entries in self.entries for tensor in entries.values())


@dataclass(frozen=True, slots=True)
class PagedLayer:
    """A LayerCache over pages: B = 1, and T is all rows of the pass."""

    entries: dict[str, Tensor]
    index: RowIndex

    @property
    def pages(self) -> "PagedLayer":
        """See LayerCache.pages."""
        return self

    def append(self, **entries_BT: Tensor) -> None:
        """See LayerCache.append."""
        for name, new in entries_BT.items():
            kept = self.entries[name].flatten(0, 1)
            kept.index_copy_(0, self.index.slot_N, new[0].to(kept.dtype))

    def attend_latent(self, q_latent_BTHC: Tensor, q_rope_BTHR: Tensor, scale: float) -> Tensor:
        """See LayerCache.attend_latent."""
        kept, index = self.entries, self.index
        tables = (index.tables_BM, index.sequence_N, index.lengths_N)
        entries = (kept["latent"], kept["k_rope"])
        mixed_NHC = kernels.paged_latent_attention(q_latent_BTHC[0], q_rope_BTHR[0], *entries, *tables, scale)
        return mixed_NHC[None]

    def attend(self, q_BTHD: Tensor, scale: float) -> Tensor:
        """See LayerCache.attend."""
        kept, index = self.entries, self.index
        tables = (index.tables_BM, index.sequence_N, index.lengths_N)
        out_NHV = kernels.paged_attention(q_BTHD[0], kept["key"], kept["value"], *tables, scale)
        return out_NHV[None]


@dataclass(frozen=True, slots=True)
class PagedView:
    """A ModelCache for one pass."""

    layers: list[PagedLayer]


def cache_specs(config: ModelConfig, num_layers: int) -> list[CacheSpec]:
    """The spec of so many layers, MTP modules counted as layers."""
    return [attention_class(config).cache_spec(config)] * num_layers


def page_bytes(config: ModelConfig, num_layers: int, dtype: torch.dtype) -> int:
    """Bytes of one page over all layers."""
    elements = sum(
        torch.Size(shape).numel() for spec in cache_specs(config, num_layers) for shape in spec.values()
    )
    return PAGE_SIZE * elements * dtype.itemsize


def available_bytes(device: torch.device) -> int | None:
    """Memory that can still be taken on this device; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024
