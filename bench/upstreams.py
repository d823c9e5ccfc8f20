"""One of two servers behind the service is killed under load, comes back, and is killed again.

    python bench/upstreams.py [--server COMMAND] [--model mini] [--clients 6] [--rounds 4] [--json FILE]

COMMAND starts an OpenAI-compatible server on port {port}; without it, both are `shoestring serve mini`. The
clients stream one reply after another. Lost may be only requests that had a token of the killed server, each
with an error event; the breaker has to take the server out within 2 s, and in again within 2 s of its first
answer. Exit code 3 otherwise.
"""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from serving import SERVE_MINI, SHOESTRING, Server, Stream, chat_body, metrics, new_client, running, stream

LIMIT_S = 2.0
WARM_S = 3.0
TOKENS = 200
PAUSE_S = 0.1


@dataclass
class Load:
    """Clients that stream one reply after another."""

    client: httpx2.AsyncClient
    url: str
    model: str
    streams: list[Stream] = field(default_factory=list)
    """Those that have ended."""
    is_on: bool = True

    async def run(self, number: int) -> None:
        turn = 0
        while self.is_on:
            body = chat_body(self.model, TOKENS, f"{number}-{turn}: make 22 of 3, 5, 7.")
            self.streams.append(await stream(self.client, self.url, body))
            turn += 1
            await asyncio.sleep(PAUSE_S)


async def up(client: httpx2.AsyncClient, url: str, server: Server) -> bool:
    """Whether the service sends requests to a server."""
    return bool((await metrics(client, url))["shoestring_upstream_up", f"127.0.0.1:{server.port}"])


async def seconds_until(client: httpx2.AsyncClient, url: str, server: Server, state: bool) -> float:
    """Seconds until the breaker of a server is in a state; 60 when it never was."""
    begin = time.monotonic()
    while time.monotonic() < begin + 60:
        if await up(client, url, server) is state:
            break
        await asyncio.sleep(0.01)
    return time.monotonic() - begin


async def one_round(client: httpx2.AsyncClient, load: Load, server: Server) -> dict:
    """Kill a server and start it again."""
    await asyncio.sleep(WARM_S)
    figures = await metrics(client, load.url)
    num_open = figures["shoestring_upstream_requests", f"127.0.0.1:{server.port}"]
    before = len(load.streams)
    server.kill()
    killed_s = time.monotonic()
    out_s = await seconds_until(client, load.url, server, False)
    await asyncio.sleep(WARM_S)
    lost = [each for each in load.streams[before:] if not each.is_whole]
    server.start()
    start_s = await asyncio.to_thread(server.wait)
    in_s = await seconds_until(client, load.url, server, True)
    await asyncio.sleep(WARM_S)
    return {
        "open_at_the_killed": int(num_open),
        "lost": len(lost),
        "lost_without_a_token": sum(each.first_token_s is None or each.begin_s > killed_s for each in lost),
        "lost_without_error_event": sum(not (each.error and each.is_proper) for each in lost),
        "out_s": round(out_s, 3),
        "start_s": round(start_s, 2),
        "in_s": round(in_s, 3),
    }


async def measure(url: str, servers: list[Server], model: str, num_clients: int, rounds: int) -> dict:
    async with new_client() as client:
        load = Load(client, url, model)
        tasks = [asyncio.create_task(load.run(number)) for number in range(num_clients)]
        results = [await one_round(client, load, servers[number % 2]) for number in range(rounds)]
        load.is_on = False
        await asyncio.gather(*tasks)
    lost = sum(result["lost"] for result in results)
    not_whole = sum(not each.is_whole for each in load.streams)
    is_good = not_whole == lost and all(
        result["lost"] <= result["open_at_the_killed"] + 1  # the figure is a moment older than the kill
        and not result["lost_without_a_token"]
        and not result["lost_without_error_event"]
        and max(result["out_s"], result["in_s"]) <= LIMIT_S
        for result in results
    )
    errors = sorted({each.error for each in load.streams if each.error})
    return {
        "replies": len(load.streams),
        "not_whole": not_whole,
        "errors": errors,
        "rounds": results,
        "verdict": "PASS" if is_good else "FAIL",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--server", default=SERVE_MINI)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with running([arguments.server] * 2) as servers:
        addresses = " ".join(f"--upstream {server.url}/v1" for server in servers)
        with running([f"{SHOESTRING} serve --port {{port}} {addresses}"]) as (front,):
            work = measure(front.url, servers, arguments.model, arguments.clients, arguments.rounds)
            result = {"server": arguments.server.split()[0], **asyncio.run(work)}
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["verdict"] == "PASS" else 3


if __name__ == "__main__":
    sys.exit(main())
