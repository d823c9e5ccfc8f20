"""A request's schema, regex, choice or tools as one grammar in Lark's notation."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from shoestring.engine.constrain.names import CanMatch
from shoestring.engine.constrain.native import lark_regex
from shoestring.engine.constrain.pattern import ascii_classes
from shoestring.engine.constrain.schema import ONE_LINE, schema_text
from shoestring.engine.request import StructuredOutputsParams
from shoestring.errors import ConfigError, TokenizerError
from shoestring.tokenizer import special as sp
from shoestring.tokenizer.bpe import Tokenizer
from shoestring.tokenizer.chat.tool_format import TOOL_FORMATS
from shoestring.tokenizer.special import any_of
from shoestring.tokenizer.thinking import has_tags

MAX_TEXT_BYTES = 32 << 10
"""The longest regex or Lark grammar."""
MAX_CHOICES = 10_000
MAX_TOOLS = 128
TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def grammar_text(
    spec: StructuredOutputsParams, tokenizer: Tokenizer, can_match: CanMatch | None = None
) -> str:
    """The grammar of `spec`; equal requests have equal texts. `can_match`: see `schema_text`.

    Raises ConfigError for a request that is wrong or too large; llguidance may still refuse the grammar.
    """
    if spec.tools is not None:
        return tool_grammar(spec, tokenizer, can_match)
    if spec.json is not None:
        return f"start: %json {schema_text(spec.json, 'structured_outputs.json', can_match)}"
    if spec.json_object:
        return f"start: %json {schema_text({'type': 'object'}, 'json_object')}"
    if spec.regex is not None:
        return f"start: {lark_regex(ascii_classes(_text(spec.regex, 'structured_outputs.regex')))}"
    if spec.choice is not None:
        return f"start: CHOICE\nCHOICE: {_choices(spec.choice)}"
    return _text(spec.grammar, "structured_outputs.grammar")


def tool_grammar(
    spec: StructuredOutputsParams, tokenizer: Tokenizer, can_match: CanMatch | None = None
) -> str:
    """The grammar of tool calls in the model's format, by each tool's schema.

    `tool_choice` "auto" allows thinking, text and calls, or with a form of the answer thinking and either;
    "required", one or more calls and nothing else; the name of a tool, one call of it.
    """
    schemas = _chosen(_tool_schemas(spec.tools or (), can_match), spec.tool_choice)
    form = TOOL_FORMATS.get(spec.tool_format)
    if form is None:
        raise ConfigError(f"tool_format = {spec.tool_format!r} is not one of {', '.join(TOOL_FORMATS)}")
    if not form.fits(tokenizer):
        raise TokenizerError(f"{tokenizer.name} has no tokens for tool calls of format {spec.tool_format}")

    def parts(text: str) -> str:
        return _with_tokens(text, tokenizer)

    several = spec.parallel_tool_calls and spec.tool_choice in ("auto", "required")
    more = f"({parts(form.separator)} call)*" if several else ""
    rules = ["start: calls"]
    if spec.tool_choice == "auto":
        thinking = f"({parts(sp.THINK)} TEXT {parts(sp.THINK_END)})?" if has_tags(tokenizer) else ""
        rules = [f"start: {thinking} TEXT calls?", "TEXT: /(?s:.*)/"]
        if spec.json is not None or spec.json_object:
            answer = grammar_text(replace(spec, tools=None), tokenizer, can_match).removeprefix("start: ")
            rules[0] = f"start: {thinking} (answer | calls)\nanswer: {answer}"
    names = " | ".join(f"tool_{number}" for number in range(len(schemas)))
    rules += [
        f"calls: {parts(form.begin)} call {more} {parts(form.end)}",
        f"call: {parts(form.call_begin + form.before_name)} body "
        f"{parts(form.after_arguments + form.call_end)}",
        f"body: {names}",
    ]
    for number, (name, schema) in enumerate(schemas.items()):
        rules.append(f"tool_{number}: {parts(name + form.before_arguments)} %json {schema}")
    return "\n".join(rules)


def _with_tokens(text: str, tokenizer: Tokenizer) -> str:
    """A text as a sequence of literals and of the tokens that it spells."""
    pattern = re.compile(f"({any_of([*tokenizer.specials, *tokenizer.added_tokens])})")
    return " ".join(
        f"<[{tokenizer.added_tokens[part]}]>" if part in tokenizer.added_tokens else _literal(part)
        for part in pattern.split(text)
        if part
    )


def _chosen(schemas: dict[str, str], tool_choice: str) -> dict[str, str]:
    """The schemas of the tools that may be called; ConfigError for a choice that is none of them."""
    if tool_choice in ("auto", "required"):
        return schemas
    if tool_choice not in schemas:
        names = ", ".join(schemas)[:200]
        raise ConfigError(
            f"tool_choice = {tool_choice[:64]!r} must be auto, required or one of the tools: {names}"
        )
    return {tool_choice: schemas[tool_choice]}


def _tool_schemas(tools: Sequence[Mapping[str, Any]], can_match: CanMatch | None) -> dict[str, str]:
    """Each tool's name and the checked schema of its arguments."""
    if not isinstance(tools, (tuple, list)) or not 0 < len(tools) <= MAX_TOOLS:
        raise ConfigError(f"tools must be a list of 1 to {MAX_TOOLS} tools")
    schemas: dict[str, str] = {}
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or tool.get("type", "function") != "function":
            raise ConfigError(f"tools[{number}] must be {{'type': 'function', 'function': {{...}}}}")
        name = function.get("name")
        if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
            raise ConfigError(f"tools[{number}] needs a name of 1 to 64 letters, digits, '_', '-' or '.'")
        if name in schemas:
            raise ConfigError(f"tools[{number}] has the name {name!r}, which another tool has")
        parameters = function.get("parameters")
        if parameters is None:
            parameters = {"type": "object", "properties": {}, "additionalProperties": False}
        if not isinstance(parameters, Mapping) or parameters.get("type") != "object":
            raise ConfigError(f"the parameters of tool {name!r} must be a schema with type: 'object'")
        schemas[name] = schema_text(parameters, f"the parameters of tool {name!r}", can_match, ONE_LINE)
    return schemas


def _choices(choices: Sequence[str]) -> str:
    if not isinstance(choices, (tuple, list)) or not 0 < len(choices) <= MAX_CHOICES:
        raise ConfigError(f"structured_outputs.choice must be a list of 1 to {MAX_CHOICES} texts")
    total = sum(len(_text(choice, "each of structured_outputs.choice")) for choice in choices)
    if total > MAX_TEXT_BYTES * 8:
        raise ConfigError(f"structured_outputs.choice is longer than {MAX_TEXT_BYTES >> 7} KiB in all")
    return " | ".join(_literal(choice) for choice in dict.fromkeys(choices))


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name} must be text, not a {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise ConfigError(f"{name} has a lone surrogate, which is not a character") from None
    if size > MAX_TEXT_BYTES:
        raise ConfigError(f"{name} is longer than {MAX_TEXT_BYTES >> 10} KiB; use a shorter one")
    return value


def _literal(text: str) -> str:
    """A string literal of Lark, which has JSON's escapes."""
    return json.dumps(text, ensure_ascii=False)
