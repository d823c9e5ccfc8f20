"""The service that bench/money.py ends and starts again: the real one, with a model of numbers behind it."""

import asyncio
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from socket import socket
from typing import Any

from shoestring.serve.accounts.keys import KeySettings
from shoestring.serve.accounts.people import add_account
from shoestring.serve.admission.admission import Limits
from shoestring.serve.admission.connections import ConnectionLimits
from shoestring.serve.app import build_app
from shoestring.serve.backends.backend import ModelCard
from shoestring.serve.backends.reply import Delta, Usage, Work
from shoestring.serve.config import ServiceConfig
from shoestring.serve.hosting import open_hosting
from shoestring.serve.ledger.operations import add_funds
from shoestring.serve.ledger.prices import read_prices
from shoestring.serve.server import serve_app
from shoestring.serve.service import Service
from shoestring.serve.storage.migrate import migrate

MODEL = "numbers"
WORD_S = 0.001
"""Seconds that a word takes."""
PRICES = '[models."*"]\ncache_hit = 0.07\ncache_miss = 0.27\noutput = 1.10\n'
MANY = 10**6


@dataclass(frozen=True)
class Site:
    """A service on disk: its configuration, and the account and key that ask."""

    config: ServiceConfig
    funds: int
    account_id: str
    key: str


class Numbers:
    """A model whose prompts say how many tokens they have, how many are cached, and how many words follow."""

    def __init__(self) -> None:
        self.card = ModelCard(id=MODEL, max_model_len=MANY, created_s=0)
        self.is_healthy = True

    def start(self) -> None:
        """Nothing has to run."""

    async def prepare(self, request: Any) -> Work:
        """Read the numbers of a prompt."""
        text = request.messages[-1]["content"] if hasattr(request, "messages") else request.prompt
        prompt, cached, words = map(int, re.findall(r"\d+", json.dumps(text))[-3:])
        most = request.sampling.max_tokens or MANY

        async def start() -> Any:
            return _deltas(prompt, cached, min(words, most))

        return Work(model=MODEL, prompt_tokens=prompt, max_tokens=most, start=start)

    async def close(self) -> None:
        """Nothing has to end."""


async def _deltas(prompt: int, cached: int, words: int) -> Any:
    usage = Usage(prompt_tokens=prompt, cached_tokens=cached)
    for number in range(1, words + 1):
        await asyncio.sleep(WORD_S)
        usage = Usage(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=number)
        yield Delta(text=f" {number}", usage=usage)
    yield Delta(finish_reason="length", usage=usage)


def set_up(url: str, folder: Path, funds: int) -> Site:
    """Make the tables, an admin with money, and a key."""
    migrate(url)
    prices = folder / "prices.toml"
    prices.write_text(PRICES)
    strangers = {"strangers": MANY, "per_address": MANY, "per_network": MANY}
    connections = ConnectionLimits(**strangers, new_per_s=MANY, new_per_network_s=MANY)
    limits = Limits(connections=connections, concurrency=None, requests_per_minute=None)
    config = ServiceConfig(data=str(folder), database=url, prices=str(prices), limits=limits)

    async def make() -> tuple[str, str]:
        hosting = open_hosting(config, "http://127.0.0.1", {})
        accounts = hosting.accounts
        account = await accounts.change(add_account, "ada@example.com", None, "admin", accounts.now_s())
        await accounts.change(add_funds, "funds", account.id, "top_up", funds, accounts.now_s())
        key = await accounts.add_key(account.id, KeySettings())
        await hosting.stop()
        return account.id, key

    return Site(config, funds, *asyncio.run(make()))


def price_of(prompt: int, cached: int, words: int) -> int:
    """The cost of a reply, in nanos, by the formula of the price list and not by the ledger."""
    nanos = cached * 70_000_000 + (prompt - cached) * 270_000_000 + words * 1_100_000_000
    return -(-nanos // 10**6)


def serve(site: Site, listener: socket) -> None:
    """Serve until the process ends; its words go to a file."""
    log = os.open(Path(site.config.data) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(log, stream.fileno())
    hosting = open_hosting(site.config, "http://127.0.0.1", {MODEL: MANY})
    parts = {"meter": hosting.meter, "admission": hosting.admission, "gate": hosting.gate}
    service = Service({MODEL: Numbers()}, **parts)
    assert hosting.meter.prices == read_prices(site.config.prices)
    serve_app(build_app(service, hosting), service, listener)
