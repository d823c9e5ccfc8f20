"""The OpenAPI description of DeepL's API: its errors, and bodies that are JSON or a form."""

from typing import Any

from pydantic import BaseModel

from shoestring.serve.dialects.schema import DeepLError, errors

DEEPL_ERRORS = {
    status: answer
    for status, answer in errors(DeepLError, {456: "The balance is used up."}).items()
    if status not in (401, 402)  # there 403 and 456
}


def body_of(kind: type[BaseModel], *, is_file: bool = False) -> dict[str, Any]:
    """The description of a body that the route reads itself."""
    schema = kind.model_json_schema()
    forms: tuple[str, ...] = ("application/json", "application/x-www-form-urlencoded")
    if is_file:
        forms = ("multipart/form-data",)
        schema["properties"]["file"] = {"type": "string", "format": "binary"}
        schema["required"] = [*schema.get("required", ()), "file"]
    return {"requestBody": {"required": True, "content": {form: {"schema": schema} for form in forms}}}


def fields_body() -> dict[str, Any]:
    """The description of a body that is any object."""
    content = {"application/json": {"schema": {"type": "object"}}}
    return {"requestBody": {"required": True, "content": content}}
