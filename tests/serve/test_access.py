import json
import logging

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
    assert lines[0]["path"] == "/v1/chat/completions"
    assert lines[0]["request_id"] == reply.headers["x-request-id"]
    assert lines[0]["seconds"] > 0
    own = [record.getMessage() for record in caplog.records if record.name.startswith("shoestring")]
    assert SECRET not in "".join(own)


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
