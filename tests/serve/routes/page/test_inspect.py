import math

import pytest
from starlette.testclient import TestClient

from shoestring.serve.app import build_app
from shoestring.serve.service import Service
from tests.serve.phrasebook import Phrasebook

QUESTION = {"role": "user", "content": "Use 3, 5, 7 to make 22."}


@pytest.fixture(scope="module")
def answer(client):
    """An answer of mini with the logprobs that it had while it was written."""
    body = {"model": "mini", "messages": [QUESTION], "max_tokens": 40, "temperature": 0, "logprobs": True}
    choice = client.post("/v1/chat/completions", json={**body, "top_logprobs": 5}).json()["choices"][0]
    return choice["message"], choice["logprobs"]


@pytest.fixture(scope="module")
def seen(client, answer):
    message = {"role": "assistant", "content": answer[0]["content"]}
    if "reasoning_content" in answer[0]:
        message["reasoning_content"] = answer[0]["reasoning_content"]
    reply = client.post("/inspect", json={"model": "mini", "messages": [QUESTION, message]})
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_the_answer_is_its_tokens(seen, answer):
    text = "".join(token["text"] for token in seen["answer"])
    assert answer[0]["content"] in text
    assert "".join(token["text"] for token in seen["prompt"]).count(QUESTION["content"]) == 1
    assert any(token["is_special"] for token in seen["prompt"])
    assert not seen["is_cut"]


def test_each_token_has_its_alternatives_in_order(seen):
    for token in seen["answer"]:
        logprobs = [other["logprob"] for other in token["alternatives"]]
        assert logprobs == sorted(logprobs, reverse=True)
        assert len(logprobs) == 5
        assert sum(map(math.exp, logprobs)) <= 1.001
        assert token["logprob"] <= logprobs[0] + 1e-3


def test_a_greedy_answer_is_mostly_the_likeliest(seen):
    likeliest = [token["id"] == token["alternatives"][0]["id"] for token in seen["answer"]]
    assert sum(likeliest) > 0.7 * len(likeliest)


def test_experts_are_named_for_each_token_and_layer(seen):
    shape = seen["shape"]
    if not shape["experts"]:
        assert seen["experts"] is None
        return
    assert len(seen["experts"]) == len(seen["answer"])
    for layers in seen["experts"]:
        assert len(layers) == len(shape["moe_layers"])
        assert all(len(set(experts)) == shape["active_experts"] for experts in layers)
        assert all(0 <= expert < shape["experts"] for experts in layers for expert in experts)


def test_what_cannot_be_looked_into_is_a_sentence(client):
    body = {"model": "mini", "messages": [QUESTION]}
    assert "assistant's answer" in client.post("/inspect", json=body).json()["error"]["message"]
    long = {"role": "assistant", "content": "1 + 2 = 3. " * 400}
    reply = client.post("/inspect", json={"model": "mini", "messages": [QUESTION, long]})
    assert reply.json()["is_cut"]
    with TestClient(build_app(Service({"far": Phrasebook()}))) as other:
        far = other.post("/inspect", json={"model": "far", "messages": [QUESTION, long]})
        assert far.status_code == 400
        assert "runs on another server" in far.json()["error"]["message"]
