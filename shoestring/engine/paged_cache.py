"""The paged cache's tensors behind the cache protocol, sized from the attention's own cache spec."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from shoestring import kernels
from shoestring.device import host_memory
from shoestring.engine.settings import DEFAULT_TOKENS, EngineSettings, SpeculationMethod
from shoestring.errors import ConfigError
from shoestring.model.attention import attention_class
from shoestring.model.cache import CacheSpec
from shoestring.model.config import ModelConfig
from shoestring.model.memory import PAGE_SIZE, page_bytes, pages_for


@dataclass(frozen=True, slots=True)
class RowIndex:
    """The N rows of one pass: position, slot to write, page table, and number of keys of each."""

    positions_BT: Tensor
    """(1, N) int64."""
    slot_N: Tensor
    """int64: page * PAGE_SIZE + offset."""
    tables_BU: Tensor
    sequence_N: Tensor
    lengths_N: Tensor


class PagedCache:
    """For each layer and each entry of its spec one tensor (pages, PAGE_SIZE, ...)."""

    def __init__(
        self, specs: Sequence[CacheSpec], *, num_pages: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.num_pages = num_pages
        self.entries = [
            {name: _zeros((num_pages, PAGE_SIZE, *shape), dtype, device) for name, shape in spec.items()}
            for spec in specs
        ]

    def at(self, index: RowIndex) -> "PagedView":
        """This cache as the rows of one pass see it."""
        return PagedView([PagedLayer(entries, index) for entries in self.entries])

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for entries in self.entries for tensor in entries.values())


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros, which on a CPU take no memory before they are written."""
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.frombuffer(host_memory(math.prod(shape) * dtype.itemsize), dtype=dtype).view(shape)


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
            slots = self.entries[name].flatten(0, 1)
            slots.index_copy_(0, self.index.slot_N, new[0].to(slots.dtype))

    def attend_latent(self, q_latent_BTHC: Tensor, q_rope_BTHR: Tensor, scale: float) -> Tensor:
        """See LayerCache.attend_latent."""
        index, entries = self.index, (self.entries["latent"], self.entries["k_rope"])
        tables = (index.tables_BU, index.sequence_N, index.lengths_N)
        mixed_NHC = kernels.paged_latent_attention(q_latent_BTHC[0], q_rope_BTHR[0], *entries, *tables, scale)
        return mixed_NHC[None]

    def attend(self, q_BTHD: Tensor, scale: float) -> Tensor:
        """See LayerCache.attend."""
        index, entries = self.index, (self.entries["key"], self.entries["value"])
        tables = (index.tables_BU, index.sequence_N, index.lengths_N)
        out_NHV = kernels.paged_attention(q_BTHD[0], *entries, *tables, scale)
        return out_NHV[None]


@dataclass(frozen=True, slots=True)
class PagedView:
    """A ModelCache for one pass."""

    layers: list[PagedLayer]


@dataclass(frozen=True, kw_only=True)
class CachePlan:
    """The size of a paged cache, and the longest context that it holds."""

    num_pages: int
    num_layers: int
    """The main layers, and the MTP module if it drafts."""
    max_model_len: int
    speculation: SpeculationMethod
    """Never auto."""


def cache_specs(config: ModelConfig, num_layers: int) -> list[CacheSpec]:
    """The spec of so many layers, MTP modules counted as layers."""
    return [attention_class(config).cache_spec(config)] * num_layers


def available_bytes(device: torch.device) -> int | None:
    """Memory that can still be taken on this device; None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return None
    fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def plan_cache(
    config: ModelConfig, settings: EngineSettings, *, dtype: torch.dtype, device: torch.device
) -> CachePlan:
    """The cache that fits; raises ConfigError with the size that would, before memory is allocated."""
    method = settings.speculation
    if method == "auto":
        method = "mtp" if config.num_nextn_predict_layers else "prompt_lookup"
    num_layers = config.num_hidden_layers + (method == "mtp")
    one_page = page_bytes(config, num_layers, dtype.itemsize)
    longest = settings.max_model_len or config.max_position_embeddings
    free = available_bytes(device)
    if settings.kv_cache_memory_bytes is not None:
        num_bytes = settings.kv_cache_memory_bytes
        if free is not None and num_bytes > free:
            raise ConfigError(
                f"kv_cache_memory_bytes = {num_bytes:,} is more than the {free:,} bytes of memory that are "
                f"free; give at most {free // 2:,}"
            )
    else:
        tokens = max(settings.max_num_seqs * DEFAULT_TOKENS, settings.max_model_len or 0)
        num_bytes = pages_for(min(tokens, settings.max_num_seqs * longest)) * one_page
        num_bytes = num_bytes if free is None else min(num_bytes, free // 2)
    num_pages = num_bytes // one_page
    need = pages_for(settings.max_model_len or 2)
    if num_pages < need:
        raise ConfigError(
            f"a cache of {num_bytes:,} bytes holds {num_pages * PAGE_SIZE:,} tokens; "
            f"max_model_len = {settings.max_model_len or 2:,} needs kv_cache_memory_bytes of "
            f"{need * one_page:,}"
        )
    max_model_len = min(longest, num_pages * PAGE_SIZE)
    return CachePlan(
        num_pages=num_pages, num_layers=num_layers, max_model_len=max_model_len, speculation=method
    )
