"""Anyone's Jinja chat template: rendered apart, message text disarmed, the loss derived."""

import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import Any

from shoestring.errors import TokenizerError
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.messages import Message, check_messages
from shoestring.tokenizer.chat.process import TemplateWorker
from shoestring.tokenizer.chat.shield import Shield, Spellings, any_of
from shoestring.tokenizer.chat.template import Piece, merge_pieces, prefix_break
from shoestring.tokenizer.special import THINK_TAGS

GENERATION = re.compile(r"\{%-?\s*generation\s*-?%\}")


class JinjaTemplate:
    """A template in Hugging Face's dialect, for the special tokens of one tokenizer.

    Rendering happens in a killable child (1 s, 1 MiB). Before it, every string of the conversation is
    disarmed by a `Shield`, so a special token in the result was written by the template alone. One
    exception: the thinking tags in an *assistant* message stay, because templates split on them and
    they are that message's own markup.

    The loss is what stands in `{% generation %}` blocks. Without them each assistant turn is what the
    finished turn adds to the prompt before it, up to its last special token; TokenizerError when the
    template is not prefix-preserving, because then no such part exists.
    """

    def __init__(
        self, source: str, tokenizer: Tokenizer, *, name: str = "the chat template", time_limit_s: float = 1.0
    ):
        self.name = name
        self.marks_generation = bool(GENERATION.search(source))
        self._worker = TemplateWorker(source, time_limit_s=time_limit_s)
        self._find_special = re.compile(any_of(tokenizer.specials))
        self._spellings = Spellings(list(tokenizer.specials))
        self._but_thinking = Spellings([s for s in tokenizer.specials if s not in THINK_TAGS])
        self._source = source
        self._roles = dict(tokenizer.roles)

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = False,
        tools: Sequence[Message] | None = None,
        thinking: bool | None = None,
        with_loss: bool = True,
    ) -> list[Piece]:
        """See `Template.render`. `thinking` reaches the template as `thinking` and `enable_thinking`."""
        session = _Session(self, check_messages(messages), tools, thinking)
        if with_loss and not self.marks_generation:
            text, spans = session.derive_spans(add_generation_prompt=add_generation_prompt)
        else:
            text, spans = session.text(len(session.messages), add_generation_prompt)
        return session.pieces(text, spans if with_loss else [])

    def close(self) -> None:
        """End the child process; it also ends with this object."""
        self._worker.close()

    def variables(
        self, messages: list[Any], tools: Any, thinking: bool | None, prompt: bool
    ) -> dict[str, Any]:
        """What the template sees, as transformers passes it."""
        asked = {} if thinking is None else {"thinking": thinking, "enable_thinking": thinking}
        return {
            **self._roles,
            **asked,
            "messages": messages,
            "tools": tools,
            "documents": None,
            "add_generation_prompt": prompt,
        }


Span = tuple[int, int]


class _Session:
    """One conversation in one template: its disarmed form, and the texts it renders to."""

    def __init__(
        self, template: JinjaTemplate, messages: list[dict[str, Any]], tools: Any, thinking: bool | None
    ) -> None:
        self.template, self.thinking = template, thinking
        self.shield = Shield(template._spellings, template._but_thinking, [template._source, messages, tools])
        self.messages = [self.shield.message(message) for message in messages]
        self.tools = None if not tools else [self.shield.value(tool) for tool in tools]

    def text(self, count: int, prompt: bool) -> tuple[str, list[Span]]:
        """The first `count` messages rendered, still disarmed, and the spans of `{% generation %}` in it."""
        variables = self.template.variables(self.messages[:count], self.tools, self.thinking, prompt)
        marks = self.shield.generation_marks
        marked = self.template._worker.render(
            variables, generation_marks=marks, stand_ins=self.shield.stand_ins
        )
        parts = re.split(f"([{re.escape(marks)}])", marked)
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
        """The whole text and each assistant turn's span: what the turn adds to its prompt."""
        full = self.text(len(self.messages), add_generation_prompt)[0]
        spans = []
        for number, message in enumerate(self.messages):
            if message["role"] == "assistant":
                before = self.text(number, True)[0] if number else ""
                after = self.text(number + 1, False)[0]
                self._require_prefix(
                    before, after, f"its prompt before message {number} and the finished turn"
                )
                self._require_prefix(
                    after, full, f"message {number} alone and within the longer conversation"
                )
                spans.append((len(before), self._end_of_turn(full, len(before), len(after))))
        return full, spans

    def _require_prefix(self, earlier: str, later: str, what: str) -> None:
        if broken := prefix_break(self.shield.restore(earlier), self.shield.restore(later)):
            name = self.template.name
            raise TokenizerError(f"{name} is not prefix-preserving, so it cannot train: in {what}, {broken}")

    def _end_of_turn(self, text: str, start: int, end: int) -> int:
        """A line break that the template puts after the end token is not the model's to say."""
        last = start
        for found in self.template._find_special.finditer(text, start, end):
            last = found.end()
        return last if last > start and not text[last:end].strip() else end

    def pieces(self, text: str, spans: Collection[Span]) -> list[Piece]:
        """Cut the disarmed text at special tokens and at the borders of the loss, then restore it."""
        edges = sorted({0, len(text), *(edge for span in spans for edge in span)})
        pieces = []
        for start, end in pairwise(edges):
            in_loss = any(a <= start and end <= b for a, b in spans)
            position = start
            for found in self.template._find_special.finditer(text, start, end):
                pieces.append(
                    Piece(text=self.shield.restore(text[position : found.start()]), in_loss=in_loss)
                )
                pieces.append(Piece(text=found.group(), special=True, in_loss=in_loss))
                position = found.end()
            pieces.append(Piece(text=self.shield.restore(text[position:end]), in_loss=in_loss))
        return merge_pieces(pieces)
