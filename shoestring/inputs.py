"""Inputs of LLM with vLLM's names: prompts as dictionaries, and adapters named with a request."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict


class TextPrompt(TypedDict):
    """A prompt of text, in which nothing becomes a special token."""

    prompt: str
    cache_salt: NotRequired[str]


class TokensPrompt(TypedDict):
    """A prompt of token ids."""

    prompt_token_ids: Sequence[int]
    prompt: NotRequired[str]
    cache_salt: NotRequired[str]


PromptType = str | Sequence[int] | TextPrompt | TokensPrompt


@dataclass(frozen=True)
class LoRARequest:
    """An adapter that vLLM adds to one request. Here an engine has one set of weights and refuses it.

    `shoestring.model.hf.peft.merge_adapter(adapter, out)` writes the merged model, which LLM(out) opens.
    """

    lora_name: str
    lora_int_id: int = 1
    lora_path: str = ""
    base_model_name: Any = None
