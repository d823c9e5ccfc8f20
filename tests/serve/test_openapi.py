"""The OpenAPI document is true: every reply of every route is as it says."""

import jsonschema
import pytest

SUM = [{"role": "user", "content": "Use 3, 5, 7 to make 22."}]
TOOL = {
    "name": "look",
    "parameters": {
        "type": "object",
        "properties": {"x": {"enum": ["a", "b"]}},
        "required": ["x"],
        "additionalProperties": False,
    },
}
CHAT = {"model": "mini", "messages": SUM, "max_tokens": 40, "temperature": 0}
TOOLS = {"tools": [{"type": "function", "function": TOOL}], "tool_choice": "required"}
TEXT = {"model": "mini", "prompt": "Use 3", "max_tokens": 3}
RESPONSE = {"model": "mini", "input": "Use 3, 5, 7 to make 22.", "max_output_tokens": 40}
MESSAGE = {"model": "mini", "messages": SUM, "max_tokens": 40}
CHATS = [
    {},
    {"max_tokens": 2, "n": 2},
    {"logprobs": True, "top_logprobs": 2, "thinking": {"type": "enabled"}},
    {"stop": "="},
    {**TOOLS, "max_tokens": 300},
    {"model": "none"},
    {"temperature": "warm"},
    {"temperature": 9},
]
TEXTS = [{}, {"logprobs": 2, "echo": True}, {"prompt": ["a", "b"], "n": 2}, {"max_tokens": -1}]
REQUESTS = [
    *(
        ("post", path, CHAT | more)
        for path in ("/v1/chat/completions", "/beta/chat/completions")
        for more in CHATS
    ),
    *(("post", path, TEXT | more) for path in ("/v1/completions", "/completions") for more in TEXTS),
    *(("post", path, RESPONSE) for path in ("/v1/responses", "/responses")),
    ("post", "/v1/responses", RESPONSE | {"max_output_tokens": 1}),
    (
        "post",
        "/v1/responses",
        RESPONSE | {"tools": [{"type": "function", **TOOL}], "tool_choice": "required"},
    ),
    ("post", "/v1/responses", RESPONSE | {"input": 3}),
    *(("post", path, MESSAGE) for path in ("/v1/messages", "/anthropic/v1/messages")),
    ("post", "/v1/messages", MESSAGE | {"stop_sequences": ["="]}),
    (
        "post",
        "/v1/messages",
        MESSAGE
        | {"tools": [{"name": "look", "input_schema": TOOL["parameters"]}], "tool_choice": {"type": "any"}},
    ),
    ("post", "/v1/messages", MESSAGE | {"max_tokens": 0}),
    ("post", "/anthropic/v1/messages", MESSAGE | {"model": "claude-opus-5"}),
    ("post", "/anthropic/v1/messages", MESSAGE | {"max_tokens": 0}),
    ("post", "/v1/messages/count_tokens", {"model": "mini", "messages": SUM}),
    ("post", "/anthropic/v1/messages/count_tokens", {"model": "mini", "messages": SUM}),
    ("post", "/tokenize", {"model": "mini", "prompt": "a"}),
    ("post", "/detokenize", {"model": "mini", "tokens": [1, 2]}),
    ("post", "/detokenize", {"model": "mini", "tokens": [-1]}),
    *(("get", path, None) for path in ("/v1/models", "/models", "/v1/models/mini", "/v1/models/a/b")),
    *(("get", path, None) for path in ("/health", "/ready", "/metrics", "/api/tags", "/api/version")),
    ("post", "/api/chat", {"model": "mini", "messages": SUM, "stream": False, "options": {"num_predict": 9}}),
    ("post", "/api/chat", {"model": "mini"}),
    ("post", "/api/chat", {"model": "mini", "messages": SUM, "stream": "maybe"}),
    (
        "post",
        "/api/generate",
        {"model": "mini", "prompt": "a", "stream": False, "options": {"num_predict": 9}},
    ),
    ("post", "/api/generate", {"model": "mini"}),
    ("get", "/v2/languages", None),
    ("get", "/v2/glossary-language-pairs", None),
    ("post", "/v2/translate", {"text": ["a"], "target_lang": "XX"}),
    ("get", "/v2/usage", None),
    ("get", "/translations", None),
    ("post", "/inspect", {"model": "mini", "messages": [*SUM, {"role": "assistant", "content": "3"}]}),
]


@pytest.fixture(scope="module")
def document(client):
    return client.get("/openapi.json").json()


def declared(document, method, path):
    path = "/v1/models/{model}" if path.startswith("/v1/models/") else path
    return document["paths"][path][method]["responses"]


@pytest.mark.parametrize(("method", "path", "body"), REQUESTS)
def test_a_reply_is_as_the_document_says(client, document, method, path, body):
    reply = client.request(method, path, json=body)
    response = declared(document, method, path)[str(reply.status_code)]
    content = response["content"][reply.headers["content-type"].partition(";")[0]]
    if reply.headers["content-type"] == "application/json":
        schema = {**content["schema"], "components": document["components"]}
        jsonschema.validate(reply.json(), schema, cls=jsonschema.Draft202012Validator)


@pytest.mark.parametrize(
    ("path", "body", "media_type"),
    [
        ("/v1/chat/completions", CHAT, "text/event-stream"),
        ("/v1/completions", TEXT, "text/event-stream"),
        ("/v1/responses", RESPONSE, "text/event-stream"),
        ("/v1/messages", MESSAGE, "text/event-stream"),
        (
            "/api/chat",
            {"model": "mini", "messages": SUM, "options": {"num_predict": 3}},
            "application/x-ndjson",
        ),
    ],
)
def test_streams_have_the_declared_type(client, document, path, body, media_type):
    reply = client.post(path, json={**body, "stream": True})
    assert reply.headers["content-type"].startswith(media_type)
    assert media_type in declared(document, "post", path)["200"]["content"]


def test_a_wrong_method_is_told_all_that_the_path_takes(client):
    for path, methods in (
        ("/account/keys", "GET, POST"),
        ("/v1/models", "GET"),
        ("/chat/completions", "POST"),
    ):
        reply = client.put(path)
        assert (reply.status_code, reply.headers["allow"]) == (405, methods)


def test_every_route_declares_its_errors_in_its_dialect(document):
    for path, methods in document["paths"].items():
        for operation in methods.values():
            if path in ("/health", "/ready", "/status", "/incidents"):
                continue
            assert any(status[0] in "23" for status in operation["responses"])
            is_deepl = path.startswith(("/v2/", "/v3/"))
            money = {"403", "456"} if is_deepl else {"401", "402"}
            assert {"400", "404", "409", "413", "429", "500", "503"} | money <= set(operation["responses"])
            body = str(operation["responses"]["400"])
            name = "OllamaError" if path.startswith("/api/") else "DeepLError" if is_deepl else "OpenAIError"
            assert ("AnthropicError" if "/v1/messages" in path else name) in body
            assert "HTTPValidationError" not in str(operation["responses"])
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_keys_are_declared_where_they_are_asked(document):
    assert {} in document["paths"]["/v1/chat/completions"]["post"]["security"]
    assert len(document["paths"]["/v1/models"]["get"]["security"]) == 3
    assert "security" not in document["paths"]["/health"]["get"]
