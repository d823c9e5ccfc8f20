import asyncio
import gc
import threading
import weakref
from dataclasses import replace

import pytest

from shoestring.errors import CheckpointError
from shoestring.model.hf.checkpoint import Checkpoint
from shoestring.model.hf.hub import resolve
from shoestring.sampling_params import SamplingParams
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.lazy import LazyBackend, LoadableModel, ModelMemory
from shoestring.serve.backends.local import LocalBackend
from shoestring.serve.backends.reply import fold
from shoestring.serve.backends.request import ChatRequest, TextRequest

TEXT = TextRequest(prompt="2+3=", sampling=SamplingParams(temperature=0, max_tokens=4, ignore_eos=True))
SIZE = 10


class Shelf:
    """Models named a, b and c of ten bytes each, in memory for a number of them."""

    def __init__(self, new_engine, room):
        checkpoint = Checkpoint.open(resolve("mini"))
        self.memory = ModelMemory(lambda loaded_bytes: room * SIZE - loaded_bytes)
        self.loads = []
        self.may_load = threading.Event()
        self.may_load.set()
        self.error = None

        def load(name):
            self.loads.append(name)
            assert self.may_load.wait(20)
            if self.error is not None:
                raise self.error
            return LocalBackend(name, new_engine(), checkpoint.template)

        models = [
            LoadableModel(
                name=name,
                num_bytes=SIZE,
                max_model_len=512,
                tokenizer=checkpoint.tokenizer,
                template=checkpoint.template,
                sampling={},
                load=lambda name=name: load(name),
            )
            for name in "abc"
        ]
        self.backends = [LazyBackend(model, self.memory) for model in models]


@pytest.fixture
def shelved(new_engine):
    """Runs `work(shelf)` with room for so many of its models."""

    def run(room, work):
        async def main():
            shelf = Shelf(new_engine, room)
            try:
                await work(shelf)
            finally:
                for backend in shelf.backends:
                    await backend.close()

        asyncio.run(main())

    return run


async def begin(backend, request=TEXT):
    return await (await backend.prepare(request)).start()


async def text_of(backend):
    return (await fold(await begin(backend), 1)).choices[0].text


def test_a_model_is_loaded_once_for_all_that_ask_for_it(shelved):
    async def work(shelf):
        texts = await asyncio.gather(*(text_of(shelf.backends[0]) for _ in range(3)))
        assert len(set(texts)) == 1
        assert texts[0]
        assert shelf.loads == ["a"]

    shelved(1, work)


def test_the_model_out_of_use_for_longest_makes_room(shelved):
    async def work(shelf):
        a, b, c = shelf.backends
        for backend in (a, b, a, c, a):
            await text_of(backend)
        assert shelf.loads == ["a", "b", "c"]
        assert [backend.is_loaded for backend in (a, b, c)] == [True, False, True]

    shelved(2, work)


def test_a_model_in_use_stays_and_the_other_request_hears_when_to_come_back(shelved):
    async def work(shelf):
        a, b, _ = shelf.backends
        deltas = await begin(a, replace(TEXT, sampling=SamplingParams(max_tokens=300, ignore_eos=True)))
        await anext(deltas)
        with pytest.raises(RequestError, match="leave no memory") as caught:
            await begin(b)
        assert (caught.value.status, caught.value.retry_after_s) == (503, 5.0)
        await deltas.aclose()
        assert await text_of(b)
        assert shelf.loads == ["a", "b"]

    shelved(1, work)


def test_other_models_answer_while_one_is_loaded(shelved):
    async def work(shelf):
        a, b, _ = shelf.backends
        await text_of(a)
        shelf.may_load.clear()
        deltas = await begin(b)
        assert await text_of(a)
        assert b.is_loaded
        assert b.local is None
        shelf.may_load.set()
        assert (await fold(deltas, 1)).choices[0].text == await text_of(a)

    shelved(2, work)


def test_a_client_that_leaves_does_not_end_the_loading_of_others(shelved):
    async def work(shelf):
        a = shelf.backends[0]
        shelf.may_load.clear()
        first, second = await begin(a), asyncio.ensure_future(text_of(a))
        waiting = asyncio.ensure_future(anext(first))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        shelf.may_load.set()
        assert await second
        assert shelf.loads == ["a"]
        assert a.resident.is_idle

    shelved(1, work)


def test_a_model_that_is_being_loaded_takes_its_room_at_once(shelved):
    async def work(shelf):
        a, b, _ = shelf.backends
        shelf.may_load.clear()
        deltas = await begin(a)
        with pytest.raises(RequestError, match="leave no memory"):
            await begin(b)
        shelf.may_load.set()
        await deltas.aclose()

    shelved(1, work)


def test_what_cannot_be_loaded_is_an_error_and_is_tried_again(shelved, caplog):
    async def work(shelf):
        shelf.error = CheckpointError("the file secret.bin is damaged")
        with pytest.raises(RequestError, match="could not be loaded") as caught:
            await text_of(shelf.backends[0])
        assert "secret" not in str(caught.value)
        assert "secret.bin is damaged" in caplog.text
        shelf.error = None
        assert await text_of(shelf.backends[0])

    shelved(1, work)


def test_an_unloaded_model_leaves_nothing_behind(shelved):
    async def work(shelf):
        a, b, _ = shelf.backends
        await text_of(a)
        engine = weakref.ref(a.local.engine)
        await text_of(b)
        gc.collect()
        assert engine() is None

    shelved(1, work)


def test_prompts_are_read_before_the_model_is(shelved):
    async def work(shelf):
        a = shelf.backends[0]
        chat = ChatRequest(messages=({"role": "user", "content": "1 " * 600},), sampling=SamplingParams())
        with pytest.raises(RequestError, match="maximum context length is 512"):
            await a.prepare(chat)
        assert (await a.detokenize(await a.tokenize(TEXT))).endswith("2+3=")
        assert (await a.prepare(TEXT)).max_tokens == 4
        assert a.is_healthy
        assert not a.is_loaded

    shelved(1, work)


def test_the_counts_are_those_of_the_loaded_model(shelved):
    async def work(shelf):
        a = shelf.backends[0]
        before = await a.prepare(TEXT)
        await text_of(a)
        after = await a.prepare(TEXT)
        assert (before.prompt_tokens, before.max_tokens) == (after.prompt_tokens, after.max_tokens)

    shelved(1, work)
