"""All answers of a process: begun once, read by any number of readers, stopped, and forgotten in the end."""

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from dataclasses import replace

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.caller import Caller
from shoestring.serve.chats import writing
from shoestring.serve.chats.answer import Answer
from shoestring.serve.chats.draft import Draft
from shoestring.serve.chats.elsewhere import StoredProgress
from shoestring.serve.chats.progress import follow
from shoestring.serve.chats.run import Run, chat_of
from shoestring.serve.chats.schema import AnswerBody
from shoestring.serve.chats.store import ChatStore
from shoestring.serve.chats.writing import INTERRUPTED, Place
from shoestring.serve.service import Service
from shoestring.serve.storage.database import DatabaseGone
from shoestring.serve.watch import Observer

MAX_ANSWERS = 16
"""Answers of an account at the same time."""
MAX_READERS = 16
"""Readers of an answer at the same time."""
MAX_OVER_CHARS = 64 << 20
"""Characters of all answers that are over and still in memory."""
OVER_S = 600.0
"""Seconds for which an answer that is over stays in memory."""
TEND_S = 10.0
END_S = 5.0
"""Seconds for the last words of answers that are stopped when the service ends."""
NO_ANSWER = "there is no such answer under way"
Key = tuple[str, str]
"""An account and an answer."""


class Answers:
    """The answers of one process. Use it on one event loop."""

    def __init__(self, service: Service, store: ChatStore | None, observers: Sequence[Observer] = ()) -> None:
        """Without a `store` no answer is kept; `observers` are told the course of each."""
        self._service, self._store, self._observers = service, store, observers
        self._answers: dict[Key, Answer] = {}
        self._care: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to forget what is old, here and in the database."""
        self._care = asyncio.create_task(self._tend())

    async def close(self) -> None:
        """Let answers go on until the drain ends, then stop them; their text is kept."""
        if self._care is not None:
            self._care.cancel()
        tasks = [answer.task for answer in self._answers.values() if answer.task is not None]
        if tasks:
            seconds = self._service.drain_end_s - time.monotonic()
            await asyncio.wait(tasks, timeout=max(seconds, 0.0))
        for answer in self._answers.values():
            answer.stop(INTERRUPTED)
        if tasks:
            await asyncio.wait(tasks, timeout=END_S)

    async def begin(self, caller: Caller, body: AnswerBody) -> None:
        """Begin an answer; one that has been begun is left alone. It takes over the end of its request.

        Raises RequestError for a request that is wrong, one too many, and a message that is not there.
        """
        key = (caller.account_id, body.id)
        answer = self._answers.get(key)
        if answer is None:
            chat_of(body.request, caller, self._service)
            self._check_number(caller.account_id)
            answer = self._answers[key] = Answer(caller.account_id, body)
            answer.begin = asyncio.ensure_future(self._begin(answer, caller, body))
        assert answer.begin is not None
        await asyncio.shield(answer.begin)

    async def follow(self, account_id: str, answer_id: str, after: int) -> AsyncGenerator[bytes]:
        """The events of an answer after the one with an id; 0 is all. Raises RequestError without it."""
        answer = self._answers.get((account_id, answer_id))
        if answer is not None:
            if answer.num_readers >= MAX_READERS:
                sentence = f"this answer has {MAX_READERS} readers, which is the most; close a page"
                raise RequestError("rate_limit", sentence, retry_after_s=5)
            return _counted(answer, follow(answer, after))
        place = await self._place(account_id, answer_id)
        if place is None or self._store is None:
            raise RequestError("not_found", NO_ANSWER)
        progress = StoredProgress(self._store, place)
        await progress.read()
        return follow(progress, after)

    async def stop(self, account_id: str, answer_id: str) -> None:
        """End an answer early. Raises RequestError without it."""
        answer = self._answers.get((account_id, answer_id))
        if answer is not None:
            answer.stop()
            return
        place = await self._place(account_id, answer_id)
        if place is None or self._store is None:
            raise RequestError("not_found", NO_ANSWER)
        await self._store.write(writing.ask_end, place)

    async def running(self, account_id: str) -> list[tuple[str, str | None]]:
        """The answers of an account that are being written, here or elsewhere: (id, chat)."""
        own = [answer for answer in self._answers.values() if answer.account_id == account_id]
        pairs: dict[str, str | None] = {answer.id: answer.chat_id for answer in own if not answer.is_over}
        if self._store is not None:
            for place in await self._store.read(writing.places, account_id):
                pairs.setdefault(place.message_id, place.chat_id)
        return list(pairs.items())

    def forget(self, account_id: str) -> None:
        """Stop and forget the answers of an account that is deleted."""
        for key in [key for key in self._answers if key[0] == account_id]:
            self._answers.pop(key).stop()

    async def _begin(self, answer: Answer, caller: Caller, body: AnswerBody) -> None:
        """Begin to write the answer, here, unless it has been written or is written elsewhere."""
        draft, is_mine = None, False
        try:
            if answer.chat_id is not None:
                draft = Draft(self._chats(), Place(answer.account_id, answer.chat_id, answer.id))
            is_mine = draft is None or await draft.begin()
        finally:
            if not is_mine:
                del self._answers[(answer.account_id, answer.id)]
        if is_mine:
            own = replace(caller, ending=caller.ending.pop_all(), costs=[], idempotency_key=None)
            run = Run(self._service, answer, draft, own)
            answer.task = asyncio.create_task(run.run(body.request, self._observers))

    def _chats(self) -> ChatStore:
        if self._store is None:
            raise RequestError("not_found", "this service keeps no chats: leave out `chat`", field="chat")
        return self._store

    async def _place(self, account_id: str, answer_id: str) -> Place | None:
        """The message of an answer that another process writes."""
        if self._store is None:
            return None
        return await self._store.read(writing.find_place, account_id, answer_id)

    def _check_number(self, account_id: str) -> None:
        own = [answer for answer in self._answers.values() if answer.account_id == account_id]
        if sum(not answer.is_over for answer in own) >= MAX_ANSWERS:
            sentence = f"you have {MAX_ANSWERS} answers under way, which is the most; stop one, or wait"
            raise RequestError("rate_limit", sentence, retry_after_s=5)

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_S)
            self._forget_old()
            if self._store is not None:
                with suppress(DatabaseGone):
                    await self._store.tend()

    def _forget_old(self) -> None:
        """Forget answers that have been over for long, and the oldest of too many."""
        now_s, num_chars = time.monotonic(), 0
        over = [(answer.end_s, key) for key, answer in self._answers.items() if answer.end_s is not None]
        for end_s, key in sorted(over, reverse=True):
            num_chars += self._answers[key].num_chars
            if now_s - end_s > OVER_S or num_chars > MAX_OVER_CHARS:
                del self._answers[key]


async def _counted(answer: Answer, events: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The events of an answer, which has one more reader until their end."""
    answer.num_readers += 1
    try:
        async for event in events:
            yield event
    finally:
        answer.num_readers -= 1
        await events.aclose()
