import asyncio
import json

import pytest

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.live import ClientGone
from shoestring.serve.routes import slow_json as module
from shoestring.serve.routes.slow_json import slow_json


class Connection:
    """A request whose client leaves after `stays_s` seconds."""

    def __init__(self, stays_s=60.0):
        self.stays_s, self.sent = stays_s, []

    async def receive(self):
        await asyncio.sleep(self.stays_s)
        return {"type": "http.disconnect"}

    async def send(self, message):
        self.sent.append(message)


async def work(seconds, error=None, ends=None):
    try:
        await asyncio.sleep(seconds)
        if error is not None:
            raise error
        return {"answer": "é"}
    except asyncio.CancelledError:
        ends.append("cancelled")
        raise


async def sent(connection, coroutine):
    """Status and body of the response."""
    response = await slow_json(connection, coroutine, {"x-a": "b"})
    await response({"type": "http"}, connection.receive, connection.send)
    assert (b"x-a", b"b") in connection.sent[0]["headers"]
    return connection.sent[0]["status"], b"".join(part.get("body", b"") for part in connection.sent[1:])


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S", 0.02)


def test_a_quick_reply_has_no_blank_line():
    status, body = asyncio.run(sent(Connection(), work(0)))
    assert (status, json.loads(body)) == (200, {"answer": "é"})
    assert not body.startswith(b"\n")


def test_a_slow_reply_begins_with_blank_lines():
    status, body = asyncio.run(sent(Connection(), work(0.2)))
    assert (status, json.loads(body)) == (200, {"answer": "é"})
    assert body.startswith(b"\n\n")


def test_an_early_error_is_raised_and_a_late_one_is_the_body():
    with pytest.raises(RequestError):
        asyncio.run(sent(Connection(), work(0, RequestError("failed", "no"))))
    status, body = asyncio.run(sent(Connection(), work(0.2, RequestError("failed", "no"))))
    assert (status, json.loads(body)["error"]["message"]) == (200, "no")


@pytest.mark.parametrize("patience_s", [5.0, 0.02])
def test_work_ends_when_the_client_leaves(monkeypatch, patience_s):
    """Before the first blank line, and after it."""
    monkeypatch.setattr(module, "PATIENCE_S", patience_s)
    ends = []

    async def leave():
        try:
            await sent(Connection(stays_s=0.1), work(60, ends=ends))
        except ClientGone:
            ends.append("gone")
        await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(leave(), 10))
    assert ends[-1] == "cancelled" if patience_s < 1 else sorted(ends) == ["cancelled", "gone"]
