"""The reply of a backend: deltas as they come, and the whole reply, which is their fold."""

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCallDelta:
    """A part of a tool call. The first one has its id and name, the others have text of its arguments."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """A token of the reply with its log-probability, and the likeliest tokens in its place."""

    token: str
    token_bytes: bytes
    logprob: float | None
    """None for the first token of an echoed prompt, which nothing stands before."""
    token_id: int | None = None
    """None where a remote server does not tell it."""
    is_thinking: bool = False
    top: "tuple[TokenLogprob, ...]" = ()
    """The likeliest tokens, as many as were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Tokens of a request so far, all its choices together."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    """Prompt tokens whose keys and values were in the prefix cache."""
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    """Completion tokens of the thinking."""
    joules: float | None = None
    """Its share of the machine's energy, known at the end; None where nothing tells it."""

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Delta:
    """New text of one choice, or its end: a delta with a finish reason has no text."""

    choice: int = 0
    thinking: str = ""
    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    prompt_experts: list[list[list[int]]] | None = None
    """With an echo: the experts of each prompt token in each layer that has some."""
    finish_reason: FinishReason | None = None
    stop_sequence: str | None = None
    """The stop string that ended the choice."""
    usage: Usage = field(default_factory=Usage)
    """All tokens until now, those of this delta included."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A request that was checked and can begin: what it is, at most, and how to begin."""

    model: str
    """Name of the model that answers."""
    prompt_tokens: int
    """Tokens of the prompt; the most that they can be, where a remote server counts them."""
    max_tokens: int
    """The most tokens that all choices together can have."""
    start: Callable[[], Awaitable[AsyncGenerator[Delta]]]
    """Begin, once. Raises RequestError when the model cannot answer now."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A reply that has begun. Closing `deltas` cancels it."""

    model: str
    prompt_tokens: int
    """As in Work."""
    deltas: AsyncGenerator[Delta]
    place: Callable[[], int] = lambda: 0
    """About how many requests have their turn before it; 0 once it runs."""


@dataclass(kw_only=True)
class ToolCall:
    """A whole tool call; `arguments` is JSON as text."""

    id: str
    name: str
    arguments: str = ""


@dataclass(kw_only=True)
class Choice:
    """One whole answer."""

    thinking: str = ""
    text: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_sequence: str | None = None

    def add(self, delta: Delta) -> None:
        """Append a delta of this choice."""
        self.thinking += delta.thinking
        self.text += delta.text
        self.logprobs += delta.logprobs
        for call in delta.tool_calls:
            if call.index == len(self.tool_calls):
                self.tool_calls.append(ToolCall(id=call.id, name=call.name))
            self.tool_calls[call.index].arguments += call.arguments
        self.finish_reason = delta.finish_reason or self.finish_reason
        self.stop_sequence = delta.stop_sequence or self.stop_sequence


@dataclass(kw_only=True)
class WholeReply:
    """The fold of a stream of deltas."""

    choices: list[Choice]
    usage: Usage = field(default_factory=Usage)

    def add(self, delta: Delta) -> None:
        """Append a delta."""
        self.choices[delta.choice].add(delta)
        self.usage = delta.usage


async def fold(deltas: AsyncIterable[Delta], num_choices: int) -> WholeReply:
    """The whole reply of a stream."""
    whole = WholeReply(choices=[Choice() for _ in range(num_choices)])
    async for delta in deltas:
        whole.add(delta)
    return whole
