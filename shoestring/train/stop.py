"""Ctrl-C and SIGTERM as a request that the training loop meets after its step."""

import os
import signal
from types import FrameType
from typing import Any, Self


class StopRequest:
    """While entered, the first signal sets `is_requested`; a second SIGINT interrupts at once, as usual."""

    def __init__(self, sentence: str = "") -> None:
        """`sentence` goes to stderr at the first signal, so that it is seen to be heard."""
        self.is_requested = False
        self._sentence = sentence
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self._sentence and not self.is_requested:
            os.write(2, f"\n{self._sentence}\n".encode())  # a signal may come inside a print
        self.is_requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
