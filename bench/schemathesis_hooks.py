"""Hooks of bench/openapi.py for Schemathesis: most requests name the model, and replies stay short."""

from typing import Any

import schemathesis

MODEL = "mini"
MAX_TOKENS = 3


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """The body with an existing model for three of four, and with few tokens; wrong types stay wrong."""
    if not isinstance(body, dict):
        return body
    path = context.operation.path
    body = {**body}
    if isinstance(body.get("model"), str) and len(body["model"]) <= 512 and len(body["model"]) % 4 != 3:
        body["model"] = MODEL
    if path.startswith("/api/"):
        if isinstance(body.get("options", {}), (dict, type(None))):
            body["options"] = {"num_predict": MAX_TOKENS, **(body.get("options") or {})}
        return body
    name = "max_output_tokens" if path.endswith("/responses") else "max_tokens"
    if "completions" in path or path.endswith(("/responses", "/messages")):
        for key in (name, "max_completion_tokens"):
            value = body.get(key)
            if (key in body or key == name) and (
                value is None or (isinstance(value, int) and value > MAX_TOKENS)
            ):
                body[key] = MAX_TOKENS
    if isinstance(body.get("n"), int) and body["n"] > 3:
        body["n"] = body["n"] if body["n"] > 16 else 3
    return body
