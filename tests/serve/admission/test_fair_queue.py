"""The fair queue, by simulation: no idle slot, classes in order, the bound of the virtual token counter."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.serve.admission.fair_queue import (
    INPUT_WEIGHT,
    OUTPUT_WEIGHT,
    PRIORITIES,
    FairQueue,
    QueueLimits,
    Ticket,
)

MOST_PROMPT, MOST_OUTPUT = 30, 20


def ticket(account: str, prompt: int = 1, output: int = 1, **fields) -> Ticket:
    fields = {"priority": "standard", **fields}
    return Ticket(account_id=account, prompt_tokens=prompt, max_tokens=output, **fields)


class Simulation:
    """An engine that makes one token a step for each request in a slot."""

    def __init__(self, slots: int) -> None:
        self.queue = FairQueue(QueueLimits(slots=slots, waiting=10_000, waiting_tokens=10**9))
        self.service = dict.fromkeys("abcdefgh", 0.0)
        self.starts: list[Ticket] = []
        self._left: dict[Ticket, int] = {}
        self._waiting: dict[str, int] = {}

    def add(self, new: Ticket) -> None:
        self.queue.enter(new)

    def start(self) -> None:
        while (new := self.queue.start()) is not None:
            higher = PRIORITIES[: PRIORITIES.index(new.priority)]
            assert not any(self.queue.num_waiting(name) for name in higher)
            self.starts.append(new)
            self._left[new] = int(new.max_tokens)
            self.service[new.account_id] += INPUT_WEIGHT * new.prompt_tokens / new.weight
        num_batch = sum(each.priority == "batch" for each in self._left)
        has_slot = self.queue.num_running < self.queue.limits.slots
        can_batch = num_batch < self.queue.limits.batch_slots
        for name in PRIORITIES:  # work conserving
            assert not (self.queue.num_waiting(name) and has_slot and (name != "batch" or can_batch))

    def step(self) -> None:
        self.start()
        for each in list(self._left):
            self.queue.charge(each, completion_tokens=1)
            self.service[each.account_id] += OUTPUT_WEIGHT / each.weight
            self._left[each] -= 1
            if not self._left[each]:
                del self._left[each]
                self.queue.finish(each)

    def is_idle(self) -> bool:
        return not self._left and not self.queue.num_waiting()


lengths = st.tuples(st.integers(1, MOST_PROMPT), st.integers(1, MOST_OUTPUT))


@settings(max_examples=40)
@given(
    slots=st.integers(1, 4),
    lengths_a=st.lists(lengths, min_size=1, max_size=5),
    lengths_b=st.lists(lengths, min_size=1, max_size=5),
    others=st.lists(st.tuples(st.integers(0, 100), st.sampled_from("cd"), lengths), max_size=20),
    weight=st.sampled_from([1.0, 3.0]),
)
def test_two_accounts_that_always_wait_get_the_same_service_within_the_bound(
    slots, lengths_a, lengths_b, others, weight
):
    simulation = Simulation(slots)
    sources = {"a": itertools.cycle(lengths_a), "b": itertools.cycle(lengths_b)}
    weights = {"a": weight, "b": 1.0}
    for account, source in sources.items():
        for _ in range(600):  # more than fits into 120 steps
            simulation.add(ticket(account, *next(source), weight=weights[account]))
    differences = []
    for now in range(120):
        for _, account, length in (other for other in others if other[0] == now):
            simulation.add(ticket(account, *length))
        simulation.step()
        differences.append(simulation.service["a"] - simulation.service["b"])
    bound = 2 * (INPUT_WEIGHT * MOST_PROMPT + OUTPUT_WEIGHT * slots * MOST_OUTPUT)
    assert max(differences) - min(differences) <= bound


def test_a_queue_in_order_of_arrival_would_break_the_bound():
    """The bound above means something: 120 steps of one account alone are far more than that."""
    bound = 2 * (INPUT_WEIGHT * MOST_PROMPT + OUTPUT_WEIGHT * MOST_OUTPUT)
    assert bound < 120 * OUTPUT_WEIGHT


@given(
    slots=st.integers(1, 5),
    arrivals=st.lists(
        st.tuples(st.integers(0, 60), st.sampled_from("abcd"), st.sampled_from(PRIORITIES), lengths),
        max_size=60,
    ),
)
def test_every_request_is_served_and_classes_come_in_order(slots, arrivals):
    simulation = Simulation(slots)
    for now in range(2000):
        for _, account, priority, length in (arrival for arrival in arrivals if arrival[0] == now):
            simulation.add(ticket(account, *length, priority=priority))
        simulation.step()
        if now > 60 and simulation.is_idle():
            break
    assert len(simulation.starts) == len(arrivals)
    assert simulation.queue.num_running == 0


@settings(max_examples=40)
@given(num_hogs=st.integers(1, 6), slots=st.integers(1, 3), steps=st.integers(0, 60), lengths=lengths)
def test_a_newcomer_is_overtaken_at_most_once_by_each_hog(num_hogs, slots, steps, lengths):
    simulation = Simulation(slots)
    for hog in "abcdef"[:num_hogs]:
        for _ in range(200):
            simulation.add(ticket(hog, *lengths))
    for _ in range(steps):
        simulation.step()
    newcomer, before = ticket("h", *lengths), len(simulation.starts)
    simulation.add(newcomer)
    while newcomer not in simulation.starts:
        simulation.step()
    assert simulation.starts.index(newcomer) - before <= num_hogs


def test_nobody_saves_up_service_while_away():
    simulation = Simulation(1)
    simulation.add(ticket("b", 1, 1))
    for _ in range(100):
        simulation.add(ticket("a", 10, 10))
    for _ in range(500):
        simulation.step()
    for _ in range(100):
        simulation.add(ticket("b", 10, 10))
    before = len(simulation.starts)
    for _ in range(200):
        simulation.step()
    accounts = [each.account_id for each in simulation.starts[before:]]
    assert abs(accounts.count("a") - accounts.count("b")) <= 1


def test_batch_requests_leave_half_of_the_slots():
    queue = FairQueue(QueueLimits(slots=4))
    for _ in range(4):
        queue.enter(ticket("a", priority="batch"))
    assert queue.start()
    assert queue.start()
    assert queue.start() is None
    queue.enter(ticket("b", priority="interactive"))
    assert queue.start().account_id == "b"


def test_an_account_waits_with_as_many_requests_as_there_is_room_left():
    queue = FairQueue(QueueLimits(slots=1, waiting=16))
    numbers = {}
    for account in "abc":
        numbers[account] = 0
        while queue.has_room(new := ticket(account)):
            queue.enter(new)
            numbers[account] += 1
    assert numbers == {"a": 8, "b": 4, "c": 2}


def test_tokens_that_wait_are_limited_too():
    queue = FairQueue(QueueLimits(slots=1, waiting_tokens=100))
    assert queue.has_room(ticket("a", 900, 100))  # alone, it cannot wait for less
    queue.enter(ticket("a", 40, 10))
    assert not queue.has_room(ticket("a", 1, 1))
    assert queue.has_room(ticket("b", 25, 25))
    assert not queue.has_room(ticket("b", 25, 26))
    assert queue.has_room(ticket("b", 25, 26, priority="batch"))


def test_ahead_counts_the_turns_of_others():
    queue = FairQueue(QueueLimits(slots=1))
    for _ in range(5):
        queue.enter(ticket("a", 10, 0))
    last = ticket("b", 1, 0)
    queue.enter(ticket("b", 1, 0))
    queue.enter(last)
    assert queue.ahead(last).requests == 1 + 2
    assert queue.ahead(last).tokens == 1 + 2 * 10
    queue.enter(ticket("c", 7, 0, priority="interactive"))
    assert queue.ahead(last).requests == 4
    assert queue.ahead(last).tokens == 28


@pytest.mark.parametrize("seed", range(5))
def test_ahead_is_near_the_truth_when_requests_are_alike(seed):
    chance, simulation = random.Random(seed), Simulation(1)
    for _ in range(40):
        simulation.add(ticket(chance.choice("abcd"), 5, 5))
    last = ticket("a", 5, 5)
    simulation.add(last)
    expected = simulation.queue.ahead(last).requests
    while last not in simulation.starts:
        simulation.step()
    assert simulation.starts.index(last) == pytest.approx(expected, abs=4)


def test_leaving_the_queue_and_its_slot():
    queue = FairQueue(QueueLimits(slots=1))
    first, second, third = ticket("a"), ticket("a"), ticket("b")
    for each in (first, second, third):
        queue.enter(each)
    queue.leave(second)
    assert queue.num_waiting() == 2
    assert queue.start() is first
    assert queue.start() is None
    queue.finish(first)
    assert queue.start() is third
    assert queue.num_waiting() == 0
