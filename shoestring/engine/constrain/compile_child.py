"""Compiling grammars in a child process that may be killed: the parent's side of native.py."""

import signal
import subprocess
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from shoestring import child
from shoestring.engine.constrain.native import NO_TEXT, ROW_ITEMS
from shoestring.errors import ConfigError, MissingDependencyError

BUSY = 8.0 if hasattr(signal, "setitimer") else 2.0
"""The wall time for a grammar on a busy machine, as a multiple of its processor time."""
MAX_REPLY_BYTES = 1 << 16
ENVIRONMENT = ("RUST_BACKTRACE", "RUST_LIB_BACKTRACE")
"""Environment variables that make compiling seven times slower, so that both processes have them or none."""


class CompileChild:
    """A process that compiles each grammar first, where a hang or a crash does no harm. Thread-safe.

    llguidance bounds most of its work, but not all: intersecting a few regexes, or the least common multiple
    of several `multipleOf`, may never end. A grammar that compiles here in time compiles in the parent in the
    same time, since compiling is deterministic.
    """

    def __init__(
        self, specials: dict[str, int], eos_ids: Sequence[int], vocab_size: int, *, time_limit_s: float
    ) -> None:
        """`time_limit_s` is processor time for one grammar."""
        self._setup = {"specials": specials, "eos_ids": list(eos_ids), "vocab_size": vocab_size}
        self.time_limit_s = time_limit_s
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._is_ready = False
        self._finalizer: Any = None

    def check(self, grammar: str, *, row_items: int) -> None:
        """Raise ConfigError, with the reason, unless `grammar` compiles within its time and memory."""
        error = self._error(grammar, row_items)
        if error:
            raise ConfigError(f"the grammar or schema cannot be compiled: {error}")

    def can_match(self, grammar: str) -> bool:
        """Return whether a grammar has any text; raises ConfigError as `check` does for any other fault."""
        error = self._error(grammar, ROW_ITEMS)
        if error and error != NO_TEXT:
            raise ConfigError(f"cannot be compiled: {error}")
        return not error

    def close(self) -> None:
        """End the child; a later check starts another."""
        if self._finalizer is not None:
            self._finalizer()
        self._child, self._is_ready = None, False

    def _error(self, grammar: str, row_items: int) -> str:
        """The reason why a grammar does not compile, empty if it does."""
        with self._lock:
            self._wait_until_ready()
            request = {"grammar": grammar, "row_items": row_items, "cpu_s": self.time_limit_s}
            reply = self._exchange(request, BUSY * self.time_limit_s)
            if reply is None:
                self._start()  # now, so that the next request need not wait for it
                raise ConfigError(
                    f"the grammar or schema takes more than {self.time_limit_s:g} s or too much memory to "
                    "compile; make it smaller"
                )
            return str(reply["error"])

    def _start(self) -> None:
        """Start the child; `_wait_until_ready` sends it the setup."""
        self.close()
        script = Path(__file__).with_name("native.py")
        self._child = child.start(script, ENVIRONMENT)
        self._finalizer = weakref.finalize(self, child.end, self._child)

    def _wait_until_ready(self) -> None:
        if self._child is None or self._child.poll() is not None:
            self._start()
        if not self._is_ready:
            if self._exchange(self._setup, child.START_LIMIT_S) is None:
                self.close()
                raise MissingDependencyError("the grammar process did not start; is llguidance installed?")
            self._is_ready = True

    def _exchange(self, message: dict[str, Any], limit_s: float) -> dict[str, Any] | None:
        """See child.exchange."""
        assert self._child is not None
        return child.exchange(
            self._child, child.frame(message), limit_s=limit_s, max_reply_bytes=MAX_REPLY_BYTES
        )
