"""Several callers of one engine: every output goes to the caller that added its request."""

import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

from shoestring.engine.engine import Engine
from shoestring.engine.request import Request, RequestOutput

Deliver = Callable[[RequestOutput], None]

log = logging.getLogger(__name__)


class Dispatcher:
    """An engine and the callers that wait for its outputs. Not thread-safe: one thread calls all of it.

    On that thread `deliver` receives each output of a request, the finished one last. If it raises, that is
    logged and the request is aborted; the others go on.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._deliver: dict[str, Deliver] = {}

    def add(self, requests: Sequence[Request], deliver: Deliver) -> None:
        """Queue requests; raises ConfigError for one that cannot be served, and then queues none of them."""
        self.engine.add_requests(requests)
        self._deliver.update((request.request_id, deliver) for request in requests)

    def step(self) -> None:
        """Run one batch and deliver its outputs. Ctrl-C takes effect after that."""
        with _hold_interrupt():
            for output in self.engine.step():
                self._hand_over(output)

    def _hand_over(self, output: RequestOutput) -> None:
        deliver = self._deliver.get(output.request_id)
        try:
            if deliver is not None:
                deliver(output)
        except Exception:
            log.exception("the output of request %s could not be delivered", output.request_id)
            self.abort([output.request_id])
        if output.finished:
            self._deliver.pop(output.request_id, None)

    def abort(self, request_ids: Iterable[str]) -> None:
        """Stop requests and free their pages now; nothing more of them is delivered."""
        for request_id in request_ids:
            self._deliver.pop(request_id, None)
            self.engine.abort(request_id)

    def outputs(
        self, requests: Sequence[Request], *, on_step: Callable[[], None] = lambda: None
    ) -> "OutputStream":
        """Queue requests and iterate over their outputs; raises ConfigError as `add` does.

        `on_step` is called after each batch; what it raises ends the iteration.
        """
        return OutputStream(self, requests, on_step)


class OutputStream(Iterator[RequestOutput]):
    """The outputs of some requests as they come; asking for the next one runs the engine.

    Closing it, an error in a step, and losing the last reference to it abort the unfinished requests.
    """

    def __init__(
        self, dispatcher: Dispatcher, requests: Sequence[Request], on_step: Callable[[], None]
    ) -> None:
        self._dispatcher, self._on_step = dispatcher, on_step
        self._outputs: deque[RequestOutput] = deque()
        self._open_ids: set[str] = set()
        dispatcher.add(requests, self._outputs.append)
        self._open_ids |= {request.request_id for request in requests}

    def __next__(self) -> RequestOutput:
        try:
            while self._open_ids and not self._outputs:
                self._dispatcher.step()
                self._on_step()
        except BaseException:
            self.close()
            raise
        if not self._outputs:
            raise StopIteration
        output = self._outputs.popleft()
        if output.finished:
            self._open_ids.discard(output.request_id)
        return output

    def close(self) -> None:
        """Abort the unfinished requests; there are no further outputs."""
        request_ids, self._open_ids = self._open_ids, set()
        self._outputs.clear()
        self._dispatcher.abort(request_ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if self._open_ids:
            self.close()


@contextmanager
def _hold_interrupt() -> Iterator[None]:
    """Raise a KeyboardInterrupt at the end of the block: inside a step it would leave the engine broken."""
    is_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupts = []
    signal.signal(signal.SIGINT, lambda *_: interrupts.append(True))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if interrupts:
        raise KeyboardInterrupt
