"""Replies of OpenAI-compatible servers, read as untrusted bytes: texts, usage, refusals, waiting times."""

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from shoestring.tokenizer.special import THINK, THINK_END

RETRIED_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Status codes after which a retry may succeed: those openai-python retries, and other codes for overload."""
SKIPPED_STATUS = frozenset({400, 413, 422})
"""Status codes for a fault of this one request, such as its length."""
LONGEST_WAIT_S = 300.0
"""The longest sleep before a retry, whatever the server's Retry-After says."""
FIRST_WAIT_S = 1.0
_OVERLONG = re.compile(
    r"context[ _](?:length|size|window)|(?:prompt|input) is too long|too many tokens|this engine takes 1 to",
    re.IGNORECASE,
)
"""The words of vLLM, SGLang, llama.cpp, DeepSeek, OpenAI and this service for a prompt that is too long."""
_MESSAGE_CHARS = 300
"""Characters of a server's message that an error shows."""
_MOST_TOKENS = 1 << 40

Action = Literal["retry", "skip", "stop"]


class Refusal(Exception):
    """A request without a usable reply, and the next action: retry it, skip it, or stop altogether."""

    def __init__(self, message: str, action: Action, *, may_cost: bool = False, wait_s: float = 0.0) -> None:
        """`may_cost`: the server may charge for the request; `wait_s`: its Retry-After."""
        super().__init__(message)
        self.action, self.may_cost, self.wait_s = action, may_cost, wait_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One answer: the assistant's whole turn, `<think>...</think>` in front if it thought."""

    text: str
    finish_reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCompletion:
    """A server's reply; token counts are None when it did not say, or said nonsense."""

    choices: tuple[Choice, ...]
    prompt_tokens: int | None
    completion_tokens: int | None


def read_completion(body: bytes, most: int) -> ChatCompletion:
    """The reply's first `most` answers; Refusal (to retry, and it may cost) when it is not a completion."""
    data = _read_json(body)
    choices = data.get("choices") if data else None
    if not isinstance(choices, list) or not choices:
        raise Refusal(f"the reply holds no answer: {_excerpt(body)}", "retry", may_cost=True)
    answers = [choice for each in choices[:most] if (choice := _read_choice(each)) is not None]
    if not answers:
        raise Refusal(f"the reply's answers are not messages: {_excerpt(body)}", "retry", may_cost=True)
    usage = data.get("usage") if data else None
    counts = usage if isinstance(usage, dict) else {}
    return ChatCompletion(
        choices=tuple(answers),
        prompt_tokens=_count(counts.get("prompt_tokens")),
        completion_tokens=_count(counts.get("completion_tokens")),
    )


def read_refusal(status: int, headers: Mapping[str, str], body: bytes) -> Refusal:
    """The refusal for a status other than 200; headers by lower-case names."""
    data = _read_json(body) or {}
    error = data.get("error", data)
    message = error.get("message") if isinstance(error, dict) else error
    text = message if isinstance(message, str) else body
    action: Action = "skip" if status in SKIPPED_STATUS else "stop"
    if status in RETRIED_STATUS or status > 504:
        action = "retry"
    may_cost = status == 408 or (status >= 500 and status not in (501, 503, 529))  # it may have been at work
    wait_s = retry_after_s(headers)
    return Refusal(f"status {status}: {_excerpt(text)}", action, may_cost=may_cost, wait_s=wait_s)


def is_overlong(message: str) -> bool:
    """Return whether a server refused a prompt because its context cannot hold it."""
    return _OVERLONG.search(message) is not None


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds to wait by the server's Retry-After, a number or a date; 0 without a valid one."""
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


def backoff_s(attempt: int, server_s: float, jitter: float) -> float:
    """Seconds to wait after attempt `attempt`, from 0: doubled each time, at least the server's `server_s`.

    `jitter` is uniform in [0, 1): many clients must not come back at the same moment.
    """
    own = min(FIRST_WAIT_S * 2.0**attempt, 60.0) * (0.5 + 0.5 * jitter)
    return max(own, server_s * (1.0 + 0.1 * jitter))


def whole_turn(content: str, reasoning: str) -> str:
    """The assistant's turn in one form, whether the server sends thinking apart, inline or without `<think>`.

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


def _excerpt(message: str | bytes) -> str:
    """A server's message, short and on one line."""
    text = message if isinstance(message, str) else message[: 4 * _MESSAGE_CHARS].decode("utf-8", "replace")
    text = "".join(char if char.isprintable() else " " for char in text[: 2 * _MESSAGE_CHARS])
    return " ".join(text.split())[:_MESSAGE_CHARS] or "(nothing)"
