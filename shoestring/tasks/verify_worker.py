"""A worker of the verifier: a thread, and the child process that computes rewards for it."""

import contextlib
import os
import queue
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from shoestring import child

MAX_REPLY_BYTES = 32 << 10
"""Of a child's reply, for one judgment."""
GIVE_UP_AFTER = 20
"""Timeouts and deaths in a row; after so many the rest of a batch is skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A request to a child process: one reply to judge, or several together."""

    tickets: tuple[Any, ...]
    """Of the replies, as they were submitted."""
    task: str
    message: bytes = b""
    timeout_s: float = 10.0
    replies: "queue.SimpleQueue[tuple[Job, dict[str, Any]]] | None" = None
    """The queue for its reply, if not the worker's results."""


class Worker(threading.Thread):
    """A thread and its child process."""

    def __init__(
        self,
        loads: Mapping[str, bytes],
        jobs: "queue.SimpleQueue[Job | None]",
        results: "queue.SimpleQueue[tuple[Job, dict[str, Any]]]",
        failures: Counter[str],
        *,
        environment: tuple[str, ...] = (),
        shows_prints: bool = False,
    ) -> None:
        """`environment` has names of further variables that the child gets."""
        super().__init__(daemon=True, name="verifier")
        self._loads, self._jobs, self._results, self._failures = loads, jobs, results, failures
        start = partial(child.start, Path(__file__).with_name("verify_child.py"))
        self._start = partial(start, environment) if environment else start
        if shows_prints:
            self._start = partial(self._start, shows_errors=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._task_names: set[str] = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    def run(self) -> None:
        while (job := self._jobs.get()) is not None and not self._is_stopped:
            (job.replies or self._results).put((job, self._judge(job)))
        self._end()

    def stop(self) -> None:
        """Kill the child, whatever it does, and start no other."""
        with self._lock:
            self._is_stopped = True
            if self._process is not None:
                _kill(self._process)

    def _judge(self, job: Job) -> dict[str, Any]:
        if self._failures[job.task] >= GIVE_UP_AFTER:
            return {"fault": "skipped"}
        try:
            reply = self._load_fault(job.task) or self._ask(job.message, job.timeout_s, len(job.tickets))
        except (OSError, RuntimeError) as error:  # no more processes, pipes or threads
            reply = {"fault": "died", "error": str(error)}
        is_failure = reply.get("fault") in ("timeout", "died")
        self._failures[job.task] = self._failures[job.task] + 1 if is_failure else 0
        return reply

    def _load_fault(self, label: str) -> dict[str, Any] | None:
        """Start the child and load the task in it, unless that is done; returns the fault, or None."""
        if self._process is None or self._process.poll() is not None:
            self._end()
            with self._lock:
                if self._is_stopped:
                    return {"fault": "died"}
                self._process = self._start()
            if "fault" in (reply := self._ask(b"", child.START_LIMIT_S)):
                return reply
        if label not in self._task_names:
            if "fault" in (reply := self._ask(self._loads[label], child.START_LIMIT_S)):
                return reply
            self._task_names.add(label)
        return None

    def _ask(self, message: bytes, limit_s: float, num_judgments: int = 1) -> dict[str, Any]:
        assert self._process is not None
        start = time.monotonic()
        most = MAX_REPLY_BYTES * num_judgments
        reply = child.exchange(self._process, message, limit_s=limit_s, max_reply_bytes=most)
        if reply is None:
            self._end()
            return {"fault": "timeout" if time.monotonic() - start >= limit_s else "died"}
        return reply

    def _end(self) -> None:
        with self._lock:
            process, self._process = self._process, None
        self._task_names.clear()
        if process is not None:
            _kill(process)
            child.end(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the child and every process it started: `child.start` made it the leader of a process group."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
