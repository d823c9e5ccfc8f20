"""Inputs of LLM with vLLM's names: prompts as dictionaries, and adapters named with a request."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from shoestring.errors import ConfigError


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
    """A LoRA adapter for some requests: a name, a number above 0 that no other adapter has, and a folder."""

    lora_name: str
    lora_int_id: int = 1
    lora_path: str = ""
    base_model_name: Any = None

    def __post_init__(self) -> None:
        number: object = self.lora_int_id
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ConfigError(f"lora_int_id = {number!r} must be a whole number above 0")
        if not isinstance(self.lora_path, str | Path) or not str(self.lora_path):
            raise ConfigError(f"lora_path = {self.lora_path!r} is not the folder of an adapter")
        object.__setattr__(self, "lora_path", str(self.lora_path))
