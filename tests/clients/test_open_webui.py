"""Requests of Open WebUI, built from its routers, are answered as it expects: OpenAI's kind and Ollama's."""

import json
import re
from datetime import datetime

import httpx2
import pytest

USER = {
    "X-OpenWebUI-User-Name": "Ada%20L.",
    "X-OpenWebUI-User-Id": "8c0d",
    "X-OpenWebUI-User-Email": "ada@example.com",
    "X-OpenWebUI-User-Role": "admin",
    "X-OpenWebUI-Chat-Id": "b1946ac9",
}
"""Headers about its user, which it sends when it is told to."""
SUM = [{"role": "user", "content": "Use 3, 5, 7 to make 22."}]
PARAMS = {
    "temperature": 0.8,
    "top_p": 0.9,
    "max_tokens": 40,
    "frequency_penalty": 0.1,
    "seed": 3,
    "stop": ["#"],
}
OPTIONS = {
    **{"temperature": 0.8, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": 3, "num_predict": 40},
    **{"repeat_penalty": 1.1, "repeat_last_n": 64, "num_ctx": 2048, "num_batch": 512, "num_keep": 24},
    **{"mirostat": 0, "mirostat_eta": 0.1, "mirostat_tau": 5.0, "tfs_z": 1, "use_mmap": True},
    **{"use_mlock": False, "num_thread": 2, "num_gpu": 0, "stop": ["#"]},
}


@pytest.fixture(scope="module", params=["", "Bearer", "Bearer sk-anything"])
def openai(root, request):
    """A connection of the kind OpenAI, without a key, with an empty one and with another."""
    headers = {"Content-Type": "application/json", **USER}
    if request.param:
        headers["Authorization"] = request.param
    with httpx2.Client(base_url=f"{root}/v1", headers=headers, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def ollama(root):
    """A connection of the kind Ollama."""
    with httpx2.Client(base_url=root, headers={"Content-Type": "application/json", **USER}) as client:
        client.timeout = 120
        yield client


def first_model(openai):
    """The model that it would offer first. It keeps each entry, and reads its id."""
    listed = openai.get("/models").json()
    assert listed["object"] == "list"
    assert all(isinstance(model["id"], str) and model["id"] for model in listed["data"])
    return listed["data"][0]["id"]


def chunks(reply):
    """The chunks as its stream handler reads them: lines that begin with `data: `, up to [DONE]."""
    assert "text/event-stream" in reply.headers["content-type"]
    lines = [line for line in reply.text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]


def test_a_chat_streams_thinking_text_and_usage(openai):
    body = {"stream": True, "model": first_model(openai), "messages": SUM, **PARAMS}
    body |= {"stream_options": {"include_usage": True}, "logit_bias": {"5": -1}, "reasoning_effort": "low"}
    *parts, usage = chunks(openai.post("/chat/completions", content=json.dumps(body)))
    deltas = [part["choices"][0]["delta"] for part in parts]
    assert "".join(delta.get("reasoning_content") or "" for delta in deltas)
    assert parts[-1]["choices"][0]["finish_reason"] in ("stop", "length")
    assert usage["choices"] == []
    counts = usage["usage"]
    assert counts["prompt_tokens"] + counts["completion_tokens"] == counts["total_tokens"]
    assert "error" not in json.dumps(parts)


def test_an_answer_is_whole_when_it_asks_for_a_title(openai):
    task = '### Task:\nGenerate a concise title.\n### Output:\nJSON format: { "title": "..." }'
    body = {"model": first_model(openai), "messages": [{"role": "user", "content": task}], "stream": False}
    for limit in ({"max_tokens": 20}, {"max_completion_tokens": 20}):
        reply = openai.post("/chat/completions", content=json.dumps({**body, **limit})).json()
        assert isinstance(reply["choices"][0]["message"]["content"], str)
        assert reply["usage"]["completion_tokens"] <= 20


def test_earlier_turns_come_as_parts_with_thinking_in_the_text(openai):
    parts = [{"type": "text", "text": "And 8?", "cache_control": {"type": "ephemeral"}}]
    messages = [
        {"role": "system", "content": "You are helpful."},
        *SUM,
        {"role": "assistant", "content": '<details type="reasoning" done="true">3*5</details>\n3*5+7'},
        {"role": "user", "content": parts},
    ]
    body = {"model": first_model(openai), "messages": messages, "stream": False, "max_tokens": 4}
    body |= {
        "metadata": {"chat_id": "x"},
        "chat_id": "b1946ac9",
        "session_id": "s",
        "id": "m",
        "features": {},
    }
    reply = openai.post("/chat/completions", content=json.dumps(body))
    assert reply.status_code == 200
    assert reply.json()["usage"]["completion_tokens"] == 4


def test_tools_are_taken_in_its_form(openai):
    schema = {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]}
    tool = {"type": "function", "function": {"name": "search_web", "description": "", "parameters": schema}}
    calls = [{"index": 0, "id": "call_1", "type": "function"}]
    calls[0]["function"] = {"name": "search_web", "arguments": '{"query": "22"}'}
    messages = [
        *SUM,
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_1", "content": "3*5+7"},
    ]
    body = {
        "model": first_model(openai),
        "messages": messages,
        "tools": [tool],
        "stream": True,
        "max_tokens": 5,
    }
    assert chunks(openai.post("/chat/completions", content=json.dumps(body)))


def test_an_error_is_json_that_it_shows(openai):
    body = {"model": "nothing", "messages": SUM, "stream": True}
    reply = openai.post("/chat/completions", content=json.dumps(body))
    assert reply.status_code == 404
    assert "does not exist" in reply.json()["error"]["message"]
    assert openai.post("/embeddings", content=json.dumps({"model": "x", "input": "y"})).status_code == 404


def tagged_model(ollama):
    """The model as it finds it: it adds :latest to a name without a tag, and looks for that in the list."""
    models = {model["model"]: model for model in ollama.get("/api/tags").json()["models"]}
    name = next(iter(models))
    plain = name.removesuffix(":latest")
    assert (plain if ":" in plain else f"{plain}:latest") in models
    return name


def test_the_version_is_one_that_it_compares(ollama):
    version = ollama.get("/api/version").json()["version"]
    assert tuple(map(int, re.sub(r"^v|-.*", "", version).split("."))) >= (0, 0, 0)


def test_models_in_memory_say_until_when(ollama):
    loaded = ollama.get("/api/ps").json()["models"]
    assert tagged_model(ollama) in [model["name"] for model in loaded]
    assert all(datetime.fromisoformat(model["expires_at"]).timestamp() > 0 for model in loaded)


def test_a_chat_of_ollamas_kind_streams_lines(ollama):
    body = {"model": tagged_model(ollama), "messages": SUM, "stream": True, "options": OPTIONS}
    body |= {"keep_alive": "5m", "temperature": 0.8, "think": True, "format": ""}
    reply = ollama.post("/api/chat", content=json.dumps(body))
    *parts, last = [json.loads(line) for line in reply.text.splitlines()]
    assert "".join(part["message"].get("thinking", "") for part in parts)
    assert last["done"]
    for name in (
        "total_duration",
        "load_duration",
        "prompt_eval_count",
        "prompt_eval_duration",
        "eval_count",
    ):
        assert isinstance(last[name], int)
    assert last["eval_count"] <= 40


def test_a_title_of_ollamas_kind_is_whole(ollama):
    body = {"model": tagged_model(ollama), "messages": SUM, "stream": False, "options": {"num_predict": 5}}
    reply = ollama.post("/api/chat", content=json.dumps(body)).json()
    assert isinstance(reply["message"]["content"], str)


def test_it_unloads_and_shows_a_model(ollama):
    model = tagged_model(ollama)
    unload = {"model": model, "keep_alive": 0, "prompt": ""}
    assert ollama.post("/api/generate", content=json.dumps(unload)).json()["done"]
    shown = ollama.post("/api/show", content=json.dumps({"name": model, "model": model})).json()
    assert shown["model_info"]["shoestring.context_length"] > 0
    assert shown["details"]["families"]


def test_an_error_of_ollamas_kind_is_one_text(ollama):
    reply = ollama.post("/api/chat", content=json.dumps({"model": "nothing:latest", "messages": SUM}))
    assert reply.status_code == 404
    assert "does not exist" in reply.json()["error"]
