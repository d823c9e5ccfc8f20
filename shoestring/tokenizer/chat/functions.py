"""Python functions as tools: their definition from signature and docstring, as transformers makes it."""

import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from shoestring.errors import ConfigError

_JSON_TYPES = {
    str: "string", int: "integer", float: "number", bool: "boolean", list: "array", tuple: "array",
    dict: "object", type(None): "null",
}  # fmt: skip


def tool_definitions(tools: Any) -> list[Mapping[str, Any]] | None:
    """OpenAI-style definitions of `tools`, each a definition already or a function.

    Raises ConfigError for anything else, or for a function without a type for each parameter.
    """
    if tools is None:
        return None
    if not isinstance(tools, Sequence) or isinstance(tools, (str, bytes)):
        raise ConfigError(f"tools is a {type(tools).__name__}, not a list of functions or definitions")
    return [_definition(tool) for tool in tools]


def _definition(tool: Any) -> Mapping[str, Any]:
    if isinstance(tool, Mapping):
        return tool
    if not inspect.isroutine(tool):
        raise ConfigError(f"tools holds a {type(tool).__name__}, neither a function nor a definition")
    name = tool.__name__
    description, parameters = _docstring(tool)
    try:
        hints = typing.get_type_hints(tool)
    except (NameError, TypeError) as error:
        raise ConfigError(f"the types of the tool {name} cannot be read: {error}") from None
    properties, required = {}, []
    for parameter in inspect.signature(tool).parameters.values():
        if parameter.name not in hints:
            raise ConfigError(f"the tool {name} has no type for its parameter {parameter.name}; add one")
        schema = _schema(hints[parameter.name], f"{name}({parameter.name})")
        if text := parameters.get(parameter.name):
            schema["description"] = text
        properties[parameter.name] = schema
        if parameter.default is inspect.Parameter.empty:
            required.append(parameter.name)
    schema = {"type": "object", "properties": properties, "required": required}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }


def _schema(hint: Any, where: str) -> dict[str, Any]:
    """The JSON schema of a type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint in _JSON_TYPES:
        return {"type": _JSON_TYPES[hint]}
    if origin is typing.Literal:
        kinds = {_JSON_TYPES.get(type(value), "string") for value in arguments}
        return (
            {"type": kinds.pop(), "enum": list(arguments)} if len(kinds) == 1 else {"enum": list(arguments)}
        )
    if origin in (typing.Union, types.UnionType):
        schemas = [_schema(argument, where) for argument in arguments]
        names = [schema["type"] for schema in schemas if schema.keys() == {"type"}]
        return {"type": names} if len(names) == len(schemas) else {"anyOf": schemas}
    if origin in (list, tuple, Sequence):
        items = [argument for argument in arguments if argument is not Ellipsis]
        return {"type": "array", "items": _schema(items[0], where)} if items else {"type": "array"}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1], where)}
    raise ConfigError(f"the type of {where} has no JSON schema; pass the tool's definition as a dictionary")


def _docstring(tool: Callable[..., Any]) -> tuple[str, dict[str, str]]:
    """The description before `Args:` in a docstring in Google's style, and that of each parameter."""
    text = inspect.getdoc(tool) or ""
    head, _, rest = text.partition("\nArgs:\n")
    if text.startswith("Args:\n"):
        head, rest = "", text.removeprefix("Args:\n")
    body = re.split(r"\n(?=\S)", rest, maxsplit=1)[0]
    parameters: dict[str, str] = {}
    name = ""
    for line in body.splitlines():
        match = re.match(r"\s+(\w+)\s*(?:\([^)]*\))?:\s*(.*)", line)
        if match and (not name or _indent(line) <= _indent(body.splitlines()[0])):
            name = match[1]
            parameters[name] = match[2].strip()
        elif name and line.strip():
            parameters[name] += " " + line.strip()
    return re.split(r"\n(?=Returns?:)", head)[0].strip(), parameters


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
