"""A conversation as a chat template writes it: which of it is learned, and whether all of that was written.

A template that never writes `reasoning_content` would lose all thinking without a word. So every part that
is to be learned is looked for in what the template wrote, white space aside, and what is missing is an error
that names the template and a setting that helps.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any, Literal

from shoestring.data.forms.conversation import Conversation
from shoestring.data.forms.marks import Mark, Span, read_marks
from shoestring.data.forms.messages import Message, assistant, user
from shoestring.data.forms.written import is_written, parts, squeezed
from shoestring.errors import DataError, TokenizerError
from shoestring.tokenizer.chat.template import Piece, Template, merge_pieces, pieces_text, prefix_break
from shoestring.tokenizer.special import THINK, THINK_END

Learn = Literal["assistant", "last", "all"]
"""Turns that are learned: all of the assistant's, its last one, or every token of the conversation."""
Thinking = Literal["template", "inline"]
"""The place of thinking: where the template writes `reasoning_content`, or in the content between tags."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A conversation in pieces whose `in_loss` says what is learned."""

    pieces: list[Piece]
    unlearned_turns: int
    """Turns of the assistant that marks, or learning the last turn alone, leave out of the loss."""
    missing_context: tuple[str, ...]
    """Parts of the context that the template does not write: roles of messages, and tools."""


def render(talk: Conversation, template: Template, *, learn: Learn, thinking: Thinking) -> Rendered:
    """Render a conversation for training.

    Raises DataError for a part that is to be learned and that the template does not write, ValueError or
    TokenizerError for a conversation that has nothing to learn from or that cannot be rendering.
    """
    plain, marks = _split(talk.messages)
    turns = [number for number, message in enumerate(plain) if message["role"] == "assistant"]
    if learn == "last" and turns:
        plain, marks = plain[: turns[-1] + 1], marks[: turns[-1] + 1]
    messages = [inline(message) for message in plain] if thinking == "inline" else plain
    try:
        page = _Page(template, messages, talk.tools, learn)
    except TokenizerError as error:
        if learn != "last" and "prefix" in str(error) and _helps(talk, template, "last", thinking):
            raise TokenizerError(f"{error}; --set learn=last learns the last turn alone") from None
        raise
    if not turns and learn != "all" and not any(mark.learn for mark in marks):
        raise ValueError("it has no turn of the assistant to learn from")
    page.mark(plain, marks)
    if missing := page.missing():
        raise DataError(_missing_sentence(missing, talk, template, learn, thinking))
    return Rendered(
        pieces=page.pieces(),
        unlearned_turns=sum(not page.is_learned(turn) for turn in turns if turn < len(plain)),
        missing_context=tuple(page.missing_context()),
    )


def inline(message: Message) -> Message:
    """The message with its thinking in the content: `<think>thinking</think>content`."""
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    if message["role"] != "assistant" or not reasoning or not isinstance(reasoning, str):
        return message
    rest = {k: v for k, v in message.items() if k not in ("reasoning_content", "reasoning", "thinking")}
    return {**rest, "content": f"{THINK}{reasoning}{THINK_END}{message.get('content') or ''}"}


def writes_thinking(template: Template, *, learn: Learn, thinking: Thinking) -> bool:
    """Return whether a model would learn the thinking of an answer with these settings."""
    turns = [user("1+1=?"), {**assistant("2"), "reasoning_content": "one and one"}]
    talk = Conversation(messages=turns, tools=None, unread=())
    try:
        render(talk, template, learn=learn, thinking=thinking)
    except DataError:
        return False
    return True


