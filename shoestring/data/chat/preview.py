"""Preview of the conversations of a recipe: the first ones token by token, and counts of all of them."""

from dataclasses import dataclass, field, replace
from typing import Any

from shoestring.data.chat.encoding import EncodedRow, encode_file
from shoestring.data.chat.left_out import left_out_sentence
from shoestring.data.chat.mixture import sources
from shoestring.data.chat.recipe import ConversationConfig
from shoestring.data.chat.tally import FileTally, Tally
from shoestring.rows.source import data_files
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.template import Template

MOST_PROBLEMS = 5


@dataclass(kw_only=True)
class Preview:
    """The rows to show, and figures of all rows."""

    rows: list[EncodedRow] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """The first rows that hold no conversation, each with its place and reason."""
    files: list[dict[str, Any]] = field(default_factory=list)
    """Counts of each file, by the names in a run's manifest."""
    remarks: list[str] = field(default_factory=list)
    """Sentences about columns and keys that are not used, and about what is left out."""


def preview(config: ConversationConfig, tokenizer: Tokenizer, template: Template, *, limit: int) -> Preview:
    """Read all conversations as training would, keeping the first `limit` rows.

    A row without a conversation is counted here and never ends the command. Raises DataError as training
    does for a part that the template does not write, and for a source that is not there.
    """
    encoding = replace(
        config.encoding(tokenizer, template),
        bad_rows="filter",
        overlong="filter" if config.overlong == "error" else config.overlong,
    )
    result, tally = Preview(), Tally()
    for source in sources(config.data, config.columns):
        for file in data_files(source.path):
            of_file = FileTally(file, source)
            for item in encode_file(file, source.columns, encoding):
                tally.add(item)
                of_file.add(item)
                if len(result.rows) < limit:
                    result.rows.append(item)
                if item.problem and len(result.problems) < MOST_PROBLEMS:
                    result.problems.append(f"{item.place}: {item.problem}")
            result.files.append({"path": file.name, "weight": source.weight, **of_file.counts})
            result.remarks += of_file.remarks
    if sentence := left_out_sentence(tally.counts, seq_len=config.seq_len, longest=tally.longest):
        result.remarks.append(sentence)
    return result
