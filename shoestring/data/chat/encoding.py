"""Conversations of one file as token ids with a loss mask, or the reason why one is left out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

from shoestring.data.forms.conversation import conversation
from shoestring.data.forms.rendering import Learn, Rendered, Thinking, render
from shoestring.errors import DataError, TokenizerError
from shoestring.rows.read import Row, read_rows, require_rows
from shoestring.rows.source import DataFile
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import Template, encode_many, pieces_text
from shoestring.tokenizer.definition import check_text
from shoestring.tokenizer.overlong import Overlong

AT_ONCE = 256
"""Rows that are encoded together."""
BadRows = Literal["error", "filter"]
"""The fate of a row that holds no conversation: the run stops, or it is left out and counted."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """The tokenizer, template and settings with which conversations become token ids."""

    tokenizer: Tokenizer
    template: Template
    seq_len: int
    learn: Learn = "assistant"
    thinking: Thinking = "template"
    overlong: Overlong = "filter"
    bad_rows: BadRows = "error"


@dataclass(slots=True, kw_only=True)
class EncodedRow:
    """A row as token ids, or the reason why it is left out."""

    place: str
    """`talks.jsonl line 12`."""
    ids: list[int] = field(default_factory=list)
    loss_mask: list[bool] = field(default_factory=list)
    text_bytes: int = 0
    """UTF-8 bytes of the text that is learned, without special tokens."""
    full_length: int = 0
    """Tokens before it was shortened to `seq_len`."""
    left_out: str = ""
    """too_long, unlearned (marks leave nothing to learn) or bad_rows; empty if it is used."""
    problem: str = ""
    """The reason, of a row without a conversation."""
    unlearned_turns: int = 0
    remarks: tuple[str, ...] = ()
    """Columns and keys that are not used, and parts of the context that the template does not write."""


def encode_file(file: DataFile, columns: Mapping[str, str], encoding: Encoding) -> Iterator[EncodedRow]:
    """The rows of a file in order, encoded or with the reason why one is left out. Raises DataError."""
    read = read_rows if encoding.bad_rows == "filter" else require_rows
    rows = read(file.path, name=file.label)
    while part := list(islice(rows, AT_ONCE)):
        pairs = [_render(row, columns, encoding) for row in part]
        chats = iter(
            encode_many([rendering.pieces for _, rendering in pairs if rendering], encoding.tokenizer)
        )
        for item, rendering in pairs:
            if rendering is not None:
                chat = next(chats)
                item.ids, item.loss_mask = chat.ids, chat.loss_mask
                item.full_length = len(chat.ids)
                item.text_bytes = _text_bytes(rendering)
                _fit(item, encoding)
            yield item


def _render(row: Row, columns: Mapping[str, str], encoding: Encoding) -> tuple[EncodedRow, Rendered | None]:
    """A row rendering, or the reason why it cannot be; both raise DataError where the settings say so."""
    item = EncodedRow(place=row.place, left_out="bad_rows", problem=row.problem)
    if row.problem:
        return item, None
    try:
        talk = conversation(row.values, columns)
        rendering = render(talk, encoding.template, learn=encoding.learn, thinking=encoding.thinking)
        check_text(pieces_text(rendering.pieces))
    except DataError as error:
        raise DataError(f"{row.place}: {error}") from None
    except (TokenizerError, ValueError) as error:
        if encoding.bad_rows == "error":
            raise DataError(f"{row.place}: {error}{_way_out(error)}") from None
        item.problem = str(error)
        return item, None
    item.left_out = ""
    item.unlearned_turns = rendering.unlearned_turns
    item.remarks = (
        *map(_unused, talk.unread),
        *(_unwritten(part, encoding) for part in rendering.missing_context),
    )
    return item, rendering


def _way_out(error: Exception) -> str:
    return f"{',' if '--set' in str(error) else ';'} --set bad_rows=filter leaves such rows out"


def _unused(name: str) -> str:
    kind, _, key = name.rpartition("messages.")
    if kind or name != key:
        return f"the key {key!r} of messages is not known here, and only a template can use it"
    return f"the column {name!r} is not used; --set columns.NAME={name} gives it a meaning"


def _unwritten(part: str, encoding: Encoding) -> str:
    what = "tools" if part == "tools" else f"a message of the {part}"
    return f"{encoding.template.name} does not write {what}, so the model learns without it"


def _text_bytes(rendering: Rendered) -> int:
    return sum(len(piece.text.encode()) for piece in rendering.pieces if piece.in_loss and not piece.special)


def _fit(item: EncodedRow, encoding: Encoding) -> None:
    """Leave out or shorten what is too long, and leave out what has nothing to learn."""
    limit = encoding.seq_len
    if len(item.ids) > limit:
        if encoding.overlong == "error":
            raise DataError(
                f"{item.place}: it has {len(item.ids):,} tokens, more than seq_len = {limit}; "
                f"--set seq_len={len(item.ids)}, or --set overlong=filter leaves such conversations out, "
                "--set overlong=truncate keeps their beginnings"
            )
        if encoding.overlong == "filter":
            item.left_out = "too_long"
            return
        item.ids, item.loss_mask = item.ids[:limit], item.loss_mask[:limit]
        item.text_bytes = _bytes_of(item, encoding.tokenizer)
    if not any(item.loss_mask[1:]):
        item.left_out = "too_long" if item.full_length > limit else "unlearned"


def _bytes_of(item: EncodedRow, tokenizer: Tokenizer) -> int:
    """UTF-8 bytes of the learned tokens that are left."""
    specials = frozenset(tokenizer.specials.values())
    pairs = zip(item.ids, item.loss_mask, strict=True)
    return sum(len(tokenizer.token_bytes(token)) for token, learn in pairs if learn and token not in specials)
