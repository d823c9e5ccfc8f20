import asyncio

import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Delta
from shoestring.serve.caller import LOCAL
from shoestring.serve.service import Service
from shoestring.serve.translate.chat import MAX_OPEN, THINKING_TOKENS, Chat
from tests.serve.phrasebook import Phrasebook


def test_a_few_replies_are_written_at_a_time():
    book = Phrasebook()
    num_open = most = 0
    deltas = book._deltas

    async def slow(text):
        nonlocal num_open, most
        num_open += 1
        most = max(most, num_open)
        await asyncio.sleep(0.01)
        async for delta in deltas(text):
            yield delta
        num_open -= 1

    book._deltas = slow

    async def ask():
        chat = Chat(Service({"book": book}), LOCAL, "book")
        return await asyncio.gather(*(chat.ask("", f"text {number}") for number in range(12)))

    assert asyncio.run(ask()) == [f"text {number}" for number in range(12)]
    assert most == MAX_OPEN


def test_texts_fit_the_context():
    service = Service({"small": Phrasebook(512), "large": Phrasebook(100_000)})
    assert Chat(service, LOCAL, "small").max_characters == 85
    assert Chat(service, LOCAL, "large").max_characters == 2000
    with pytest.raises(RequestError, match="does not exist"):
        Chat(service, LOCAL, "other")


def test_a_reply_has_a_limit_that_grows_with_its_text():
    book = Phrasebook()
    chat = Chat(Service({"book": book}), LOCAL, "book")
    asyncio.run(chat.ask("", "x" * 100))
    asyncio.run(chat.ask("", "x", choices=("a", "b")))
    assert [request.sampling.max_tokens for request in book.requests] == [456, 16]


def test_a_model_that_thinks_all_the_same_gets_room_for_it():
    book = Phrasebook()
    answer = book._deltas

    async def think(text):
        yield Delta(thinking="hm")
        if book.requests[-1].sampling.max_tokens > THINKING_TOKENS:
            async for delta in answer(text):
                yield delta

    book._deltas = think

    async def ask():
        chat = Chat(Service({"book": book}), LOCAL, "book")
        return [await chat.ask("", text) for text in ("one", "two")]

    assert asyncio.run(ask()) == ["one", "two"]
    assert len(book.requests) == 3
