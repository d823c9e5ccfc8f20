"""An engine on a thread of its own, for requests that come from one event loop."""

import asyncio
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress

import torch

from shoestring.engine.dispatch import Dispatcher
from shoestring.engine.engine import Engine
from shoestring.engine.request import Request, RequestOutput
from shoestring.threads import most_threads

log = logging.getLogger(__name__)

Outputs = asyncio.Queue[RequestOutput | None]
"""The outputs of one caller's requests; None when the engine has stopped."""
LOW_PRIORITY = 10
"""Of an engine that yields: about a tenth of a core that others want, so that answers still come."""
PULSE_S = 0.5
"""Seconds between two heartbeats of an engine without work."""


class EngineStopped(Exception):
    """The engine's thread has ended, or failed."""


class EngineThread:
    """The only thread that calls an engine. Its methods are for the event loop that started it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.heartbeat_s = time.monotonic()
        """The time of the thread's last round, by time.monotonic()."""
        self.error: Exception | None = None
        """The error that ended the thread before its time."""
        self._dispatcher = Dispatcher(engine)
        self._commands: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._outputs: list[tuple[Outputs, RequestOutput]] = []
        self._open: dict[str, Outputs] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Start the thread, for callers on the running event loop."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    async def stop(self) -> None:
        """End the thread after its present step; open streams end with EngineStopped."""
        self._commands.put(None)
        await asyncio.to_thread(self._thread.join)

    def set_yields(self, yields: bool) -> None:
        """Let other work of this machine go first, or no more: one core, at a low priority.

        The priority stays low afterwards, since only the superuser may raise it; alone it costs nothing.
        """
        num_threads = 1 if yields else most_threads()

        def change() -> None:
            torch.set_num_threads(num_threads)
            self.engine.threads.most = num_threads
            if (
                yields and sys.platform == "linux"
            ):  # elsewhere the priority is the process's, not the thread's
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOW_PRIORITY)

        self._commands.put(change)

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and self.error is None

    async def outputs(self, requests: Sequence[Request]) -> AsyncGenerator[RequestOutput]:
        """Queue requests and give their outputs as they come; closing the generator aborts them.

        Raises ConfigError for one that cannot be served, EngineStopped when the thread ends.
        """
        outputs: Outputs = asyncio.Queue()
        open_ids = {request.request_id for request in requests}
        await self._add(requests, outputs)
        try:
            while open_ids:
                output = await outputs.get()
                if output is None:
                    raise EngineStopped("the engine has stopped")
                if output.finished:
                    open_ids.discard(output.request_id)
                yield output
        finally:
            if open_ids:
                self._commands.put(lambda: self._abort(open_ids))

    async def _add(self, requests: Sequence[Request], outputs: Outputs) -> None:
        assert self._loop is not None, "start the thread first"
        if not self.is_alive:
            raise EngineStopped("the engine has stopped")
        loop, taking = self._loop, self._loop.create_future()

        def resolve(error: Exception | None) -> None:
            if not taking.done():
                taking.set_result(None) if error is None else taking.set_exception(error)

        def add() -> None:
            error: Exception | None = None
            try:
                self._dispatcher.add(requests, lambda output: self._outputs.append((outputs, output)))
                self._open.update((request.request_id, outputs) for request in requests)
            except Exception as failure:
                error = failure
            loop.call_soon_threadsafe(resolve, error)

        self._commands.put(add)
        try:
            while not (await asyncio.wait([taking], timeout=PULSE_S))[0]:
                if not self.is_alive:
                    raise EngineStopped("the engine has stopped")
            taking.result()
        except asyncio.CancelledError:
            self._commands.put(lambda: self._abort({request.request_id for request in requests}))
            raise

    def _abort(self, request_ids: set[str]) -> None:
        self._dispatcher.abort(request_ids)
        for request_id in request_ids:
            self._open.pop(request_id, None)

    def _run(self) -> None:
        """Take commands and run steps until told to stop."""
        try:
            while self._obey():
                self.heartbeat_s = time.monotonic()
                if self.engine.has_unfinished():
                    self._dispatcher.step()
                    self._deliver()
        except Exception as error:
            log.exception("the engine failed")
            self.error = error
        finally:
            self._end()

    def _obey(self) -> bool:
        """Run the commands that wait; without work, wait for one. False when told to stop."""
        may_wait = not self.engine.has_unfinished()
        while True:
            try:
                command = self._commands.get(block=may_wait, timeout=PULSE_S)
            except queue.Empty:
                return True
            if command is None:
                return False
            command()
            may_wait = False

    def _deliver(self) -> None:
        """Hand a step's outputs to the event loop, all in one call."""
        outputs, self._outputs = self._outputs, []
        for _, output in outputs:
            if output.finished:
                self._open.pop(output.request_id, None)
        if outputs:
            self._call(outputs)

    def _end(self) -> None:
        """Tell every open stream that nothing more comes."""
        streams = set(self._open.values())
        self._open.clear()
        self._call([(waiting, None) for waiting in streams])

    def _call(self, items: "Sequence[tuple[Outputs, RequestOutput | None]]") -> None:
        """Put items into their queues, on the event loop."""

        def put() -> None:
            for waiting, output in items:
                waiting.put_nowait(output)

        assert self._loop is not None
        with suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(put)
