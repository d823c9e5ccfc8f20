import json

import pytest

SUM = [{"role": "user", "content": "Use 3, 5, 7 to make 22."}]
LOOK = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
    },
}
OPTIONS = {"temperature": 0, "num_predict": 60, "num_ctx": 4096}


def lines(reply):
    return [json.loads(line) for line in reply.text.splitlines()]


@pytest.mark.parametrize(
    "fields", [{}, {"think": True}, {"think": False}, {"format": {"enum": ["yes", "no"]}}, {"tools": [LOOK]}]
)
def test_a_chat_is_the_join_of_its_lines(client, fields):
    body = {"model": "mini", "messages": SUM, "options": OPTIONS, **fields}
    *parts, last = lines(client.post("/api/chat", json=body))
    whole = client.post("/api/chat", json={**body, "stream": False}).json()
    assert last["done"]
    assert not any(part["done"] for part in parts)
    assert "".join(part["message"]["content"] for part in parts) == whole["message"]["content"]
    thinking = "".join(part["message"].get("thinking", "") for part in parts)
    assert thinking == whole["message"].get("thinking", "")
    for name in ("done_reason", "eval_count", "prompt_eval_count"):
        assert last[name] == whole[name]
    assert last["total_duration"] >= last["eval_duration"] > 0


def test_generate_answers_or_continues(client):
    body = {"model": "mini", "prompt": "Use 3, 5, 7 to make 22.", "options": OPTIONS, "stream": False}
    answer = client.post("/api/generate", json=body).json()
    chat = client.post(
        "/api/chat", json={"model": "mini", "messages": SUM, "options": OPTIONS, "stream": False}
    )
    assert answer["response"] == chat.json()["message"]["content"] != ""
    raw = client.post("/api/generate", json={**body, "raw": True}).json()
    assert raw["prompt_eval_count"] < answer["prompt_eval_count"]


def test_an_empty_request_says_that_the_model_is_there(client):
    assert client.post("/api/generate", json={"model": "mini"}).json()["done_reason"] == "load"
    assert client.post("/api/chat", json={"model": "mini"}).json()["done"]
    assert client.post("/api/chat", json={"model": "other"}).status_code == 404


def test_lists_and_version(client):
    assert [model["name"] for model in client.get("/api/tags").json()["models"]] == ["mini:latest"]
    assert client.get("/api/version").json()["version"]
    assert client.get("/api/ps").json() == {"models": []}


@pytest.mark.parametrize("body", [{"model": "mini"}, {"model": "mini:latest"}, {"name": "mini"}])
def test_a_model_is_shown_with_its_context(client, body):
    shown = client.post("/api/show", json=body).json()
    assert shown["model_info"]["shoestring.context_length"] == 512
    assert "completion" in shown["capabilities"]
    assert client.post("/api/show", json={"model": "other"}).status_code == 404


def test_a_name_may_have_the_tag_that_clients_add(client):
    for path, prompt in (("/api/chat", {"messages": SUM}), ("/api/generate", {"prompt": "2+3="})):
        body = {"model": "mini:latest", **prompt, "stream": False, "options": {"num_predict": 2}}
        assert client.post(path, json=body).json()["eval_count"] == 2
    assert client.post("/api/chat", json={"model": "mini:other", "messages": SUM}).status_code == 404


def test_errors_have_ollamas_form(client):
    reply = client.post("/api/chat", json={"model": "mini", "messages": SUM, "options": {"temperature": -1}})
    assert reply.status_code == 400
    assert reply.json() == {"error": "temperature = -1 must be from 0 to 100"}
