"""An answer that this process writes: its text and figures as they come, and how it ends."""

import asyncio
import json
import time
from collections.abc import Coroutine
from typing import Any

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Delta, Usage
from shoestring.serve.chats.progress import Progress
from shoestring.serve.chats.schema import AnswerBody, storable
from shoestring.serve.chats.writing import CANCELLED

MAX_CHARS = 1 << 19
"""The most characters of an answer, so that a message may have them; models end before."""


class Answer(Progress):
    """An answer of one account. Use it on one event loop."""

    def __init__(self, account_id: str, body: AnswerBody) -> None:
        super().__init__(body.id, body.request.model, int(time.time()))
        self.account_id, self.chat_id = account_id, body.chat
        self.content = body.beginning.content
        self.reasoning_content = body.beginning.reasoning_content
        self.begin: asyncio.Future[None] | None = None
        """Done when it is known whether it is written here."""
        self.task: asyncio.Task[None] | None = None
        """Its run, from begin to end."""
        self._work: asyncio.Task[None] | None = None
        self.num_readers = 0
        self.end_s: float | None = None
        """The time, by time.monotonic, at which it was over."""
        self.stop_reason = CANCELLED
        """The finish reason, if it is ended early."""
        self._is_ending = False
        self._news = asyncio.Event()
        self._begin_s = time.monotonic()
        self._first_s: float | None = None
        self._thinking_end_s: float | None = None
        self._usage = Usage()

    async def change(self, version: int) -> None:
        while self.version == version:
            await self._news.wait()

    def stop(self, reason: str = CANCELLED) -> None:
        """End it early; what there is of it stays."""
        if not self._is_ending:
            self._is_ending, self.stop_reason = True, reason
            if self._work is not None:
                self._work.cancel()

    async def work(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what writes it, until somebody stops it. Raises what the work raises, or CancelledError."""
        self._work = asyncio.create_task(work)
        if self._is_ending:
            self._work.cancel()
        await self._work

    def wait_at(self, place: int) -> None:
        """Say how many requests come before it."""
        if place != self.place:
            self.place = place
            self._tell()

    def add(self, delta: Delta) -> None:
        """Append what has come. Thinking that comes after text is text: a reader's place is one number.

        Raises RequestError when it is too long.
        """
        self._usage = delta.usage
        self.finish_reason = delta.finish_reason or self.finish_reason
        if not delta.thinking and not delta.text:
            return
        now_s = time.monotonic() - self._begin_s
        self._first_s = self._first_s or now_s
        self.place = 0
        if self.content:
            self.content += storable(delta.thinking)
        else:
            self.reasoning_content += storable(delta.thinking)
        if delta.text:
            if self._thinking_end_s is None and self.reasoning_content:
                self._thinking_end_s = now_s
            self.content += storable(delta.text)
        if self.num_chars > MAX_CHARS:
            raise RequestError("too_large", f"the answer is longer than {MAX_CHARS} characters")
        self._tell()

    def end(
        self, finish_reason: str | None, error: RequestError | None, cost: dict[str, str]
    ) -> dict[str, Any]:
        """Take its end; returns the columns of its message. It is over for its readers a moment later."""
        self._is_ending = True
        self.finish_reason = finish_reason or self.finish_reason or "stop"
        self.error, self.place = error, 0
        self.figures = self._figures() | cost
        sentence = None if error is None else str(error)[:2000]
        figures = json.dumps(self.figures)
        return {"finish_reason": self.finish_reason, "error": sentence, "figures": figures}

    def close(self) -> None:
        """Tell its readers that it is over."""
        self.is_over, self.end_s = True, time.monotonic()
        self._tell()

    def _figures(self) -> dict[str, Any]:
        """Times and tokens, as Figures has them."""
        total_s = time.monotonic() - self._begin_s
        figures: dict[str, Any] = {"total_s": round(total_s, 3)}
        if self._first_s is not None:
            figures["first_s"] = round(self._first_s, 3)
            if self.reasoning_content:
                end_s = total_s if self._thinking_end_s is None else self._thinking_end_s
                figures["thinking_s"] = round(end_s - self._first_s, 3)
        if self._usage != Usage():
            names = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
            figures |= {name: getattr(self._usage, name) for name in names}
        if self._usage.joules is not None:
            figures["joules"] = round(self._usage.joules, 3)
        return figures

    def _tell(self) -> None:
        self.version += 1
        self._news.set()
        self._news = asyncio.Event()
