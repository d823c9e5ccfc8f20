"""Run model-written programs within limits: the door to the sandbox, which refuses when it is not a boundary.

A program only maps its standard input to its standard output, or a function's arguments to its result. What
is expected of it never enters: comparing is the caller's, outside. There is no weaker mode to fall back on.
"""

import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from shoestring import child
from shoestring.errors import MissingDependencyError

Status = Literal["ok", "exit", "signal", "timeout", "output", "memory", "fault"]
GRACE_S = 5.0
"""The sandbox's own clock ends a program; this much later ours ends the sandbox."""
MAX_INPUT_CHARS = 4 << 20
CODE = "import sys; sys.path.insert(0, sys.argv[1]); from shoestring.sandbox.zygote import main; main()"
WAY_OUT = "programs by a model are run in no other way; leave tasks that run code out of the recipe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one program may use."""

    wall_s: float = 5.0
    memory_bytes: int = 256 << 20
    """Of all its processes together, beyond what the interpreter starts with."""
    processes: int = 16
    """And threads, at one time."""
    output_bytes: int = 64 << 10
    file_bytes: int = 16 << 20
    """In its own /tmp, which starts empty and is dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a program ended."""

    status: Status
    """ok: exit code 0; timeout, output, memory: ended for that; fault: of the sandbox, nothing is known."""
    code: int
    """Its exit code; minus the signal that ended it; 0 when we ended it."""
    stdout: str
    """At most `output_bytes`; what is not UTF-8 became lone surrogates. Of a call, its result as JSON."""
    seconds: float


class Sandbox:
    """A process in namespaces of its own that runs one program after another, each in fresh ones.

    Safe to share between threads, which take turns. Close it, or use it as a context manager.
    """

    def __init__(self) -> None:
        """Use `Sandbox.open`, which also tries whether the boundary holds."""
        self._turn = threading.Lock()
        self._start()

    @classmethod
    def open(cls) -> "Sandbox":
        """Start the sandbox and try to break out of it; half a second.

        Raises MissingDependencyError that names what is missing where it is not a boundary.
        """
        from shoestring.sandbox.canary import weaknesses

        sandbox = cls()
        try:
            found = weaknesses(sandbox)
        except BaseException:
            sandbox.close()
            raise
        if found:
            sandbox.close()
            raise MissingDependencyError(f"the sandbox is not a boundary here: {'; '.join(found)}; {WAY_OUT}")
        return sandbox

    @property
    def pid(self) -> int:
        """The zygote's process; between runs it has no children."""
        return self._process.pid

    @property
    def layers(self) -> tuple[str, ...]:
        """What the boundary is made of here."""
        first = (
            "user, process, mount, network and IPC namespaces",
            "a file tree of its own",
            "seccomp",
            "limits",
        )
        return (*first, f"Landlock {self._landlock}") if self._landlock else first

    def run(self, program: str, stdin: str = "", *, limits: Limits | None = None) -> Outcome:
        """Run Python source on a standard input. Never raises for what it is or does."""
        return self._ask({"program": program, "stdin": stdin}, limits or Limits())

    def call(
        self, program: str, function: str, arguments: Sequence[Any], *, limits: Limits | None = None
    ) -> Outcome:
        """Run the source, then call a function of it with JSON arguments; `stdout` is its result as JSON."""
        job = {"program": program, "stdin": "", "call": function, "arguments": list(arguments)}
        return self._ask(job, limits or Limits())

    def close(self) -> None:
        """End the sandbox and everything in it."""
        self._finalizer()

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _ask(self, job: dict[str, Any], limits: Limits) -> Outcome:
        if len(job["program"]) + len(job["stdin"]) > MAX_INPUT_CHARS:
            return Outcome(status="exit", code=1, stdout="", seconds=0.0)
        sent = child.frame({**job, **asdict(limits)})
        with self._turn:
            if self._process.poll() is not None:  # it was closed, or a fault ended it
                self._start()
            reply = self._exchange(sent, limits.wall_s + GRACE_S, 6 * limits.output_bytes + 1000)
            if reply is None:
                self.close()
        return Outcome(**reply) if reply else Outcome(status="fault", code=0, stdout="", seconds=0.0)

    def _exchange(self, sent: bytes, limit_s: float, max_reply_bytes: int) -> dict[str, Any] | None:
        return child.exchange(self._process, sent, limit_s=limit_s, max_reply_bytes=max_reply_bytes)

    def _start(self) -> None:
        if sys.platform != "linux":
            raise MissingDependencyError(f"the sandbox needs Linux, and this is {sys.platform}; {WAY_OUT}")
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-ISB", "-X", "utf8", "-c", CODE, str(Path(__file__).parents[2])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**kept, "MALLOC_ARENA_MAX": "1"},  # an arena for each thread would fill the address space
            start_new_session=True,
        )
        self._finalizer = weakref.finalize(self, child.end, self._process)
        hello = self._exchange(b"", child.START_LIMIT_S, 1000) or {"refused": "its process ended at once"}
        if "refused" in hello:
            self.close()
            raise MissingDependencyError(
                f"the sandbox needs user namespaces and seccomp, on x86-64 or ARM ({hello['refused']}): "
                f"allow them (sysctl, container or AppArmor profile); {WAY_OUT}"
            )
        self._landlock = int(hello["landlock"])
