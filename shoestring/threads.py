"""Threads of this process's products: as many as other programs leave cores.

Threads wait for one another many times in a step. One whose core another program wants makes all of them wait
for the scheduler, so that two threads beside one busy program are slower than one thread.
"""

import os
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import torch

WINDOW_S = 0.5
"""Seconds between two readings; the kernel counts processor time in hundredths of a second."""
NOISE_CORES = 0.25
"""Use of a core by others, such as a desktop that draws itself, up to which a thread more is worth it."""
QUIET_WINDOWS = 2
"""Windows in a row that must have room for more threads before there are more: others often come back."""


class Reading(NamedTuple):
    """Seconds by the clock, of processor time of this process, and of idle cores; the number of cores."""

    clock_s: float
    own_s: float
    idle_s: float
    cores: int


class Figures(NamedTuple):
    """Figures of a step: for its row in metrics.jsonl, and for the display alone."""

    row: dict[str, int]
    display: dict[str, str]


def machine_reading() -> Reading | None:
    """A reading of the cores that this process may use; None where the kernel does not tell."""
    try:
        cores = os.sched_getaffinity(0)
        lines = Path("/proc/stat").read_text().splitlines()
    except (AttributeError, OSError):
        return None
    rows = [line.split() for line in lines if line.startswith("cpu") and line[3].isdecimal()]
    idle_ticks = [int(row[4]) + int(row[5]) for row in rows if int(row[0][3:]) in cores]
    if not idle_ticks:
        return None
    idle_s = sum(idle_ticks) / os.sysconf("SC_CLK_TCK")
    return Reading(time.monotonic(), time.process_time(), idle_s, len(idle_ticks))


@cache
def most_threads() -> int:
    """The threads that PyTorch had when this was first asked, before any were given up."""
    return torch.get_num_threads()


class Threads:
    """The number of PyTorch's threads, lowered while other programs want cores and raised when they leave.

    Only for the thread that computes, which calls `follow` every few milliseconds or seconds. Results do not
    depend on it (tests/train/test_step_threads.py says where). A number in OMP_NUM_THREADS is kept. As a
    context manager it ends with all threads.
    """

    def __init__(self, read: Callable[[], Reading | None] = machine_reading) -> None:
        self.most = most_threads()
        self._read = read
        self._last = None if "OMP_NUM_THREADS" in os.environ else read()
        self._num_quiet = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.count is not None:
            torch.set_num_threads(self.most)

    @property
    def count(self) -> int | None:
        """The present number; None where it never changes."""
        return None if self._last is None or self.most == 1 else torch.get_num_threads()

    def figures(self) -> Figures:
        """The present number for metrics.jsonl, and for people while it is lowered; none if it is fixed."""
        count = self.count
        if count is None:
            return Figures({}, {})
        sharing = f"{count} of {self.most} threads" if count < self.most else ""
        return Figures({"threads": count}, {"sharing": sharing})

    def follow(self) -> None:
        """Look at what others used since the last look, if that was a while ago, and change the number."""
        last, count = self._last, self.count
        if last is None or count is None or time.monotonic() - last.clock_s < WINDOW_S:
            return
        now = self._read()
        if now is None or now.clock_s <= last.clock_s:
            return
        self._last = now
        used = (now.own_s - last.own_s + now.idle_s - last.idle_s) / (now.clock_s - last.clock_s)
        room = min(used, now.cores)  # cores that others did not use
        more = min(int(room + NOISE_CORES), self.most)
        self._num_quiet = self._num_quiet + 1 if more > count else 0
        if (fewer := max(round(room), 1)) < count:
            torch.set_num_threads(fewer)
        elif self._num_quiet >= QUIET_WINDOWS:
            torch.set_num_threads(more)
            self._num_quiet = 0
