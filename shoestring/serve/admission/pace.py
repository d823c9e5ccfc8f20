"""The pace of strangers: fewer new connections of theirs while the event loop is late."""

import asyncio
from collections.abc import Callable

LATE_S = 0.025
"""A loop that is this late has more to do than it can; users notice it."""
MEASURE_S = 0.1
RISE = 1.05
"""The factor of the pace after each measurement in time: twice as fast takes a second and a half."""
LEAST = 0.02
"""The part of the full pace below which it does not fall, so that some strangers come in always."""


class Pace:
    """A share of the full rate between LEAST and 1: halved when the loop is late, then slowly up again."""

    def __init__(self) -> None:
        self.share = 1.0

    def measure(self, late_s: float) -> None:
        """Take in how late the event loop is."""
        self.share = max(self.share / 2, LEAST) if late_s > LATE_S else min(self.share * RISE, 1.0)


async def keep_pace(measure: Callable[[float], None]) -> None:
    """Tell ten times a second how late the running event loop is, until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + MEASURE_S
        await asyncio.sleep(MEASURE_S)
        measure(loop.time() - due_s)
