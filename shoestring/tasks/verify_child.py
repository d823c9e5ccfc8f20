"""The child process of a verifier: it computes rewards and can be killed.

`verify.Verifier` runs it as a script. Requests and replies are JSON, each after its length in four bytes:
`{"load": name, "target", "fields"}`, then any number of `{"task": name, "example", "text"}`, or of
`{"task": name, "replies": [...], "state"}` for a task that judges many together, or calls of its tools,
`{"task": name, "tool", "arguments"}`.
"""

import json
import math
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from shoestring.tasks.task import BatchTask, Example, Judgment, Reply, Task

MEMORY_BYTES = 4 << 30
ORPHAN_LIMIT_S = 120
"""Time for one request; the parent kills the child long before, unless the parent has died."""


def judge(task: "Task", example: "Example", text: str) -> dict[str, Any]:
    """`{"reward": number}` or `{"fault": word, "error": text}`, whatever the task returns or raises."""
    try:
        value = task.reward(example, text)
        if value is None:
            return {"fault": "undecided"}
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            return {"fault": "invalid", "error": f"the reward is {repr(value)[:100]}"}
        return {"reward": float(value)}
    except Exception as error:  # a verifier's fault is counted, never scored
        return {"fault": "exception", "error": _sentence(error)}


def judge_batch(task: "BatchTask", replies: "Sequence[Reply]", state: "Mapping[str, Any]") -> dict[str, Any]:
    """`{"judgments": [...], "metrics"}`, or a fault of all of them, whatever the task returns or raises.

    A ShoestringError of a task that judges in this process passes: a budget that is used up, for example.
    """
    from shoestring.errors import ShoestringError

    try:
        batch = task.judge_all(replies, state)
        return {"judgments": [_as_reply(each) for each in batch.judgments], "metrics": dict(batch.metrics)}
    except Exception as error:
        if task.runs_here and isinstance(error, ShoestringError):
            raise
        return {"fault": "exception", "error": _sentence(error)}


def call(task: "Task", name: str, arguments: str) -> dict[str, Any]:
    """`{"result": text, "is_error"}` of a call of one of the task's tools."""
    from shoestring.tasks.custom.tools import call_tool

    result, is_error = call_tool(task.tools, name, arguments)
    return {"result": result, "is_error": is_error}


def _as_reply(judgment: "Judgment") -> dict[str, Any]:
    if judgment.error:
        return {"fault": "exception", "error": judgment.error[:300]}
    return {"reward": judgment.reward, "parts": dict(judgment.parts), "notes": dict(judgment.notes)}


def _sentence(error: Exception) -> str:
    from shoestring.tasks.custom.source import sentence

    return sentence(error)


def main() -> None:
    """Answer requests until the parent closes the pipe."""
    sys.path.insert(0, str(Path(__file__).parents[2]))  # the parent's copy of the package
    requests, replies = _own_pipes()
    _limit_memory()
    tasks: dict[str, Any] = {}
    _send(replies, {"ready": True})
    while (request := _receive(requests)) is not None:
        if hasattr(signal, "alarm"):
            signal.alarm(ORPHAN_LIMIT_S)
        _send(replies, _answer(request, tasks))
        if hasattr(signal, "alarm"):
            signal.alarm(0)


def _answer(request: dict[str, Any], tasks: dict[str, Any]) -> dict[str, Any]:
    from shoestring.tasks.load import rebuild
    from shoestring.tasks.task import Example, Reply

    if "tool" in request:
        return call(tasks[request["task"]], request["tool"], request["arguments"])
    if "replies" in request:
        replies = [Reply(**{**row, "example": Example(**row["example"])}) for row in request["replies"]]
        return judge_batch(tasks[request["task"]], replies, request["state"])
    if "load" not in request:
        return judge(tasks[request["task"]], Example(**request["example"]), request["text"])
    try:
        task = rebuild(request)
        task.prepare()
        tasks[request["load"]] = task
        return {"ready": True}
    except Exception as error:  # the parent reports it and gives no verdict
        return {"fault": "exception", "error": _sentence(error)}


def _own_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Our ends of the pipes, moved where a library's prints and child processes cannot reach them.

    What is printed goes the way of stderr.
    """
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return requests, replies


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    except (
        ImportError,
        ValueError,
        OSError,
    ):  # Windows has none, macOS refuses some; the time limit still holds
        return


def _send(pipe: BinaryIO, message: dict[str, Any]) -> None:
    data = json.dumps(message).encode()
    pipe.write(len(data).to_bytes(4, "big") + data)
    pipe.flush()


def _receive(pipe: BinaryIO) -> Any:
    """The next message, or None when the parent has closed the pipe."""
    head = pipe.read(4)
    return json.loads(pipe.read(int.from_bytes(head, "big"))) if len(head) == 4 else None


if __name__ == "__main__":
    main()
