"""The service is ended by SIGTERM under load and started again, many times.

    python bench/restarts.py [--restarts 100] [--seed 0] [--json FILE]

Clients stream from `shoestring serve mini` all the time; the signal comes at a random moment. Every stream
that has begun must be whole, other requests may be refused with 503 or find no server, and the process must
end by itself, with code 0, within 30 s. Exit code 3 otherwise.
"""

import argparse
import asyncio
import json
import random
import signal
import sys
import time
from pathlib import Path

import httpx2
from serving import SERVE_MINI, Server, Stream, chat_body, new_client, stream

CLIENTS = 8
TOKENS = 200
LIMIT_S = 30.0
NO_SERVER = ("ConnectError", "ReadError", "RemoteProtocolError", "WriteError")
"""Errors of a connection that the server did not take any more."""


class Clients:
    """Clients that stream one reply after another from a server that is not always there."""

    def __init__(self, client: httpx2.AsyncClient, server: Server) -> None:
        self.is_on, self.streams = True, list[Stream]()
        self._client, self._server = client, server

    async def run(self, number: int) -> None:
        while self.is_on:
            body = chat_body("mini", TOKENS, f"{number}: make 22 of 3, 5, 7.")
            seen = await stream(self._client, self._server.url, body)
            self.streams.append(seen)
            if not seen.is_whole:
                await asyncio.sleep(0.1)


async def restart(server: Server, rng: random.Random) -> tuple[int, float]:
    """End the server and start it again: its exit code, and the seconds that it took to end."""
    await asyncio.sleep(rng.uniform(0.3, 1.5))
    server.process.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    code = await asyncio.to_thread(server.process.wait, LIMIT_S + 30)
    seconds = time.monotonic() - begin
    server.start()
    await asyncio.to_thread(server.wait)
    return code, seconds


async def measure(server: Server, restarts: int, rng: random.Random) -> dict:
    async with new_client() as client:
        clients = Clients(client, server)
        tasks = [asyncio.create_task(clients.run(number)) for number in range(CLIENTS)]
        ends = [await restart(server, rng) for _ in range(restarts)]
        clients.is_on = False
        await asyncio.gather(*tasks)
    begun = [each for each in clients.streams if each.status == 200]
    broken = [each for each in begun if not each.is_whole]
    refused = [each.status for each in clients.streams if each.status not in (0, 200)]
    odd = {each.error for each in clients.streams if each.status == 0} - {*NO_SERVER}
    slowest = max(seconds for _, seconds in ends)
    is_good = not broken and not odd and set(refused) <= {503} and slowest <= LIMIT_S
    return {
        "restarts": restarts,
        "whole_streams": len(begun) - len(broken),
        "broken_streams": len(broken),
        "broken_by": sorted({each.error for each in broken}),
        "refused_with_503": len(refused),
        "found_no_server": sum(each.status == 0 for each in clients.streams),
        "other_errors": sorted(odd),
        "exit_codes": sorted({code for code, _ in ends}),
        "slowest_end_s": round(slowest, 2),
        "is_good": is_good and all(code == 0 for code, _ in ends),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--restarts", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    server = Server(SERVE_MINI)
    server.start()
    try:
        server.wait()
        result = asyncio.run(measure(server, arguments.restarts, random.Random(arguments.seed)))
    finally:
        server.kill()
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["is_good"] else 3


if __name__ == "__main__":
    sys.exit(main())
