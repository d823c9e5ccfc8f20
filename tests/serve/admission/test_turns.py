"""Turns at a model: slots, waits, refusals, and places that are given back whatever happens."""

import asyncio
from contextlib import aclosing

import pytest

from shoestring.serve.admission.fair_queue import QueueLimits
from shoestring.serve.admission.turns import Turns
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Delta, Usage


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Model:
    """A backend whose requests make a token whenever `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.num_starts = 0

    async def start(self):
        self.num_starts += 1
        return self.deltas()

    async def deltas(self):
        for number in range(1, 4):
            await self.go.wait()
            yield Delta(text="x", usage=Usage(prompt_tokens=10, completion_tokens=number))

    async def refuse(self):
        raise RequestError("overloaded", "no")


def enter(turns: Turns, account: str = "a", **fields):
    fields = {"priority": "standard", "prompt_tokens": 10, "max_tokens": 20, **fields}
    return turns.enter(account, **fields)


async def read(deltas) -> int:
    async with aclosing(deltas):
        return len([delta async for delta in deltas])


def test_requests_beyond_the_slots_wait_and_begin_in_turn():
    async def main():
        turns, model = Turns(QueueLimits(slots=2)), Model()
        places = [enter(turns) for _ in range(4)]
        assert [place.is_running for place in places] == [True, True, False, False]
        assert [place.position for place in places] == [0, 0, 1, 2]
        tasks = [asyncio.create_task(read(await place.deltas(model.start))) for place in places]
        await asyncio.sleep(0.01)
        assert model.num_starts == 2
        model.go.set()
        assert await asyncio.gather(*tasks) == [3, 3, 3, 3]
        assert (turns.queue.num_running, turns.queue.num_waiting()) == (0, 0)

    asyncio.run(main())


def test_a_model_that_refuses_at_once_frees_the_slot():
    async def main():
        turns, model = Turns(QueueLimits(slots=1)), Model()
        with pytest.raises(RequestError):
            await enter(turns).deltas(model.refuse)
        assert turns.queue.num_running == 0
        first, second = enter(turns), enter(turns)
        late = await second.deltas(model.refuse)
        first.close()
        with pytest.raises(RequestError):
            await anext(late)
        assert turns.queue.num_running == 0

    asyncio.run(main())


def test_a_client_that_leaves_frees_its_place_in_the_queue_and_its_slot():
    async def main():
        turns, model = Turns(QueueLimits(slots=1)), Model()
        places = [enter(turns) for _ in range(3)]
        tasks = [asyncio.create_task(read(await place.deltas(model.start))) for place in places]
        await asyncio.sleep(0.01)
        for leaver in (1, 0):
            tasks[leaver].cancel()
            await asyncio.wait([tasks[leaver]])
        assert places[2].is_running
        model.go.set()
        assert await tasks[2] == 3
        assert (turns.queue.num_running, turns.queue.num_waiting()) == (0, 0)

    asyncio.run(main())


def test_places_whose_deltas_nobody_reads_are_closed():
    async def main():
        turns, model = Turns(QueueLimits(slots=1)), Model()
        places = [enter(turns), enter(turns)]
        for place in places:
            await place.deltas(model.start)
        for place in places:
            place.close()
        assert (turns.queue.num_running, turns.queue.num_waiting()) == (0, 0)

    asyncio.run(main())


def test_a_full_queue_is_an_error_that_says_when_to_come_back():
    async def main():
        turns = Turns(QueueLimits(slots=1, waiting=2), chance=lambda: 0.5)
        enter(turns, "a")
        enter(turns, "a")
        with pytest.raises(RequestError) as error:
            enter(turns, "a")
        assert (error.value.status, error.value.retry_after_s) == (503, 5.0)
        assert not enter(turns, "b").is_running
        assert turns.queue.num_waiting() == 2

    asyncio.run(main())


def busy(turns: Turns, clock: Clock, tokens_per_s: int):
    """A request in the only slot that has made tokens for some seconds."""
    place = enter(turns, "busy", max_tokens=100)
    for second in range(5):
        clock.now_s += 1
        place._count(Usage(prompt_tokens=10, completion_tokens=tokens_per_s * (second + 1)))
    return place


def test_a_wait_is_predicted_from_the_work_in_front_and_the_speed():
    async def main():
        clock = Clock()
        turns = Turns(QueueLimits(slots=1), max_wait_s=10, clock=clock, chance=lambda: 0.5)
        place = busy(turns, clock, 10)
        waiting = enter(turns, "a")
        assert waiting.predicted_wait_s == pytest.approx(50 / 10)
        second = enter(turns, "b")
        assert second.predicted_wait_s == pytest.approx((50 + 30) / 10)
        third = enter(turns, "vip", priority="interactive")
        assert third.predicted_wait_s == pytest.approx(5)
        assert second.predicted_wait_s == pytest.approx((50 + 60) / 10)
        with pytest.raises(RequestError) as error:
            enter(turns, "c")
        assert error.value.retry_after_s == pytest.approx((50 + 90) / 10)
        clock.now_s += 3
        assert turns.oldest_wait_s("standard", "interactive") == 3
        place.close()
        assert third.is_running
        assert [wait_s for _, wait_s, _ in turns.waits_s] == [0, 3]

    asyncio.run(main())


def test_a_close_tells_how_far_off_the_prediction_was():
    async def main():
        corrections = []
        turns = Turns(QueueLimits(slots=1), clock=Clock())
        place = enter(turns, max_tokens=100_000, on_close=corrections.append)
        waiting = enter(turns, max_tokens=20, on_close=corrections.append)
        waiting.close()
        place._count(Usage(prompt_tokens=10, completion_tokens=600))
        place.close()
        place.close()
        assert corrections == [-30, 600 - 512]

    asyncio.run(main())
