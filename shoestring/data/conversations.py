"""Conversations (jsonl) -> encoded, batched and padded for fine-tuning, none cut and none seen by another.

DeepSeek-V3 packs conversations into rows and masks attention between them (arXiv 2412.19437, section 5.1).
Causal attention with padding on the right computes the same without a mask, so here a batch is sorted by
length and cut into micro-batches of similar lengths. At most a tenth of one is padding, unless it is small.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shoestring.data.packing import IGNORE_INDEX
from shoestring.errors import DataError, TokenizerError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import ChatIds, Piece, Template, encode_many
from shoestring.tokenizer.definition import check_text

LINE_BYTES = 16 << 20
AT_ONCE = 256
"""Lines that are encoded together."""
MAX_PADDING = 0.1
"""Largest share of a micro-batch that is padding."""
SPARE_TOKENS = 256
"""So much padding costs less than another pass through the model."""
WINDOW, RUN = 4096, 64
"""Conversations that are sorted by length together, and that then stay side by side."""

Learn = Literal["assistant", "all"]


@dataclass(frozen=True, kw_only=True)
class ConversationBatch:
    """Conversations of similar length, padded on the right; each row's targets are its next ids."""

    inputs: NDArray[np.int64]  # (B, T)
    targets: NDArray[np.int64]  # (B, T), IGNORE_INDEX where the row has ended
    learned: NDArray[np.bool_]  # (B, T): targets that the loss counts


@dataclass(frozen=True)
class Conversations:
    """Encoded conversations back to back: 5 bytes per token in memory."""

    ids: NDArray[np.int32]  # (tokens,)
    learned: NDArray[np.bool_]  # (tokens,)
    ends: NDArray[np.int64]  # (conversations,)
    text_bytes: NDArray[np.int64]  # (conversations,): UTF-8 bytes of the text that is learned
    digests: NDArray[np.uint64]  # (conversations,): of the ids
    manifest: Mapping[str, Any]
    """Each file with its hash and counts."""
    turn_ends: tuple[int, ...]
    """Special tokens that ended the assistant's turns: where generation has to stop."""

    def __len__(self) -> int:
        return len(self.ends)

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Inputs of each: one less than its ids.  # (conversations,)"""
        return np.diff(self.ends, prepend=0) - 1

    @cached_property
    def key(self) -> str:
        """What tells this data from other data."""
        return hashlib.sha256(self.digests.tobytes() + self.learned.tobytes()).hexdigest()

    def split(self, share: float) -> tuple[list[int], list[int]]:
        """Numbers to learn from and to hold out: about `share`, at least one; equal ones stay together.

        Raises DataError when nothing is left to learn from.
        """
        limit = -1
        if share:
            wanted = max(1, round(share * len(self)))
            limit = int(np.sort(self.digests)[wanted - 1])
        heldout = [number for number in range(len(self)) if int(self.digests[number]) <= limit]
        train = sorted(set(range(len(self))) - set(heldout))
        if not train:
            raise DataError(f"all {len(self)} conversations would be held out; add some, or hold out fewer")
        return train, heldout

    def batches(self, numbers: Sequence[int], tokens: int) -> Iterator[ConversationBatch]:
        """The conversations in padded batches of at most `tokens` inputs (or one row), the longest first."""
        order = sorted(numbers, key=lambda number: (-self.lengths[number], number))
        rows: list[int] = []
        filled = 0
        for number in order:
            width, length = int(self.lengths[rows[0]]) if rows else 0, int(self.lengths[number])
            area = (len(rows) + 1) * width
            if rows and (area > tokens or area - filled - length > max(MAX_PADDING * area, SPARE_TOKENS)):
                yield self._batch(rows)
                rows, filled = [], 0
            rows.append(number)
            filled += length
        if rows:
            yield self._batch(rows)

    def _batch(self, numbers: Sequence[int]) -> ConversationBatch:
        shape = (len(numbers), int(self.lengths[numbers[0]]))
        inputs, targets = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORE_INDEX, dtype=np.int64)
        learned = np.zeros(shape, dtype=np.bool_)
        for row, number in enumerate(numbers):
            end, length = int(self.ends[number]), int(self.lengths[number])
            whole = slice(end - length - 1, end)
            inputs[row, :length] = self.ids[whole][:-1]
            targets[row, :length] = self.ids[whole][1:]
            learned[row, :length] = self.learned[whole][1:]
        return ConversationBatch(inputs=inputs, targets=targets, learned=learned)


