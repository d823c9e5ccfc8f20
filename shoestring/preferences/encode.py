"""Preferences from files: read as pairs or labeled answers, rendered by the chat template, and encoded."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal, Protocol

import numpy as np

from shoestring.data.folder import sha256_of
from shoestring.data.forms.conversation import Conversation
from shoestring.data.forms.fields import Fields, check_columns
from shoestring.data.forms.messages import Message
from shoestring.data.forms.pairs import labelled_completion, preference_pair
from shoestring.data.forms.rendering import Learn, Thinking, inline, render
from shoestring.errors import DataError, TokenizerError
from shoestring.preferences.data import EncodedAnswer, Preferences
from shoestring.rows.read import Row, require_rows
from shoestring.rows.source import DataFile, data_files
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import ChatIds, Piece, Template, encode_many
from shoestring.tokenizer.overlong import WARN_FROM, WARN_SHARE, Overlong

log = logging.getLogger(__name__)

AT_ONCE = 128
"""Rows that are encoded together."""

Kind = Literal["pairs", "answers"]
"""Pairs of answers, or answers that are judged one by one (KTO), into which pairs are split."""


class DataSettings(Protocol):
    """The fields of a recipe that say how its data is read."""

    @property
    def data(self) -> tuple[str, ...]: ...
    @property
    def columns(self) -> Mapping[str, str]: ...
    @property
    def seq_len(self) -> int: ...
    @property
    def overlong(self) -> Overlong: ...
    @property
    def thinking(self) -> Thinking: ...


def load_preferences(
    settings: DataSettings, tokenizer: Tokenizer, template: Template, kind: Kind = "pairs"
) -> Preferences:
    """Read and encode all rows of `settings.data`.

    Raises DataError naming file, line and reason for everything that is not a preference, for a prompt that
    is no beginning of its conversation, and if no preference is left; ConfigError for a wrong column.
    """
    check_columns(settings.columns)
    reader = _Reader(settings, tokenizer, template, kind)
    entries = [reader.read(file) for source in settings.data for file in data_files(source)]
    total = sum(entry["preferences"] + entry["too_long"] for entry in entries)
    too_long = total - len(reader.units)
    if not reader.units:
        raise DataError(
            f"no preferences to learn from in {', '.join(settings.data)}"
            + (f": all {too_long} have more than seq_len = {settings.seq_len} tokens" if too_long else "")
        )
    if too_long > WARN_SHARE * max(total, WARN_FROM):
        log.warning(
            "%d of %d preferences have more than seq_len = %d tokens and are left out; raise it with "
            "--set seq_len=..., or cut them with --set overlong=truncate",
            too_long,
            total,
            settings.seq_len,
        )
    if reader.unread:
        log.warning("columns that are not used: %s", ", ".join(map(str, reader.unread)))
    return Preferences(
        answers=reader.answers,
        units=reader.units,
        manifest={"files": entries, "template": template.name, "seq_len": settings.seq_len},
        turn_ends=tuple(sorted(reader.turn_ends)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """A row as messages: replies to a prompt, each good or bad."""

    place: str
    prompt: list[Message]
    replies: list[tuple[list[Message], bool]]
    tools: list[Any] | None


@dataclass
class _Reader:
    """Reads files one after the other and gathers what they hold."""

    settings: DataSettings
    tokenizer: Tokenizer
    template: Template
    kind: Kind
    answers: list[EncodedAnswer] = field(default_factory=list)
    units: list[tuple[int, ...]] = field(default_factory=list)
    turn_ends: set[int] = field(default_factory=set)
    unread: dict[str, None] = field(default_factory=dict)
    """Columns that are not used, in their order."""

    def read(self, file: DataFile) -> dict[str, Any]:
        """Gather a file's preferences; its line in the manifest."""
        before, too_long = len(self.units), 0
        rows_left = require_rows(file.path, name=file.label)
        while rows := list(islice(rows_left, AT_ONCE)):
            for item, replies in self._encode([self._item(row) for row in rows]):
                units = [replies] if self.kind == "pairs" else [[reply] for reply in replies]
                for unit in units:
                    if any(len(reply.ids) > self.settings.seq_len for reply in unit):
                        self._refuse(item)
                        too_long += 1
                        continue
                    self.units.append(tuple(range(len(self.answers), len(self.answers) + len(unit))))
                    self.answers += unit
        return {
            "path": file.name,
            "bytes": file.path.stat().st_size,
            "sha256": sha256_of(file.path),
            "preferences": len(self.units) - before,
            "too_long": too_long,
        }

    def _item(self, row: Row) -> _Item:
        columns = self.settings.columns
        try:
            if self.kind == "answers" and "label" in Fields(row.values, columns):
                single = labelled_completion(row.values, columns)
                self.unread |= dict.fromkeys(single.unread)
                replies = [(single.completion, single.label)]
                return _Item(place=row.place, prompt=single.prompt, replies=replies, tools=single.tools)
            pair = preference_pair(row.values, columns)
        except ValueError as error:
            raise DataError(f"{row.place}: {error}") from None
        self.unread |= dict.fromkeys(pair.unread)
        replies = [(pair.chosen, True), (pair.rejected, False)]
        return _Item(place=row.place, prompt=pair.prompt, replies=replies, tools=pair.tools)

    def _encode(self, items: Sequence[_Item]) -> Iterator[tuple[_Item, list[EncodedAnswer]]]:
        """The replies of each item, encoded after their prompt."""
        pieces = []
        for item in items:
            try:
                pieces.append(self._prompt_pieces(item))
                pieces += [self._reply_pieces(item, reply) for reply, _ in item.replies]
            except (DataError, TokenizerError, ValueError) as error:
                raise DataError(f"{item.place}: {error}") from None
        chats = iter(encode_many(pieces, self.tokenizer))
        for item in items:
            prompt_ids = next(chats).ids
            yield item, [self._answer(item, prompt_ids, next(chats), label) for _, label in item.replies]

    def _prompt_pieces(self, item: _Item) -> list[Piece]:
        messages = map(inline, item.prompt) if self.settings.thinking == "inline" else item.prompt
        return self.template.render(
            list(messages), tools=item.tools, add_generation_prompt=True, with_loss=False
        )

    def _reply_pieces(self, item: _Item, reply: list[Message]) -> list[Piece]:
        """A conversation that ends with a reply; DataError for a part that the template does not write."""
        talk = Conversation(messages=[*item.prompt, *reply], tools=item.tools, unread=())
        learn: Learn = "last" if len(reply) == 1 else "assistant"
        return render(talk, self.template, learn=learn, thinking=self.settings.thinking).pieces

    def _answer(self, item: _Item, prompt: list[int], chat: ChatIds, is_chosen: bool) -> EncodedAnswer:
        """An answer with its prompt; its last special token ends the turns of the assistant."""
        if chat.ids[: len(prompt)] != prompt:
            raise DataError(
                f"{item.place}: by {self.template.name} the prompt is not the beginning of the conversation "
                "with its answer, so it would be learned as it is never asked; set another template="
            )
        ids = np.array(chat.ids, dtype=np.int32)
        loss_mask = np.array(chat.loss_mask, dtype=np.bool_)
        loss_mask[: len(prompt)] = False
        if not loss_mask.any():
            raise DataError(f"{item.place}: it has no answer of the assistant to learn from")
        last = int(ids[np.flatnonzero(loss_mask)[-1]])
        if last in self.tokenizer.specials.values():
            self.turn_ends.add(last)
        if self.settings.overlong == "truncate" and loss_mask[: self.settings.seq_len].any():
            ids, loss_mask = ids[: self.settings.seq_len], loss_mask[: self.settings.seq_len]
        return EncodedAnswer(ids=ids, loss_mask=loss_mask, prompt_tokens=len(prompt), is_chosen=is_chosen)

    def _refuse(self, item: _Item) -> None:
        if self.settings.overlong == "error":
            raise DataError(
                f"{item.place}: it has more than seq_len = {self.settings.seq_len} tokens; raise it with "
                "--set seq_len=..., or leave such rows out with --set overlong=filter"
            )
