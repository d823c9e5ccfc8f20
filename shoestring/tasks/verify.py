"""Verifier: rewards for replies, of pure tasks at once, of others from child processes that can be killed."""

import contextlib
import logging
import math
import os
import queue
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shoestring import child
from shoestring.tasks.load import describe
from shoestring.tasks.task import Example, Task
from shoestring.tasks.verify_child import judge

log = logging.getLogger(__name__)

MAX_CHARS = 1 << 20
"""Most characters of a reply that a verifier reads; more than any context holds."""
MAX_REPLY_BYTES = 4096
GIVE_UP_AFTER = 20
"""Timeouts and deaths in a row; after so many the rest of a batch is skipped."""
MAX_FAULT_SHARE = 0.01
"""Most faults among verdicts; with more the verifier is broken and its rewards mislead."""
SHARE_FROM = 100
"""Fewest verdicts for a share of faults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The reward of one submitted reply; None for a fault of the verifier, which is never a zero."""

    ticket: Any
    """As it was submitted."""
    reward: float | None
    fault: str | None = None
    """timeout, died, exception, invalid (not a finite number), undecided (the task said None), or skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    ticket: Any
    task: str
    message: bytes


class Verifier:
    """Judges replies in any order. Use it as a context manager, from one thread.

    A reward that hangs, raises, dies or returns nonsense costs its own verdict and at most `timeout_s`; its
    child is replaced and the others go on. After 20 timeouts in a row the rest of the submitted replies is
    skipped, so a broken task delays a run by no more than that.
    """

    def __init__(self, tasks: Mapping[str, Task], *, workers: int = 1, timeout_s: float = 10.0) -> None:
        """`tasks` by the names that `submit` takes; children start when they are needed."""
        self._tasks = dict(tasks)
        loads = {
            name: child.frame({"load": name, **describe(task)})
            for name, task in tasks.items()
            if not task.is_pure
        }
        self.faults: Counter[tuple[str, str]] = Counter()
        """Verdicts without a reward, by task and fault."""
        self.verdicts = 0
        self._outstanding = 0
        self._is_closed = False
        self._failures: Counter[str] = Counter()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[_Job, dict[str, Any]]] = queue.SimpleQueue()
        self._workers = [
            _Worker(loads, self._jobs, self._results, self._failures, timeout_s) for _ in range(workers)
        ]

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(self, ticket: Any, task_name: str, example: Example, text: str) -> None:
        """Submit a reply for a verdict, which comes back with `ticket`; pure tasks judge it now.

        A ticket is anything that tells the caller which reply it is, such as (problem, sample).
        A reply of more than 2**20 characters gets 0.0 unread. It is no fault, since a model that loops must
        not stop a run; and it is not cut, since a verdict is on the whole reply.
        """
        assert not self._is_closed
        task = self._tasks[task_name]
        self._outstanding += 1
        if len(text) > MAX_CHARS:
            self._results.put((_Job(ticket=ticket, task=task_name, message=b""), {"reward": 0.0}))
        elif task.is_pure:
            self._results.put((_Job(ticket=ticket, task=task_name, message=b""), judge(task, example, text)))
        else:
            message = child.frame({"task": task_name, "example": asdict(example), "text": text})
            self._jobs.put(_Job(ticket=ticket, task=task_name, message=message))
            self._start_worker()

    def results(self, wait: bool) -> list[Verdict]:
        """New verdicts: those that are ready, or with `wait` all that are outstanding."""
        verdicts = []
        while self._outstanding:
            try:
                job, reply = self._results.get(block=wait)
            except queue.Empty:
                break
            self._outstanding -= 1
            verdicts.append(self._verdict(job, reply))
        if not self._outstanding:
            self._failures.clear()
        return verdicts

    def fault_share(self) -> float:
        """Share of faults among all verdicts so far; 0.0 below 100 verdicts, which say too little."""
        return self.faults.total() / self.verdicts if self.verdicts >= SHARE_FROM else 0.0

    def fault_counts(self) -> str:
        """The most frequent faults for an error message, such as `countdown: 12 x timeout`; may be empty."""
        counts = self.faults.most_common(3)
        return ", ".join(f"{task}: {count} x {fault}" for (task, fault), count in counts)

    def close(self) -> None:
        """End the children. Outstanding replies get no verdict, and no more can be submitted."""
        self._is_closed = True
        self._outstanding = 0
        for worker in self._workers:
            worker.stop()
            self._jobs.put(None)
        for worker in self._workers:
            if worker.is_alive():
                worker.join()

    def _start_worker(self) -> None:
        """Start one more worker, unless all are started."""
        for worker in self._workers:
            if worker.ident is None:
                worker.start()
                return

    def _verdict(self, job: _Job, reply: dict[str, Any]) -> Verdict:
        self.verdicts += 1
        reward, fault = reply.get("reward"), reply.get("fault")
        if fault is None and not (isinstance(reward, float) and math.isfinite(reward)):
            fault = "invalid"
        if fault is None:
            return Verdict(ticket=job.ticket, reward=reward)
        self.faults[job.task, fault] += 1
        if self.faults[job.task, fault] == 1:
            log.warning("no verdict of the task %s: %s %a", job.task, fault, reply.get("error", ""))
        return Verdict(ticket=job.ticket, reward=None, fault=fault)


class _Worker(threading.Thread):
    """A thread and its child process."""

    def __init__(
        self,
        loads: Mapping[str, bytes],
        jobs: "queue.SimpleQueue[_Job | None]",
        results: "queue.SimpleQueue[tuple[_Job, dict[str, Any]]]",
        failures: Counter[str],
        timeout_s: float,
    ) -> None:
        super().__init__(daemon=True, name="verifier")
        self._loads, self._jobs, self._results, self._failures = loads, jobs, results, failures
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[bytes] | None = None
        self._task_names: set[str] = set()
        self._lock = threading.Lock()
        self._is_stopped = False

    def run(self) -> None:
        while (job := self._jobs.get()) is not None and not self._is_stopped:
            self._results.put((job, self._judge(job)))
        self._end()

    def stop(self) -> None:
        """Kill the child, whatever it does, and start no other."""
        with self._lock:
            self._is_stopped = True
            if self._process is not None:
                _kill(self._process)

    def _judge(self, job: _Job) -> dict[str, Any]:
        if self._failures[job.task] >= GIVE_UP_AFTER:
            return {"fault": "skipped"}
        try:
            reply = self._load_fault(job.task) or self._ask(job.message, self._timeout_s)
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
                self._process = child.start(Path(__file__).with_name("verify_child.py"))
            if "fault" in (reply := self._ask(b"", child.START_LIMIT_S)):
                return reply
        if label not in self._task_names:
            if "fault" in (reply := self._ask(self._loads[label], child.START_LIMIT_S)):
                return reply
            self._task_names.add(label)
        return None

    def _ask(self, message: bytes, limit_s: float) -> dict[str, Any]:
        assert self._process is not None
        start = time.monotonic()
        reply = child.exchange(self._process, message, limit_s=limit_s, max_reply_bytes=MAX_REPLY_BYTES)
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