class Order:
    """Conversations without end: epoch after epoch, each shuffled by (seed, epoch); resumable."""

    def __init__(self, conversations: Conversations, numbers: Sequence[int], *, seed: int) -> None:
        self.numbers, self.seed = np.array(numbers), seed
        self.lengths = conversations.lengths[self.numbers]
        self.key = conversations.key
        self.epoch, self.place = 0, 0
        self._shuffled = self._shuffle()

    @property
    def tokens_per_epoch(self) -> int:
        return int(self.lengths.sum())

    def take(self, tokens: int, *, last: bool = False) -> list[int]:
        """The next conversations: as many as come nearest to `tokens` inputs, or, at last, reach them."""
        taken: list[int] = []
        total = 0
        while True:
            index = self._shuffled[self.place]
            length = int(self.lengths[index])
            if taken and not last and total + length / 2 > tokens:
                return taken
            taken.append(int(self.numbers[index]))
            total += length
            self.place += 1
            if self.place == len(self.numbers):
                self.epoch, self.place = self.epoch + 1, 0
                self._shuffled = self._shuffle()
            if total >= tokens:
                return taken

    def state(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "place": self.place, "seed": self.seed, "data": self.key}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Continue where `state()` was taken; DataError if the conversations or the seed are others now."""
        if (state["seed"], state["data"]) != (self.seed, self.key):
            raise DataError(
                "the conversations, their template or the seed changed since the run was saved; "
                "put the files back as they were, or start anew in another --out"
            )
        self.epoch, self.place = int(state["epoch"]), int(state["place"])
        self._shuffled = self._shuffle()

    def _shuffle(self) -> NDArray[np.int64]:
        """A random order; many conversations stay in runs of similar length, for one micro-batch a step."""
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(len(self.numbers))
        if len(order) < WINDOW:
            return order
        runs: list[NDArray[np.int64]] = []
        for window in np.array_split(order, len(order) // WINDOW):
            by_length = window[np.argsort(self.lengths[window], kind="stable")]
            runs += np.array_split(by_length, len(by_length) // RUN)
        return np.concatenate([runs[i] for i in rng.permutation(len(runs))])


def load_conversations(
    files: Sequence[Path],
    tokenizer: Tokenizer,
    template: Template,
    *,
    seq_len: int,
    learn: Learn = "assistant",
) -> Conversations:
    """Read and encode jsonl files of `{"messages": [...], "tools"?: [...]}`; other keys are left alone.

    Conversations of more than `seq_len` ids are left out and counted in the manifest. Raises DataError naming
    file, line and reason for everything that is not a conversation, and when none is left.
    """
    store = _Store()
    entries = [_read_file(path, store, tokenizer, template, seq_len, learn) for path in files]
    if not store.ends:
        long = sum(entry["too_long"] for entry in entries)
        raise DataError(
            f"no conversation to learn from in {', '.join(str(path) for path in files)}"
            + (f": all {long} have more than seq_len = {seq_len} tokens" if long else "")
        )
    return Conversations(
        ids=np.concatenate(store.ids),
        learned=np.concatenate(store.learned),
        ends=np.array(store.ends, dtype=np.int64),
        text_bytes=np.array(store.text_bytes, dtype=np.int64),
        digests=np.array(store.digests, dtype=np.uint64),
        manifest={"files": entries, "template": template.name, "learn": learn, "seq_len": seq_len},
        turn_ends=tuple(sorted(store.turn_ends)),
    )


@dataclass
class _Store:
    """What `load_conversations` gathers."""

    ids: list[NDArray[np.int32]] = field(default_factory=list)
    learned: list[NDArray[np.bool_]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    text_bytes: list[int] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)
    turn_ends: set[int] = field(default_factory=set)

    def add(self, ids: list[int], learned: list[bool], text_bytes: int) -> None:
        self.ids.append(np.array(ids, dtype=np.int32))
        self.learned.append(np.array(learned, dtype=np.bool_))
        self.ends.append((self.ends[-1] if self.ends else 0) + len(ids))
        self.text_bytes.append(text_bytes)
        digest = hashlib.sha256(self.ids[-1].tobytes()).digest()
        self.digests.append(int.from_bytes(digest[:8], "little"))


def _read_file(
    path: Path, store: _Store, tokenizer: Tokenizer, template: Template, seq_len: int, learn: Learn
) -> dict[str, Any]:
    """Add a file's conversations to `store`; its line in the manifest."""
    entry = dict.fromkeys(("conversations", "too_long", "tokens", "learned_tokens"), 0)
    digest, size = hashlib.sha256(), 0
    specials = frozenset(tokenizer.specials.values())
    lines = enumerate(_lines(path), start=1)
    while part := list(islice(lines, AT_ONCE)):
        for _, line in part:
            digest.update(line)
            size += len(line)
        for pieces, coded, mask in _encoded(path, part, tokenizer, template, learn):
            if len(coded.ids) > seq_len:
                entry["too_long"] += 1
                continue
            store.turn_ends |= _turn_ends(coded.ids, coded.loss_mask, specials)
            store.add(coded.ids, mask, _text_bytes(pieces, learn))
            entry["conversations"] += 1
            entry["tokens"] += len(coded.ids) - 1
            entry["learned_tokens"] += sum(mask[1:])
    return {"path": path.name, "bytes": size, "sha256": digest.hexdigest(), **entry}


