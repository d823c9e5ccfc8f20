"""Child process that renders a Jinja template, and may be killed: the parent's side."""

import subprocess
import threading
import weakref
from pathlib import Path
from typing import Any

from shoestring import child
from shoestring.errors import MissingDependencyError, TokenizerError


class TemplateProcess:
    """Child process for one template, started when needed and again after it was killed. Thread-safe."""

    def __init__(self, source: str, *, time_limit_s: float = 1.0, max_chars: int = 1 << 20) -> None:
        self.source = source
        self.time_limit_s = time_limit_s
        self.max_chars = max_chars
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._finalizer: Any = None

    def render(self, variables: dict[str, Any], *, generation_marks: str, stand_ins: dict[str, str]) -> str:
        """Render the template. Raises TokenizerError for an error, a timeout, too much output or memory."""
        request = {
            "render": variables,
            "generation_marks": generation_marks,
            "stand_ins": stand_ins,
            "max_chars": self.max_chars,
        }
        with self._lock:
            if self._child is None or self._child.poll() is not None:
                self._start()
            return self._ask(request, self.time_limit_s)

    def close(self) -> None:
        """End the child; the next render starts another."""
        if self._finalizer is not None:
            self._finalizer()
        self._child = None

    def _start(self) -> None:
        self.close()
        script = Path(__file__).with_name("worker.py")
        self._child = child.start(script)
        self._finalizer = weakref.finalize(self, child.end, self._child)
        if self._exchange(b"", child.START_LIMIT_S) is None:
            self.close()
            raise MissingDependencyError(
                "the process for the chat template did not start; pip install jinja2 if it is missing"
            )
        try:
            self._ask({"compile": self.source}, self.time_limit_s)
        except TokenizerError:
            self.close()
            raise

    def _ask(self, request: dict[str, Any], limit_s: float) -> str:
        reply = self._exchange(child.frame(request), limit_s)
        if reply is None:
            self.close()
            raise TokenizerError(
                f"the chat template needed more than {limit_s:g} s or too much memory and was stopped; "
                "use another template"
            )
        if "error" in reply:
            raise TokenizerError(f"the chat template cannot render this conversation: {reply['error']}")
        return str(reply["text"])

    def _exchange(self, data: bytes, limit_s: float) -> dict[str, Any] | None:
        assert self._child is not None
        max_reply_bytes = 8 * self.max_chars + 4096  # a character is at most six bytes of JSON
        return child.exchange(self._child, data, limit_s=limit_s, max_reply_bytes=max_reply_bytes)
