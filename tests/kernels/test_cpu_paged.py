"""Attention over pages in C++: equal to the reference; no row depends on others; stale pages never leak."""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from shoestring.kernels import cpu_paged, ops, reference

SCALE = 0.3


@dataclass
class Batch:
    """New tokens of several sequences whose pages lie scattered; what no sequence wrote is NaN."""

    tables: Tensor
    sequence: Tensor
    lengths: Tensor
    pages: int
    page_size: int

    @classmethod
    def make(cls, *spans: tuple[int, int], page_size: int = 32) -> "Batch":
        """Spans are (tokens kept in all, new ones among them)."""
        needed = [-(-total // page_size) for total, _ in spans]
        order = torch.randperm(sum(needed) + 3, generator=torch.Generator().manual_seed(1)).tolist()
        tables = torch.zeros(len(spans), max(needed) + 1, dtype=torch.int32)
        for row, count in enumerate(needed):
            tables[row, :count] = torch.tensor([order.pop() for _ in range(count)], dtype=torch.int32)
        sequence = torch.tensor(
            [row for row, (_, new) in enumerate(spans) for _ in range(new)], dtype=torch.int32
        )
        lengths = torch.tensor([n for total, new in spans for n in range(total - new + 1, total + 1)])
        return cls(tables, sequence, lengths.to(torch.int32), sum(needed) + 3, page_size)

    def entries(self, *shape: int, seed: int) -> Tensor:
        """Pages (P, S, ...) in which only what was written is a number."""
        kept = torch.full((self.pages, self.page_size, *shape), math.nan)
        values = torch.randn(kept.shape, generator=torch.Generator().manual_seed(seed))
        for row in range(len(self.tables)):
            total = int(self.lengths[self.sequence == row].max())
            for position in range(total):
                place = int(self.tables[row, position // self.page_size]), position % self.page_size
                kept[place] = values[place]
        return kept

    def rows(self, where: slice) -> "Batch":
        return Batch(self.tables, self.sequence[where], self.lengths[where], self.pages, self.page_size)

    @property
    def where(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.tables, self.sequence, self.lengths


SPANS = [
    [(1, 1)],
    [(33, 1)],
    [(64, 64)],
    [(5, 5), (100, 1), (32, 3), (77, 50)],
    [(200, 17), (3, 1), (31, 31), (32, 32), (40, 2)],
]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize(("heads", "latent", "rope"), [(1, 8, 2), (4, 24, 8), (16, 64, 16), (20, 37, 5)])
@pytest.mark.parametrize("page_size", [4, 32])
def test_latents(spans: list[tuple[int, int]], heads: int, latent: int, rope: int, page_size: int) -> None:
    batch = Batch.make(*spans, page_size=page_size)
    count = len(batch.sequence)
    operands = (random(count, heads, latent), random(count, heads, rope, seed=2))
    kept = (batch.entries(latent, seed=3), batch.entries(rope, seed=4))
    got = cpu_paged.paged_latent_attention(*operands, *kept, *batch.where, SCALE)
    double = [x.double() for x in (*operands, *kept)]
    wanted = reference.paged_latent_attention(*double, *batch.where, SCALE)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=5e-6)


@pytest.mark.parametrize("spans", SPANS)
@pytest.mark.parametrize(
    ("heads", "key_heads", "width"), [(1, 1, 8), (4, 2, 16), (14, 2, 64), (24, 1, 20), (3, 3, 5)]
)
def test_heads(spans: list[tuple[int, int]], heads: int, key_heads: int, width: int) -> None:
    batch = Batch.make(*spans)
    query = random(len(batch.sequence), heads, width)
    kept = (batch.entries(key_heads, width, seed=3), batch.entries(key_heads, width, seed=4))
    got = cpu_paged.paged_attention(query, *kept, *batch.where, SCALE)
    wanted = reference.paged_attention(query.double(), *(x.double() for x in kept), *batch.where, SCALE)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=5e-6)


@pytest.mark.parametrize("part", [slice(0, 1), slice(3, 5), slice(8, 9), slice(5, 40), slice(20, 59)])
def test_a_row_does_not_depend_on_the_others(part: slice) -> None:
    batch = Batch.make((5, 5), (100, 1), (32, 3), (77, 50))
    some, count = batch.rows(part), len(batch.sequence)
    query, rope, latents, turned = random(count, 9, 24), random(count, 9, 8, seed=2), (24,), (8,)
    kept = (batch.entries(*latents, seed=3), batch.entries(*turned, seed=4))
    whole = cpu_paged.paged_latent_attention(query, rope, *kept, *batch.where, SCALE)
    alone = cpu_paged.paged_latent_attention(query[part], rope[part], *kept, *some.where, SCALE)
    assert torch.equal(alone, whole[part])
    query, keys = random(count, 8, 24), (batch.entries(2, 24, seed=5), batch.entries(2, 24, seed=6))
    whole = cpu_paged.paged_attention(query, *keys, *batch.where, SCALE)
    assert torch.equal(cpu_paged.paged_attention(query[part], *keys, *some.where, SCALE), whole[part])


LONG = [(1300, 40), (700, 1), (3, 3)]
SLICES = [slice(39, 40), slice(7, 9), slice(0, 23), slice(40, 41), slice(38, 42)]


@pytest.mark.parametrize("heads", [1, 3, 9, 16, 100])
def test_long_rows_have_the_same_bits_alone_and_on_all_threads(heads: int) -> None:
    batch = Batch.make(*LONG)
    count = len(batch.sequence)
    query, rope = random(count, heads, 24), random(count, heads, 8, seed=2)
    kept = (batch.entries(24, seed=3), batch.entries(8, seed=4))
    whole = cpu_paged.paged_latent_attention(query, rope, *kept, *batch.where, SCALE)
    double = [x.double() for x in (query, rope, *kept)]
    wanted = reference.paged_latent_attention(*double, *batch.where, SCALE)
    torch.testing.assert_close(whole.double(), wanted, rtol=0, atol=5e-6)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            for part in SLICES:
                operands = (query[part], rope[part], *kept, *batch.rows(part).where)
                assert torch.equal(cpu_paged.paged_latent_attention(*operands, SCALE), whole[part])
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("heads", [4, 16])
def test_one_long_prompt_beside_short_streams_is_shared_by_threads_with_the_same_bits(heads: int) -> None:
    batch = Batch.make((1300, 3), *[(5, 1)] * 9)
    query, rope = random(12, heads, 24), random(12, heads, 8, seed=2)
    kept = (batch.entries(24, seed=3), batch.entries(8, seed=4))
    before, outs = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            outs.append(cpu_paged.paged_latent_attention(query, rope, *kept, *batch.where, SCALE))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(outs[0], outs[1])
    assert torch.equal(outs[0], outs[2])


@pytest.mark.parametrize(("heads", "key_heads"), [(8, 8), (6, 2), (24, 2), (40, 2)])
def test_few_rows_of_a_key_head_have_the_bits_of_many(heads: int, key_heads: int) -> None:
    batch = Batch.make(*LONG)
    query = random(len(batch.sequence), heads, 40)
    kept = (batch.entries(key_heads, 40, seed=5), batch.entries(key_heads, 40, seed=6))
    whole = cpu_paged.paged_attention(query, *kept, *batch.where, SCALE)
    for part in SLICES:
        alone = cpu_paged.paged_attention(query[part], *kept, *batch.rows(part).where, SCALE)
        assert torch.equal(alone, whole[part])


def test_a_bad_number_spoils_its_own_sequence_only() -> None:
    batch = Batch.make((40, 2), (40, 2))
    query, keys, values = random(4, 2, 16), batch.entries(1, 16, seed=3), batch.entries(1, 16, seed=4)
    keys[int(batch.tables[0, 0]), 7] = math.nan
    out = cpu_paged.paged_attention(query, keys, values, *batch.where, SCALE)
    assert out[:2].isnan().all()
    assert out[2:].isfinite().all()


def test_scores_far_apart_neither_overflow_nor_vanish() -> None:
    batch = Batch.make((70, 1))
    keys, values = batch.entries(1, 16, seed=3) * 200, batch.entries(1, 16, seed=4)
    query = random(1, 2, 16) * 200
    got = cpu_paged.paged_attention(query, keys, values, *batch.where, 1.0)
    wanted = reference.paged_attention(query.double(), keys.double(), values.double(), *batch.where, 1.0)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("heads", [4, 16])
def test_a_bad_latent_spoils_its_own_sequence_only(heads: int) -> None:
    batch = Batch.make((40, 2), (40, 2), (40, 2))
    query, rope = random(6, heads, 24), random(6, heads, 8, seed=2)
    kept = (batch.entries(24, seed=3), batch.entries(8, seed=4))
    kept[0][int(batch.tables[0, 0]), 7, 3] = math.nan
    kept[1][int(batch.tables[1, 0]), 9, 5] = math.nan
    query[5, 1, 2] = math.nan
    out = cpu_paged.paged_latent_attention(query, rope, *kept, *batch.where, SCALE)
    assert out[:4].isnan().all()
    assert out[4].isfinite().all()
    assert out[5].isnan().all(1).tolist() == [head == 1 for head in range(heads)]


@pytest.mark.parametrize("heads", [4, 16])
@pytest.mark.parametrize("size", [0.0, 1e-20, 1e-3, 1e6])
def test_latents_and_keys_of_any_size(heads: int, size: float) -> None:
    """One vector 1,000 times the others, one of zeros, and rotary keys of another size than latents."""
    batch = Batch.make((300, 3), (20, 1))
    latents, turned = batch.entries(64, seed=3) * size, batch.entries(16, seed=4)
    latents[int(batch.tables[0, 0]), 5] *= 1000
    latents[int(batch.tables[0, 1]), 6] = 0
    query = random(4, heads, 64) / max(size * 1000, 1e-20)
    operands = (query, random(4, heads, 16, seed=2) * 4, latents, turned)
    got = cpu_paged.paged_latent_attention(*operands, *batch.where, SCALE)
    wanted = reference.paged_latent_attention(*(x.double() for x in operands), *batch.where, SCALE)
    largest = max(float(wanted.abs().max()), 1e-30)
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=2e-5 * largest)


def test_scores_of_latents_far_apart_neither_overflow_nor_vanish() -> None:
    batch = Batch.make((700, 2))
    operands = [random(2, 16, 24) * 200, random(2, 16, 8, seed=2) * 200]
    operands += [batch.entries(24, seed=3) * 200, batch.entries(8, seed=4) * 200]
    got = cpu_paged.paged_latent_attention(*operands, *batch.where, 1.0)
    wanted = reference.paged_latent_attention(*(x.double() for x in operands), *batch.where, 1.0)
    torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-3)


def test_inference_takes_these() -> None:
    pick = ops.pick("paged_latent_attention", "cpu", torch.float32, inference=True)
    assert pick is cpu_paged.paged_latent_attention
    assert ops.pick("paged_attention", "cpu", torch.float64, inference=True) is reference.paged_attention
