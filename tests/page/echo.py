"""A server with two models that say what they were asked, word by word: answers as slow as a test wants."""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODELS = ("echo", "parrot")


class Echo:
    """The server, on a thread of its own. `<think>…</think>` in a question becomes thinking."""

    def __init__(self) -> None:
        self.pause_s = 0.0
        """Seconds between two words."""
        self.requests: list[dict[str, Any]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def asked(self) -> list[dict[str, Any]]:
        """Requests of people; the service itself asks for a word now and then."""
        return [body for body in self.requests if body["messages"][-1]["content"] != "Hi"]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def chunks(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks of an answer: the last message, word by word, at most `max_tokens` words."""
    text = body["messages"][-1]["content"]
    thought = re.match(r"<think>(.*?)</think>", text, re.DOTALL)
    parts = [("reasoning_content", word) for word in _words(thought.group(1))] if thought else []
    parts += [("content", word) for word in _words(text[thought.end() if thought else 0 :])]
    most = body.get("max_tokens") or 10**6
    deltas = [{"delta": {kind: word}} for kind, word in parts[:most]]
    usage = {"prompt_tokens": 7, "completion_tokens": len(deltas), "total_tokens": 7 + len(deltas)}
    reason = "length" if len(parts) > most else "stop"
    choices = [*deltas, {"delta": {}, "finish_reason": reason}]
    common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
    events = [{**common, "choices": [{"index": 0, "finish_reason": None, **choice}]} for choice in choices]
    return [*events, {**common, "choices": [], "usage": usage}]


def _words(text: str) -> list[str]:
    return re.findall(r"\S+\s*|^\s+", text)


def _handler(echo: Echo) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            models = [{"id": name, "object": "model", "max_model_len": 100_000} for name in MODELS]
            self._reply("application/json", json.dumps({"object": "list", "data": models}).encode())

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            echo.requests.append(body)
            if not body.get("stream"):
                return self._reply("application/json", b'{"error": {"message": "stream only"}}', 400)
            self._reply("text/event-stream", b"")
            try:
                for chunk in chunks(body):
                    self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                    time.sleep(echo.pause_s)
                self.wfile.write(b"data: [DONE]\n\n")
            except OSError:
                pass  # the reader has gone
            return None

        def _reply(self, kind: str, content: bytes, status: int = 200) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler
