"""A stranger's Jinja template, rendered in a child process that may be killed: the parent's side."""

import json
import os
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

from shoestring.errors import MissingDependencyError, TokenizerError

START_LIMIT_S = 30.0
"""For the interpreter and the library to load; no hostile code runs in that time."""
PASSED_ENVIRONMENT = ("PATH", "HOME", "PYTHONPATH", "PYTHONHOME", "TZ", "LANG", "LC_ALL", "SYSTEMROOT")
"""What the child may know of our environment: no secret is among it."""


class TemplateWorker:
    """One template in one child, started when needed and again after it was killed. Thread-safe."""

    def __init__(self, source: str, *, time_limit_s: float = 1.0, max_chars: int = 1 << 20) -> None:
        self.source = source
        self.time_limit_s = time_limit_s
        self.max_chars = max_chars
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._finalizer: Any = None

    def render(self, variables: dict[str, Any], *, generation_marks: str, stand_ins: dict[str, str]) -> str:
        """The rendered text; raises TokenizerError for an error, a timeout, or too much output or memory."""
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
        """End the child; a later render starts another."""
        if self._finalizer is not None:
            self._finalizer()
        self._child = None

    def _start(self) -> None:
        self.close()
        script = Path(__file__).with_name("chat_worker.py")
        self._child = subprocess.Popen(
            [
                sys.executable,
                "-P",
                str(script),
            ],  # -P: the script's folder must not shadow the standard library
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in PASSED_ENVIRONMENT if name in os.environ},
            start_new_session=True,  # Ctrl-C in the terminal is for us
        )
        self._finalizer = weakref.finalize(self, _end, self._child)
        if self._exchange(b"", START_LIMIT_S) is None:
            self.close()
            raise MissingDependencyError("the chat template process did not start; is jinja2 installed?")
        try:
            self._ask({"compile": self.source}, self.time_limit_s)
        except TokenizerError:
            self.close()
            raise

    def _ask(self, request: dict[str, Any], limit_s: float) -> str:
        data = json.dumps(request).encode()
        reply = self._exchange(len(data).to_bytes(4, "big") + data, limit_s)
        if reply is None:
            self.close()
            raise TokenizerError(
                f"the chat template needed more than {limit_s:g} s or too much memory and was stopped; "
                "use another template"
            )
        if "error" in reply:
            raise TokenizerError(f"the chat template cannot render this conversation: {reply['error']}")
        return str(reply["text"])

    def _exchange(self, frame: bytes, limit_s: float) -> dict[str, Any] | None:
        """Send a frame and read one; None when the child died, was killed by the clock or sent nonsense."""
        child = self._child
        assert child is not None
        assert child.stdin is not None
        assert child.stdout is not None
        clock = threading.Timer(limit_s, child.kill)
        clock.daemon = True
        clock.start()
        try:
            child.stdin.write(frame)
            child.stdin.flush()
            head = child.stdout.read(4)
            size = int.from_bytes(head, "big")
            if len(head) < 4 or size > 8 * self.max_chars + 4096:  # a character is at most six bytes of JSON
                return None
            reply = json.loads(child.stdout.read(size))
            return reply if isinstance(reply, dict) else None
        except (OSError, ValueError):
            return None
        except BaseException:  # interrupted: a late reply must not answer the next request
            self.close()
            raise
        finally:
            clock.cancel()


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except OSError:  # unsent bytes for a child that is gone
                continue
