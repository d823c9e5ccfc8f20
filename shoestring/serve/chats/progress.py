"""The progress of an answer, and its reading from any place on.

A reader is told what has come since its place, which is a number of characters: the thinking first, then the
text. So readers need no memory of their own, a slow one gets longer parts, and one that comes again, perhaps
at another process, goes on where it was.
"""

import json
from collections.abc import AsyncGenerator
from typing import Any

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Usage
from shoestring.serve.dialects.errors import openai_error
from shoestring.serve.dialects.openai_chat_reply import usage_fields
from shoestring.serve.live import sse


class Progress:
    """An answer as it is now. A subclass says when it changes."""

    def __init__(self, answer_id: str, model: str, created_s: int) -> None:
        self.id, self.model, self.created_s = answer_id, model, created_s
        self.reasoning_content = self.content = ""
        self.place = 0
        """About how many requests are answered before it is; 0 once it is answered itself."""
        self.finish_reason: str | None = None
        self.error: RequestError | None = None
        self.figures: dict[str, Any] = {}
        self.is_over = False
        self.version = 0
        """The number of its changes."""

    @property
    def num_chars(self) -> int:
        """The characters that there are."""
        return len(self.reasoning_content) + len(self.content)

    def since(self, num_chars: int) -> dict[str, str]:
        """The thinking and the text after so many characters, as a delta has them."""
        thinking = self.reasoning_content[num_chars:]
        text = self.content[max(num_chars - len(self.reasoning_content), 0) :]
        parts = {"reasoning_content": thinking, "content": text}
        return {name: part for name, part in parts.items() if part}

    async def change(self, version: int) -> None:
        """Wait until it is not this version any more."""
        raise NotImplementedError


async def follow(progress: Progress, after: int) -> AsyncGenerator[bytes]:
    """The server-sent events of an answer for a reader that has seen the event with the id `after`, or 0.

    The id of an event is one more than the characters until its end.
    """
    num_chars, place = max(after - 1, 0), 0
    while True:
        version, is_over = progress.version, progress.is_over
        if progress.place != place and not progress.num_chars:
            place = progress.place
            yield _event({"object": "place", "place": place}, num_chars)
        if delta := progress.since(num_chars):
            num_chars = max(progress.num_chars, num_chars)
            yield _event(_chunk(progress, delta), num_chars)
        if is_over:
            break
        await progress.change(version)
    for data in _ending(progress):
        yield _event(data, num_chars)
    yield sse("[DONE]")


def _ending(progress: Progress) -> list[dict[str, Any]]:
    if progress.error is not None:
        return [openai_error(progress.error)]
    names = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
    usage = Usage(**{name: progress.figures.get(name, 0) for name in names})
    last = {**_chunk(progress, None), "usage": usage_fields(usage), "figures": progress.figures}
    return [_chunk(progress, {}, progress.finish_reason or "stop"), last]


def _chunk(
    progress: Progress, delta: dict[str, str] | None, finish_reason: str | None = None
) -> dict[str, Any]:
    """A chunk as OpenAI's API has it; without a delta it has no choice."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return {
        "id": f"chatcmpl-{progress.id}",
        "object": "chat.completion.chunk",
        "created": progress.created_s,
        "model": progress.model,
        "choices": [] if delta is None else [choice],
    }


def _event(data: dict[str, Any], num_chars: int) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"id: {num_chars + 1}\n".encode() + sse(text)  # first, so that a reader knows it with the data
