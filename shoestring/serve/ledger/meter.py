"""The meter of a service: money is held before a request runs, and what it used is charged when it ends."""

import asyncio
import hashlib
import logging
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

from sqlalchemy import Connection

from shoestring.serve.backends.reply import Delta, Usage, Work
from shoestring.serve.caller import Caller
from shoestring.serve.ledger import operations, servers
from shoestring.serve.ledger.operations import Hold, operation_id
from shoestring.serve.ledger.prices import PriceList
from shoestring.serve.storage.database import Database, DatabaseGone

Result = TypeVar("Result")

log = logging.getLogger(__name__)

NOTE_TOKENS = 256
"""Tokens after which the usage of an open request is kept, so that a crash loses no more of it."""
NOTE_S = 5.0
"""Seconds after which it is kept."""
RETRY_S = 1.0


class Charge:
    """The charge of one request, from hold to settlement. Settle it however the request ends."""

    def __init__(self, meter: "Meter", request: Hold) -> None:
        self.operation_id, self.most = request.operation_id, request.amount
        self.amount: int | None = None
        """Nanos, once it is settled."""
        self._meter, self._usage = meter, Usage()
        self._num_noted, self._noted_s = 0, time.monotonic()
        self._settling: asyncio.Task[int] | None = None

    async def count(self, usage: Usage) -> None:
        """Take the usage until now, and keep it from time to time."""
        self._usage = usage
        now_s = time.monotonic()
        if usage.completion_tokens - self._num_noted < NOTE_TOKENS and now_s - self._noted_s < NOTE_S:
            return
        self._num_noted, self._noted_s = usage.completion_tokens, now_s
        await self._meter.note(self.operation_id, usage)

    async def settle(self) -> int:
        """Charge what was used, in nanos. A second call gives the same; a cancelled one is finished."""
        self.amount = await asyncio.shield(self.settle_soon())
        return self.amount

    def settle_soon(self) -> "asyncio.Task[int]":
        """Begin to charge what was used."""
        if self._settling is None:
            self._settling = asyncio.create_task(self._meter.settle(self.operation_id, self._usage))
        return self._settling


class Meter:
    """Holds and charges for the requests of one process."""

    def __init__(self, database: Database, prices: PriceList, clock: Callable[[], float] = time.time) -> None:
        """`clock` is seconds since 1970: it says which prices and which periods of caps hold."""
        self.prices = prices
        """May be replaced at any time; a request keeps the prices that it began with."""
        self.server_id = f"srv_{secrets.token_hex(8)}"
        self._database, self._clock = database, clock
        self._presence: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Say that this process answers, and go on saying so."""

        def join(connection: Connection) -> None:
            now_s = self._now_s()
            if connection.dialect.name == "sqlite":  # whose file one process has at a time: others are dead
                servers.end_dead(connection, now_s + 1, now_s)
            servers.join(connection, self.server_id, now_s)

        await self._database.write(join)
        self._presence = asyncio.create_task(self._be_seen())

    async def stop(self) -> None:
        """Say that this process answers no more."""
        if self._presence is not None:
            self._presence.cancel()
        try:
            await self._database.write(lambda connection: servers.leave(connection, self.server_id))
        except DatabaseGone:
            log.warning("this process could not sign off; the next one ends what it left open")

    async def hold(self, caller: Caller, work: Work) -> Charge:
        """Hold the most that a request can cost. Raises RequestError when the caller has less."""
        now_s = self._now_s()
        price = self.prices.at(work.model, now_s)
        request = Hold(
            operation_id=operation_id(caller.request_id, len(caller.costs)),
            account_id=caller.account_id,
            key_id=caller.key_id,
            server_id=self.server_id,
            model=work.model,
            price=price,
            amount=price.most(work.prompt_tokens, work.max_tokens),
            time_s=now_s,
            caps=caller.caps,
            idempotency_key=_digest(caller),
        )
        holding = asyncio.ensure_future(
            self._database.write(lambda connection: operations.hold(connection, request))
        )
        charge = Charge(self, request)
        try:
            await asyncio.shield(holding)
        except DatabaseGone:  # before the commit or after it, nobody knows: give the money back if it is held
            charge.settle_soon()
            raise
        except asyncio.CancelledError:  # the money may be held by now: give it back
            holding.add_done_callback(lambda task: _settle_if_held(task, charge))
            raise
        return charge

    async def read(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """The result of statements that read the ledger. Raises DatabaseGone."""
        return await self._database.read(lambda connection: work(connection, *arguments))

    async def note(self, operation_id: str, usage: Usage) -> None:
        """Keep the usage of an open request; a database that is gone for a moment does not end the reply."""
        try:
            await self._database.write(
                lambda connection: operations.note_usage(connection, operation_id, usage)
            )
        except DatabaseGone:
            log.warning("the usage of %s could not be kept", operation_id)

    async def settle(self, operation_id: str, usage: Usage) -> int:
        """Charge a request that has ended; waits for a database that is gone."""
        while True:
            try:
                return await self._database.write(
                    lambda connection: operations.settle(connection, operation_id, usage, self._now_s())
                )
            except DatabaseGone:
                await asyncio.sleep(RETRY_S)

    def _now_s(self) -> int:
        return int(self._clock())

    async def _be_seen(self) -> None:
        while True:
            await asyncio.sleep(servers.SEEN_EVERY_S)
            try:
                num_ended = await self._database.write(
                    lambda connection: servers.seen(connection, self.server_id, self._now_s())
                )
            except DatabaseGone:
                continue
            if num_ended:
                log.warning("%d requests of processes that died were charged what was noted", num_ended)


async def metered(deltas: AsyncGenerator[Delta], charge: Charge) -> AsyncGenerator[Delta]:
    """The deltas of a reply, whose usage is counted; its charge is settled before the stream ends."""
    try:
        async with aclosing(deltas):
            async for delta in deltas:
                await charge.count(delta.usage)
                yield delta
    finally:
        await charge.settle()


def _settle_if_held(task: "asyncio.Task[None]", charge: Charge) -> None:
    if not task.cancelled() and isinstance(task.exception(), DatabaseGone | None):
        charge.settle_soon()


def _digest(caller: Caller) -> str | None:
    """A digest of the request's idempotency key, and of the number of the reply in the request."""
    if not caller.idempotency_key:
        return None
    return hashlib.sha256(f"{len(caller.costs)} {caller.idempotency_key}".encode()).hexdigest()
