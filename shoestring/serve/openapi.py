"""The OpenAPI document of the service: what FastAPI makes of the routes, made true."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from shoestring.serve.dialects.schema import ERROR_BODIES, REFERENCE

FASTAPI_ERRORS = ("HTTPValidationError", "ValidationError")
"""Schemas of FastAPI's own reply to a wrong body, which this service never sends."""


def openapi_document(app: FastAPI) -> dict[str, Any]:
    """The document, made at the first call. Keys are optional in it: in the mode `local` none is asked."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        for operation in (each for path in document["paths"].values() for each in path.values()):
            if FASTAPI_ERRORS[0] in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
            if "security" in operation:
                operation["security"].insert(0, {})
        schemas = document["components"]["schemas"]
        for name in FASTAPI_ERRORS:
            schemas.pop(name, None)
        bodies: list[tuple[type[BaseModel], JsonSchemaMode]] = [
            (body, "serialization") for body in ERROR_BODIES
        ]
        schemas |= models_json_schema(bodies, ref_template=REFERENCE)[1]["$defs"]
        app.openapi_schema = document
    return app.openapi_schema
