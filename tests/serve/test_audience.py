import pytest
from fastapi import APIRouter

from shoestring.serve.app import ROUTERS
from shoestring.serve.audience import Audience, audience, audiences

ANYONE = {
    *(("GET", path) for path in ("/", "/app/{name}", "/health", "/ready", "/status", "/incidents")),
    *(("GET", path) for path in ("/openapi.json", "/api/version")),
    *(("GET", f"/auth/{name}") for name in ("challenge", "here", "oidc", "oidc/callback")),
    *(("POST", f"/auth/{name}") for name in ("sign-up", "sign-in", "check-email")),
    *(("POST", f"/auth/{name}") for name in ("forgotten", "reset-password")),
    ("POST", "/webhooks/stripe"),
    ("GET", "/share/{token}"),
    ("GET", "/shares/{token}/content"),
}
BY_KEY = {
    *(
        ("GET", path)
        for path in ("/models", "/v1/models", "/v1/models/{model:path}", "/api/tags", "/api/ps", "/metrics")
    ),
    *(("POST", f"{base}/chat/completions") for base in ("", "/v1", "/beta")),
    *(("POST", f"{base}/completions") for base in ("", "/v1", "/beta")),
    *(("POST", f"{base}/responses") for base in ("", "/v1")),
    *(("POST", f"{base}/v1/messages{end}") for base in ("", "/anthropic") for end in ("", "/count_tokens")),
    *(("POST", path) for path in ("/tokenize", "/detokenize", "/api/chat", "/api/generate", "/api/show")),
    *((method, "/translations") for method in ("GET", "POST")),
    ("POST", "/inspect"),
    *(("GET", path) for path in ("/user/balance", "/user/terms", "/v1/usage/{request_id}")),
}
GLOSSARY, STYLE = "/v3/glossaries/{glossary_id}", "/v3/style_rules/{style_id}"
BY_KEY |= {
    *(("POST", path) for path in ("/v2/translate", "/v2/write/rephrase", "/v2/document")),
    *(("POST", f"/v2/document/{{document_id}}{end}") for end in ("", "/result")),
    *(("GET", f"/v2/{name}") for name in ("languages", "usage", "glossary-language-pairs")),
    *((method, f"/{version}/glossaries") for method in ("GET", "POST") for version in ("v2", "v3")),
    *((method, GLOSSARY.replace("v3", "v2")) for method in ("GET", "DELETE")),
    ("GET", "/v2/glossaries/{glossary_id}/entries"),
    *((method, GLOSSARY) for method in ("GET", "PATCH", "DELETE")),
    ("GET", f"{GLOSSARY}/entries"),
    *((method, f"{GLOSSARY}/dictionaries") for method in ("PUT", "DELETE")),
    *((method, "/v3/style_rules") for method in ("GET", "POST")),
    *((method, STYLE) for method in ("GET", "PATCH", "DELETE")),
    ("PUT", f"{STYLE}/configured_rules"),
    ("POST", f"{STYLE}/custom_instructions"),
    *((method, f"{STYLE}/custom_instructions/{{instruction_id}}") for method in ("GET", "PUT", "DELETE")),
}
BY_ACCOUNT = {
    *(("POST", f"/auth/{name}") for name in ("sign-out", "password", "codes", "codes/confirm")),
    *(("GET", f"/account{name}") for name in ("", "/keys", "/sessions", "/export")),
    *(("POST", f"/account/{name}") for name in ("keys", "delete")),
    *(("DELETE", f"/account/{name}") for name in ("keys/{key_id}", "sessions/{session_id}", "sessions")),
    ("DELETE", "/auth/codes"),
    *((method, "/chats") for method in ("GET", "DELETE")),
    *((method, "/chats/{chat_id}") for method in ("GET", "PUT", "DELETE")),
    ("PUT", "/chats/{chat_id}/messages/{message_id}"),
    ("POST", "/chats/{chat_id}/restore"),
    ("POST", "/chats/{chat_id}/share"),
    ("GET", "/shares"),
    ("DELETE", "/shares/{token}"),
    *((method, "/memory") for method in ("GET", "PUT", "DELETE")),
    ("POST", "/memory/facts"),
    ("DELETE", "/memory/facts/{fact_id}"),
    ("POST", "/attachments"),
    *((method, "/answers") for method in ("GET", "POST")),
    *((method, "/answers/{answer_id}") for method in ("GET", "DELETE")),
    ("GET", "/v1/usage"),
    ("POST", "/auth/email"),
}
BY_ADMIN = {
    *(
        ("GET", f"/admin/{name}")
        for name in ("accounts", "gate", "audit", "log", "usage", "links", "models", "prices")
    ),
    *(("POST", f"/admin/{name}") for name in ("accounts", "links", "gate", "incidents", "prices")),
    *(("POST", f"/admin/accounts/{{account_id}}/{name}") for name in ("credit", "keys")),
    ("GET", "/local-models"),
    *(("POST", f"/local-models/{verb}") for verb in ("load", "unload", "pull", "quantize", "erase")),
    ("DELETE", "/local-models/jobs/{number}"),
    *(("GET", path) for path in ("/runs", "/runs/{name}", "/runs/{name}/curves")),
    *(("POST", f"/runs/{{name}}/{action}") for action in ("stop", "resume")),
    ("DELETE", "/admin/links/{link_id}"),
    ("PATCH", "/admin/accounts/{account_id}"),
    ("DELETE", "/admin/accounts/{account_id}/sessions"),
}
CALLERS = {
    **dict.fromkeys(ANYONE, Audience.ANYONE),
    **dict.fromkeys(BY_KEY, Audience.KEY),
    **dict.fromkeys(BY_ACCOUNT, Audience.ACCOUNT),
    **dict.fromkeys(BY_ADMIN, Audience.ADMIN),
}
"""Every route, and who may call it."""


def test_every_route_says_who_may_call_it():
    assert audiences(ROUTERS) == CALLERS


def test_a_route_that_does_not_say_it_is_an_error_at_the_start():
    router = APIRouter()

    @router.get("/open")
    @audience(Audience.ANYONE)
    def declared():
        return {}

    assert audiences([router]) == {("GET", "/open"): Audience.ANYONE}
    router.get("/forgotten")(lambda: {})
    with pytest.raises(TypeError, match="/forgotten"):
        audiences([router])
