"""The scheduler: every sequence gets every token computed once, in order, and all pages come back."""

import random

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from shoestring.engine.pages import PagePool
from shoestring.engine.request import Request, SamplingParams
from shoestring.engine.scheduler import PromptPace, Scheduler
from shoestring.engine.sequence import Sequence
from shoestring.model.memory import PAGE_SIZE, pages_for

BUDGET, ROWS, PAGES = 40, 4, 10


def sequence(name: str, prompt: list[int], max_tokens: int = 50, **known) -> Sequence:
    params = SamplingParams(temperature=0, max_tokens=max_tokens)
    request = Request(request_id=name, prompt_token_ids=prompt, sampling_params=params)
    return Sequence.start(request, 0, len(prompt) + max_tokens, **known)


def scheduler(pages: int = PAGES, budget: int = BUDGET, rows: int = ROWS) -> Scheduler:
    return Scheduler(PagePool(pages), max_num_seqs=rows, max_num_batched_tokens=budget)


class Written:
    """What every cache slot holds: the model's part of the work, played in Python."""

    def __init__(self) -> None:
        self.slots: dict[tuple[int, int], tuple[int, ...]] = {}

    def run(self, batch) -> None:
        """Write each row's history into its slot, then check that all earlier slots hold theirs."""
        for source, target in batch.page_copies:
            copies = {place: text for (page, place), text in self.slots.items() if page == source}
            self.slots |= {(target, place): text for place, text in copies.items()}
        for item in batch.items:
            known = [*item.sequence.token_ids, *item.drafts]
            assert item.ids() == known[item.start : item.start + item.count]
            for position in range(item.start, item.start + item.count):
                page = item.sequence.page_ids[position // PAGE_SIZE]
                self.slots[page, position % PAGE_SIZE] = tuple(known[: position + 1])
        for item in batch.items:
            for position in range(item.start + item.count):
                page = item.sequence.page_ids[position // PAGE_SIZE]
                known = [*item.sequence.token_ids, *item.drafts]
                assert self.slots[page, position % PAGE_SIZE] == tuple(known[: position + 1])


def check_batch(batch, pool) -> None:
    assert batch.num_rows <= BUDGET
    assert len({item.sequence for item in batch.items}) == len(batch.items)
    rows = [item.sequence.table_row for item in batch.items]
    assert len(set(rows)) == len(rows)
    assert all(0 <= row < ROWS for row in rows)


class SchedulerMachine(RuleBasedStateMachine):
    """Adds, steps, aborts and finishes in any order, with prompts that share beginnings and with drafts."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler, self.written, self.live, self.added = scheduler(), Written(), [], 0

    @rule(
        parts=st.lists(st.integers(0, 1), max_size=3),
        tail=st.integers(1, 40),
        max_tokens=st.integers(1, 60),
        completions=st.integers(1, 3),
    )
    def add(self, parts, tail, max_tokens, completions):
        prompt = [token for part in parts for token in range(100 * part, 100 * part + PAGE_SIZE)]
        leader = None
        for _ in range(completions):
            self.added += 1
            new = sequence(str(self.added), prompt + [7] * tail, max_tokens, leader=leader)
            leader = leader or new
            self.live.append(new)
            self.scheduler.add(new)

    @rule(seed=st.integers(0, 2**32))
    def step(self, seed):
        rng = random.Random(seed)
        batch = self.scheduler.next_batch()
        check_batch(batch, self.scheduler.pool)
        assert bool(batch.items) == bool(self.live), "unfinished sequences, and nothing to run"
        self.written.run(batch)
        ids = {}
        for item in batch.items:
            if item.num_sampled:
                kept = rng.randrange(item.num_sampled)
                ids[item.sequence] = [*item.drafts[:kept], rng.randrange(1000, 2000)]
        self.scheduler.commit(batch, ids)
        for item in batch.items:
            current = item.sequence
            if len(current.token_ids) >= current.max_length:
                self.scheduler.finish(current)
                self.live.remove(current)
            elif item.num_sampled and rng.random() < 0.5:
                current.drafts = [rng.randrange(1000, 2000) for _ in range(3)]

    @rule(data=st.data())
    def abort(self, data):
        if self.live:
            victim = self.live.pop(data.draw(st.integers(0, len(self.live) - 1)))
            self.scheduler.finish(victim)
            assert victim.page_ids == []

    @rule()
    def restart(self):
        self.scheduler.restart()
        self.written.slots.clear()

    @invariant()
    def pages_are_exact(self):
        held = [page for one in self.live for page in one.page_ids]
        assert self.scheduler.pool.num_used == len(set(held))
        assert all(self.scheduler.pool.num_references(page) == held.count(page) for page in range(PAGES))
        assert {*self.scheduler.running, *self.scheduler.waiting} == set(self.live)

    def teardown(self):
        for one in self.live:
            self.scheduler.finish(one)
        assert self.scheduler.pool.num_free == PAGES


SchedulerMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=50)
TestScheduler = SchedulerMachine.TestCase


def step(schedule: Scheduler, token: int = 9):
    batch = schedule.next_batch()
    schedule.commit(batch, {item.sequence: [token] for item in batch.items if item.num_sampled})
    for item in batch.items:
        if len(item.sequence.token_ids) >= item.sequence.max_length:
            schedule.finish(item.sequence)
    return batch


def shape(batch) -> list[tuple[str, int, int]]:
    return [(item.sequence.request.request_id, item.start, item.count) for item in batch.items]


def test_a_long_prompt_comes_in_pieces_and_decoding_goes_on_beside_it():
    schedule = scheduler(pages=20, budget=7)
    schedule.add(sequence("a", [1, 2]))
    assert shape(step(schedule)) == [("a", 0, 2)]
    schedule.add(sequence("b", list(range(15))))
    assert shape(step(schedule)) == [("a", 2, 1), ("b", 0, 6)]
    batch = step(schedule)
    assert shape(batch) == [("a", 3, 1), ("b", 6, 6)]
    assert not batch.is_decode_only
    assert shape(step(schedule)) == [("a", 4, 1), ("b", 12, 3)]
    batch = step(schedule)
    assert shape(batch) == [("a", 5, 1), ("b", 15, 1)]
    assert batch.is_decode_only


def paced(share: float) -> Scheduler:
    """A scheduler with one running stream and a long prompt."""
    schedule = Scheduler(PagePool(400), max_num_seqs=ROWS, max_num_batched_tokens=512, prompt_share=share)
    schedule.add(sequence("stream", [1], max_tokens=2000))
    step(schedule)
    schedule.add(sequence("long", list(range(9000)), max_tokens=1))
    return schedule


def paced_steps(schedule: Scheduler, row_s: float, count: int) -> list[int]:
    """The prompt's rows in so many steps of 1/64 s and `row_s` for each of them."""
    taken = []
    for _ in range(count):
        batch = step(schedule)
        taken.append(batch.num_rows - 1)
        schedule.pace.record(batch, 1 / 64 + row_s * taken[-1])
    return taken


def test_pieces_of_prompts_take_their_share_of_a_step():
    schedule = paced(0.5)
    taken = paced_steps(schedule, 1 / 8192, 8)
    assert taken == [0, 32, 64, 128, 128, 128, 128, 128]  # a step without prompts first, to know its time
    assert paced_steps(schedule, 1 / 4096, 3) == [128, 64, 64]  # rows of a longer context take longer
    assert paced_steps(schedule, 1.0, 3)[1:] == [PromptPace.LEAST_ROWS] * 2  # it goes on in any case


def test_one_quick_step_makes_no_long_one():
    schedule = paced(0.5)
    assert paced_steps(schedule, 1 / 4096, 5)[-1] == 64
    assert paced_steps(schedule, 1 / 16384, 1) == [64]
    assert paced_steps(schedule, 1 / 4096, 2) == [64, 64]
    assert paced_steps(schedule, 1 / 8192, 4)[-1] == 128  # quick for good


def test_a_step_without_prompts_is_measured_from_time_to_time():
    taken = paced_steps(paced(0.5), 1 / 2048, 2 * PromptPace.REFRESH_STEPS)
    assert [i for i, rows in enumerate(taken) if rows == 0] == [0, PromptPace.REFRESH_STEPS + 1]


def test_prompts_alone_and_with_the_whole_share_are_only_limited_by_the_budget():
    assert paced_steps(paced(1.0), 1 / 8192, 3) == [511, 511, 511]
    schedule = Scheduler(PagePool(400), max_num_seqs=ROWS, max_num_batched_tokens=512, prompt_share=0.1)
    schedule.add(sequence("long", list(range(9000)), max_tokens=1))
    assert step(schedule).num_rows == step(schedule).num_rows == 512


def test_decoding_rows_never_exceed_the_budget_and_drafts_take_what_is_left():
    schedule = scheduler(pages=20, budget=5)
    for name in "abc":
        schedule.add(sequence(name, [1]))
    step(schedule)
    for one in schedule.running:
        one.drafts = [4, 5]
    batch = schedule.next_batch()
    assert [item.drafts for item in batch.items] == [(4, 5), (), ()]
    assert [item.num_sampled for item in batch.items] == [3, 1, 1]


def test_a_rejected_draft_is_computed_again():
    schedule = scheduler()
    one = sequence("a", [1, 2, 3])
    schedule.add(one)
    step(schedule)
    one.drafts = [10, 11]
    batch = schedule.next_batch()
    schedule.commit(batch, {one: [10, 12]})
    assert one.token_ids == [1, 2, 3, 9, 10, 12]
    assert one.num_computed_tokens == 5
    (item,) = schedule.next_batch().items
    assert (item.start, item.ids()) == (5, [12])


def test_drafts_stop_before_the_end():
    schedule = scheduler()
    one = sequence("a", [1], max_tokens=3)
    schedule.add(one)
    step(schedule)
    one.drafts = [4, 5, 6, 7]
    assert schedule.next_batch().items[0].drafts == (4,)


def test_the_youngest_gives_way_and_comes_back_first():
    schedule = scheduler(pages=4)
    old, young, later = (sequence(name, [ord(name)] * 30, max_tokens=90) for name in "oyl")
    for one in (old, young, later):
        schedule.add(one)
    while not schedule.counters.preemptions:
        step(schedule)
    assert schedule.running == [old, young]
    assert schedule.waiting[0] is later
    produced = later.num_output_tokens
    for _ in range(400):
        step(schedule)
    assert not schedule.running
    assert not schedule.waiting
    assert all(len(one.token_ids) == 120 for one in (old, young, later))
    assert produced > 0
    assert schedule.pool.num_free == 4


def test_the_first_come_is_the_first_served():
    schedule = scheduler(pages=4)
    big, small = sequence("big", [1] * 100, max_tokens=4), sequence("small", [2] * 3, max_tokens=4)
    schedule.add(sequence("first", [0] * 40, max_tokens=4))
    schedule.add(big)
    schedule.add(small)
    step(schedule)
    assert not big.is_running
    assert not small.is_running, "what does not fit is not overtaken, or it might wait for ever"


def test_a_shared_prefix_is_computed_once_and_counted():
    schedule = scheduler(pages=20, budget=200)
    prompt = list(range(100))
    first, second = sequence("a", [*prompt, 1]), sequence("b", [*prompt, 2])
    schedule.add(first)
    step(schedule)
    schedule.add(second)
    batch = step(schedule)
    assert ("b", 96, 5) in shape(batch)
    assert second.page_ids[:3] == first.page_ids[:3]
    assert (first.num_cached_tokens, second.num_cached_tokens) == (0, 96)
    assert (schedule.counters.prompt_tokens, schedule.counters.cached_tokens) == (202, 96)


def test_one_prompt_token_is_always_computed():
    schedule = scheduler(budget=200)
    for name in "ab":
        schedule.add(sequence(name, list(range(64)), max_tokens=5))
        batch = step(schedule)
    assert shape(batch) == [("a", 64, 1), ("b", 32, 32)]


def test_completions_of_one_prompt_wait_for_its_pages():
    schedule = scheduler(pages=20, budget=70)
    leader = sequence("a", list(range(100)))
    follower = sequence("b", list(range(100)), leader=leader)
    other = sequence("c", [5])
    for one in (leader, follower, other):
        schedule.add(one)
    assert shape(step(schedule)) == [("a", 0, 70)]
    assert shape(step(schedule)) == [("a", 70, 30), ("c", 0, 1)]
    batch = schedule.next_batch()
    assert ("b", 99, 1) in shape(batch), "it samples its own next token"
    assert batch.page_copies == ((leader.page_ids[3], follower.page_ids[3]),)
    assert follower.page_ids[:3] == leader.page_ids[:3]
    schedule.commit(batch, {item.sequence: [1000] for item in batch.items})
    assert schedule.next_batch().page_copies == ()


def test_new_weights_share_nothing_with_old_ones():
    schedule = scheduler(pages=20, budget=200)
    one = sequence("a", list(range(70)))
    schedule.add(one)
    step(schedule)
    schedule.restart()
    assert schedule.pool.num_used == 0
    assert shape(schedule.next_batch()) == [("a", 0, 71)]


def test_ten_thousand_random_aborts_leave_every_page_free():
    rng, schedule, live, aborted = random.Random(3), scheduler(), [], 0
    while aborted < 10_000:
        while len(live) < 12:
            new = sequence("x", [rng.randrange(3)] * rng.randrange(1, 150), max_tokens=rng.randrange(1, 100))
            live.append(new)
            schedule.add(new)
        if rng.random() < 0.7:
            step(schedule, token=rng.randrange(3))
            live = [one for one in live if len(one.token_ids) < one.max_length]
        if rng.random() < 0.9:
            schedule.finish(live.pop(rng.randrange(len(live))))
            aborted += 1
    for one in live:
        schedule.finish(one)
    assert schedule.pool.num_free == PAGES
    assert not schedule.running
    assert not schedule.waiting


def test_every_length_that_fits_the_pool_alone_is_served():
    for length in range(PAGES * PAGE_SIZE - 40, PAGES * PAGE_SIZE):
        schedule = scheduler()
        one = sequence("a", [1] * length, max_tokens=PAGES * PAGE_SIZE - length)
        schedule.add(one)
        while len(one.token_ids) < one.max_length:
            assert step(schedule).items
        assert pages_for(one.max_length) == PAGES
