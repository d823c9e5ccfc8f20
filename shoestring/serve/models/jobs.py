"""Work on models in processes of their own: fetch and quantize. One event loop has all of it."""

import asyncio
import itertools
import json
import os
import shutil
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from shoestring.serve.backends.errors import RequestError

MAX_JOBS = 4
"""At the same time."""
WORKER = "shoestring.serve.models.worker"
Kind = Literal["pull", "quantize"]


@dataclass(kw_only=True)
class Job:
    """A piece of work. None is unknown."""

    id: int
    kind: Kind
    name: str
    """The model that it makes."""
    bytes: int | None = None
    total: int | None = None
    failure: str = ""
    """The reason why it ended; empty while it goes on."""


class Jobs:
    """Work that goes on, and work that failed until somebody has seen it."""

    def __init__(self) -> None:
        self.jobs: dict[int, Job] = {}
        self._numbers = itertools.count(1)
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def start(self, kind: Kind, name: str, *arguments: str) -> Job:
        """Begin work whose result is the model `name`. Raises RequestError when there is too much of it."""
        running = [self.jobs[number] for number in self._tasks]
        if any(job.name == name for job in running):
            raise RequestError("conflict", f"{name} is being made already")
        if len(running) >= MAX_JOBS:
            raise RequestError("conflict", f"{MAX_JOBS} models are being made; wait for one")
        job = Job(id=next(self._numbers), kind=kind, name=name)
        self.jobs[job.id] = job
        task = self._tasks[job.id] = asyncio.create_task(self._run(job, arguments))
        task.add_done_callback(lambda _: self._tasks.pop(job.id))
        return job

    async def end(self, number: int) -> None:
        """End work, or forget its failure. Raises RequestError when there is none of this number."""
        if number not in self.jobs:
            raise RequestError("not_found", "there is no such work; it may have ended")
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self.jobs.pop(number, None)

    async def close(self) -> None:
        """End all work."""
        for number in list(self.jobs):
            await self.end(number)

    async def _run(self, job: Job, arguments: tuple[str, ...]) -> None:
        job.failure = await _work(job, arguments)
        if not job.failure:
            del self.jobs[job.id]


async def _work(job: Job, arguments: tuple[str, ...]) -> str:
    """Run the worker to its end; returns the reason of a failure, or nothing."""
    nice = shutil.which("nice")
    process = await asyncio.create_subprocess_exec(
        *([nice, "-n", "10"] if nice else []),
        *(sys.executable, "-m", WORKER, job.kind, *arguments),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
    )
    assert process.stdout is not None
    failure = ""
    try:
        async for line in process.stdout:
            message = _message(line)
            job.bytes, job.total = message.get("bytes", job.bytes), message.get("total", job.total)
            failure = str(message.get("failure", failure))
        code = await process.wait()
    except asyncio.CancelledError:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise
    return failure or (f"its process ended with {code}" if code else "")


def _message(line: bytes) -> dict[str, int]:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}
