"""The service beside its engine: what it adds, how much it holds, and whether it grows.

    python bench/service.py [streams] [memory] [overhead] [start] [--json FILE]

streams: 2,500 streams at the same time from one process with a stub model, none dropped.
memory: 100,000 requests of several kinds to the same; resident memory after 20,000 and at the end within 3%.
overhead: mini at 16 streams, HTTP against the engine alone in one run: at most 5% fewer tokens/s, and a first
token at most 10 ms later.
start: from the start of `shoestring serve` until the end of its first reply at most 3 s.

Without a name all are measured. The clients run in this process. Exit code 3 when a target is missed.
"""

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import time
from http.client import HTTPConnection
from itertools import count
from pathlib import Path

import httpx2
from serving import SERVE_MINI, Server, chat_body, new_client, percentile, running

from shoestring.engine.request import Request
from shoestring.serve.backends.prompts import engine_prompt

STUB = f"{sys.executable} {Path(__file__).with_name('stub_service.py')} {{port}}"
STREAMS = 2500
REQUESTS = 100_000
SETTLED = 20_000
"""Requests after which memory may not grow any more."""
GROWTH = 1.03
CLIENTS = 16
TOKENS = 450
ROUNDS = 8


# --- streams ------------------------------------------------------------------------------------------------


async def one_stream(port: int, num_tokens: int, delay_s: float, model: str = "clock") -> tuple[int, bool]:
    """Tokens of a stream by a bare socket, and whether it ended as it should."""
    await asyncio.sleep(delay_s)
    body = json.dumps(chat_body(model, num_tokens, stream=True)).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json"
    )
    writer.write(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    count, is_whole = 0, False
    while line := await reader.readline():
        count += b'"content":"x "' in line
        is_whole = is_whole or line.startswith(b"data: [DONE]")
    writer.close()
    return count, is_whole


def measure_streams() -> dict:
    """Hold many streams for half a minute; every one gets a token each second."""
    num_tokens, ramp_s = 30, 10.0
    with running([f"{STUB} --interval 1"]) as (server,):

        async def hold() -> list:
            tasks = (one_stream(server.port, num_tokens, ramp_s * n / STREAMS) for n in range(STREAMS))
            return await asyncio.gather(*tasks, return_exceptions=True)

        begin, cpu = time.monotonic(), server.cpu_s()
        results = asyncio.run(hold())
        seconds, cpu = time.monotonic() - begin, server.cpu_s() - cpu
        counts = httpx2.get(f"{server.url}/stub", trust_env=False).json()
        megabytes = server.memory() / 1e6
    whole = sum(result == (num_tokens, True) for result in results)
    return {
        "streams": STREAMS,
        "at_the_same_time": counts["most"],
        "whole": whole,
        "seconds": round(seconds, 1),
        "processor_s": round(cpu, 1),
        "megabytes": round(megabytes),
        "is_good": whole == STREAMS and counts["most"] == STREAMS and counts["open"] == 0,
    }


# --- memory -------------------------------------------------------------------------------------------------


async def some_request(client: httpx2.AsyncClient, url: str, rng: random.Random) -> None:
    """A request of a random kind; one in twenty is left by its client."""
    model = "clock" if rng.random() < 0.9 else f"unknown-{rng.random()}"
    body = chat_body(model, 4, f"prompt {rng.random()}")
    path = rng.choice(("/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat", "/nothing"))
    if path == "/v1/responses":
        body = {"model": model, "input": "prompt", "max_output_tokens": 4}
    body |= {"stream": rng.random() < 0.5}
    try:
        limit_s = 0.001 if rng.random() < 0.05 else 60
        await client.post(url + path, json=body, timeout=limit_s)
    except httpx2.TimeoutException:
        pass


def measure_memory() -> dict:
    """Send many requests, and look at the resident memory."""
    with running([STUB]) as (server,):
        sizes: list[int] = []

        async def send_all() -> None:
            numbers = iter(range(REQUESTS))

            async def send(client: httpx2.AsyncClient, rng: random.Random) -> None:
                for number in numbers:
                    await some_request(client, server.url, rng)
                    if number % 1000 == 0:
                        sizes.append(server.memory())

            async with new_client() as client:
                await asyncio.gather(*(send(client, random.Random(seed)) for seed in range(32)))

        begin = time.monotonic()
        asyncio.run(send_all())
        time.sleep(1)
        counts = httpx2.get(f"{server.url}/stub", trust_env=False).json()
        end = server.memory()
    settled = max(sizes[: SETTLED // 1000 + 1])
    return {
        "requests": REQUESTS,
        "requests_per_s": round(REQUESTS / (time.monotonic() - begin)),
        "left": counts["left"],
        "megabytes_after_20000": round(settled / 1e6, 1),
        "megabytes_at_the_end": round(end / 1e6, 1),
        "is_good": end <= settled * GROWTH and counts["open"] == 0,
    }


# --- overhead -----------------------------------------------------------------------------------------------


class EngineAlone:
    """The engine of mini in this process, loaded as `serve` loads it."""

    def __init__(self) -> None:
        from shoestring.sampling_params import SamplingParams
        from shoestring.serve.backends.request import ChatRequest
        from shoestring.serve.models.opening import ModelSettings, loadable_model

        self.model = loadable_model("mini", ModelSettings(seqs=CLIENTS))
        self.engine = self.model.load().engine
        sampling = SamplingParams(max_tokens=TOKENS, ignore_eos=True, output_kind="delta")
        messages = tuple(chat_body("", 1)["messages"])
        self.chat = ChatRequest(messages=messages, sampling=sampling)
        self.numbers = count()

    def request(self) -> Request:
        prompt = engine_prompt(self.chat, self.model.tokenizer, self.model.template)
        name = str(next(self.numbers))
        return Request(request_id=name, prompt_token_ids=prompt.token_ids, sampling_params=prompt.sampling)

    def first_token_s(self) -> float:
        """Seconds from a conversation to its first token."""
        begin = time.perf_counter()
        request = self.request()
        self.engine.add_request(request)
        self.engine.step()
        seconds = time.perf_counter() - begin
        self.engine.abort(request.request_id)
        self.engine.step()
        return seconds

    def tokens_per_s(self) -> float:
        """Speed at so many sequences as there are clients."""
        begin = time.perf_counter()
        self.engine.add_requests([self.request() for _ in range(CLIENTS)])
        while self.engine.has_unfinished():
            self.engine.step()
        return CLIENTS * TOKENS / (time.perf_counter() - begin)


def first_token_over_http_s(connection: HTTPConnection) -> float:
    """Seconds from sending a conversation to the event with its first token, on an open connection."""
    body = json.dumps(chat_body("mini", 1, stream=True))
    begin = time.perf_counter()
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    while b"content" not in response.readline():
        pass
    seconds = time.perf_counter() - begin
    response.read()
    return seconds


async def tokens_over_http_per_s(port: int) -> float:
    begin = time.perf_counter()
    streams = (one_stream(port, TOKENS, 0.0, "mini") for _ in range(CLIENTS))
    results = await asyncio.gather(*streams)
    assert all(is_whole for _, is_whole in results)
    return CLIENTS * TOKENS / (time.perf_counter() - begin)


def measure_overhead() -> dict:
    """HTTP against the engine alone, in turn; the best of each, since other programs only slow down."""
    alone = EngineAlone()
    speeds, firsts, work_s = [], [], []
    with running([SERVE_MINI]) as (server,):
        connection = HTTPConnection("127.0.0.1", server.port)
        for _ in range(ROUNDS):
            begin = time.process_time(), server.cpu_s()
            engine_speed = alone.tokens_per_s()
            engine_work_s = time.process_time() - begin[0]
            http_speed = asyncio.run(tokens_over_http_per_s(server.port))
            speeds.append((engine_speed, http_speed))
            work_s.append((engine_work_s, server.cpu_s() - begin[1]))
            firsts += [(alone.first_token_s(), first_token_over_http_s(connection)) for _ in range(20)]
    engine_speed, http_speed = (max(column) for column in zip(*speeds, strict=True))
    engine_s, http_s = (statistics.median(column) for column in zip(*firsts, strict=True))
    engine_work_s, http_work_s = (min(column) for column in zip(*work_s, strict=True))
    cost, added_ms = 1 - http_speed / engine_speed, (http_s - engine_s) * 1000
    return {
        "engine_tokens_per_s": round(engine_speed),
        "http_tokens_per_s": round(http_speed),
        "cost": f"{cost:.1%}",
        "first_token_ms_engine": round(engine_s * 1000, 1),
        "first_token_ms_http": round(http_s * 1000, 1),
        "processor_us_per_token_engine": round(engine_work_s / CLIENTS / TOKENS * 1e6),
        "processor_us_per_token_http": round(http_work_s / CLIENTS / TOKENS * 1e6),
        "speeds": [tuple(map(round, pair)) for pair in speeds],
        "is_good": cost <= 0.05 and added_ms <= 10,
    }


# --- start --------------------------------------------------------------------------------------------------


def measure_start() -> dict:
    """Seconds from the start of the process to the end of its first reply."""
    seconds = []
    for _ in range(ROUNDS):
        server = Server(SERVE_MINI)
        begin = time.monotonic()
        server.start()
        try:
            server.wait()
            reply = httpx2.post(
                f"{server.url}/v1/chat/completions", json=chat_body("mini", 5), trust_env=False, timeout=60
            )
            assert reply.status_code == 200, reply.text
            seconds.append(time.monotonic() - begin)
        finally:
            server.kill()
    return {
        "seconds": [round(each, 2) for each in seconds],
        "median": round(percentile(seconds, 0.5), 2),
        "is_good": percentile(seconds, 0.5) <= 3,
    }


MEASUREMENTS = {
    "streams": measure_streams,
    "memory": measure_memory,
    "overhead": measure_overhead,
    "start": measure_start,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=MEASUREMENTS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    results = {}
    for name in arguments.names or MEASUREMENTS:
        results[name] = MEASUREMENTS[name]()
        print(name, json.dumps(results[name], indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0 if all(result["is_good"] for result in results.values()) else 3


if __name__ == "__main__":
    sys.exit(main())
