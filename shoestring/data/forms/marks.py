"""Marks of a message that say which of it is learned: `weight`, `train`, and marks of parts of its text.

| mark | from | meaning |
|---|---|---|
| `"weight": 0` or 1 (`loss_weight`) | OpenAI, Mistral (LLaMA-Factory) | the whole turn |
| `"train": false` or true (`loss`) | axolotl (ms-swift) | the whole turn; true also of another role |
| `"content": [{"type": "text", "text": "...", "train": false}, ...]` | axolotl | a part, also with `weight` |
| `"train_detail": [{"begin_offset": 0, "end_offset": 7, "train": false}]` | axolotl | both ends included |

`reasoning_content` may have parts, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shoestring.data.forms.messages import Message

MARKS = ("weight", "train", "train_detail")
TEXT_KEYS = ("text", "content", "value", "thinking")
"""Names for the text of a part."""
TEXTS = ("content", "reasoning_content")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Characters of a message's text that are learned, or are not."""

    start: int
    end: int
    learn: bool
    key: str = "content"
    """The text: content or reasoning_content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Marks of one message; `learn` is None where its role decides."""

    learn: bool | None = None
    spans: tuple[Span, ...] = ()


def read_marks(message: Message, name: str) -> tuple[Message, Mark]:
    """The message without its marks, its content as one text, and the marks. Raises ValueError for others."""
    plain, spans = {key: value for key, value in message.items() if key not in MARKS}, []
    for key in TEXTS:
        if isinstance(message.get(key), list):
            plain[key], of_parts = _joined(message[key], key, name)
            spans += of_parts
    spans += _details(message.get("train_detail"), plain.get("content"), name)
    learn = _mark(message, name)
    if message["role"] != "assistant" and message.get("train") is None and learn:
        learn = None  # a weight of 1 on the user's turn: OpenAI's files have it, and do not learn it
    return plain, Mark(learn=learn, spans=tuple(spans))


def is_marked(message: Message) -> bool:
    """Return whether a message has marks of its own as a whole."""
    return any(message.get(key) is not None for key in ("weight", "train"))


def without_marks(message: Message) -> Message:
    """The message without its marks, for where all of a reply is learned."""
    return {key: value for key, value in message.items() if key not in MARKS}


def _mark(part: Mapping[str, Any], name: str) -> bool | None:
    """Whether a turn or part is learned by its own marks; None without any."""
    marks = {key: _truth(part[key], key, name) for key in ("weight", "train") if part.get(key) is not None}
    if len(set(marks.values())) > 1:
        raise ValueError(
            f"{name} has weight = {part['weight']} and train = {part['train']}; remove one of them"
        )
    return next(iter(marks.values()), None)


def _truth(value: Any, key: str, name: str) -> bool:
    if isinstance(value, str):
        value = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}.get(
            value.lower()
        )
    if value not in (0, 1) or value is None:
        raise ValueError(f"{name} has a {key} that is not {'true or false' if key == 'train' else '0 or 1'}")
    return bool(value)


def _joined(parts: list[Any], key: str, name: str) -> tuple[Any, list[Span]]:
    """The text of a list of parts with a span for each marked one; a list of other things as it is."""
    texts = [_text(part) for part in parts]
    if not parts or None in texts:
        return parts, []
    text, spans = "", []
    for part, own in zip(parts, texts, strict=True):
        learn = _mark(part, f"a part of {name}")
        if learn is not None:
            spans.append(Span(start=len(text), end=len(text) + len(own), learn=learn, key=key))
        text += own
    return text, spans


def _text(part: Any) -> Any:
    """The text of a part of type text, under one of the names that axolotl takes; None for another part."""
    if not isinstance(part, Mapping) or part.get("type", "text") != "text":
        return None
    return next(
        (part[key] for key in ("text", "content", "value", "thinking") if isinstance(part.get(key), str)),
        None,
    )


def _details(details: Any, content: Any, name: str) -> list[Span]:
    """Spans of `train_detail`, whose offsets are of the first and the last character."""
    if details is None:
        return []
    spans = []
    for detail in details if isinstance(details, list) else [details]:
        values = detail if isinstance(detail, Mapping) else {}
        start, end = values.get("begin_offset"), values.get("end_offset")
        if not (isinstance(start, int) and isinstance(end, int) and isinstance(content, str)):
            raise ValueError(f"{name} has a train_detail without begin_offset, end_offset and train")
        if not 0 <= start <= end < len(content):
            raise ValueError(
                f"{name} has a train_detail from {start} to {end}, but {len(content)} characters"
            )
        spans.append(Span(start=start, end=end + 1, learn=_truth(values.get("train"), "train", name)))
    return spans
