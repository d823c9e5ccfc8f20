"""A task's question -> prompt ids, and the opening of the reply that the prompt already forces."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from shoestring.errors import ConfigError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import Piece, Template, encode_pieces, pieces_text
from shoestring.tokenizer.special import THINK, THINK_END

PLACE = "{question}"
_FORCED = re.compile(rf"{THINK}\s*(?:{THINK_END}\s*)?\Z")


@dataclass(frozen=True, kw_only=True)
class PromptStyle:
    """How questions are put to a model; part of a recipe and of a score's manifest."""

    format: str = ""
    """Plain text with {question} in it, for a model without chat template; empty takes the chat template.
    Special tokens spelled in it are tokens, a begin token stands in front; the question is only text."""
    thinking: bool = True
    """Ask the chat template for thinking before the answer, or refuse it; a format says so itself."""
    system: str = ""
    """The system message of the chat template; DeepSeek-R1 recommends none."""

    def __post_init__(self) -> None:
        if self.format and self.format.count(PLACE) != 1:
            raise ConfigError(f"prompt.format = {self.format!r} must hold {PLACE} once")
        if self.format and self.system:
            raise ConfigError("prompt.system goes with the chat template; write it into prompt.format")


class QuestionPrompt(NamedTuple):
    """A prompt for the engine; the assistant's whole turn, which rewards read, is opening + completion."""

    ids: tuple[int, ...]
    opening: str
    """What of the assistant's turn stands in the prompt already, such as `<think>`; else empty."""


def prompt_ids(
    question: str, tokenizer: Tokenizer, template: Template | None, style: PromptStyle
) -> QuestionPrompt:
    """The question as `style` puts it. Raises ConfigError without template and format, TokenizerError."""
    if style.format:
        pieces = list(_format_pieces(style.format, question, tokenizer))
    elif template is None:
        raise ConfigError(
            f"this model has no chat template; set prompt.format to a text with {PLACE}, such as "
            f'"Question: {PLACE}\\nAnswer:"'
        )
    else:
        system = [{"role": "system", "content": style.system}] if style.system else []
        messages = [*system, {"role": "user", "content": question}]
        pieces = template.render(
            messages, add_generation_prompt=True, thinking=style.thinking, with_loss=False
        )
    ids = tuple(encode_pieces(pieces, tokenizer).ids)
    return QuestionPrompt(ids, _forced(pieces_text(pieces), question.strip()))


def thinking_tokens(opening: str, token_ids: Iterable[int], tokenizer: Tokenizer) -> int:
    """How many tokens of a completion come before its last `</think>`: all when it never ends thinking.

    0 for a turn that does not begin with `<think>`. Tags count however the tokens spell them, as rewards
    see them; the closing tag itself is not counted.
    """
    pieces = [tokenizer.token_bytes(token_id) for token_id in token_ids]
    text = b"".join(pieces)
    if not (opening.encode() + text).lstrip().startswith(THINK.encode()):
        return 0
    end = text.rfind(THINK_END.encode())
    if end < 0:
        return len(pieces) if THINK_END not in opening else 0
    count = place = 0
    for piece in pieces:
        if place >= end:
            break
        place += len(piece)
        count += 1
    return count


def _forced(text: str, question: str) -> str:
    """The opening that ends the prompt, if it stands after the question: a question cannot fake one."""
    found = _FORCED.search(text)
    if found is None or found.start() < text.find(question) + len(question):
        return ""
    return found.group()


def _format_pieces(form: str, question: str, tokenizer: Tokenizer) -> Iterator[Piece]:
    """Special tokens of the format as such, everything else as text; the question only ever as text."""
    before, after = form.split(PLACE)
    bos = tokenizer.roles.get("bos_token")
    if bos is not None and not before.startswith(bos):
        yield Piece(text=bos, special=True)
    yield from _split(before, tokenizer)
    yield Piece(text=question)
    yield from _split(after, tokenizer)


def _split(text: str, tokenizer: Tokenizer) -> Iterator[Piece]:
    spellings = sorted(tokenizer.specials, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, spellings))})", text) if spellings else [text]
    for part in parts:
        yield Piece(text=part, special=part in tokenizer.specials)