class _Page:
    """The text that a template made of a conversation, with a mask of the characters that are learned."""

    def __init__(
        self, template: Template, messages: Sequence[Message], tools: list[Any] | None, learn: Learn
    ) -> None:
        self.template, self.messages, self.tools, self.learn = template, messages, tools, learn
        self.original = merge_pieces(self._render())
        self.text = pieces_text(self.original)
        self.mask = bytearray(len(self.text))
        turns = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        runs = list(_runs(self.original))
        self.spans: dict[int, tuple[int, int]] = {}
        """Characters of each turn of the assistant, where the template writes one stretch for each."""
        if learn == "last" and runs:
            self.spans, runs = {turns[-1]: runs[-1]}, runs[-1:]
        elif len(runs) == len(turns):
            self.spans = dict(zip(turns, runs, strict=True))
        self.runs = runs
        self.turns_left_out: set[int] = set(turns[:-1]) if learn == "last" else set()
        for start, end in [(0, len(self.text))] if learn == "all" else runs:
            self._set(start, end, True)

    def mark(self, plain: Sequence[Message], marks: Sequence[Mark]) -> None:
        """Apply the marks of the messages, which stand in `plain` as they were given."""
        position = 0
        for number, (message, mark) in enumerate(zip(plain, marks, strict=True)):
            if (mark.learn is not None or mark.spans) and (self.learn != "last" or number in self.spans):
                start, end = self._place(number, message, position)
                if mark.learn is not None:
                    self._set(start, end, mark.learn)
                    if not mark.learn:
                        self.turns_left_out.add(number)
                for span in mark.spans:
                    self._set_span(number, message, span, start)
            position = self._end_of(number, message, position)

    def is_learned(self, number: int) -> bool:
        """Return whether a turn of the assistant is learned, as a whole or in part."""
        return number not in self.turns_left_out or any(self.mask[slice(*self.spans.get(number, (0, 0)))])

    def missing(self) -> list[tuple[int, str, str]]:
        """Parts that are to be learned and were not written: message, name of the part, its text."""
        everything = squeezed(self.text)
        in_runs = squeezed("".join(self.text[start:end] for start, end in self.runs))
        result = []
        for number, message in enumerate(self.messages):
            if message["role"] != "assistant":
                where = everything if self.learn == "all" else None
            elif not self.is_learned(number):
                continue
            else:
                span = self.spans.get(number)
                where = in_runs if span is None else squeezed(self.text[slice(*span)])
            if where is not None:
                result += [(number, *part) for part in parts(message) if not is_written(part, where)]
        return result

    def missing_context(self) -> Iterator[str]:
        """Roles of messages around the learned ones whose text was not written, and `tools`."""
        everything = squeezed(self.text)
        for message in self.messages:
            content = message.get("content")
            is_context = message["role"] != "assistant"
            if is_context and isinstance(content, str) and squeezed(content) not in everything:
                yield str(message["role"])
        for tool in self.tools or []:
            function = tool.get("function", tool)
            name = function.get("name") if isinstance(function, Mapping) else None
            if isinstance(name, str) and squeezed(name) not in everything:
                yield "tools"

    def pieces(self) -> list[Piece]:
        """The pieces cut where learning begins or ends; the template's own borders stay."""
        result, position = [], 0
        for number, piece in enumerate(self.original):
            mask = self.mask[position : position + len(piece.text)]
            position += len(piece.text)
            if piece.special or mask.count(mask[0]) == len(mask):  # a special token is learned as it begins
                result.append(replace(piece, in_loss=bool(mask[0]), part=number))
                continue
            cut = 0
            for value, run in groupby(mask):
                text = piece.text[cut : cut + len(list(run))]
                result.append(Piece(text=text, in_loss=bool(value), part=number))
                cut += len(text)
        return result

    def _render(self) -> list[Piece]:
        try:
            return self.template.render(self.messages, tools=self.tools)
        except TokenizerError as error:
            if self.learn != "last" or "prefix" not in str(error):
                raise
        return self._last_turn()

    def _last_turn(self) -> list[Piece]:
        """Pieces where only the last turn is in the loss, for a template that changes the turns before it."""
        pieces = self.template.render(self.messages, tools=self.tools, with_loss=False)
        prompt = pieces_text(
            self.template.render(
                self.messages[:-1], tools=self.tools, add_generation_prompt=True, with_loss=False
            )
        )
        if difference := prefix_break(prompt, pieces_text(pieces)):
            raise TokenizerError(
                f"{self.template.name} does not begin the last turn with its prompt: {difference}"
            )
        ends = [position for position, piece in _positions(pieces) if piece.special]
        end = max((e for e in ends if e > len(prompt)), default=len(pieces_text(pieces)))
        return list(_in_loss(pieces, len(prompt), end))

    def _place(self, number: int, message: Message, position: int) -> tuple[int, int]:
        """First and last character of a marked message."""
        if number in self.spans:
            return self.spans[number]
        if message["role"] == "assistant":
            raise ValueError(
                f"{self.template.name} does not write one stretch of text for each turn of the assistant, so "
                f"the marks of message {number} cannot be honored; take another with --set template=FILE"
            )
        return self._find(number, message, position)

    def _end_of(self, number: int, message: Message, position: int) -> int:
        """Place after a message, as far as it is known: the next one is looked for from there."""
        if number in self.spans:
            return self.spans[number][1]
        text = message.get("content")
        start = self.text.find(text.strip(), position) if isinstance(text, str) else -1
        return position if start < 0 else start + len(str(text).strip())

    def _find(self, number: int, message: Message, position: int, key: str = "content") -> tuple[int, int]:
        """First and last character of a text of a message, without the white space around it."""
        content = message.get(key)
        text = content.strip() if isinstance(content, str) else ""
        start = self.text.find(text, position)
        if start < 0 or not text:
            raise ValueError(
                f"{self.template.name} changes the text of message {number}, so its marks cannot be honored; "
                "take another with --set template=FILE"
            )
        return start, start + len(text)

    def _set_span(self, number: int, message: Message, span: Span, position: int) -> None:
        """Set the mask of a part of a text; the template may have removed the white space around it."""
        if span.key == "content" and isinstance(message.get("reasoning_content"), str):
            position = self._find(number, message, position, "reasoning_content")[1]
        start, end = self._find(number, message, position, span.key)
        text = message[span.key]
        offset = start - (len(text) - len(text.lstrip()))
        if self.text[offset : offset + len(text)] == text:
            start, end = offset, offset + len(text)
        self._set(max(offset + span.start, start), min(offset + span.end, end), span.learn)

    def _set(self, start: int, end: int, learn: bool) -> None:
        self.mask[start:end] = bytes([learn]) * max(0, end - start)


