"""Ctrl-C and SIGTERM as a request that the training loop meets after its step."""

import signal
from types import FrameType
from typing import Any, Self


class StopRequest:
    """While entered, the first signal sets `is_requested`; a second SIGINT interrupts at once, as usual."""

    def __init__(self) -> None:
        self.is_requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.is_requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
