"""Functions as tools: the definition that transformers makes of the same function."""

from collections.abc import Sequence
from typing import Any, Literal, Optional

import pytest
from transformers.utils import get_json_schema

from shoestring.errors import ConfigError
from shoestring.tokenizer.chat.functions import tool_definitions


def plain(city: str) -> str:
    """
    Get the weather of a city.

    Args:
        city: The city's name.

    Returns:
        The weather.
    """
    return city


def several(a: int, b: float = 1.0, is_exact: bool = False, names: list[str] | None = None):
    """Add numbers.

    Over two lines.

    Args:
        a: The first number, which is
            long.
        b: The second: with a colon.
        is_exact: Whether it is exact.
        names: Names.
    """


def nested(rows: list[list[int]], table: dict[str, float], choice: Literal["a", "b"]):
    """Take what is nested.

    Args:
        rows: Rows.
        table: A table.
        choice: One of two.
    """


def nothing():
    """Do nothing."""


@pytest.mark.parametrize("function", [plain, several, nested, nothing], ids=lambda f: f.__name__)
def test_a_function_becomes_what_transformers_makes_of_it(function):
    (definition,) = tool_definitions([function])
    expected = get_json_schema(function)
    expected["function"].pop("return", None)
    ours, theirs = definition["function"], expected["function"]
    assert {key: ours[key] for key in ("name", "description")} == {
        k: theirs[k] for k in ("name", "description")
    }
    assert ours["parameters"].get("required", []) == theirs["parameters"].get("required", [])
    assert ours["parameters"]["properties"].keys() == theirs["parameters"]["properties"].keys()
    for name, schema in theirs["parameters"]["properties"].items():
        own = ours["parameters"]["properties"][name]
        assert own["description"] == schema["description"]
        if "type" in schema and not schema.get("nullable"):
            assert own["type"] == schema["type"]
            assert own.get("items") == schema.get("items")
            assert own.get("enum") == schema.get("enum")


def test_definitions_stay_and_what_is_neither_is_refused():
    definition = {"type": "function", "function": {"name": "f"}}
    assert tool_definitions(None) is None
    assert tool_definitions([definition, nothing])[0] is definition
    assert tool_definitions([int_or_text])[0]["function"]["parameters"]["properties"]["a"] == {
        "type": ["integer", "string", "null"]
    }
    for tools in ("text", 5, [5], [untyped], [odd]):
        with pytest.raises(ConfigError, match="tool"):
            tool_definitions(tools)


def int_or_text(a: Optional[int | str]): ...  # noqa: UP045


def untyped(a): ...


def odd(a: Sequence[Any]): ...
