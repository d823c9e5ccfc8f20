"""Jinja chat templates: rendered in a child process, message texts escaped, the loss mask derived."""

import json
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Any

from shoestring.errors import TokenizerError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.escape import Escaper
from shoestring.tokenizer.chat.messages import Message, check_messages
from shoestring.tokenizer.chat.process import TemplateProcess
from shoestring.tokenizer.chat.template import Piece, merge_pieces, prefix_break
from shoestring.tokenizer.special import any_of

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class JinjaTemplate:
    """Template in Hugging Face's Jinja dialect, for the special tokens of one tokenizer.

    It is rendered in a child process with limits (1 s, 1 MiB). The conversation's strings are escaped before,
    so every character of a special token in the result is the template's own. One exception: thinking tags
    in an *assistant* message stay special. Numbers are printed as they are.

    The loss covers `{% generation %}` blocks. In a template without them, it covers what each complete
    assistant turn adds to the prompt before it, up to its last special token; TokenizerError when the
    template is not prefix-preserving, because then the turn cannot be separated from its prompt.
    """

    def __init__(
        self, source: str, tokenizer: Tokenizer, *, name: str = "the chat template", time_limit_s: float = 1.0
    ):
        self.name = name
        self.marks_generation = bool(GENERATION.search(source))
        self._process = TemplateProcess(source, time_limit_s=time_limit_s)
        self._specials, self._find_special = tokenizer.specials.keys(), tokenizer.special_pattern
        self.source = source
        self._roles = dict(tokenizer.roles)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Message] | None = None,
        thinking: bool | None = None,
        variables: Mapping[str, Any] | None = None,
        with_loss: bool = True,
    ) -> list[Piece]:
        """Render as in `Template.render`; the template sees `thinking` also as `enable_thinking`."""
        switches = {} if thinking is None else {"thinking": thinking, "enable_thinking": thinking}
        rest = [tools or None, {**switches, **(variables or {})}]
        checked = check_messages(messages)
        parsed = [_parsed(message) for message in checked]
        try:
            return _Session(self, [parsed, *rest]).render(add_generation_prompt, with_loss)
        except TokenizerError:
            # A template may need arguments as text alone, or an object although they are empty.
            for others in (checked, [_parsed(message, empty="{}") for message in checked]):
                if others != parsed:
                    with suppress(TokenizerError):
                        return _Session(self, [others, *rest]).render(add_generation_prompt, with_loss)
            raise

    def close(self) -> None:
        """End the child process, which also ends with this object."""
        self._process.close()

    def variables(
        self, messages: list[Any], tools: Any, more: dict[str, Any], prompt: bool
    ) -> dict[str, Any]:
        """Variables of the template, with the names that transformers uses."""
        return {
            **self._roles,
            "documents": None,
            **more,
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": prompt,
        }


Span = tuple[int, int]


class _Session:
    """One conversation in one template: its escaped inputs, and the texts that they render to."""

    def __init__(self, template: JinjaTemplate, inputs: list[Any]) -> None:
        """Escape messages, tools and variables."""
        self.template = template
        self.escaper = Escaper(template._specials, [template.source, inputs])
        messages, tools, variables = inputs
        self.messages = [self.escaper.escape_message(message) for message in messages]
        self.roles = [message["role"] for message in messages]
        self.tools = self.escaper.escape(tools)
        self.more = {name: self.escaper.escape(value) for name, value in variables.items()}
        spelling = template._find_special.pattern
        self.find_special = re.compile(f"{spelling}|{any_of(self.escaper.tags)}")

    def render(self, add_generation_prompt: bool, with_loss: bool) -> list[Piece]:
        """Pieces of the whole conversation."""
        if with_loss and not self.template.marks_generation:
            text, spans = self.derive_spans(add_generation_prompt=add_generation_prompt)
        else:
            text, spans = self.text(len(self.messages), add_generation_prompt)
        return self.pieces(text, spans if with_loss else [])

    def text(self, count: int, prompt: bool) -> tuple[str, list[Span]]:
        """Render the first `count` messages: the text, still escaped, and its spans of `{% generation %}`."""
        variables = self.template.variables(self.messages[:count], self.tools, self.more, prompt)
        marks = self.escaper.generation_marks
        text_with_marks = self.template._process.render(
            variables, generation_marks=marks, stand_ins=self.escaper.stand_ins
        )
        parts = re.split(f"([{re.escape(marks)}])", text_with_marks)
        text, spans, start = "", [], 0
        for part in parts:
            if part == marks[0]:
                start = len(text)
            elif part == marks[1]:
                spans.append((start, len(text)))
            else:
                text += part
        return text, spans

    def derive_spans(self, *, add_generation_prompt: bool) -> tuple[str, list[Span]]:
        """Render all messages: the text, and for each assistant turn the span that it adds to its prompt."""
        full = self.text(len(self.messages), add_generation_prompt)[0]
        spans = []
        for number, role in enumerate(self.roles):
            if role == "assistant":
                before = self.text(number, True)[0] if number else ""
                after = self.text(number + 1, False)[0]
                self._require_prefix(
                    before, after, f"its prompt before message {number} and the complete turn"
                )
                self._require_prefix(
                    after, full, f"message {number} alone and within the longer conversation"
                )
                spans.append((len(before), self._end_of_turn(full, len(before), len(after))))
        return full, spans

    def _require_prefix(self, earlier: str, later: str, place: str) -> None:
        if difference := prefix_break(self.escaper.unescape(earlier), self.escaper.unescape(later)):
            name = self.template.name
            raise TokenizerError(
                f"{name} is not prefix-preserving and cannot be used for training: in {place}, {difference}"
            )

    def _end_of_turn(self, text: str, start: int, end: int) -> int:
        """End of a turn without white space after its end token, which the model does not write."""
        last = start
        for match in self.find_special.finditer(text, start, end):
            last = match.end()
        return last if last > start and not text[last:end].strip() else end

    def pieces(self, text: str, spans: Collection[Span]) -> list[Piece]:
        """Cut the escaped text at special tokens and at the borders of the loss, and unescape each part."""
        edges = sorted({0, len(text), *(edge for span in spans for edge in span)})
        pieces = []
        for start, end in pairwise(edges):
            in_loss = any(a <= start and end <= b for a, b in spans)
            position = start
            for match in self.find_special.finditer(text, start, end):
                pieces.append(
                    Piece(text=self.escaper.unescape(text[position : match.start()]), in_loss=in_loss)
                )
                special = self.escaper.unescape(match.group())
                pieces.append(Piece(text=special, special=True, in_loss=in_loss))
                position = match.end()
            pieces.append(Piece(text=self.escaper.unescape(text[position:end]), in_loss=in_loss))
        return merge_pieces(pieces)


def _parsed(message: dict[str, Any], *, empty: str = "") -> dict[str, Any]:
    """The message with the arguments of its tool calls as [object, text or None] for the child.

    Arguments that are not the JSON text of an object stay text.
    """
    if "tool_calls" not in message:
        return message
    calls = []
    for call in message["tool_calls"]:
        arguments = call["function"]["arguments"]
        fields = _object(arguments or empty) if isinstance(arguments, str) else dict(arguments)
        pair = arguments if fields is None else [fields, arguments if isinstance(arguments, str) else None]
        calls.append({**call, "function": {**call["function"], "arguments": pair}})
    return {**message, "tool_calls": calls}


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
