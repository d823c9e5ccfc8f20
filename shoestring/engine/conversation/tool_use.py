"""The tools of a task in a model's own chat template: definitions, calls read, results written as tokens."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shoestring.engine.request import CompletionOutput
from shoestring.errors import ConfigError
from shoestring.tasks.task import Task
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.functions import tool_definitions
from shoestring.tokenizer.chat.reply import ReplyReader, ToolPiece
from shoestring.tokenizer.chat.template import Template, encode_pieces
from shoestring.tokenizer.chat.tool_format import TOOL_FORMATS, ToolFormat, tool_format_name
from shoestring.tokenizer.thinking import ends_in_thinking


@dataclass(frozen=True, kw_only=True)
class ToolUse:
    """The tools of a task, and the way in which a model's chat template writes calls and results."""

    task: str
    """The name that the verifier has the task under."""
    max_turns: int
    definitions: Sequence[Mapping[str, Any]]
    tokenizer: Tokenizer
    template: Template
    form: ToolFormat
    thinking: bool

    def read(self, prompt_ids: Sequence[int], completion: CompletionOutput) -> dict[str, Any]:
        """A turn of the model as a message; calls that it does not finish are none."""
        thinking = ends_in_thinking(prompt_ids, self.tokenizer)
        reader = ReplyReader(self.tokenizer, thinking=thinking, tool_format=self.form)
        pieces = [*reader.push(completion.token_ids, completion.text), *reader.finish()]
        texts, calls = {"thinking": "", "answer": ""}, dict[int, dict[str, str]]()
        for piece in pieces:
            if isinstance(piece, ToolPiece):
                call = calls.setdefault(piece.index, {"name": "", "arguments": ""})
                call["name"] += piece.name
                call["arguments"] += piece.arguments
            else:
                texts[piece.kind] += piece.text
        message: dict[str, Any] = {"role": "assistant", "content": texts["answer"]}
        if texts["thinking"]:
            message["reasoning_content"] = texts["thinking"]
        if calls and completion.finish_reason == "stop":
            message["tool_calls"] = [{"type": "function", "function": call} for call in calls.values()]
        return message

    def result_ids(self, results: Sequence[Mapping[str, Any]]) -> list[int]:
        """The tokens of the results after a turn with calls, up to where the next turn begins."""
        calls = [
            {"id": each["tool_call_id"], "function": {"name": each["name"], "arguments": "{}"}}
            for each in results
        ]
        messages: list[Mapping[str, Any]] = [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": "", "tool_calls": calls},
            *results,
        ]
        pieces = self.template.render(
            messages, add_generation_prompt=True, tools=self.definitions, thinking=self.thinking
        )
        chat = encode_pieces(pieces, self.tokenizer)
        end = max(place for place, in_loss in enumerate(chat.loss_mask) if in_loss)
        return chat.ids[end + 1 :]


def tool_use(
    name: str, task: Task, tokenizer: Tokenizer, template: Template | None, *, thinking: bool
) -> ToolUse | None:
    """The use of a task's tools by a model; None for a task without tools.

    Raises ConfigError for a model whose chat template has no tool calls, TokenizerError for a template that
    cannot be used for training.
    """
    if not task.tools:
        return None
    form = None if template is None else tool_format_name(template, tokenizer)
    if template is None or form is None:
        raise ConfigError(
            f"the task {name} has tools, and this model's chat template has no calls of tools that can be "
            f"read; take a model whose template writes them as {', '.join(TOOL_FORMATS)}"
        )
    use = ToolUse(
        task=name,
        max_turns=task.max_turns,
        definitions=tool_definitions(list(task.tools)) or (),
        tokenizer=tokenizer,
        template=template,
        form=TOOL_FORMATS[form],
        thinking=thinking,
    )
    use.result_ids([{"role": "tool", "tool_call_id": "0", "name": "tool", "content": "?"}])
    return use
