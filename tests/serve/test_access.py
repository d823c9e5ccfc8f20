import json
import logging

import pytest

SECRET = "sk-canary-7d1f"
CHAT = {"model": "mini", "messages": [{"role": "user", "content": f"prompt {SECRET}"}], "max_tokens": 2}


def test_every_reply_has_an_id_of_its_own(client):
    replies = [client.get("/v1/models"), client.get("/nothing"), client.post("/v1/chat/completions", json={})]
    ids = {reply.headers["x-request-id"] for reply in replies}
    assert len(ids) == 3
    assert all(request_id.startswith("req_") for request_id in ids)


def test_an_id_of_the_clients_is_not_taken(client):
    reply = client.get("/v1/models", headers={"x-request-id": "mine"})
    assert reply.headers["x-request-id"] != "mine"


def test_the_log_has_a_line_for_each_request_without_prompt_or_key(client, caplog):
    with caplog.at_level(logging.DEBUG):
        headers = {"authorization": f"Bearer {SECRET}"}
        reply = client.post(f"/v1/chat/completions?key={SECRET}", json=CHAT, headers=headers)
        client.post("/v1/messages", json={**CHAT, "model": SECRET[:2]}, headers=headers)
    lines = [json.loads(r.message) for r in caplog.records if r.name == "shoestring.serve.access"]
    assert [line["status"] for line in lines] == [200, 404]
    assert (lines[0]["account"], lines[0]["address"]) == ("local", "testclient")
    assert lines[0]["path"] == "/v1/chat/completions"
    assert lines[0]["request_id"] == reply.headers["x-request-id"]
    assert lines[0]["seconds"] > 0
    own = [record.getMessage() for record in caplog.records if record.name.startswith("shoestring")]
    assert SECRET not in "".join(own)


@pytest.mark.parametrize("path", ["/v1/models", "/nothing", "/v1/chat/completions", "/openapi.json"])
@pytest.mark.parametrize("is_https", [False, True])
def test_browsers_can_do_nothing_else_with_a_reply(client, path, is_https):
    base = "https://testserver" if is_https else "http://testserver"
    headers = client.get(base + path, headers={"origin": "https://evil.example"}).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert {"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"} <= {
        part.strip() for part in headers["content-security-policy"].split(";")
    }
    assert headers.get("strict-transport-security", "").startswith("max-age=31536000; incl") is is_https
    assert "access-control-allow-origin" not in headers


def test_an_error_of_our_own_is_known_by_its_id_and_logged_without_its_text(client, caplog, monkeypatch):
    def fail(*_):
        raise ValueError(f"cannot render {SECRET}")

    monkeypatch.setattr(client.app.state.service, "open", fail)
    reply = client.post("/v1/chat/completions", json=CHAT)
    assert (reply.status_code, reply.headers["x-content-type-options"]) == (500, "nosniff")
    (record,) = (record for record in caplog.records if record.levelname == "ERROR")
    assert "ValueError" in record.getMessage()
    assert reply.headers["x-request-id"] in record.getMessage()
    assert SECRET not in caplog.text + reply.text


def test_a_service_that_ends_refuses_new_requests_but_answers_how_it_is(client, monkeypatch):
    monkeypatch.setattr(client.app.state.service, "is_draining", True)
    refused = client.post("/v1/chat/completions", json=CHAT)
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert refused.json()["error"]["code"] == "service_unavailable"
    assert client.post("/v1/messages", json=CHAT).json()["error"]["type"] == "overloaded_error"
    assert client.get("/health").status_code == 200
    assert (client.get("/ready").status_code, client.get("/ready").json()) == (503, {"status": "ending"})
    monkeypatch.undo()
    assert client.get("/ready").json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("has_length", [False, True])
def test_too_long_a_body_is_refused_in_the_words_of_its_path(client, path, has_length):
    parts = [b" " * (1 << 20)] * 17
    reply = client.post(path, content=b"".join(parts) if has_length else iter(parts))
    assert (reply.status_code, "longer than 16 MiB" in reply.json()["error"]["message"]) == (413, True)
