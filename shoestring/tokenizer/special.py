"""Special tokens: DeepSeek's spellings, and a pattern that finds those of any tokenizer.

The bars are U+FF5C and the spaces U+2581, so that nobody types them by accident. Source: the published
tokenizers of DeepSeek-V3 and DeepSeek-R1, whose checkpoints and templates use the same strings.
"""

import re
from collections.abc import Collection

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
THINK = "<think>"
THINK_END = "</think>"
FIM_BEGIN = "<｜fim▁begin｜>"
FIM_HOLE = "<｜fim▁hole｜>"
FIM_END = "<｜fim▁end｜>"
TOOL_CALLS = "<｜tool▁calls▁begin｜>"
TOOL_CALLS_END = "<｜tool▁calls▁end｜>"
TOOL_CALL = "<｜tool▁call▁begin｜>"
TOOL_CALL_END = "<｜tool▁call▁end｜>"
TOOL_SEP = "<｜tool▁sep｜>"
TOOL_OUTPUTS = "<｜tool▁outputs▁begin｜>"
TOOL_OUTPUTS_END = "<｜tool▁outputs▁end｜>"
TOOL_OUTPUT = "<｜tool▁output▁begin｜>"
TOOL_OUTPUT_END = "<｜tool▁output▁end｜>"

THINK_TAGS = (THINK, THINK_END)
MARKS = ("<｜", "<|")
"""Beginnings of spellings that only templates write."""

# Ids are in this order: begin, end and pad are 0, 1 and 2, as in DeepSeek-V3.
SPECIAL_TOKENS = (
    BOS,
    EOS,
    PAD,
    USER,
    ASSISTANT,
    *THINK_TAGS,
    FIM_BEGIN,
    FIM_HOLE,
    FIM_END,
    TOOL_CALLS,
    TOOL_CALLS_END,
    TOOL_CALL,
    TOOL_CALL_END,
    TOOL_SEP,
    TOOL_OUTPUTS,
    TOOL_OUTPUTS_END,
    TOOL_OUTPUT,
    TOOL_OUTPUT_END,
)


def any_of(words: Collection[str]) -> str:
    """Regular expression for the longest of `words` at a position, without backtracking."""
    rests: dict[str, list[str]] = {}
    for word in words:
        if word:
            rests.setdefault(word[0], []).append(word[1:])
    if not rests:
        return "(?!)"
    branches = []
    for first, tails in rests.items():
        length = next(
            (i for i, chars in enumerate(zip(*tails, strict=False)) if len(set(chars)) > 1),
            min(map(len, tails)),
        )
        after = [tail[length:] for tail in tails]
        more = any_of(after) if any(after) else ""
        branches.append(re.escape(first + tails[0][:length]) + more + ("?" if more and "" in after else ""))
    return f"(?:{'|'.join(branches)})"
