"""Clients that leave at random moments, streamed and not, with the engine here or behind another server.

    python bench/disconnects.py [--requests 10000] [--seed 0] [--json FILE]

Half of the requests go to `shoestring serve mini`, half through a second service that has the first one as
its upstream. After each half nothing may be left: no running or waiting request, no page in use, no open
request at the upstream, no open file more than before. The engine has to be idle within a second of the last
departure. Exit code 3 otherwise.
"""

import argparse
import asyncio
import json
import random
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx2
from serving import SERVE_MINI, SHOESTRING, Server, chat_body, metrics, new_client, running

CLIENTS = 24
LONGEST_S = 1.0
"""Longest time after which a client leaves; a whole reply takes longer."""
IDLE_S = 1.0
LEFT_BEHIND = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")


async def leave(port: int, rng: random.Random) -> bool:
    """Send a request and leave; returns whether a byte of the reply had come."""
    path = rng.choice(("/v1/chat/completions", "/v1/messages", "/v1/completions"))
    body = chat_body("mini", 400, f"{rng.random()}: make 22.", stream=rng.random() < 0.5)
    if path == "/v1/completions":
        body |= {"prompt": "2+3="}
        del body["messages"]
    data = json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    writer.write(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
    first = b""
    with suppress(TimeoutError, ConnectionError):
        async with asyncio.timeout(rng.random() * LONGEST_S):
            first = await reader.read(1)
            while await reader.read(65536):
                pass
    if rng.random() < 0.5:
        writer.transport.abort()
    writer.close()
    return bool(first)


async def figures(client: httpx2.AsyncClient, servers: list[Server]) -> dict[str, float]:
    """Things in use: at the engine, at the upstream, in open files."""
    result: dict[str, float] = {}
    for number, server in enumerate(servers):
        samples = await metrics(client, server.url)
        for (name, *_), value in samples.items():
            if name in (*LEFT_BEHIND, "shoestring_upstream_requests", "process_open_fds"):
                result[f"{number} {name}"] = result.get(f"{number} {name}", 0.0) + value
    return result


def is_idle(now: dict[str, float], before: dict[str, float]) -> bool:
    return all(value <= before[name] for name, value in now.items())


async def measure(servers: list[Server], num_requests: int, rng: random.Random) -> dict:
    """Leave the last one of the servers many times."""
    async with new_client() as client:
        body = chat_body("mini", 5)
        await client.post(f"{servers[-1].url}/v1/chat/completions", json=body)
        await asyncio.sleep(3)  # connections that wait for a next request are closed by then
        before = await figures(client, servers)
        numbers = iter(range(num_requests))

        async def work(own: random.Random) -> int:
            return sum([await leave(servers[-1].port, own) for _ in numbers])

        begun = await asyncio.gather(*(work(random.Random(rng.random())) for _ in range(CLIENTS)))
        end = time.monotonic()
        now = await figures(client, servers)
        idle_s = None
        while time.monotonic() < end + 300 and not is_idle(now, before):
            engine = {name: value for name, value in now.items() if "vllm" in name or "upstream" in name}
            if idle_s is None and is_idle(engine, before):
                idle_s = time.monotonic() - end
            await asyncio.sleep(0.05)
            now = await figures(client, servers)
    idle_s = time.monotonic() - end if idle_s is None else idle_s
    remains = {name: value - before[name] for name, value in now.items() if value > before[name]}
    return {
        "requests": num_requests,
        "with_a_byte_of_the_reply": sum(begun),
        "idle_after_s": round(idle_s, 2),
        "left_behind": remains,
        "is_good": not remains and idle_s <= IDLE_S,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    half, rng = arguments.requests // 2, random.Random(arguments.seed)
    with running([SERVE_MINI]) as (engine,):
        results = {"own engine": asyncio.run(measure([engine], half, rng))}
        with running([f"{SHOESTRING} serve --port {{port}} --upstream {engine.url}/v1"]) as (front,):
            results["upstream"] = asyncio.run(measure([engine, front], half, rng))
    print(json.dumps(results, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(result["is_good"] for result in results.values()) else 3


if __name__ == "__main__":
    sys.exit(main())
