"""Readers of an answer miss nothing and get nothing twice, however often they go and come again."""

import asyncio
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from shoestring.serve.backends.reply import Delta, Usage
from shoestring.serve.chats.answer import Answer
from shoestring.serve.chats.progress import Progress, follow
from shoestring.serve.chats.schema import AnswerBody

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=4)
PIECES = st.lists(st.tuples(st.booleans(), TEXT), max_size=12)
"""Parts of an answer: of the thinking, or of the text."""
BODY = {"id": "answer-1", "request": {"model": "words", "messages": [{"role": "user", "content": "x"}]}}


class Copy(Progress):
    """An answer as another process wrote it down, some parts ago."""

    def __init__(self, answers):
        super().__init__("answer-1", "words", 0)
        self._answers = answers
        self.take(self._answers.pop(0))

    def take(self, state):
        self.reasoning_content, self.content, self.is_over = state

    async def change(self, version):
        self.take(self._answers.pop(0))


class Reader:
    """A page that reads along, as the service's own does."""

    def __init__(self):
        self.last, self.texts, self.finish_reasons, self.is_done = 0, {}, [], False

    def take(self, event):
        lines = dict(line.split(": ", 1) for line in event.decode().split("\n") if line)
        self.last = int(lines.get("id", self.last))
        if lines["data"] == "[DONE]":
            self.is_done = True
            return
        for choice in json.loads(lines["data"]).get("choices", []):
            for name, text in choice["delta"].items():
                self.texts[name] = self.texts.get(name, "") + text
            self.finish_reasons += [choice["finish_reason"]] if choice["finish_reason"] else []

    @property
    def text(self):
        return self.texts.get("reasoning_content", ""), self.texts.get("content", "")


def whole(pieces):
    """The thinking and the text; thinking after the text is text."""
    thinking = text = ""
    for is_thinking, part in pieces:
        if is_thinking and not text:
            thinking += part
        else:
            text += part
    return thinking, text


def delta(is_thinking, part, number=0):
    fields = {"thinking": part} if is_thinking else {"text": part}
    return Delta(**fields, usage=Usage(prompt_tokens=1, completion_tokens=number))


@settings(max_examples=150, deadline=None)
@given(PIECES, st.lists(st.integers(0, 3), max_size=40), st.data())
def test_two_readers_that_come_and_go_read_the_same_whole(pieces, breaks, data):
    async def main():
        answer = Answer("ada", AnswerBody.model_validate(BODY))

        async def write():
            for number, (is_thinking, part) in enumerate(pieces):
                answer.add(delta(is_thinking, part, number))
                if data.draw(st.booleans()):
                    await asyncio.sleep(0)
            answer.end(None, None, {})
            answer.close()

        async def read(breaks):
            reader, breaks = Reader(), list(breaks)
            while not reader.is_done:
                num_events = breaks.pop() if breaks else 1000
                async for event in follow(answer, reader.last):
                    if not num_events:
                        break
                    reader.take(event)
                    num_events -= 1
                    if num_events % 2:
                        await asyncio.sleep(0)  # it changes meanwhile
            return reader

        *readers, _ = await asyncio.gather(read(breaks), read([]), write())
        return readers

    for reader in asyncio.run(main()):
        assert reader.text == whole(pieces)
        assert set(reader.finish_reasons) == {"stop"}


@settings(max_examples=150, deadline=None)
@given(PIECES, st.integers(0, 12), st.integers(0, 12))
def test_a_reader_goes_on_at_another_process_that_knows_less_at_first(pieces, num_seen, num_written):
    async def main():
        answer, reader = Answer("ada", AnswerBody.model_validate(BODY)), Reader()
        for is_thinking, part in pieces[:num_seen]:
            answer.add(delta(is_thinking, part))
        if answer.num_chars:
            reader.take(await anext(follow(answer, 0)))
        states = [(*whole(pieces[:number]), False) for number in range(num_written, len(pieces) + 1)]
        states = states or [(*whole(pieces), False)]
        async for event in follow(Copy([*states, (*states[-1][:2], True)]), reader.last):
            reader.take(event)
        return reader

    assert asyncio.run(main()).text == whole(pieces)


def test_a_slow_reader_gets_one_longer_part():
    async def main():
        answer = Answer("ada", AnswerBody.model_validate(BODY))
        events = follow(answer, 0)
        answer.add(delta(False, "a"))
        first = await anext(events)
        for _ in range(1000):
            answer.add(delta(False, "b"))
        second = await anext(events)
        await events.aclose()
        return first, second

    first, second = asyncio.run(main())
    assert b'"content":"a"' in first
    assert second.count(b"b" * 1000) == 1


def test_the_last_chunk_has_tokens_and_times():
    async def main():
        answer = Answer("ada", AnswerBody.model_validate(BODY))
        answer.add(delta(True, "hm", 1))
        answer.add(delta(False, "yes", 2))
        values = answer.end("length", None, {"cost": "0.01", "currency": "USD"})
        answer.close()
        return values, [event async for event in follow(answer, 0)]

    values, events = asyncio.run(main())
    last = json.loads(events[-2].decode().split("data: ")[1])
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 2
    assert last["figures"] == json.loads(values["figures"])
    assert {"first_s", "thinking_s", "total_s", "cost", "completion_tokens"} <= last["figures"].keys()
    assert json.loads(events[-3].decode().split("data: ")[1])["choices"][0]["finish_reason"] == "length"
    assert events[-1] == b"data: [DONE]\n\n"
