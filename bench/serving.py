"""Servers in processes of their own, and clients of them, for measurements of the service."""

import asyncio
import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from prometheus_client.parser import text_string_to_metric_families

SHOESTRING = f"{sys.executable} -c 'from shoestring.cli.main import main; main()'"
SERVE_MINI = f"{SHOESTRING} serve mini --port {{port}}"
PROMPT = "Use 3, 5, 7 to make 22."
START_S = 300.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@dataclass
class Server:
    """A server process; `command` has {port} in it."""

    command: str
    port: int = field(default_factory=free_port)
    process: subprocess.Popen | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it; `wait` waits until it answers."""
        words = shlex.split(self.command.format(port=self.port))
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(words, env=environment, cwd=Path(__file__).parents[1], **quiet)

    def wait(self) -> float:
        """Seconds until it listed its models."""
        begin = time.monotonic()
        while time.monotonic() < begin + START_S:
            with suppress(httpx2.HTTPError):
                if httpx2.get(f"{self.url}/v1/models", trust_env=False, timeout=START_S).status_code == 200:
                    return time.monotonic() - begin
            if self.process.poll() is not None:
                raise SystemExit(f"the server ended: {self.command.format(port=self.port)}")
            time.sleep(0.02)
        raise SystemExit(f"no answer within {START_S:.0f} s: {self.command.format(port=self.port)}")

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.process.kill()
        self.process.wait()

    def cpu_s(self) -> float:
        """Processor time of the process until now."""
        words = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Bytes of its resident memory."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


@contextmanager
def running(commands: Sequence[str]) -> Iterator[list[Server]]:
    """Servers that answer, until the end of the block."""
    servers = [Server(command) for command in commands]
    try:
        for server in servers:
            server.start()
        for server in servers:
            server.wait()
        yield servers
    finally:
        for server in servers:
            if server.process is not None and server.process.poll() is None:
                server.kill()


def new_client(connections: int = 10_000) -> httpx2.AsyncClient:
    """A client without limits of its own."""
    limits = httpx2.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx2.AsyncClient(limits=limits, timeout=600.0, trust_env=False)


@dataclass
class Stream:
    """One streamed reply as its client saw it."""

    begin_s: float
    first_token_s: float | None = None
    end_s: float = 0.0
    num_deltas: int = 0
    status: int = 0
    error: str = ""
    """The message of an error event or of a refusal, or the name of a broken connection's error."""
    is_proper: bool = False
    """It ended with [DONE], or with the status of an error."""

    @property
    def is_whole(self) -> bool:
        return self.status == 200 and not self.error and self.is_proper


def chat_body(model: str, max_tokens: int, prompt: str = PROMPT, **fields: object) -> dict:
    messages = [{"role": "user", "content": prompt}]
    return {"model": model, "messages": messages, "max_tokens": max_tokens, "ignore_eos": True, **fields}


async def stream(client: httpx2.AsyncClient, url: str, body: dict) -> Stream:
    """Send a chat and read its stream to the end."""
    seen = Stream(begin_s=time.monotonic())
    try:
        async with client.stream(
            "POST", f"{url}/v1/chat/completions", json={**body, "stream": True}
        ) as response:
            seen.status = response.status_code
            if response.status_code == 200:
                async for data in events(response):
                    read_event(seen, data)
            else:
                await response.aread()
                seen.error, seen.is_proper = response.text[:200], True
    except httpx2.HTTPError as error:
        seen.error = seen.error or type(error).__name__
    seen.end_s = time.monotonic()
    return seen


def read_event(seen: Stream, data: str) -> None:
    """Count an event of a stream."""
    if data == "[DONE]":
        seen.is_proper = True
        return
    event = json.loads(data)
    if "error" in event:
        seen.error = event["error"]["message"]
    elif any(has_text(choice["delta"]) for choice in event.get("choices", ())):
        seen.first_token_s = seen.first_token_s or time.monotonic()
        seen.num_deltas += 1


def has_text(delta: dict) -> bool:
    return bool(delta.get("content") or delta.get("reasoning_content"))


async def events(response: httpx2.Response) -> AsyncIterator[str]:
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield line[6:]


async def metrics(client: httpx2.AsyncClient, url: str) -> dict[tuple[str, ...], float]:
    """Samples of /metrics by name and label values."""
    text = (await client.get(f"{url}/metrics")).text
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, *sample.labels.values()): sample.value for sample in samples}


def percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


async def gather_all(tasks: Sequence["asyncio.Task[Stream]"]) -> list[Stream]:
    return list(await asyncio.gather(*tasks))
