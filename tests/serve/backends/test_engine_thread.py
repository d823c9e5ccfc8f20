import asyncio

import pytest

from shoestring.engine.request import Request, SamplingParams
from shoestring.errors import ConfigError
from shoestring.serve.backends.engine_thread import EngineStopped, EngineThread


def request(name, **params):
    sampling = SamplingParams(temperature=0, ignore_eos=True, **{"max_tokens": 5, **params})
    return Request(request_id=name, prompt_token_ids=(3, 50, 60), sampling_params=sampling)


def run(engine, work):
    """Run `work(thread)` on an event loop, with the engine's thread started and then stopped."""

    async def main():
        thread = EngineThread(engine)
        thread.start()
        try:
            return await work(thread)
        finally:
            await thread.stop()

    return asyncio.run(main())


async def last(thread, *requests):
    """The finished output of each request."""
    outputs = {}
    async for output in thread.outputs(requests):
        outputs[output.request_id] = output
    return [outputs[each.request_id].outputs[0].token_ids for each in requests]


def test_many_callers_get_what_each_gets_alone(new_engine):
    engine = new_engine()

    async def together(thread):
        return await asyncio.gather(*(last(thread, request(str(n), max_tokens=n + 1)) for n in range(12)))

    async def alone(thread):
        return [await last(thread, request(str(n), max_tokens=n + 1)) for n in range(12)]

    assert run(engine, together) == run(engine, alone)
    assert engine.counters.pages_used == 0 or not engine.has_unfinished()


def test_closing_a_stream_aborts_its_requests(new_engine):
    engine = new_engine()

    async def leave(thread):
        stream = thread.outputs([request("a", max_tokens=400), request("b", max_tokens=400)])
        await anext(stream)
        await stream.aclose()
        await last(thread, request("c"))

    run(engine, leave)
    assert engine.counters.aborted == 2
    assert engine.counters.finished == 1
    assert not engine.has_unfinished()


def test_a_caller_that_leaves_while_its_request_is_taken_leaves_nothing(new_engine):
    engine = new_engine()

    async def leave(thread):
        async def begin():
            await anext(thread.outputs([request("a", max_tokens=400)]))

        task = asyncio.ensure_future(begin())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await last(thread, request("c"))

    run(engine, leave)
    assert engine.counters.finished == 1
    assert not engine.has_unfinished()


def test_a_wrong_request_fails_alone(new_engine):
    async def work(thread):
        with pytest.raises(ConfigError, match="token id"):
            await last(thread, request("a", logit_bias={9_999_999: 1}))
        return await last(thread, request("b"))

    assert len(run(new_engine(), work)[0]) == 5


def test_an_engine_that_fails_ends_every_stream(new_engine, monkeypatch):
    engine = new_engine()

    async def work(thread):
        stream = thread.outputs([request("a", max_tokens=400)])
        await anext(stream)
        monkeypatch.setattr(engine, "step", lambda: 1 / 0)
        with pytest.raises(EngineStopped):
            async for _ in stream:
                pass
        assert not thread.is_alive
        with pytest.raises(EngineStopped):
            await last(thread, request("b"))

    run(engine, work)


def test_stopping_ends_open_streams(new_engine):
    async def main():
        thread = EngineThread(new_engine())
        thread.start()
        stream = thread.outputs([request("a", max_tokens=400)])
        await anext(stream)
        await thread.stop()
        with pytest.raises(EngineStopped):
            async for _ in stream:
                pass

    asyncio.run(main())


def test_the_heart_beats_without_work(new_engine):
    async def work(thread):
        before = thread.heartbeat_s
        await asyncio.sleep(1.2)
        assert thread.heartbeat_s > before

    run(new_engine(), work)