def _encoded(
    path: Path,
    lines: Sequence[tuple[int, bytes]],
    tokenizer: Tokenizer,
    template: Template,
    learn: Learn,
) -> Iterator[tuple[list[Piece], ChatIds, list[bool]]]:
    """The conversation in each numbered line that is not empty, as pieces, as ids, and what is learned."""
    number = 0
    rendered: list[tuple[int, list[Piece]]] = []
    try:
        for number, line in lines:
            if line.strip():
                messages, tools = _conversation(line)
                rendered.append((number, template.render(messages, tools=tools)))
                check_text("".join(piece.text for piece in rendered[-1][1]))
        encoded = encode_many([pieces for _, pieces in rendered], tokenizer)
        for (number, pieces), coded in zip(rendered, encoded, strict=True):  # noqa: B007 (named in errors)
            mask = [learn == "all" or is_learned for is_learned in coded.loss_mask]
            if not any(mask[1:]):
                raise ValueError("it has no turn of the assistant to learn from")
            yield pieces, coded, mask
    except (TokenizerError, ValueError) as error:
        raise DataError(f"{path} line {number}: {error}") from None


def _lines(path: Path) -> Iterator[bytes]:
    if not path.is_file():  # a pipe would be waited for for ever
        raise DataError(f"there is no file {path}; data takes jsonl files of conversations")
    try:
        with path.open("rb") as file:
            number = 0
            while line := file.readline(LINE_BYTES + 1):
                number += 1
                if len(line) > LINE_BYTES:
                    raise DataError(f"{path} line {number}: it is longer than {LINE_BYTES:,} bytes")
                yield line
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from None


def _conversation(line: bytes) -> tuple[list[Any], list[Any] | None]:
    """Messages and tools of a line; ValueError with the reason when it has none."""
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    messages = value.get("messages") if isinstance(value, dict) else None
    if not isinstance(messages, list):
        raise ValueError('it is not an object with "messages", a list')
    tools = value.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, dict) for tool in tools)):
        raise ValueError('its "tools" is not a list of objects')
    return messages, tools


def _text_bytes(pieces: Sequence[Piece], learn: Learn) -> int:
    return sum(
        len(piece.text.encode())
        for piece in pieces
        if not piece.special and (piece.in_loss or learn == "all")
    )


def _turn_ends(ids: list[int], mask: list[bool], specials: frozenset[int]) -> set[int]:
    """Special tokens that are the last one of a turn of the assistant."""
    stops = zip(ids, mask, [*mask[1:], False], strict=True)
    return {token for token, inside, goes_on in stops if inside and not goes_on and token in specials}