def _split(messages: Sequence[Message]) -> tuple[list[Message], list[Mark]]:
    pairs = [read_marks(message, f"message {number}") for number, message in enumerate(messages)]
    return [message for message, _ in pairs], [mark for _, mark in pairs]


def _runs(pieces: Sequence[Piece]) -> Iterator[tuple[int, int]]:
    """First and last character of each stretch of pieces in the loss."""
    start: int | None = None
    position = 0
    for piece in pieces:
        if piece.in_loss and start is None:
            start = position
        elif not piece.in_loss and start is not None:
            yield start, position
            start = None
        position += len(piece.text)
    if start is not None:
        yield start, position


def _positions(pieces: Sequence[Piece]) -> Iterator[tuple[int, Piece]]:
    """Each piece with the position of its end."""
    position = 0
    for piece in pieces:
        position += len(piece.text)
        yield position, piece


def _in_loss(pieces: Sequence[Piece], start: int, end: int) -> Iterator[Piece]:
    """The pieces, cut at `start` and `end`, with those between them in the loss."""
    for after, piece in _positions(pieces):
        before = after - len(piece.text)
        if piece.special:
            yield Piece(text=piece.text, special=True, in_loss=start <= before < end)
            continue
        edges = sorted({before, after, min(max(start, before), after), min(max(end, before), after)})
        for a, b in pairwise(edges):
            text = piece.text[a - before : b - before]
            yield Piece(text=text, in_loss=start <= a < end)


def _missing_sentence(
    missing: Sequence[tuple[int, str, str]],
    talk: Conversation,
    template: Template,
    learn: Learn,
    thinking: Thinking,
) -> str:
    """A sentence that names the first part that is missing, and the settings with which none is."""
    number, name, text = missing[0]
    ways = []
    if any(part == "reasoning_content" for _, part, _ in missing) and _helps(talk, template, learn, "inline"):
        ways.append("--set thinking=inline writes it into the content")
    elif learn != "last" and _helps(talk, template, "last", thinking):
        ways.append("--set learn=last learns the last turn alone")
    ways.append("--set template=FILE takes a template that writes it")
    start = " ".join(text.split())[:40]
    return (
        f"{template.name} does not write the {name} of message {number} ({start!r}) where it is learned, so "
        f"it would be lost; {', or '.join(ways)}"
    )


def _helps(talk: Conversation, template: Template, learn: Learn, thinking: Thinking) -> bool:
    """Return whether nothing is lost with these settings."""
    plain, _ = _split(talk.messages)
    turns = [number for number, message in enumerate(plain) if message["role"] == "assistant"]
    if learn == "last":
        plain = plain[: turns[-1] + 1] if turns else []
    messages = [inline(message) for message in plain] if thinking == "inline" else plain
    try:
        return not _Page(template, messages, talk.tools, learn).missing()
    except TokenizerError:
        return False
