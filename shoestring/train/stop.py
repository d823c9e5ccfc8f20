"""Ctrl-C and SIGTERM as a wish that the training loop grants after its step."""

import signal
from types import FrameType
from typing import Any, Self


class StopRequest:
    """While entered, the first signal sets `wanted`; a second SIGINT interrupts at once, as usual."""

    def __init__(self) -> None:
        self.wanted = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.wanted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
