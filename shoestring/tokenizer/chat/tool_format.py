"""Formats of tool calls in a reply: the tokens and texts around a call's name and its arguments."""

from dataclasses import dataclass

from shoestring.tokenizer import special as sp
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.deepseek import DeepSeekTemplate
from shoestring.tokenizer.chat.jinja import JinjaTemplate
from shoestring.tokenizer.chat.template import Template


@dataclass(frozen=True, kw_only=True)
class ToolFormat:
    """Texts of a model's tool calls: `begin`, one or more calls with `separator` between them, `end`.

    A call is `call_begin before_name NAME before_arguments ARGUMENTS after_arguments call_end`. Every token
    in them is spelled out; `call_begin` and `call_end` are one token each.
    """

    begin: str = ""
    call_begin: str
    before_name: str = ""
    before_arguments: str
    after_arguments: str = ""
    call_end: str
    separator: str = ""
    end: str = ""

    @property
    def marks(self) -> tuple[str, ...]:
        """Spellings of the tokens that begin and end calls."""
        return tuple(mark for mark in (self.begin, self.call_begin, self.call_end, self.end) if mark)

    def fits(self, tokenizer: Tokenizer) -> bool:
        """Return whether the tokenizer has a token for each mark, so that no text can be taken for one."""
        return all(mark in tokenizer.added_tokens for mark in self.marks)


DEEPSEEK_V3 = ToolFormat(
    begin=sp.TOOL_CALLS,
    call_begin=sp.TOOL_CALL,
    before_name=f"function{sp.TOOL_SEP}",
    before_arguments="\n```json\n",
    after_arguments="\n```",
    call_end=sp.TOOL_CALL_END,
    separator="\n",
    end=sp.TOOL_CALLS_END,
)
"""DeepSeek-V3, R1 and the models of this package."""
DEEPSEEK_V3_1 = ToolFormat(
    begin=sp.TOOL_CALLS,
    call_begin=sp.TOOL_CALL,
    before_arguments=sp.TOOL_SEP,
    call_end=sp.TOOL_CALL_END,
    end=sp.TOOL_CALLS_END,
)
"""DeepSeek-V3.1."""
HERMES = ToolFormat(
    call_begin="<tool_call>",
    before_name='\n{"name": "',
    before_arguments='", "arguments": ',
    after_arguments="}\n",
    call_end="</tool_call>",
    separator="\n",
)
"""Qwen2.5 and Qwen3, after Nous Research's Hermes."""
TOOL_FORMATS = {"deepseek_v3": DEEPSEEK_V3, "deepseek_v3_1": DEEPSEEK_V3_1, "hermes": HERMES}


def tool_format_name(template: Template, tokenizer: Tokenizer) -> str | None:
    """The format in which a template writes tool calls; None for a model that cannot make any."""
    if isinstance(template, DeepSeekTemplate):
        name = "deepseek_v3"
    elif not isinstance(template, JinjaTemplate):
        return None
    elif sp.TOOL_SEP in template.source:
        name = "deepseek_v3" if "```json" in template.source else "deepseek_v3_1"
    elif HERMES.call_begin in template.source:
        name = "hermes"
    else:
        return None
    return name if TOOL_FORMATS[name].fits(tokenizer) else None


def tool_marks(tokenizer: Tokenizer) -> dict[str, int]:
    """Ids of the marks of all formats by spelling: tokens that constrained text must not contain."""
    marks = {mark for each in TOOL_FORMATS.values() for mark in each.marks}
    return {mark: tokenizer.added_tokens[mark] for mark in sorted(marks) if mark in tokenizer.added_tokens}
