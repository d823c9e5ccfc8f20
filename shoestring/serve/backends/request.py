"""Requests to a backend: a conversation or a text, with its sampling, in the terms of every dialect."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shoestring.sampling_params import SamplingParams


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """A conversation whose next turn is wanted."""

    messages: tuple[Mapping[str, Any], ...]
    """OpenAI's messages; reasoning_content is the thinking of earlier turns."""
    sampling: SamplingParams
    """`max_tokens` None is the rest of the context; `structured_outputs` is the form of the answer."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Definitions of functions, as in OpenAI's API."""
    tool_choice: str = "auto"
    """auto, none, required, or the name of the function to call."""
    parallel_tool_calls: bool = True
    thinking: bool | None = None
    """Whether to think before the answer; None is the model's default."""
    continue_final_message: bool = False
    """Continue the last message, which is the assistant's."""
    template_variables: Mapping[str, Any] = field(default_factory=dict)
    """Further variables of the chat template (chat_template_kwargs)."""
    cache_salt: str = ""
    """Requests share cached prefixes only with others of the same salt."""
    adapter: str = ""
    """The engine's name of the LoRA adapter that answers; empty: the model itself."""


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    """A text that the model continues; with a suffix, a gap that it fills."""

    prompt: str | tuple[int, ...]
    """Text, or token ids."""
    sampling: SamplingParams
    suffix: str | None = None
    echo: bool = False
    """Begin each choice with the prompt."""
    experts: bool = False
    """With an echo and logprobs: name the experts of the prompt's tokens, if the model has some."""
    cache_salt: str = ""
    adapter: str = ""
    """See ChatRequest."""


BackendRequest = ChatRequest | TextRequest
