"""Verifier: rewards for replies, of pure tasks at once, of others from child processes that can be killed."""

import logging
import math
import os
import queue
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from shoestring import child
from shoestring.tasks.load import describe
from shoestring.tasks.task import BatchTask, Example, Reply, Task
from shoestring.tasks.verify_child import judge, judge_batch
from shoestring.tasks.verify_worker import Job, Worker

log = logging.getLogger(__name__)

MAX_CHARS = 1 << 20
"""Most characters of a reply that a verifier reads; more than any context holds."""
BATCH = 64
"""Replies that a task judges together at least, unless all that there are have to be judged."""
BATCH_TIMEOUT_S = 120.0
"""For all replies that a task judges together, where the task does not say another time."""
MAX_FAULT_SHARE = 0.01
"""Most faults among verdicts; with more the verifier is broken and its rewards mislead."""
SHARE_FROM = 100
"""Fewest verdicts for a share of faults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The reward of one submitted reply; None for a fault of the verifier, which is never a zero.

    None without a fault: no reward applies to this reply.
    """

    ticket: Any
    """As it was submitted."""
    reward: float | None
    fault: str | None = None
    """timeout, died, exception, invalid (not a finite number), undecided (the task said None), or skipped."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Rewards by function, of a task that has several."""
    notes: Mapping[str, Any] = field(default_factory=dict)
    """Columns that a reward function wrote for people to read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call of a task's tool, as a model wrote it."""

    task: str
    """The name that the verifier has the task under."""
    name: str
    arguments: str
    """JSON, if the model wrote what it should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolResult:
    """The result of a tool, as text for the model."""

    text: str
    is_error: bool


class Verifier:
    """Judges replies in any order. Use it as a context manager, from one thread.

    A reward that hangs, raises, dies or returns nonsense costs its own verdict and at most `timeout_s`; its
    child is replaced and the others go on. After 20 timeouts in a row the rest of the submitted replies is
    skipped, so a broken task delays a run by no more than that. Replies of a BatchTask are judged together,
    when enough have come or all are waited for.
    """

    def __init__(
        self,
        tasks: Mapping[str, Task],
        *,
        workers: int = 1,
        timeout_s: float = 10.0,
        shows_prints: bool = False,
    ) -> None:
        """`tasks` by the names that `submit` takes; children start when they are needed.

        `shows_prints` lets what rewards print in a child through to stderr.
        """
        self._tasks, self._timeout_s = dict(tasks), timeout_s
        in_child = {name: task for name, task in tasks.items() if not (task.is_pure or task.runs_here)}
        in_child |= {name: task for name, task in tasks.items() if task.tools}
        loads = {name: child.frame({"load": name, **describe(task)}) for name, task in in_child.items()}
        environment = tuple(os.environ) if any(task.is_own for task in in_child.values()) else ()
        self.faults: Counter[tuple[str, str]] = Counter()
        """Verdicts without a reward, by task and fault."""
        self.verdicts = 0
        self.state: Mapping[str, Any] = {}
        """The training's, for reward functions: global_step, max_steps."""
        self.metrics: defaultdict[str, list[float]] = defaultdict(list)
        """Figures that reward functions gave, by name; a caller that shows them empties it."""
        self.on_wait: Callable[[], None] = lambda: None
        """A function to call while a server works on a verdict; it may raise to end that."""
        self._first_errors: dict[tuple[str, str], str] = {}
        self._waiting: defaultdict[str, list[tuple[Any, Reply]]] = defaultdict(list)
        self._outstanding = 0
        self._is_closed = False
        self._failures: Counter[str] = Counter()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._results: queue.SimpleQueue[tuple[Job, dict[str, Any]]] = queue.SimpleQueue()
        self._workers = [
            Worker(
                loads,
                self._jobs,
                self._results,
                self._failures,
                environment=environment,
                shows_prints=shows_prints,
            )
            for _ in range(workers)
        ]

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def submit(
        self,
        ticket: Any,
        task_name: str,
        example: Example,
        text: str,
        *,
        messages: Sequence[Mapping[str, Any]] = (),
        token_ids: Sequence[int] = (),
    ) -> None:
        """Submit a reply for a verdict, which comes back with `ticket`; pure tasks judge it now.

        `messages` are all of the reply where it has calls of tools; they and the ids are for a BatchTask.
        A ticket is anything that tells the caller which reply it is, such as (problem, sample).
        A reply of more than 2**20 characters gets 0.0 unread. It is no fault, since a model that loops must
        not stop a run; and it is not cut, since a verdict is on the whole reply.
        """
        assert not self._is_closed
        task = self._tasks[task_name]
        self._outstanding += 1
        job = Job(tickets=(ticket,), task=task_name)
        if len(text) > MAX_CHARS:
            self._results.put((job, {"reward": 0.0}))
        elif task.is_batched:
            reply = Reply(example=example, text=text, messages=messages, token_ids=token_ids)
            self._waiting[task_name].append((ticket, reply))
        elif task.is_pure:
            self._results.put((job, judge(task, example, text)))
        else:
            message = {"task": task_name, "example": asdict(example), "text": text}
            self._send((ticket,), task_name, message, task.timeout_s or self._timeout_s)

    def results(self, wait: bool) -> list[Verdict]:
        """New verdicts: those that are ready, or with `wait` all that are outstanding."""
        self._judge_waiting(0 if wait else BATCH)
        verdicts = []
        while self._outstanding:
            try:
                job, reply = self._results.get(block=wait)
            except queue.Empty:
                break
            self._outstanding -= len(job.tickets)
            verdicts += self._verdicts(job, reply)
        if not self._outstanding:
            self._failures.clear()
        return verdicts

    def call_tools(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        """The results of calls of the tasks' tools, in their order, each from a child within its time.

        A call that takes too long, or ends its process, has a result that says so.
        """
        replies: queue.SimpleQueue[tuple[Job, dict[str, Any]]] = queue.SimpleQueue()
        for number, call in enumerate(calls):
            message = {"task": call.task, "tool": call.name, "arguments": call.arguments}
            self._jobs.put(
                Job(
                    tickets=(number,),
                    task=call.task,
                    message=child.frame(message),
                    timeout_s=self._timeout_s,
                    replies=replies,
                )
            )
            self._start_worker()
        results: dict[int, ToolResult] = {}
        while len(results) < len(calls):
            job, reply = replies.get()
            text = reply.get("result", f"error: the tool gave no result ({reply.get('fault')})")
            is_error = bool(reply.get("is_error", True))
            results[job.tickets[0]] = ToolResult(text=text, is_error=is_error)
        return [results[number] for number in range(len(calls))]

    def fault_share(self) -> float:
        """Share of faults among all verdicts so far; 0.0 below 100 verdicts, which say too little."""
        return self.faults.total() / self.verdicts if self.verdicts >= SHARE_FROM else 0.0

    def fault_counts(self) -> str:
        """The most frequent faults for an error message, such as `countdown: 12 x timeout`; may be empty.

        The first error of each kind stands after its count.
        """
        counts = self.faults.most_common(3)
        return ", ".join(
            f"{task}: {count} x {fault}{self._first_errors.get((task, fault), '')}"
            for (task, fault), count in counts
        )

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

    def _judge_waiting(self, least: int) -> None:
        """Judge the waiting replies of each task that has at least `least` of them."""
        for name, waiting in self._waiting.items():
            if not waiting or len(waiting) < least:
                continue
            task, replies = cast(BatchTask, self._tasks[name]), [reply for _, reply in waiting]
            tickets = tuple(ticket for ticket, _ in waiting)
            waiting.clear()
            if task.runs_here:
                state = {**self.state, "on_wait": self.on_wait}
                self._results.put((Job(tickets=tickets, task=name), judge_batch(task, replies, state)))
            else:
                rows = [asdict(reply) for reply in replies]
                message = {"task": name, "replies": rows, "state": dict(self.state)}
                self._send(tickets, name, message, task.timeout_s or BATCH_TIMEOUT_S)

    def _send(self, tickets: tuple[Any, ...], name: str, message: dict[str, Any], timeout_s: float) -> None:
        self._jobs.put(Job(tickets=tickets, task=name, message=child.frame(message), timeout_s=timeout_s))
        self._start_worker()

    def _start_worker(self) -> None:
        """Start one more worker, unless all are started."""
        for worker in self._workers:
            if worker.ident is None:
                worker.start()
                return

    def _verdicts(self, job: Job, reply: dict[str, Any]) -> list[Verdict]:
        """The verdicts on all replies of a job."""
        judgments = reply.get("judgments")
        if judgments is None:
            judgments = [reply] * len(job.tickets)
        elif len(judgments) != len(job.tickets):
            judgments = [{"fault": "invalid", "error": "the task gave another number of judgments"}] * len(
                job.tickets
            )
        for name, value in reply.get("metrics", {}).items():
            if math.isfinite(value):
                self.metrics[name].append(value)
        pairs = zip(job.tickets, judgments, strict=True)
        return [self._verdict(ticket, job.task, judgment) for ticket, judgment in pairs]

    def _verdict(self, ticket: Any, task: str, reply: dict[str, Any]) -> Verdict:
        self.verdicts += 1
        reward, fault = reply.get("reward"), reply.get("fault")
        parts, notes = reply.get("parts", {}), reply.get("notes", {})
        if fault is None and "parts" in reply and reward is None:
            return Verdict(ticket=ticket, reward=None, notes=notes)  # no function applies to this reply
        if fault is None and not (isinstance(reward, float) and math.isfinite(reward)):
            fault = "invalid"
        if fault is None:
            return Verdict(ticket=ticket, reward=reward, parts=parts, notes=notes)
        self.faults[task, fault] += 1
        if self.faults[task, fault] == 1:
            error = f" {reply['error']!a}" if reply.get("error") else ""
            self._first_errors[task, fault] = error
            log.warning("no verdict of the task %s: %s%s", task, fault, error)
        return Verdict(ticket=ticket, reward=None, fault=fault)
