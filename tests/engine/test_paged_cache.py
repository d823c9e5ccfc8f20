"""Pages against the dense cache: what is written into scattered slots is what attention reads."""

import mmap
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shoestring.engine import paged_cache
from shoestring.engine.paged_cache import PagedCache, RowIndex, available_bytes, cache_specs, plan_cache
from shoestring.engine.settings import EngineSettings
from shoestring.errors import ConfigError
from shoestring.model.cache import DenseLayerCache
from shoestring.model.cost import cache_bytes_per_token
from shoestring.model.memory import PAGE_SIZE, page_bytes
from shoestring.model.presets import PRESETS

CPU = torch.device("cpu")
STATM = Path("/proc/self/statm")
TINY = PRESETS["tiny"]
PAGE = page_bytes(TINY, TINY.num_hidden_layers, torch.float32.itemsize)
H, C, R, G, D = 4, 6, 2, 2, 5
LATENT = {"latent": (C,), "k_rope": (R,)}
GROUPED = {"key": (G, D), "value": (G, D)}
LENGTHS = (3, 70, 33)
"""Tokens of three sequences."""


def table(generator: torch.Generator) -> torch.Tensor:
    """Three sequences' pages, scattered over a pool of 12; what is not used points at page 0."""
    pages = torch.randperm(11, generator=generator)[:9].view(3, 3) + 1
    needed = torch.tensor([[-(-n // PAGE_SIZE)] for n in LENGTHS])
    return torch.where(torch.arange(3) < needed, pages, 0).to(torch.int32)


def rows(tables: torch.Tensor, spans: list[tuple[int, int, int]]) -> RowIndex:
    """The index of rows (sequence, from position, to position)."""
    owner = torch.tensor([s for s, start, end in spans for _ in range(start, end)])
    position = torch.tensor([p for _, start, end in spans for p in range(start, end)])
    slot = tables[owner, position // PAGE_SIZE].long() * PAGE_SIZE + position % PAGE_SIZE
    return RowIndex(position[None], slot, tables, owner.int(), (position + 1).int())


@pytest.fixture(params=[True, False], ids=["inference", "reference"])
def either_kernel(request):
    """The kernels of inference, and what gradients are computed with."""
    with torch.inference_mode(request.param):
        yield


@pytest.mark.parametrize("spec", [LATENT, GROUPED], ids=["latent", "grouped"])
def test_paged_attention_is_dense_attention(spec, either_kernel):
    """In pieces and mixed batches; the slots of nobody hold NaN, which must reach nothing."""
    generator = torch.Generator().manual_seed(4)
    tables = table(generator)
    paged = PagedCache([spec], num_pages=12, dtype=torch.float32, device=CPU)
    for tensor in paged.entries[0].values():
        tensor.fill_(float("nan"))
    new = {n: [torch.randn(1, t, *s, generator=generator) for t in LENGTHS] for n, s in spec.items()}
    q = [torch.randn(1, t, H, C + R if spec is LATENT else D, generator=generator) for t in LENGTHS]
    got = [torch.empty(0)] * 3
    for spans in ([(1, 0, 40), (2, 0, 1)], [(0, 0, 3), (1, 40, 69), (2, 1, 32)], [(2, 32, 33), (1, 69, 70)]):
        layer = paged.at(rows(tables, spans)).layers[0]
        layer.append(**{n: torch.cat([new[n][s][:, a:b] for s, a, b in spans], 1) for n in spec})
        out = attend(layer, torch.cat([q[s][:, a:b] for s, a, b in spans], 1), spec)
        counts = [b - a for _, a, b in spans]
        for (s, a, _), part in zip(spans, out.split(counts, 1), strict=True):
            got[s] = part if not a else torch.cat((got[s], part), 1)
    for s, length in enumerate(LENGTHS):
        dense = DenseLayerCache(spec, batch=1, capacity=length, dtype=torch.float32, device=CPU)
        dense.append(**{n: new[n][s] for n in spec})
        torch.testing.assert_close(got[s], attend(dense, q[s], spec), rtol=0, atol=1e-5)


def attend(layer, q, spec):
    if spec is LATENT:
        return layer.attend_latent(q[..., :C].contiguous(), q[..., C:].contiguous(), 0.4)
    return layer.attend(q, 0.4)


@pytest.mark.parametrize("name", ["tiny", "deepseek-v3", "r1-distill-qwen-1.5b"])
def test_a_page_is_as_large_as_the_cost_model_says(name):
    config = PRESETS[name]
    of_page = page_bytes(config, config.num_hidden_layers, torch.bfloat16.itemsize)
    assert of_page == PAGE_SIZE * cache_bytes_per_token(config, 2)


def test_the_cache_is_as_large_as_its_pages():
    config = PRESETS["tiny"]
    specs = cache_specs(config, 4)
    cache = PagedCache(specs, num_pages=5, dtype=torch.float32, device=CPU)
    assert cache.nbytes == 5 * page_bytes(config, 4, torch.float32.itemsize)


def test_entries_are_kept_in_the_caches_precision():
    cache = PagedCache([LATENT], num_pages=1, dtype=torch.bfloat16, device=CPU)
    layer = cache.at(rows(torch.zeros(1, 1, dtype=torch.int32), [(0, 0, 2)])).layers[0]
    layer.append(latent=torch.ones(1, 2, C), k_rope=torch.ones(1, 2, R))
    assert cache.entries[0]["latent"][0, :3].sum(-1).tolist() == [C, C, 0]


def test_free_memory_is_a_plausible_number():
    free = available_bytes(CPU)
    assert free is None or 2**20 < free < 2**50


def plan(config=TINY, **settings):
    settings = EngineSettings(**{"speculation": "off", **settings})
    return plan_cache(config, settings, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kv_cache_memory_bytes": 2**60}, "bytes of memory that are free; give at most"),
        ({"kv_cache_memory_bytes": PAGE - 1}, "holds 0 tokens"),
        (
            {"kv_cache_memory_bytes": 2 * PAGE, "max_model_len": 65},
            f"needs kv_cache_memory_bytes of {3 * PAGE:,}",
        ),
    ],
)
def test_a_cache_that_cannot_be_is_refused_with_what_can(settings, words):
    with pytest.raises(ConfigError, match=words):
        plan(**settings)


@pytest.mark.parametrize(("modules", "kind"), [(1, "mtp"), (0, "prompt_lookup")])
def test_auto_takes_what_the_model_has(modules, kind):
    made = plan(replace(TINY, num_nextn_predict_layers=modules), speculation="auto")
    assert (made.speculation, made.num_layers) == (kind, TINY.num_hidden_layers + modules)


def test_a_small_cache_shortens_the_context():
    made = plan(kv_cache_memory_bytes=3 * PAGE + 5)
    assert (made.num_pages, made.max_model_len) == (3, 3 * PAGE_SIZE)


def test_by_default_every_sequence_gets_a_thousand_tokens_or_its_context():
    assert plan(max_num_seqs=8).num_pages == 8 * 256 // PAGE_SIZE
    longer = replace(TINY, max_position_embeddings=10_000)
    assert plan(longer, max_num_seqs=8).num_pages == 8 * 1024 // PAGE_SIZE
    assert plan(longer, max_num_seqs=2, max_model_len=9000).max_model_len == 9000


def test_by_default_half_of_what_is_free_is_the_limit(monkeypatch):
    monkeypatch.setattr(paged_cache, "available_bytes", lambda device: 10 * PAGE)
    assert plan(max_num_seqs=64).num_pages == 5
    with pytest.raises(ConfigError, match="needs kv_cache_memory_bytes of"):
        plan(max_num_seqs=64, max_model_len=200)


@pytest.mark.skipif(not STATM.exists(), reason="only Linux says how much memory is in use")
def test_a_cache_takes_memory_only_where_it_is_written():
    def in_use() -> int:
        return int(STATM.read_text().split()[1]) * mmap.PAGESIZE

    before = in_use()
    cache = PagedCache([{"key": (4, 64)}], num_pages=8192, dtype=torch.float32, device=CPU)
    key = cache.entries[0]["key"]
    assert cache.nbytes == 2**28
    assert not key[5].any()
    assert in_use() - before < cache.nbytes / 16
    key[:4096] = 1.0
    assert in_use() - before > cache.nbytes * 0.4
