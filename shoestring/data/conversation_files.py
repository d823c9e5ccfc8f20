"""Conversations from jsonl files: read, rendered by the chat template, and encoded; none is ever cut."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from shoestring.data.conversations import Conversations
from shoestring.errors import DataError, TokenizerError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import ChatIds, Piece, Template, encode_many
from shoestring.tokenizer.definition import check_text

LINE_BYTES = 16 << 20
AT_ONCE = 256
"""Lines that are encoded together."""

Learn = Literal["assistant", "all"]


def load_conversations(
    files: Sequence[Path],
    tokenizer: Tokenizer,
    template: Template,
    *,
    seq_len: int,
    learn: Learn = "assistant",
) -> Conversations:
    """Read and encode jsonl files of `{"messages": [...], "tools"?: [...]}`; other keys are ignored.

    Conversations of more than `seq_len` ids are left out and counted in the manifest. Raises DataError naming
    file, line and reason for everything that is not a conversation, and if no conversation is left.
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
        loss_mask=np.concatenate(store.loss_masks),
        ends=np.array(store.ends, dtype=np.int64),
        text_bytes=np.array(store.text_bytes, dtype=np.int64),
        digests=np.array(store.digests, dtype=np.uint64),
        manifest={"files": entries, "template": template.name, "learn": learn, "seq_len": seq_len},
        turn_ends=tuple(sorted(store.turn_ends)),
    )


@dataclass
class _Store:
    """Conversations gathered by `load_conversations`."""

    ids: list[NDArray[np.int32]] = field(default_factory=list)
    loss_masks: list[NDArray[np.bool_]] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    text_bytes: list[int] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)
    turn_ends: set[int] = field(default_factory=set)

    def add(self, ids: list[int], loss_mask: list[bool], text_bytes: int) -> None:
        self.ids.append(np.array(ids, dtype=np.int32))
        self.loss_masks.append(np.array(loss_mask, dtype=np.bool_))
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
        for pieces, chat_ids, mask in _encode_lines(path, part, tokenizer, template, learn):
            if len(chat_ids.ids) > seq_len:
                entry["too_long"] += 1
                continue
            store.turn_ends |= _turn_ends(chat_ids.ids, chat_ids.loss_mask, specials)
            store.add(chat_ids.ids, mask, _text_bytes(pieces, learn))
            entry["conversations"] += 1
            entry["tokens"] += len(chat_ids.ids) - 1
            entry["learned_tokens"] += sum(mask[1:])
    return {"path": path.name, "bytes": size, "sha256": digest.hexdigest(), **entry}


def _encode_lines(
    path: Path,
    lines: Sequence[tuple[int, bytes]],
    tokenizer: Tokenizer,
    template: Template,
    learn: Learn,
) -> Iterator[tuple[list[Piece], ChatIds, list[bool]]]:
    """Pieces, ids and loss mask of the conversation in each numbered line that is not empty."""
    number = 0
    conversations: list[tuple[int, list[Piece]]] = []
    try:
        for number, line in lines:
            if line.strip():
                messages, tools = _conversation(line)
                conversations.append((number, template.render(messages, tools=tools)))
                check_text("".join(piece.text for piece in conversations[-1][1]))
        ids_of_all = encode_many([pieces for _, pieces in conversations], tokenizer)
        for (number, pieces), chat_ids in zip(conversations, ids_of_all, strict=True):  # noqa: B007 (named in errors)
            mask = [learn == "all" or is_learned for is_learned in chat_ids.loss_mask]
            if not any(mask[1:]):
                raise ValueError("it has no turn of the assistant to learn from")
            yield pieces, chat_ids, mask
    except (TokenizerError, ValueError) as error:
        raise DataError(f"{path} line {number}: {error}") from None


def _lines(path: Path) -> Iterator[bytes]:
    if not path.is_file():  # reading a pipe could wait forever
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
    """Messages and tools of a line; ValueError with the reason if it has none."""
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
