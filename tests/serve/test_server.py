"""The server that `serve` runs: its connections are limited where there is admission, and files suffice."""

import resource
import socket
import threading
from contextlib import contextmanager

import pytest

from shoestring.serve import server
from shoestring.serve.admission.admission import Admission, Limits
from shoestring.serve.admission.connections import ConnectionLimits
from shoestring.serve.app import build_app
from shoestring.serve.server import OTHER_FILES, connections_within, listen, serve_app


@pytest.fixture
def files(monkeypatch):
    """The limit of files, which a test sets: (soft, hard)."""
    limits = [[100, 5000]]
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda kind, values: limits.append(list(values)))
    return limits


def test_the_limit_of_files_is_raised_to_what_connections_need(files):
    assert connections_within(1000) == 1000
    assert files[-1] == [1000 + OTHER_FILES, 5000]


def test_the_hard_limit_of_files_limits_connections(files):
    assert connections_within(8192) == 5000 - OTHER_FILES
    assert files[-1] == [5000, 5000]


def test_a_higher_limit_stays(files):
    files[-1] = [resource.RLIM_INFINITY, resource.RLIM_INFINITY]
    assert connections_within(8192) == 8192
    assert len(files) == 1


@contextmanager
def running(service, monkeypatch):
    """A service that `serve_app` runs: its address."""
    servers = []
    monkeypatch.setattr(server.signal, "signal", lambda *_: None)  # another thread may not
    monkeypatch.setattr(server.Server, "on_tick", lambda self, n: _tick(self, n, servers), raising=True)
    with listen("127.0.0.1", 0) as listener:
        address = listener.getsockname()
        thread = threading.Thread(target=serve_app, args=(build_app(service), service, listener))
        thread.start()
        yield address
        servers[0].should_exit = True
        thread.join()


def test_connections_over_the_limit_are_closed_before_they_are_read(new_service, monkeypatch):
    service = new_service()
    limits = ConnectionLimits(per_address=1)
    service.admission = Admission(Limits(connections=limits), slots={"mini": 2})
    with running(service, monkeypatch) as address, socket.create_connection(address) as first:
        first.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert first.recv(100).startswith(b"HTTP/1.1 200")
        with socket.create_connection(address) as second:
            second.settimeout(10)
            assert _is_closed(second)
    assert service.admission.connections.num_refusals == 1


def test_a_client_of_this_machine_is_no_proxy_either(new_service, monkeypatch, caplog):
    caplog.set_level("INFO", "shoestring.serve.access")
    lie = b"X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n"
    with running(new_service(), monkeypatch) as address, socket.create_connection(address) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n" + lie + b"\r\n")
        assert b"strict-transport" not in client.recv(1000).lower()
    assert '"address": "127.0.0.1"' in caplog.text


async def _tick(running: server.Server, counter: int, servers: list) -> bool:
    servers.append(running)
    return running.should_exit


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
