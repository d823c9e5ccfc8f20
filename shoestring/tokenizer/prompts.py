"""Prompts as in vLLM's offline API (text, ids, dictionaries, conversations), converted to token ids."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, TypeGuard

from shoestring.errors import ConfigError, TokenizerError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.escape import free_characters
from shoestring.tokenizer.chat.messages import Message, check_messages
from shoestring.tokenizer.chat.template import Piece, Template, encode_pieces, pieces_text

log = logging.getLogger(__name__)

PromptInput = str | Sequence[int] | Mapping[str, Any]
"""Text, ids, {"prompt": text} or {"prompt_token_ids": ids}; a dictionary may also have a cache_salt."""
Conversation = Sequence[Message]

DICT_KEYS = ("prompt", "prompt_token_ids", "cache_salt")
SWITCHES = ("thinking", "enable_thinking")
ARGUMENTS = ("messages", "tools", "add_generation_prompt", "continue_final_message", "chat_template")


class RenderedPrompt(str):
    """The text of a prompt with the ids that a chat template made of it; changed text is a plain str."""

    token_ids: tuple[int, ...]

    def __new__(cls, text: str, token_ids: Sequence[int]) -> Self:
        """A text that equals `text`."""
        prompt = super().__new__(cls, text)
        prompt.token_ids = tuple(token_ids)
        return prompt


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """Prompt as token ids, ready for the engine."""

    token_ids: tuple[int, ...]
    text: str | None = None
    cache_salt: str = ""


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """Options for turning a conversation into a prompt, with the names of vLLM's `chat`."""

    tools: Sequence[Message] | None = None
    add_generation_prompt: bool = True
    """End the prompt where the assistant's next turn begins."""
    continue_final_message: bool = False
    """End the prompt inside the last message, which the model continues."""
    chat_template_kwargs: Mapping[str, Any] | None = None
    """Variables of the template. thinking (or enable_thinking) is True for thinking before the answer."""

    def __post_init__(self) -> None:
        if self.add_generation_prompt and self.continue_final_message:
            raise ConfigError("continue_final_message = True needs add_generation_prompt = False")
        kwargs = dict(self.chat_template_kwargs or {})
        if wrong := [name for name in kwargs if name in ARGUMENTS]:
            raise ConfigError(f"chat_template_kwargs has {wrong[0]!r}, which is an argument of its own")
        switches = [kwargs[name] for name in SWITCHES if name in kwargs]
        if any(not isinstance(value, bool) for value in switches) or len(set(switches)) > 1:
            raise ConfigError(f"chat_template_kwargs = {kwargs}; thinking must be True or False")

    @property
    def thinking(self) -> bool | None:
        kwargs = self.chat_template_kwargs or {}
        return next((kwargs[name] for name in SWITCHES if name in kwargs), None)

    @property
    def variables(self) -> dict[str, Any]:
        """The variables of the template without those that turn thinking on or off."""
        return {k: v for k, v in (self.chat_template_kwargs or {}).items() if k not in SWITCHES}


def read_prompts(prompts: PromptInput | Sequence[PromptInput], tokenizer: Tokenizer | None) -> list[Prompt]:
    """Convert one prompt or a list of them. Text gets the tokenizer's begin token, and no other special one.

    Raises ConfigError naming the first prompt that is not valid.
    """
    if isinstance(prompts, (str, Mapping)) or _is_ids(prompts):
        return [_read_prompt(prompts, tokenizer, "the prompt")]
    if not isinstance(prompts, Sequence):
        raise ConfigError(f"prompts is a {type(prompts).__name__}, neither a prompt nor a list of prompts")
    return [_read_prompt(prompt, tokenizer, f"prompt {n}") for n, prompt in enumerate(prompts)]


def warn_of_spelled_tokens(prompts: Any, tokenizer: Tokenizer | None) -> None:
    """Warn of the first text that spells a special token: it stays text, so nobody can forge a turn."""
    if tokenizer is None:
        return
    spelling = tokenizer.special_pattern
    for prompt in [prompts] if isinstance(prompts, (str, Mapping)) else prompts:
        is_ids = isinstance(prompt, Mapping) and prompt.get("prompt_token_ids") is not None
        text = prompt.get("prompt") if isinstance(prompt, Mapping) and not is_ids else prompt
        if (
            isinstance(text, str)
            and not isinstance(text, RenderedPrompt)
            and (match := spelling.search(text))
        ):
            log.warning(
                "a text prompt spells the special token %s, which stays ordinary text; if it is meant, pass "
                "{'prompt_token_ids': llm.get_tokenizer().encode(text, add_special_tokens=False)}, "
                "or use chat",
                match[0],
            )
            return


