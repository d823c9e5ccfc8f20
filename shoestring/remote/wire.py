"""Replies of OpenAI-compatible servers read as a stranger's bytes: texts, usage, refusals, waits."""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from shoestring.tokenizer.special import THINK, THINK_END

AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Status codes that another try may cure; what openai-python retries, and overload as some servers say it."""
OURS = frozenset({400, 413, 422})
"""This request is wrong (too long, say); another may be right."""
LONGEST_WAIT_S = 300.0
"""No server makes us sleep longer before a try, whatever its Retry-After says."""
FIRST_WAIT_S = 1.0
_SHOWN = 300
"""Characters of a server's message that an error shows."""
_MOST_TOKENS = 1 << 40

Cure = Literal["again", "skip", "stop"]


class Refusal(Exception):
    """A request without a usable reply, and what helps: another try, leaving it out, or giving up."""

    def __init__(self, why: str, cure: Cure, *, billed: bool = False, wait_s: float = 0.0) -> None:
        """`billed`: the server may have worked, and charge for it; `wait_s`: it asked us to wait so long."""
        super().__init__(why)
        self.cure, self.billed, self.wait_s = cure, billed, wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer: the assistant's whole turn, `<think>...</think>` in front if it thought."""

    text: str
    finish_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """A server's reply; token counts are None when it did not say, or said nonsense."""

    choices: tuple[Choice, ...]
    prompt_tokens: int | None
    completion_tokens: int | None


def read_completion(body: bytes, most: int) -> Completion:
    """The reply's first `most` answers; Refusal ("again": it was billed and is lost) when it is no reply."""
    data = _read_json(body)
    choices = data.get("choices") if data else None
    if not isinstance(choices, list) or not choices:
        raise Refusal(f"the reply holds no answer: {_shown(body)}", "again", billed=True)
    read = [choice for each in choices[:most] if (choice := _read_choice(each)) is not None]
    if not read:
        raise Refusal(f"the reply's answers are not messages: {_shown(body)}", "again", billed=True)
    usage = data.get("usage") if data else None
    counts = usage if isinstance(usage, dict) else {}
    return Completion(
        choices=tuple(read),
        prompt_tokens=_count(counts.get("prompt_tokens")),
        completion_tokens=_count(counts.get("completion_tokens")),
    )


def read_refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """What a status other than 200 means; headers by lower-case names."""
    data = _read_json(body) or {}
    error = data.get("error", data)
    message = error.get("message") if isinstance(error, dict) else error
    said = message if isinstance(message, str) else body
    cure: Cure = "again" if status in AGAIN or status > 504 else "skip" if status in OURS else "stop"
    billed = status == 408 or (status >= 500 and status not in (501, 503, 529))  # it may have been at work
    return Refusal(f"status {status}: {_shown(said)}", cure, billed=billed, wait_s=retry_after_s(headers))


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds that the server asks us to wait, as a number or a date; 0 for nothing and for nonsense."""
    text = headers.get("retry-after-ms", "").strip()
    unit = 1e-3 if text else 1.0
    text = text or headers.get("retry-after", "").strip()
    try:
        wait = float(text) * unit
    except ValueError:
        try:
            wait = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError, TypeError, IndexError):
            return 0.0
    return min(max(wait, 0.0), LONGEST_WAIT_S) if math.isfinite(wait) else 0.0


def backoff_s(attempt: int, asked_s: float, jitter: float) -> float:
    """How long to wait after try `attempt` (0 is the first): doubled each time, jittered, at least as asked.

    `jitter` is uniform in [0, 1): many clients must not come back at the same moment.
    """
    own = min(FIRST_WAIT_S * 2.0**attempt, 60.0) * (0.5 + 0.5 * jitter)
    return max(own, asked_s * (1.0 + 0.1 * jitter))


def whole_turn(content: str, reasoning: str) -> str:
    """One spelling for the ways servers give thinking: its own field, inline, or inline without the opening.

    A chat template that ends the prompt in `<think>` leaves only the closing tag in the text.
    """
    if reasoning:
        return f"{THINK}{reasoning}{THINK_END}{content}"
    if content.lstrip().startswith(THINK):
        return content.lstrip()
    return f"{THINK}{content}" if THINK_END in content else content


def _read_json(body: bytes) -> dict[str, Any] | None:
    try:
        data = json.loads(body)  # some servers send blank lines first, to keep the connection open
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _read_choice(choice: Any) -> Choice | None:
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(message, dict):
        return None
    content = _text(message.get("content"))
    reasoning = _text(message.get("reasoning_content")) or _text(message.get("reasoning"))
    reason = choice.get("finish_reason")
    return Choice(
        text=whole_turn(content, reasoning), finish_reason=reason[:40] if isinstance(reason, str) else ""
    )


def _text(value: Any) -> str:
    """Text, or the text parts of a list; lone surrogates, which no tokenizer takes, become question marks."""
    if isinstance(value, list):
        value = "".join(p["text"] for p in value if isinstance(p, dict) and isinstance(p.get("text"), str))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < _MOST_TOKENS else None


def _shown(said: str | bytes) -> str:
    """A server's own words, short and on one line."""
    text = said if isinstance(said, str) else said[: 4 * _SHOWN].decode("utf-8", "replace")
    text = "".join(char if char.isprintable() else " " for char in text[: 2 * _SHOWN])
    return " ".join(text.split())[:_SHOWN] or "(nothing)"
