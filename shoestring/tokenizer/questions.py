"""Prompts for the questions of a task, by chat template or by a plain format."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.messages import Message, check_messages
from shoestring.tokenizer.chat.template import Piece, Template, encode_pieces, pieces_text
from shoestring.tokenizer.prompts import ChatOptions, Prompt, read_chat
from shoestring.tokenizer.thinking import forced_opening

PLACE = "{question}"
Question = str | Sequence[Message]
"""A user's message, or a conversation that ends in one."""


@dataclass(frozen=True, kw_only=True)
class PromptStyle:
    """Form of the prompt for a question; part of a recipe and of a score's manifest."""

    format: str = ""
    """Plain text with {question} in it, for a model without chat template; empty for the chat template.
    Special tokens in it become tokens, with the begin token in front; the question is always plain text."""
    thinking: bool = True
    """Whether the chat template asks for thinking before the answer; no effect on a format."""
    system: str = ""
    """The system message of a question without one; DeepSeek-R1 recommends none."""

    def __post_init__(self) -> None:
        if self.format and self.format.count(PLACE) != 1:
            raise ConfigError(f"prompt.format = {self.format!r} must contain {PLACE} once")
        if self.format and self.system:
            raise ConfigError(
                "prompt.system needs the chat template; write its text into prompt.format instead"
            )


class QuestionPrompt(NamedTuple):
    """Prompt ids of a question; rewards read the assistant's whole turn, which is opening + completion."""

    ids: tuple[int, ...]
    opening: str
    """Begin of the assistant's turn that is already in the prompt, such as `<think>`; mostly empty."""


def prompt_ids(
    question: Question,
    tokenizer: Tokenizer,
    template: Template | None,
    style: PromptStyle,
    *,
    tools: Sequence[Message] = (),
) -> QuestionPrompt:
    """Prompt for a question in this style. Raises ConfigError without template and format, TokenizerError.

    In a format, the messages of a conversation stand one after the other, with blank lines between them.
    `tools` are definitions for the chat template.
    """
    prompt = _prompt(question, tokenizer, template, style, tools)
    return QuestionPrompt(prompt.token_ids, forced_opening(prompt.text or "", last_text(question).strip()))


def last_text(question: Question) -> str:
    """The text of the last message."""
    return question if isinstance(question, str) else (check_messages(question)[-1]["content"] or "")


def with_last_text(question: Question, text: str) -> Question:
    """The question with `text` in place of its last message's."""
    return text if isinstance(question, str) else [*question[:-1], {**question[-1], "content": text}]


def _prompt(
    question: Question,
    tokenizer: Tokenizer,
    template: Template | None,
    style: PromptStyle,
    tools: Sequence[Message],
) -> Prompt:
    if style.format and tools:
        raise ConfigError("a task with tools needs the chat template; leave out prompt.format")
    if style.format:
        pieces = list(_format_pieces(style.format, _plain_text(question), tokenizer))
        return Prompt(token_ids=tuple(encode_pieces(pieces, tokenizer).ids), text=pieces_text(pieces))
    if template is None:
        raise ConfigError(
            f"this model has no chat template; set prompt.format to a text with {PLACE}, such as "
            f'"Question: {PLACE}\\nAnswer:"'
        )
    messages = [{"role": "user", "content": question}] if isinstance(question, str) else question
    if style.system and messages[0].get("role") != "system":
        messages = [{"role": "system", "content": style.system}, *messages]
    options = ChatOptions(tools=tools or None, chat_template_kwargs={"thinking": style.thinking})
    return read_chat(messages, tokenizer, template, options)


def _plain_text(question: Question) -> str:
    if isinstance(question, str):
        return question
    return "\n\n".join(message["content"] or "" for message in check_messages(question))


def _format_pieces(form: str, question: str, tokenizer: Tokenizer) -> Iterator[Piece]:
    """Pieces of a format: its special tokens as tokens, all else as text, and the question always as text."""
    before, after = form.split(PLACE)
    begin = tokenizer.decode(tokenizer.begin_ids)
    if not before.startswith(begin):
        yield from _split_at_specials(begin, tokenizer)
    yield from _split_at_specials(before, tokenizer)
    yield Piece(text=question)
    yield from _split_at_specials(after, tokenizer)


def _split_at_specials(text: str, tokenizer: Tokenizer) -> Iterator[Piece]:
    for part in re.split(f"({tokenizer.special_pattern.pattern})", text):
        yield Piece(text=part, special=part in tokenizer.specials)
