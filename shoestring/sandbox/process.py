"""The sandbox as its user sees it: a process that runs programs within limits. Open it with `open.py`.

A program only maps its standard input to its standard output, or a function's arguments to its result. What
is expected of it never enters: the caller compares, outside. There is no weaker mode to fall back on.
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
"""The sandbox's own clock ends a program; this much later our clock ends the sandbox."""
MAX_INPUT_CHARS = 4 << 20
CODE = "import sys; sys.path.insert(0, sys.argv[1]); from shoestring.sandbox.forkserver import main; main()"
WAY_OUT = "programs by a model are run in no other way; leave tasks that run code out of the recipe"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one program."""

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
    """The end of a program: its status, exit code and output."""

    status: Status
    """ok: exit code 0; timeout, output, memory: a limit; fault: the sandbox failed, not the program."""
    code: int
    """Its exit code; minus the signal that ended it; 0 when we ended it."""
    stdout: str
    """At most `output_bytes`; bytes that are not UTF-8 are lone surrogates. Of a call, its result as JSON."""
    seconds: float


class Sandbox:
    """A process in its own namespaces that runs one program after another, each in new ones.

    Threads may share it and take turns. Close it, or use it as a context manager.
    """

    def __init__(self) -> None:
        """Start the process. Call `open.open_sandbox` instead: it also tests that the boundary holds.

        Raises MissingDependencyError where the kernel refuses what the sandbox needs.
        """
        self._turn = threading.Lock()
        self._start()

    @property
    def pid(self) -> int:
        """Of the fork server; between programs it has no children."""
        return self._process.pid

    @property
    def layers(self) -> tuple[str, ...]:
        """The parts of the boundary on this machine."""
        first = (
            "user, process, mount, network and IPC namespaces",
            "a file tree of its own",
            "seccomp",
            "limits",
        )
        return (*first, f"Landlock {self._landlock}") if self._landlock else first

    def run(self, program: str, stdin: str = "", *, limits: Limits | None = None) -> Outcome:
        """Run Python source on a standard input; nothing that the program is or does raises an error."""
        return self._ask({"program": program, "stdin": stdin}, limits or Limits())

    def call(
        self, program: str, function: str, arguments: Sequence[Any], *, limits: Limits | None = None
    ) -> Outcome:
        """Run Python source, then call one of its functions; arguments and result (`stdout`) are JSON."""
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
        message = child.frame({**job, **asdict(limits)})
        with self._turn:
            if self._process.poll() is not None:  # it was closed, or a fault ended it
                self._start()
            reply = self._exchange(message, limits.wall_s + GRACE_S, 6 * limits.output_bytes + 1000)
            if reply is None:
                self.close()
        return Outcome(**reply) if reply else Outcome(status="fault", code=0, stdout="", seconds=0.0)

    def _exchange(self, message: bytes, limit_s: float, max_reply_bytes: int) -> dict[str, Any] | None:
        return child.exchange(self._process, message, limit_s=limit_s, max_reply_bytes=max_reply_bytes)

    def _start(self) -> None:
        if sys.platform != "linux":
            raise MissingDependencyError(f"the sandbox needs Linux, and this is {sys.platform}; {WAY_OUT}")
        environment = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        self._process = subprocess.Popen(
            [sys.executable, "-ISB", "-X", "utf8", "-c", CODE, str(Path(__file__).parents[2])],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={
                **environment,
                "MALLOC_ARENA_MAX": "1",
            },  # an arena for each thread would fill the address space
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
