"""Attention over pages on the GPU, interpreted: equal to the specification, whatever the batch."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from shoestring.kernels import reference, triton_paged

SCALE = 0.3
Run = Callable[..., Any]


@dataclass(frozen=True)
class Batch:
    """New tokens of several sequences whose pages lie scattered; what no sequence wrote is NaN."""

    tables: Tensor
    sequence: Tensor
    lengths: Tensor
    page_size: int = 32

    @classmethod
    def make(cls, *spans: tuple[int, int], page_size: int = 32) -> "Batch":
        """Spans are (tokens kept in all, new ones among them)."""
        needed = [-(-total // page_size) for total, _ in spans]
        order = torch.randperm(sum(needed) + 2, generator=torch.Generator().manual_seed(1)).to(torch.int32)
        tables = torch.zeros(len(spans), max(needed), dtype=torch.int32)
        for row, pages in enumerate(order[2:].split(needed)):
            tables[row, : len(pages)] = pages
        sequence = torch.tensor([row for row, (_, new) in enumerate(spans) for _ in range(new)])
        lengths = torch.tensor([n for total, new in spans for n in range(total - new + 1, total + 1)])
        return cls(tables, sequence.to(torch.int32), lengths.to(torch.int32), page_size)

    def entries(self, *shape: int, seed: int) -> Tensor:
        """Pages (P, S, ...) in which only what was written is a number."""
        kept = torch.full((int(self.tables.max()) + 1, self.page_size, *shape), math.nan)
        values = random(*kept.shape, seed=seed)
        for row, table in enumerate(self.tables.long()):
            total = int(self.lengths[self.sequence == row].max())
            for page, start in zip(table, range(0, total, self.page_size), strict=False):
                kept[page, : total - start] = values[page, : total - start]
        return kept

    @property
    def where(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.tables, self.sequence, self.lengths


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def latents(batch: Batch, heads: int, latent: int, rope: int) -> tuple[Tensor, ...]:
    count = len(batch.sequence)
    queries = random(count, heads, latent), random(count, heads, rope, seed=2)
    return (*queries, batch.entries(latent, seed=3), batch.entries(rope, seed=4))


def heads(batch: Batch, heads: int, key_heads: int, width: int, value_width: int) -> tuple[Tensor, ...]:
    query = random(len(batch.sequence), heads, width)
    return query, batch.entries(key_heads, width, seed=3), batch.entries(key_heads, value_width, seed=4)


def check(run: Run, name: str, operands: tuple[Tensor, ...], batch: Batch, atol: float = 5e-6) -> None:
    got = run(getattr(triton_paged, name), *operands, *batch.where, SCALE)
    wanted = getattr(reference, name)(*(x.double() for x in operands), *batch.where, SCALE)
    assert got.dtype == operands[0].dtype
    torch.testing.assert_close(got.double(), wanted, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("count", "latent", "rope", "page_size"),
    [(1, 8, 2, 32), (5, 37, 5, 32), (16, 64, 16, 4), (20, 24, 8, 7), (40, 130, 20, 32)],
)
def test_latents(interpreted: Run, count: int, latent: int, rope: int, page_size: int) -> None:
    batch = Batch.make((1, 1), (33, 2), (200, 1), (5, 5), page_size=page_size)
    check(interpreted, "paged_latent_attention", latents(batch, count, latent, rope), batch)


@pytest.mark.parametrize(
    ("count", "key_heads", "width", "value_width"),
    [(1, 1, 8, 8), (14, 2, 64, 64), (20, 1, 20, 24), (3, 3, 5, 3), (40, 2, 16, 16), (16, 4, 48, 40)],
)
def test_heads(interpreted: Run, count: int, key_heads: int, width: int, value_width: int) -> None:
    batch = Batch.make((1, 1), (64, 2), (130, 1))
    check(interpreted, "paged_attention", heads(batch, count, key_heads, width, value_width), batch)


def test_half_precision(interpreted: Run) -> None:
    """In float16: the interpreter multiplies bfloat16 wrongly; test_triton_programs.py compiles that."""
    batch = Batch.make((40, 2), (70, 1))
    for name, operands in (
        ("paged_latent_attention", latents(batch, 16, 32, 16)),
        ("paged_attention", heads(batch, 6, 2, 32, 32)),
    ):
        check(interpreted, name, tuple(x.half() for x in operands), batch, atol=3e-3)


@pytest.mark.parametrize("total", [256, 257, 520])
def test_spans_are_joined(interpreted: Run, total: int) -> None:
    batch = Batch.make((total, 2), (3, 1))
    check(interpreted, "paged_latent_attention", latents(batch, 3, 24, 8), batch)
    check(interpreted, "paged_attention", heads(batch, 4, 2, 20, 24), batch)


def test_a_row_does_not_depend_on_the_others_nor_on_the_width_of_the_tables(interpreted: Run) -> None:
    batch, part = Batch.make((300, 2), (33, 3), (5, 5)), slice(3, 6)
    operands = latents(batch, 5, 24, 8)
    whole = interpreted(triton_paged.paged_latent_attention, *operands, *batch.where, SCALE)
    some = replace(
        batch, tables=batch.tables[:, :2], sequence=batch.sequence[part], lengths=batch.lengths[part]
    )
    rows = (operands[0][part], operands[1][part], *operands[2:])
    alone = interpreted(triton_paged.paged_latent_attention, *rows, *some.where, SCALE)
    assert torch.equal(alone, whole[part])


def test_a_bad_number_spoils_its_own_sequence_only(interpreted: Run) -> None:
    batch = Batch.make((40, 2), (270, 2))
    for bad in range(2):
        query, keys, values = heads(batch, 2, 1, 16, 16)
        keys[int(batch.tables[bad, 0]), 7] = math.nan
        out = interpreted(triton_paged.paged_attention, query, keys, values, *batch.where, SCALE)
        assert out[2 * bad : 2 * bad + 2].isnan().all()
        assert out[2 - 2 * bad : 4 - 2 * bad].isfinite().all()


def test_scores_far_apart_neither_overflow_nor_vanish(interpreted: Run) -> None:
    batch = Batch.make((70, 1), (280, 1))
    query, keys, values = heads(batch, 2, 1, 16, 16)
    check(interpreted, "paged_attention", (200 * query, 200 * keys, values), batch, atol=1e-5)


@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_rows_take_turns_when_their_spans_would_fill_the_memory(
    monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    batch, seen = Batch.make((300, 5), (2, 2)), []

    def record(program: str, grid: tuple[int, ...], out: Tensor, *arguments: Any, **options: int) -> None:
        if program == "join_spans":
            assert grid == (len(out), 6)
            out.fill_(len(seen))
        else:
            assert (len(out), *grid[1:]) == (grid[0], 1, 2)
            seen.append(arguments[3].lengths.tolist())

    monkeypatch.setattr(triton_paged, "launch", record)
    monkeypatch.setattr(triton_paged, "PARTIAL_BYTES", at_once * 4 * 2 * 6 * 8)
    operands = latents(batch, 6, 8, 2)
    out = triton_paged.paged_latent_attention(*operands, *batch.where, SCALE)
    assert [length for turn in seen for length in turn] == batch.lengths.tolist()
    assert max(len(turn) for turn in seen) <= at_once
    assert out[:, 0, 0].tolist() == [1 + n for n, turn in enumerate(seen) for _ in turn]
