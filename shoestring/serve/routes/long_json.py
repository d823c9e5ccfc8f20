"""A JSON object with lists that are too long to be in memory at once: it is written as their items come."""

import json
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from typing import Any

from shoestring.serve.live import LiveStream

Items = AsyncGenerator[dict[str, Any]]


def long_object(fields: Mapping[str, Any], lists: Mapping[str, AsyncIterable[Any]]) -> LiveStream:
    """A reply with these fields, and after them these lists."""
    return LiveStream(_object(fields, lists), "application/json")


async def _object(
    fields: Mapping[str, Any], lists: Mapping[str, AsyncIterable[Any]]
) -> AsyncGenerator[bytes]:
    parts = [f"{_text(name)}: {_text(value)}" for name, value in fields.items()]
    yield f"{{{', '.join(parts)}".encode()
    is_first = not parts
    for name, items in lists.items():
        yield f"{'' if is_first else ', '}{_text(name)}: [".encode()
        is_first, comma = False, ""
        async for item in items:
            yield f"{comma}{_text(item)}".encode()
            comma = ", "
        yield b"]"
    yield b"}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
