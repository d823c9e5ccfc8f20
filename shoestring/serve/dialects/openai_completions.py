"""OpenAI's completions of texts: the request, the whole reply, and its chunks."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Choice, Delta, TokenLogprob, Usage, WholeReply
from shoestring.serve.backends.request import TextRequest
from shoestring.serve.dialects.numbers import TopCount
from shoestring.serve.dialects.openai_chat_reply import finite, head, stop_fields, usage_fields
from shoestring.serve.dialects.openai_fields import Defaults, SamplingFields, refuse_fields, sampling_params

DEFAULT_TOKENS = 16
"""The length of a completion without max_tokens, as in OpenAI's API."""
MAX_PROMPTS = 64
NEUTRAL_VALUES: dict[str, tuple[Any, ...]] = {"best_of": (1,)}
"""Fields of OpenAI's API that cannot be honored, with the values that change nothing."""
TokenIds = Annotated[list[int], Field(min_length=1)]


class CompletionRequest(SamplingFields):
    """Body of POST /v1/completions."""

    prompt: (
        str | TokenIds | Annotated[list[str] | list[TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)]
    )
    suffix: str | None = None
    """Text after the gap that the completion fills."""
    logprobs: TopCount | None = None
    echo: bool | None = None
    """Begin the reply with the prompt; with logprobs, with those of its tokens."""


def text_requests(body: CompletionRequest, defaults: Defaults, *, cache_salt: str) -> list[TextRequest]:
    """The backend's requests, one for each prompt. Raises RequestError naming the field that is wrong."""
    refuse_fields(body, NEUTRAL_VALUES)
    sampling = sampling_params(
        body, defaults, max_tokens=body.max_tokens or DEFAULT_TOKENS, logprobs=body.logprobs, form=None
    )
    return [
        TextRequest(
            prompt=prompt if isinstance(prompt, str) else tuple(prompt),
            sampling=sampling,
            suffix=body.suffix or None,
            echo=bool(body.echo),
            cache_salt=cache_salt,
        )
        for prompt in _prompts(body.prompt)
    ]


def _prompts(prompt: Any) -> Sequence[Any]:
    is_one = isinstance(prompt, str) or isinstance(prompt[0], int)
    return [prompt] if is_one else prompt


class TextChunks:
    """The chunks of a streamed completion. Choices of several prompts are numbered one after another."""

    def __init__(self, body: CompletionRequest, model: str, *, usage_on_choice: bool = False) -> None:
        self._head = head(model, "text_completion", "cmpl")
        self._asks_usage = bool(body.stream_options and body.stream_options.include_usage)
        self._usage_on_choice = usage_on_choice
        self._num_choices, self._num_open = body.n or 1, (body.n or 1) * len(_prompts(body.prompt))
        self._usages: dict[int, Usage] = {}
        self._lengths: dict[int, int] = {}

    def push(self, delta: Delta, prompt: int) -> Iterator[dict[str, Any]]:
        """The chunk of a delta of one of the prompts."""
        self._usages[prompt] = delta.usage
        index, text = prompt * self._num_choices + delta.choice, delta.thinking + delta.text
        offset = self._lengths.get(index, 0)
        self._lengths[index] = offset + sum(len(entry.token) for entry in delta.logprobs)
        choice = {
            "index": index,
            "text": text,
            "logprobs": logprobs_fields(delta.logprobs, offset) if delta.logprobs else None,
            "finish_reason": delta.finish_reason,
            **stop_fields(delta.stop_sequence),
        }
        chunk: dict[str, Any] = {**self._head, "choices": [choice]}
        if self._asks_usage:
            chunk["usage"] = None
        if delta.finish_reason is not None:
            self._num_open -= 1
            if self._usage_on_choice and not self._num_open:
                chunk["usage"] = usage_fields(total(self._usages.values()))
        yield chunk

    def finish(self) -> Iterator[dict[str, Any]]:
        """The chunk of the usage, if it was asked for and has not come."""
        if self._asks_usage and not self._usage_on_choice:
            yield {**self._head, "choices": [], "usage": usage_fields(total(self._usages.values()))}


def text_completion(replies: Sequence[WholeReply], model: str) -> dict[str, Any]:
    """The body of a whole reply to one or more prompts."""
    choices = [choice for reply in replies for choice in reply.choices]
    return {
        **head(model, "text_completion", "cmpl"),
        "choices": [_choice(index, choice) for index, choice in enumerate(choices)],
        "usage": usage_fields(total(reply.usage for reply in replies)),
    }


def total(usages: Any) -> Usage:
    """The sum of usages."""
    usages = list(usages)
    names = ("prompt_tokens", "cached_tokens", "completion_tokens", "reasoning_tokens")
    return Usage(**{name: sum(getattr(usage, name) for usage in usages) for name in names})


def logprobs_fields(logprobs: Sequence[TokenLogprob], offset: int) -> dict[str, Any]:
    """Logprobs of tokens whose text begins at `offset` of the completion."""
    offsets = []
    for entry in logprobs:
        offsets.append(offset)
        offset += len(entry.token)
    return {
        "tokens": [entry.token for entry in logprobs],
        "token_logprobs": [finite(entry.logprob) for entry in logprobs],
        "top_logprobs": [_top_logprobs(entry) for entry in logprobs],
        "text_offset": offsets,
    }


def _top_logprobs(entry: TokenLogprob) -> dict[str, float | None] | None:
    """The likeliest tokens; of equal spellings the likeliest counts."""
    if entry.logprob is None:
        return None
    return {top.token: finite(top.logprob) for top in reversed(entry.top)}


def _choice(index: int, choice: Choice) -> dict[str, Any]:
    if choice.finish_reason is None:
        raise RequestError("failed", "the reply has no end")
    return {
        "index": index,
        "text": choice.thinking + choice.text,
        "logprobs": logprobs_fields(choice.logprobs, 0) if choice.logprobs else None,
        "finish_reason": choice.finish_reason,
        **stop_fields(choice.stop_sequence),
    }
