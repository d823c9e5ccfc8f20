"""Bodies of DeepL's API: JSON, a form, or a form with a file; and the time as the API writes it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.parser import HeaderParser
from email.policy import HTTP
from typing import Annotated, Any, TypeVar
from urllib.parse import parse_qs

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.dialects.errors import validation_error
from shoestring.serve.translate.documents import Documents
from shoestring.serve.translate.translation import Translation

Body = TypeVar("Body", bound=BaseModel)
MAX_FIELDS = 1000


@dataclass(frozen=True)
class File:
    """A file of a form."""

    name: str
    data: bytes


async def fields_of(request: Request) -> dict[str, Any]:
    """The fields of a request: lists for names of a form that come twice. Raises RequestError."""
    data = await request.body()
    if not data:
        return {}
    head = _headers(f"Content-Type: {request.headers.get('content-type', 'application/json')}\r\n")
    kind = head.get_content_type()
    try:
        if kind == "application/x-www-form-urlencoded":
            form = parse_qs(data.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
            return {name: _one(values) for name, values in form.items()}
        if kind == "multipart/form-data":
            return read_multipart(data, str(head.get_param("boundary") or ""))
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise RequestError("invalid", "Bad request: the body is neither JSON nor a form") from None
    if not isinstance(fields, dict):
        raise RequestError("invalid", "Bad request: the body is no object")
    return fields


def read_multipart(data: bytes, boundary: str) -> dict[str, Any]:
    """The fields and files of a form with files. Raises ValueError for one that is damaged."""
    if not boundary:
        raise ValueError("the form has no boundary")
    fields: dict[str, list[Any]] = {}
    parts = (b"\r\n" + data).split(b"\r\n--" + boundary.encode())[1:]
    if len(parts) > MAX_FIELDS:
        raise ValueError("the form has too many fields")
    for part in parts:
        if part.startswith(b"--"):
            break
        text, _, content = part.partition(b"\r\n\r\n")
        head = _headers(text.decode().lstrip("\r\n"))
        name = head.get_param("name", header="content-disposition")
        file = head.get_filename()
        if not isinstance(name, str):
            raise ValueError("a field of the form has no name")
        fields.setdefault(name, []).append(content.decode() if file is None else File(file, content))
    return {name: _one(values) for name, values in fields.items()}


def _headers(text: str) -> Message:
    return HeaderParser(policy=HTTP).parsestr(text)


def _one(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def read_body(kind: type[Body], fields: Mapping[str, Any]) -> Body:
    """The fields as a body of a kind. Raises RequestError for the first one that is wrong."""
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        problems = [{**problem, "loc": ("body", *problem["loc"])} for problem in error.errors()]
        raise validation_error(problems, dict(fields)) from None


def text_field(fields: Mapping[str, Any], name: str, most: int = 1024) -> str:
    """A field that must be there, with text. Raises RequestError."""
    text = fields.get(name)
    if not isinstance(text, str) or not text.strip() or len(text) > most:
        raise RequestError("invalid", f"Missing or invalid argument: {name}", field=name)
    return text


def time_text(time_ms: int) -> str:
    """A time as the API writes it."""
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def translation_of(request: Request) -> Translation:
    """The translations of the service."""
    translation: Translation = request.app.state.translation
    return translation


async def documents_of(request: Request) -> Documents:
    """The documents under translation."""
    documents: Documents = request.app.state.documents
    return documents


Fields = Annotated[dict[str, Any], Depends(fields_of)]
TheTranslation = Annotated[Translation, Depends(translation_of)]
TheDocuments = Annotated[Documents, Depends(documents_of)]
