"""The pace of strangers, and the connections that it lets in."""

import asyncio
import time

from shoestring.serve.admission.connections import ConnectionLimits, Connections
from shoestring.serve.admission.pace import LEAST, Pace, keep_pace


def test_it_falls_within_a_second_and_rises_within_some():
    pace = Pace()
    for _ in range(10):
        pace.measure(0.2)
    assert pace.share == LEAST
    numbers = 0
    while pace.share < 1:
        pace.measure(0.001)
        numbers += 1
    assert 50 < numbers < 100


def test_a_loop_that_is_blocked_is_late():
    late_s = []

    async def main():
        task = asyncio.create_task(keep_pace(late_s.append))
        await asyncio.sleep(0)
        time.sleep(0.3)
        while not late_s:
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(main())
    assert late_s[0] > 0.15


def test_strangers_wait_and_familiar_addresses_do_not():
    now_s = [0.0]
    many = {"total": 10**6, "strangers": 10**6, "per_address": 10**6, "per_network": 10**6}
    limits = ConnectionLimits(new_per_s=1000, again_per_s=1000, **many)
    connections = Connections(limits, clock=lambda: now_s[0])
    connections.greet("198.51.100.1")

    def admitted(seconds: float) -> int:
        number = 0
        for tick in range(int(seconds * 100)):
            now_s[0] += 0.01
            number += sum(bool(connections.admit(f"192.0.{tick % 200}.{host}")) for host in range(20))
        return number

    admitted(10)  # from now on, no network is fresh
    assert 950 <= admitted(1) <= 1050
    for _ in range(4):
        connections.pace.measure(1.0)
    now_s[0] += 10
    assert 110 <= admitted(1) <= 140  # a sixteenth, and what came at once after the pause
    assert all(connections.admit("198.51.100.1") for _ in range(50))
