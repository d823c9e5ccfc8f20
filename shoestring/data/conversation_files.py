"""Conversations of files, folders and data sets, read in any form and encoded."""

import logging
from collections.abc import Sequence
from pathlib import Path

from shoestring.data.chat.encoding import BadRows, Encoding, encode_file
from shoestring.data.chat.left_out import warn_of_left_out
from shoestring.data.chat.mixture import DataSource, sources
from shoestring.data.chat.store import ConversationStore
from shoestring.data.chat.tally import FileTally, Tally
from shoestring.data.conversations import Conversations
from shoestring.data.forms.rendering import Learn, Thinking
from shoestring.errors import DataError
from shoestring.rows.source import data_files
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
    store, tally = ConversationStore(frozenset(tokenizer.specials.values())), Tally()
    entries = []
    for number, source in enumerate(mixture):
        for file in data_files(source.path):
            of_file = FileTally(file, source)
            for item in encode_file(file, source.columns, encoding):
                tally.add(item)
                of_file.add(item)
                if not item.left_out:
                    store.add(item.ids, item.loss_mask, item.text_bytes, number)
            for remark in of_file.remarks:
                log.warning("%s", remark)
            entries.append(of_file.manifest())
    if not store.ends:
        raise DataError(tally.nothing(", ".join(source.path for source in mixture), seq_len))
    warn_of_left_out(tally.counts, seq_len=seq_len, longest=tally.longest)
    manifest = {"files": entries, "template": template.name, "learn": learn, "seq_len": seq_len}
    return store.conversations(manifest, weights=tuple(source.weight for source in mixture))
