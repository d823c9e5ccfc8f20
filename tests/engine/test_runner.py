"""Batches as rows: the logits of scattered pieces are those of whole forward passes."""

import random

import pytest
import torch

from shoestring.engine.paged_cache import PagedCache, cache_specs
from shoestring.engine.pages import PagePool
from shoestring.engine.request import Request
from shoestring.engine.runner import Runner, Span
from shoestring.engine.scheduler import Scheduler
from shoestring.engine.sequence import Sequence
from shoestring.kernels import packed
from shoestring.model.memory import PAGE_SIZE

PROMPTS = [list(range(50)), [7], list(range(100, 133))]


def parts(model, max_num_batched_tokens=20):
    specs = cache_specs(model.config, model.config.num_hidden_layers)
    cache = PagedCache(specs, num_pages=12, dtype=torch.float32, device=torch.device("cpu"))
    schedule = Scheduler(PagePool(12), max_num_seqs=3, max_num_batched_tokens=max_num_batched_tokens)
    return schedule, Runner(model, cache, max_num_seqs=3, max_pages=4)


def start(schedule, prompt, name="r"):
    request = Request(request_id=name, prompt_token_ids=prompt)
    sequence = Sequence.start(request, 0, len(prompt) + 20)
    schedule.add(sequence)
    return sequence


@torch.inference_mode()
def test_logits_of_pieces_are_logits_of_the_whole(model):
    schedule, runner = parts(model)
    for prompt in PROMPTS:
        start(schedule, prompt)
    drafts, compared = (3, 4), 0
    for _ in range(12):
        batch = schedule.next_batch()
        logits_NW = runner.run(batch).logits_NW
        assert len(logits_NW) == sum(item.num_sampled for item in batch.items)
        ids, first = {}, 0
        for item in batch.items:
            if not item.num_sampled:
                continue
            known = [*item.sequence.token_ids, *item.drafts]
            wanted = model(torch.tensor([known]))[0, -item.num_sampled :]
            torch.testing.assert_close(logits_NW[first : first + item.num_sampled], wanted, rtol=0, atol=1e-4)
            ids[item.sequence] = [*item.drafts[:1], 5]
            first += item.num_sampled
            compared += item.num_sampled
        schedule.commit(batch, ids)
        for sequence in schedule.running:
            sequence.drafts = list(drafts)
    assert compared > 40


def test_a_row_of_the_page_table_is_rewritten_for_its_next_owner(gqa):
    schedule, runner = parts(gqa, max_num_batched_tokens=200)
    for prompt in ([1] * 70, [2] * 40, [3] * 70):
        sequence = start(schedule, prompt)
        schedule.next_batch()
        index = runner.index([Span(sequence, 0, len(prompt))])
        pages = torch.tensor(sequence.page_ids)
        positions = torch.arange(len(prompt))
        wanted = pages[positions // PAGE_SIZE] * PAGE_SIZE + positions % PAGE_SIZE
        assert torch.equal(index.slot_N, wanted)
        assert index.tables_BU[sequence.table_row, : len(pages)].tolist() == sequence.page_ids
        assert index.lengths_N.tolist() == list(range(1, len(prompt) + 1))
        schedule.finish(sequence)
        held = schedule.pool.allocate(1)
        assert held is not None  # so that the next one gets other pages in the same row


@pytest.mark.skipif(not packed.available(), reason="needs the compiled CPU kernels")
@torch.inference_mode()
def test_a_rows_logits_are_the_same_to_the_last_bit_however_batches_are_cut(model):
    """Alone, in pieces, among others, as a draft: this is what makes the engine's answers its own."""
    rng = random.Random(5)
    tokens = [[rng.randrange(256) for _ in range(70)] for _ in range(3)]
    seen: dict[tuple[int, int], torch.Tensor] = {}
    for budget in (3, 7, 20, 64, 200):
        schedule, runner = parts(model, max_num_batched_tokens=budget)
        sequences = {start(schedule, ids[:40]): number for number, ids in enumerate(tokens)}
        while (batch := schedule.next_batch()).items:
            logits_NW, first, new = runner.run(batch).logits_NW, 0, {}
            for item in batch.items:
                sequence, number = item.sequence, sequences[item.sequence]
                for ahead in range(item.num_sampled):
                    place = (number, len(sequence.token_ids) + ahead)
                    assert torch.equal(logits_NW[first], seen.setdefault(place, logits_NW[first])), place
                    first += 1
                if item.num_sampled:
                    known = len(sequence.token_ids)
                    new[sequence] = tokens[number][known : known + item.num_sampled]
            schedule.commit(batch, new)
            for sequence in list(schedule.running):
                known = len(sequence.token_ids)
                if known >= 60:
                    schedule.finish(sequence)
                elif sequence.num_uncomputed_tokens == 1:
                    sequence.drafts = tokens[sequences[sequence]][known : known + rng.randrange(4)]
    assert len(seen) > 50
