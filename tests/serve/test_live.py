import asyncio
import json
import socket
import threading
import time

import pytest

import shoestring.serve.live as live
from shoestring.serve.backends.errors import RequestError


def send(address, **fields):
    """A connection with a request on its way."""
    messages = [{"role": "user", "content": "Use 3, 5, 7 to make 22."}]
    data = {"model": "mini", "messages": messages, "max_tokens": 400, "ignore_eos": True, **fields}
    body = json.dumps(data).encode()
    connection = socket.create_connection(address)
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: x", "Content-Type: application/json"]
    head = "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""])
    connection.sendall(head.encode() + body)
    return connection


def wait_for(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_engine(served, stream):
    address, service = served
    engine = service.backends["mini"].engine
    before = engine.counters
    connection = send(address, stream=stream)
    wait_for(lambda: engine.counters.running > 0)
    connection.close()
    wait_for(lambda: engine.counters.running == 0)
    after = engine.counters
    assert after.aborted == before.aborted + 1
    assert after.finished == before.finished


def test_the_head_of_a_stream_comes_before_the_first_token(served, monkeypatch):
    """And comments follow by the clock, while the engine is silent."""
    address, service = served
    backend = service.backends["mini"]
    release = threading.Event()
    step = backend.engine.step
    monkeypatch.setattr(live, "KEEP_ALIVE_S", 0.05)
    monkeypatch.setattr(backend.engine, "step", lambda: (release.wait(20), step())[1])
    connection = send(address, stream=True, max_tokens=1)
    received = b""
    while received.count(b": keep-alive") < 2:
        received += connection.recv(1000)
    assert b"200 OK" in received
    assert b"data:" not in received
    release.set()
    while b"[DONE]" not in received:
        received += connection.recv(1000)
    connection.close()


def test_an_error_on_the_way_is_an_event(served, monkeypatch):
    address, service = served

    async def fail(*_):
        raise RequestError("overloaded", "the engine has stopped")
        yield

    monkeypatch.setattr(service.backends["mini"], "_deltas", fail)
    connection = send(address, stream=True)
    received = b""
    while b"[DONE]" not in received:
        received += connection.recv(1000)
    assert b'data: {"error":{"message":"the engine has stopped"' in received
    connection.close()


def test_work_that_fails_raises_its_own_error():
    class Request:
        async def receive(self):
            await asyncio.sleep(60)

    async def fail():
        raise ValueError("own")

    with pytest.raises(ValueError, match="own"):
        asyncio.run(live.unless_gone(Request(), fail()))
