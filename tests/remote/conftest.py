"""Servers that behave and servers that do not, over the loopback."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from shoestring.remote import wire


class Server(ThreadingHTTPServer):
    """Answers each request with what `play(number, body)` returns: (status, headers, bytes), or None."""

    daemon_threads = True

    def __init__(self, play):
        super().__init__(("127.0.0.1", 0), Handler)
        self.play, self.seen, self.headers_seen, self.now, self.most = play, [], [], 0, 0
        self.lock = threading.Lock()

    def handle_error(self, *_):
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            number = len(server.seen)
            server.seen.append((self.path, body))
            server.headers_seen.append(dict(self.headers))
            server.now += 1
            server.most = max(server.most, server.now)
        try:
            status, headers, data = server.play(number, body)
            self.send_response(status)
            for name, value in ({"Content-Length": str(len(data))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(data)
        finally:
            with server.lock:
                server.now -= 1
        if headers.get("Connection") == "close":
            self.close_connection = True

    def log_message(self, *_):
        pass


@pytest.fixture
def serve(monkeypatch):
    """Starts servers: `server, url = serve(play)`."""
    monkeypatch.setattr(wire, "FIRST_WAIT_S", 0.01)
    running = []

    def start(play):
        server = Server(play)
        running.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server, f"http://127.0.0.1:{server.server_address[1]}/v1"

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


@pytest.fixture
def good():
    """The reply of a server: (status, headers, body)."""
    return completion


@pytest.fixture
def echo():
    """A server that repeats the question, n times if it is asked to."""
    return lambda _, body: completion(*[f"re: {body['messages'][0]['content']}"] * body.get("n", 1))


def completion(*texts, usage=(10, 20), **message):
    choices = [{"message": {"content": text, **message}, "finish_reason": "stop"} for text in texts]
    counts = {"prompt_tokens": usage[0], "completion_tokens": usage[1]} if usage else None
    return 200, {}, json.dumps({"choices": choices, "usage": counts}).encode()
