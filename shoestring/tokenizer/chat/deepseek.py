"""Chat template in the format of DeepSeek-V3 and R1, as a function and in Jinja."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoestring.durable import write_atomic
from shoestring.tokenizer import special as sp
from shoestring.tokenizer.chat.messages import Message, check_messages
from shoestring.tokenizer.chat.template import Piece
from shoestring.tokenizer.thinking import split_thinking

TEMPLATE_FILE = "chat_template.jinja"

TOOLS_HEADING = "## Tools\n\nYou can call these functions, each given as a JSON schema:\n"


@dataclass(frozen=True, kw_only=True)
class DeepSeekTemplate:
    """Conversation format `<bos>system<｜User｜>question<｜Assistant｜><think>thoughts</think>answer<eos>...`

    As in DeepSeek-V3 and R1, all system messages are joined and come first; tool outputs follow the
    calls, and the assistant continues after them without a new `<｜Assistant｜>`. Differences from DeepSeek's
    template: every round of tool outputs has its begin and end token (DeepSeek's lacks the begin token of the
    second round), tools are described in the system text (DeepSeek's ignores them), and `thinking=True` ends
    the prompt in `<think>` without a line break, so that each prompt is a prefix of the complete turn.

    `keep_thinking` keeps the thinking of every turn, so that a prompt is always a prefix of the longer
    conversation, as training needs. `keep_thinking=False` is R1's official behavior: the thinking of
    assistant turns before the last user message is removed (`content.split("</think>")[-1]`).
    """

    keep_thinking: bool = True

    @property
    def name(self) -> str:
        return "shoestring's DeepSeek template"

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
        """Render as `Template.render`; with `thinking` None or False the model decides whether to think."""
        messages = check_messages(messages)
        pieces = [_special(sp.BOS), Piece(text=_system_text(messages, tools))]
        turns = [message for message in messages if message["role"] != "system"]
        last_user = max((i for i, turn in enumerate(turns) if turn["role"] == "user"), default=-1)
        before = ""  # role of the turn before
        for number, turn in enumerate(turns):
            role = turn["role"]
            if before == "tool" and role != "tool":
                pieces.append(_special(sp.TOOL_OUTPUTS_END))
            if role == "user":
                pieces += [_special(sp.USER), Piece(text=turn["content"])]
            elif role == "tool":
                pieces += _tool_output(turn, first=before != "tool")
            else:
                pieces += [_special(sp.ASSISTANT)] if before != "tool" else []
                pieces += _assistant(turn, keep_thinking=self.keep_thinking or number > last_user)
            before = role
        if before == "tool":
            pieces.append(_special(sp.TOOL_OUTPUTS_END))
        if add_generation_prompt:
            pieces += [_special(sp.ASSISTANT)] if before != "tool" else []
            pieces += [_special(sp.THINK)] if thinking else []
        return pieces

    def save(self, folder: str | Path) -> None:
        """Write chat_template.jinja, which renders the same tokens in other engines."""
        keep = "true" if self.keep_thinking else "false"
        write_atomic(
            Path(folder) / TEMPLATE_FILE, JINJA.replace("keep_thinking = true", f"keep_thinking = {keep}")
        )


def _special(token: str, *, in_loss: bool = False) -> Piece:
    return Piece(text=token, special=True, in_loss=in_loss)


def _system_text(messages: Sequence[Message], tools: Sequence[Message] | None) -> str:
    parts = [message["content"] for message in messages if message["role"] == "system"]
    if tools:
        parts.append(TOOLS_HEADING + "".join("\n" + json.dumps(tool, ensure_ascii=False) for tool in tools))
    return "\n\n".join(parts)


def _tool_output(turn: Message, *, first: bool) -> Iterator[Piece]:
    yield _special(sp.TOOL_OUTPUTS) if first else Piece(text="\n")
    yield _special(sp.TOOL_OUTPUT)
    yield Piece(text=turn["content"])
    yield _special(sp.TOOL_OUTPUT_END)


def _assistant(turn: Message, *, keep_thinking: bool) -> Iterator[Piece]:
    """Pieces of an assistant turn, all in the loss: thinking, answer, tool calls, end token."""
    content = turn["content"] or ""
    reasoning = turn.get("reasoning_content")
    if not keep_thinking:
        reasoning, content = None, content.split(sp.THINK_END)[-1]
    elif not reasoning:
        reasoning, content = split_thinking(content)
    if reasoning is not None:
        yield _special(sp.THINK, in_loss=True)
        yield Piece(text=reasoning, in_loss=True)
        yield _special(sp.THINK_END, in_loss=True)
    yield Piece(text=content, in_loss=True)
    if calls := turn.get("tool_calls"):
        yield from _tool_calls(calls)
    yield _special(sp.EOS, in_loss=True)


def _tool_calls(calls: Sequence[Mapping[str, Any]]) -> Iterator[Piece]:
    yield _special(sp.TOOL_CALLS, in_loss=True)
    for number, call in enumerate(calls):
        arguments = call["function"]["arguments"]
        text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        if number:
            yield Piece(text="\n", in_loss=True)
        yield _special(sp.TOOL_CALL, in_loss=True)
        yield Piece(text=call["type"], in_loss=True)
        yield _special(sp.TOOL_SEP, in_loss=True)
        yield Piece(text=f"{call['function']['name']}\n```json\n{text}\n```", in_loss=True)
        yield _special(sp.TOOL_CALL_END, in_loss=True)
    yield _special(sp.TOOL_CALLS_END, in_loss=True)


# The same template in Jinja, for other engines; a test compares the two, token by token. It has two
# variables: thinking (end the prompt in <think>) and keep_thinking.
JINJA = """\
{%- if keep_thinking is not defined %}{% set keep_thinking = true %}{% endif -%}
{%- set ns = namespace(system='', joined=false, before='', users=0, asked=0) -%}
{%- for message in messages -%}
  {%- if message['role'] in ('system', 'developer') -%}
    {%- set ns.system = ns.system + ('\\n\\n' if ns.joined else '') + message['content'] -%}
    {%- set ns.joined = true -%}
  {%- elif message['role'] == 'user' -%}
    {%- set ns.users = ns.users + 1 -%}
  {%- endif -%}
{%- endfor -%}
{%- if tools -%}
  {%- set ns.system = ns.system + ('\\n\\n' if ns.joined else '') + 'TOOLS_HEADING' -%}
  {%- for tool in tools -%}{%- set ns.system = ns.system + '\\n' + (tool | tojson) -%}{%- endfor -%}
{%- endif -%}
{{- '<｜begin▁of▁sentence｜>' + ns.system -}}
{%- for message in messages if message['role'] not in ('system', 'developer') -%}
  {%- set role = message['role'] -%}
  {%- if ns.before == 'tool' and role != 'tool' -%}{{- '<｜tool▁outputs▁end｜>' -}}{%- endif -%}
  {%- if role == 'user' -%}
    {{- '<｜User｜>' + message['content'] -}}
    {%- set ns.asked = ns.asked + 1 -%}
  {%- elif role == 'tool' -%}
    {{- '\\n' if ns.before == 'tool' else '<｜tool▁outputs▁begin｜>' -}}
    {{- '<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>' -}}
  {%- elif role == 'assistant' -%}
    {%- if ns.before != 'tool' -%}{{- '<｜Assistant｜>' -}}{%- endif -%}
    {%- set content = message['content'] or '' -%}
    {%- if keep_thinking or ns.asked == ns.users -%}
      {%- if message['reasoning_content'] -%}
        {{- '<think>' + message['reasoning_content'] + '</think>' -}}
      {%- endif -%}
    {%- else -%}
      {%- set content = content.split('</think>')[-1] -%}
    {%- endif -%}
    {{- content -}}
    {%- if message['tool_calls'] -%}
      {{- '<｜tool▁calls▁begin｜>' -}}
      {%- for call in message['tool_calls'] -%}
        {%- set given = call['function']['arguments'] -%}
        {{- ('' if loop.first else '\\n') + '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' -}}
        {{- call['function']['name'] + '\\n```json\\n' + (given if given is string else given | tojson) -}}
        {{- '\\n```<｜tool▁call▁end｜>' -}}
      {%- endfor -%}
      {{- '<｜tool▁calls▁end｜>' -}}
    {%- endif -%}
    {{- '<｜end▁of▁sentence｜>' -}}
  {%- else -%}
    {{- raise_exception('unknown role ' + role) -}}
  {%- endif -%}
  {%- set ns.before = role -%}
{%- endfor -%}
{%- if ns.before == 'tool' -%}{{- '<｜tool▁outputs▁end｜>' -}}{%- endif -%}
{%- if add_generation_prompt -%}
  {%- if ns.before != 'tool' -%}{{- '<｜Assistant｜>' -}}{%- endif -%}
  {%- if thinking -%}{{- '<think>' -}}{%- endif -%}
{%- endif -%}
""".replace("TOOLS_HEADING", TOOLS_HEADING.replace("\n", "\\n"))
