"""Special tokens, with the spelling of DeepSeek-V3 and R1.

The bars are U+FF5C and the spaces U+2581, so that nobody types them by accident. Source: the published
tokenizers of DeepSeek-V3 and DeepSeek-R1, whose checkpoints and templates use the same strings.
"""

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
