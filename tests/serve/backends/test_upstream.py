import pytest

from shoestring.errors import ConfigError
from shoestring.serve.backends.upstream import DEFAULT_CONTEXT, upstream_backends


class Reply:
    def __init__(self, body, status=200):
        self.body, self.status_code = body, status

    def json(self):
        if isinstance(self.body, Exception):
            raise self.body
        return self.body


def test_models_of_a_server_become_backends(served):
    (host, port), _ = served
    (backend,) = upstream_backends(f"http://{host}:{port}/v1/")
    assert (backend.card.id, backend.card.max_model_len) == ("mini", 512)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (Reply({"data": []}), "lists no model"),
        (Reply({"data": [{"name": 1}]}), "lists no model"),
        (Reply({"error": "key"}, 401), "status 401"),
        (Reply({"models": []}), "does not answer"),
        (Reply(ValueError("html")), "does not answer"),
    ],
)
def test_a_server_without_models_is_refused(monkeypatch, reply, words):
    monkeypatch.setattr("httpx2.get", lambda *_, **__: reply)
    with pytest.raises(ConfigError, match=words):
        upstream_backends("http://127.0.0.1:1/v1")


def test_a_context_that_a_server_does_not_name_has_a_default(monkeypatch):
    models = [{"id": "a"}, {"id": "b", "max_model_len": 99}, {"id": "c", "max_model_len": "x"}]
    monkeypatch.setattr("httpx2.get", lambda *_, **__: Reply({"data": models}))
    cards = [backend.card for backend in upstream_backends("http://127.0.0.1:1/v1")]
    assert [card.max_model_len for card in cards] == [DEFAULT_CONTEXT, 99, DEFAULT_CONTEXT]
