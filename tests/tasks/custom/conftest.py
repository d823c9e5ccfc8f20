"""Files of a user, and servers with a judge, over the loopback."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from textwrap import dedent

import pytest


@pytest.fixture
def write(tmp_path):
    """Writes a file of a user and returns its path as text."""

    def make(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(dedent(text))
        return str(path)

    return make


class JudgeServer(ThreadingHTTPServer):
    """Answers each request with the text that `judge(body)` returns, or with a status and a message."""

    daemon_threads = True

    def __init__(self, judge):
        super().__init__(("127.0.0.1", 0), JudgeHandler)
        self.judge, self.bodies = judge, []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, *_):
        """Clients that hang up are part of the tests."""


class JudgeHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        text = self.server.judge(body)
        status, reply = text if isinstance(text, tuple) else (200, completion(text))
        data = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def completion(text):
    message = {"message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"choices": [message], "usage": {"prompt_tokens": 100, "completion_tokens": 10}}


@pytest.fixture
def serve():
    """Starts servers: `server = serve(judge)`."""
    servers = []

    def start(judge):
        server = JudgeServer(judge)
        servers.append(server)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
