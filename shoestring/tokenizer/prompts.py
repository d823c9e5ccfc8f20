"""Prompts as vLLM's offline API takes them: text, ids, dictionaries, conversations -> ids."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from shoestring.errors import ConfigError, TokenizerError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.messages import Message
from shoestring.tokenizer.chat.template import Piece, Template, encode_pieces, pieces_text
from shoestring.tokenizer.special import THINK, THINK_END

PromptInput = str | Sequence[int] | Mapping[str, Any]
"""Text, ids, {"prompt": text} or {"prompt_token_ids": ids}; a dictionary may hold a cache_salt too."""
Conversation = Sequence[Message]

DICT_KEYS = ("prompt", "prompt_token_ids", "cache_salt")


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A prompt that is ready for the engine."""

    token_ids: tuple[int, ...]
    text: str | None = None
    cache_salt: str = ""


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """How conversations become prompts, by the names of vLLM's `chat`."""

    tools: Sequence[Message] | None = None
    add_generation_prompt: bool = True
    """End where the assistant's next turn begins."""
    continue_final_message: bool = False
    """End inside the last message, which the model goes on with."""
    chat_template_kwargs: Mapping[str, Any] | None = None
    """thinking (or enable_thinking): ask for, or refuse, thinking before the answer."""

    def __post_init__(self) -> None:
        if self.add_generation_prompt and self.continue_final_message:
            raise ConfigError("continue_final_message = True needs add_generation_prompt = False")
        given = dict(self.chat_template_kwargs or {})
        wrong = [name for name in given if name not in ("thinking", "enable_thinking")]
        if wrong:
            raise ConfigError(
                f"chat_template_kwargs has {wrong[0]!r}; it takes thinking (or enable_thinking)"
            )
        if any(not isinstance(value, bool) for value in given.values()) or len(set(given.values())) > 1:
            raise ConfigError(f"chat_template_kwargs = {given} must say thinking = True or False")

    @property
    def thinking(self) -> bool | None:
        return next(iter((self.chat_template_kwargs or {}).values()), None)


def read_prompts(prompts: PromptInput | Sequence[PromptInput], tokenizer: Tokenizer | None) -> list[Prompt]:
    """One prompt or many as a list. Text gets the begin token in front and never becomes another special one.

    Raises ConfigError naming the prompt that is of another kind.
    """
    if isinstance(prompts, (str, Mapping)) or _is_ids(prompts):
        return [_read_prompt(prompts, tokenizer, "the prompt")]
    if not isinstance(prompts, Sequence):
        raise ConfigError(f"prompts = {type(prompts).__name__} is neither a prompt nor a list of them")
    return [_read_prompt(prompt, tokenizer, f"prompt {n}") for n, prompt in enumerate(prompts)]


def is_conversation(value: Any) -> TypeGuard[Conversation]:
    """Whether `value` is a list of messages: dictionaries with a role."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and len(value) > 0
        and all(isinstance(message, Mapping) and "role" in message for message in value)
    )


def read_chat(
    messages: Conversation, tokenizer: Tokenizer, template: Template, options: ChatOptions
) -> Prompt:
    """A conversation as the prompt for its next turn. Raises TokenizerError for a message that is wrong."""
    pieces = template.render(
        messages,
        add_generation_prompt=options.add_generation_prompt,
        tools=options.tools,
        thinking=options.thinking,
        with_loss=False,
    )
    if options.continue_final_message:
        pieces = _cut(pieces, messages[-1])
    return Prompt(token_ids=tuple(encode_pieces(pieces, tokenizer).ids), text=pieces_text(pieces))


def ends_in_thinking(token_ids: Sequence[int], tokenizer: Tokenizer) -> bool:
    """Whether a reply to this prompt begins inside its thinking: of the two tags, `<think>` came last."""
    begin, end = tokenizer.specials.get(THINK), tokenizer.specials.get(THINK_END)
    last = next((token_id for token_id in reversed(token_ids) if token_id in (begin, end)), None)
    return last is not None and last == begin


def _read_prompt(prompt: Any, tokenizer: Tokenizer | None, name: str) -> Prompt:
    if isinstance(prompt, str):
        if tokenizer is None:
            raise ConfigError(f"{name} is text and this model has no tokenizer; give token ids")
        start = [tokenizer.bos_id] if "bos_token" in tokenizer.roles else []
        return Prompt(token_ids=(*start, *tokenizer.encode(prompt)), text=prompt)
    if isinstance(prompt, Mapping):
        return _read_mapping(prompt, tokenizer, name)
    if _is_ids(prompt):
        return Prompt(token_ids=tuple(prompt))
    raise ConfigError(
        f"{name} is neither text, nor a list of ids, nor a dictionary with prompt or prompt_token_ids"
    )


def _read_mapping(prompt: Mapping[str, Any], tokenizer: Tokenizer | None, name: str) -> Prompt:
    if wrong := [key for key in prompt if key not in DICT_KEYS]:
        raise ConfigError(f"{name} has {wrong[0]!r}; a prompt takes {', '.join(DICT_KEYS)}")
    salt = prompt.get("cache_salt", "")
    if not isinstance(salt, str):
        raise ConfigError(f"the cache_salt of {name} is not text")
    text, ids = prompt.get("prompt"), prompt.get("prompt_token_ids")
    if ids is not None and _is_ids(ids):
        return Prompt(token_ids=tuple(ids), text=text if isinstance(text, str) else None, cache_salt=salt)
    if ids is None and isinstance(text, str):
        read = _read_prompt(text, tokenizer, name)
        return Prompt(token_ids=read.token_ids, text=text, cache_salt=salt)
    raise ConfigError(f"{name} needs prompt (text) or prompt_token_ids (a list of ids)")


def _is_ids(value: Any) -> bool:
    """Whether `value` is a list of whole numbers; what they may be, the engine checks."""
    if isinstance(value, (str, Mapping)) or not isinstance(value, Sequence) or not value:
        return False
    return all(isinstance(token_id, int) and not isinstance(token_id, bool) for token_id in value)


def _cut(pieces: list[Piece], last: Message) -> list[Piece]:
    """The pieces up to the end of the last message's own text, without what the template puts after it."""
    content = last.get("content") or last.get("reasoning_content") or last.get("reasoning")
    if last.get("role") != "assistant" or not isinstance(content, str) or not content.strip():
        raise ConfigError(
            "continue_final_message needs a last message of the assistant, with text to go on with"
        )
    kept = list(pieces)
    while kept and not pieces_text(kept).rstrip().endswith(content.rstrip()):
        kept.pop()
    if not kept:
        raise TokenizerError(
            "the chat template writes text after the last message, so it cannot be continued"
        )
    return kept if kept[-1].special else [*kept[:-1], Piece(text=kept[-1].text.rstrip())]
