import asyncio

import httpx2
import pytest

from shoestring.errors import ConfigError
from shoestring.serve.backends.address import DEFAULT_CONTEXT, list_models, read_address, read_addresses


def cards(monkeypatch, body, status=200):
    """The models of a server that lists them with this body."""

    class Client(httpx2.AsyncClient):
        async def get(self, url, **_):
            json = {"json": body} if not isinstance(body, str) else {"text": body}
            return httpx2.Response(status, **json)

    monkeypatch.setattr("httpx2.AsyncClient", Client)
    return asyncio.run(list_models(read_address("http://127.0.0.1:1/v1")))


def test_an_address_has_a_weight_and_a_key_from_the_environment(monkeypatch):
    monkeypatch.setenv("FAR_KEY", "secret-key")
    address = read_address("http://127.0.0.1:8000/v1/,weight=2.5,key_env=FAR_KEY")
    assert (address.url, address.weight, address.key) == ("http://127.0.0.1:8000/v1", 2.5, "secret-key")
    assert address.name == "127.0.0.1:8000"
    assert "secret-key" not in repr(address)
    plain = read_address("https://example.com/models/v1")
    assert (plain.weight, plain.key, plain.name) == (1.0, "", "example.com/models")


@pytest.mark.parametrize(
    "text",
    [
        "http://h/v1,weight=0",
        "http://h/v1,weight=-1",
        "http://h/v1,weight=inf",
        "http://h/v1,weight=two",
        "http://h/v1,2",
        "http://h/v1,heavy=2",
        "http://h/v1,key_env=NO_SUCH_VARIABLE",
        "h:8000",
        "http://user:pw@h/v1",
    ],
)
def test_a_wrong_address_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        read_address(text)
    assert "pw" not in str(caught.value)


def test_a_server_is_named_once():
    with pytest.raises(ConfigError, match="named twice"):
        read_addresses(["http://h:1/v1", "http://h:2/v1", "http://h:1/v1,weight=2"])


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"data": []}, 200, "lists no model"),
        ({"data": [{"name": 1}, {"id": ""}, {"id": "a\nb"}, {"id": "x" * 300}, "y"]}, 200, "lists no model"),
        ({"error": "key"}, 401, "status 401"),
        ({"data": [{"id": "a"}]}, 302, "status 302"),
        ({"models": []}, 200, "does not answer"),
        ([], 200, "does not answer"),
        ("<html>", 200, "does not answer"),
    ],
)
def test_a_server_without_models_is_refused(monkeypatch, body, status, words):
    with pytest.raises(ConfigError, match=words):
        cards(monkeypatch, body, status)


def test_a_context_that_a_server_does_not_name_has_a_default(monkeypatch):
    models = [{"id": "a"}, {"id": "b", "max_model_len": 99}, {"id": "c", "max_model_len": "x"}]
    lengths = [card.max_model_len for card in cards(monkeypatch, {"data": models}).values()]
    assert lengths == [DEFAULT_CONTEXT, 99, DEFAULT_CONTEXT]
