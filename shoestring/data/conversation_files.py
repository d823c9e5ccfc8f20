"""Conversations of files and data sets, encoded: counts of what is used, left out and not known."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shoestring.data.conversation_store import ConversationStore
from shoestring.data.conversations import Conversations
from shoestring.data.encoding import BadRows, EncodedRow, Encoding, encode_file
from shoestring.data.folder import sha256_of
from shoestring.data.forms.rendering import Learn, Thinking
from shoestring.data.left_out import warn_of_left_out
from shoestring.data.mixture import DataSource, sources
from shoestring.errors import DataError
from shoestring.rows.source import DataFile, data_files
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import Template
from shoestring.tokenizer.overlong import Overlong

log = logging.getLogger(__name__)


def load_conversations(
    data: Sequence[str | Path | DataSource],
    tokenizer: Tokenizer,
    template: Template,
    *,
    seq_len: int,
    learn: Learn = "assistant",
    thinking: Thinking = "template",
    overlong: Overlong = "filter",
    bad_rows: BadRows = "error",
) -> Conversations:
    """Read and encode all conversations of the sources, in any form that `forms.conversation` knows.

    Those of more than `seq_len` ids are left out and counted in the manifest, shortened, or an error. Raises
    DataError naming file, line and reason for everything that is not a conversation, for a part that the
    template does not write, and if no conversation is left.
    """
    encoding = Encoding(
        tokenizer=tokenizer,
        template=template,
        seq_len=seq_len,
        learn=learn,
        thinking=thinking,
        overlong=overlong,
        bad_rows=bad_rows,
    )
    mixture = sources(data)
    store = ConversationStore(frozenset(tokenizer.specials.values()))
    tally = Tally()
    entries = []
    for number, source in enumerate(mixture):
        store.source = number
        for file in data_files(source.path):
            entries.append(_add_file(file, source, store, encoding, tally))
    if not store.ends:
        raise DataError(tally.nothing(", ".join(source.path for source in mixture), seq_len))
    warn_of_left_out(tally.counts, seq_len=seq_len, longest=tally.longest)
    manifest = {"files": entries, "template": template.name, "learn": learn, "seq_len": seq_len}
    return store.conversations(manifest, weights=tuple(source.weight for source in mixture))


@dataclass
class Tally:
    """Counts over all files of a run."""

    counts: Counter[str] = field(default_factory=Counter)
    longest: int = 0
    """Tokens of the longest conversation."""
    first_problem: str = ""

    def add(self, item: EncodedRow) -> None:
        self.counts[item.left_out or "used"] += 1
        self.counts["shortened"] += not item.left_out and item.full_length > len(item.ids)
        self.longest = max(self.longest, item.full_length)
        if item.problem and not self.first_problem:
            self.first_problem = f"{item.place}: {item.problem}"

    def nothing(self, names: str, seq_len: int) -> str:
        """A sentence for sources that leave nothing to learn from."""
        sentence = f"no conversation to learn from in {names}"
        if long := self.counts["too_long"]:
            sentence += (
                f": all {long} have more than seq_len = {seq_len} tokens; --set seq_len={self.longest}"
            )
        elif self.counts["unlearned"]:
            sentence += ": all are marked not to be learned, by weight 0 or train false"
        elif self.first_problem:
            sentence += f": {self.first_problem}"
        return sentence


def _add_file(
    file: DataFile, source: DataSource, store: ConversationStore, encoding: Encoding, tally: Tally
) -> dict[str, Any]:
    """Add a file's conversations to `store`; its line in the manifest."""
    names = ("conversations", "too_long", "shortened", "unlearned", "bad_rows", "unlearned_turns")
    entry = dict.fromkeys((*names, "tokens", "learned_tokens"), 0)
    remarks: Counter[str] = Counter()
    for item in encode_file(file.path, source.columns, encoding):
        tally.add(item)
        remarks.update(item.remarks)
        entry["unlearned_turns"] += item.unlearned_turns
        if item.left_out:
            entry[item.left_out] += 1
            continue
        store.add(item.ids, item.loss_mask, item.text_bytes)
        entry["conversations"] += 1
        entry["shortened"] += item.full_length > len(item.ids)
        entry["tokens"] += len(item.ids) - 1
        entry["learned_tokens"] += sum(item.loss_mask[1:])
    for remark, count in remarks.items():
        log.warning("%s: %s (%s)", file.name, remark, "1 row" if count == 1 else f"{count:,} rows")
    size, digest = file.path.stat().st_size, sha256_of(file.path)
    return {"path": file.name, "bytes": size, "sha256": digest, "weight": source.weight, **entry}