def is_conversation(value: Any) -> TypeGuard[Conversation]:
    """Return whether `value` is a list of messages: dictionaries with a role."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(message, Mapping) and "role" in message for message in value)
    )


def read_chat(
    messages: Conversation, tokenizer: Tokenizer, template: Template, options: ChatOptions
) -> Prompt:
    """Convert a conversation to the prompt for its next turn. Raises TokenizerError for a wrong message."""
    mark = ""
    if options.continue_final_message:
        mark = next(free_characters([messages, options.tools]), "")
        messages = _with_mark(messages, mark)
    pieces = template.render(
        messages,
        add_generation_prompt=options.add_generation_prompt,
        tools=options.tools,
        thinking=options.thinking,
        variables=options.variables,
        with_loss=False,
    )
    if options.continue_final_message:
        pieces = _end_at_mark(pieces, mark, messages[-1])
    return Prompt(token_ids=tuple(encode_pieces(pieces, tokenizer).ids), text=pieces_text(pieces))


def _read_prompt(prompt: Any, tokenizer: Tokenizer | None, name: str) -> Prompt:
    if isinstance(prompt, RenderedPrompt):
        return Prompt(token_ids=prompt.token_ids, text=str(prompt))
    if isinstance(prompt, str):
        if tokenizer is None:
            raise ConfigError(f"{name} is text and this model has no tokenizer; pass token ids")
        return Prompt(
            token_ids=(*tokenizer.begin_ids, *tokenizer.encode(prompt, allow_special=False)), text=prompt
        )
    if isinstance(prompt, Mapping):
        return _read_mapping(prompt, tokenizer, name)
    if _is_ids(prompt):
        return Prompt(token_ids=tuple(prompt))
    raise ConfigError(
        f"{name} is neither text, nor a list of ids, nor a dictionary with prompt or prompt_token_ids"
    )


def _read_mapping(prompt: Mapping[str, Any], tokenizer: Tokenizer | None, name: str) -> Prompt:
    if wrong := [key for key in prompt if key not in DICT_KEYS]:
        raise ConfigError(f"{name} has {wrong[0]!r}; the keys of a prompt are {', '.join(DICT_KEYS)}")
    salt = prompt.get("cache_salt", "")
    if not isinstance(salt, str):
        raise ConfigError(f"the cache_salt of {name} is not text")
    text, ids = prompt.get("prompt"), prompt.get("prompt_token_ids")
    if ids is not None and _is_ids(ids):
        return Prompt(token_ids=tuple(ids), text=text if isinstance(text, str) else None, cache_salt=salt)
    if ids is None and isinstance(text, str):
        return replace(_read_prompt(text, tokenizer, name), cache_salt=salt)
    raise ConfigError(f"{name} needs prompt (text) or prompt_token_ids (a list of ids)")


def _is_ids(value: Any) -> bool:
    """Return whether `value` is a list of whole numbers; the engine checks their range."""
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence) or not value:
        return False
    return all(isinstance(token_id, int) and not isinstance(token_id, bool) for token_id in value)


def _with_mark(messages: Conversation, mark: str) -> Conversation:
    """The messages with a mark and a space after the text of the last one; ConfigError if it has no text."""
    last = check_messages(messages)[-1]
    field = next((name for name in ("content", "reasoning_content") if last.get(name)), None)
    if last["role"] != "assistant" or field is None:
        raise ConfigError(
            "continue_final_message needs a last message of the assistant that has text to continue"
        )
    return [*messages[:-1], {**last, field: f"{last[field]}{mark} "}]


def _end_at_mark(pieces: list[Piece], mark: str, last: Message) -> list[Piece]:
    """Pieces up to the mark, without the template's text after it.

    White space before the mark is part of the message, unless the template trims messages: then the space
    after the mark is missing.
    """
    text = pieces_text(pieces)
    content = next(value for value in last.values() if isinstance(value, str) and mark in value)
    head, separator, tail = text.rpartition(mark)
    if not separator or content.partition(mark)[0].strip() not in head:
        raise TokenizerError(
            "the chat template changes the text of the last message, so it cannot be continued"
        )
    head = head if tail.startswith(" ") else head.rstrip()
    result, length = [], 0
    for piece in pieces:
        part = piece.text[: len(head) - length]
        if part:
            result.append(replace(piece, text=part))
        length += len(part)
    return result
