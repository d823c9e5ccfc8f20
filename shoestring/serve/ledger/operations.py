"""Operations of the ledger: hold money for a request, note what it used, charge it; grants and top-ups.

Each is statements on a connection, for one transaction. Every operation is booked twice, in entries whose
sum is zero: what leaves the books of an account (granted:ID, topped_up:ID) arrives in `sales`, and what is
given to it leaves `grants` or `payments`. A row of `balances` is the fold of the entries of its account and
of what is held.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Usage
from shoestring.serve.ledger.caps import Cap, cap_rows, hold_caps, settle_caps
from shoestring.serve.ledger.prices import Price, decimal
from shoestring.serve.ledger.usage import add_usage
from shoestring.serve.storage.tables import balances, entries, operations

Funds = Literal["grant", "top_up"]
SOURCES: dict[Funds, tuple[str, str]] = {"grant": ("grants", "granted"), "top_up": ("payments", "topped_up")}
"""The book that money of a kind comes from, and the account's book that it goes to."""


@dataclass(frozen=True, kw_only=True)
class Balance:
    """Money of an account, in nanos."""

    granted: int = 0
    """Given by the operator; spent first."""
    topped_up: int = 0
    held: int = 0
    """For requests under way."""

    @property
    def total(self) -> int:
        return self.granted + self.topped_up

    @property
    def available(self) -> int:
        return self.total - self.held


@dataclass(frozen=True, kw_only=True)
class Hold:
    """A request for which money is held until it ends."""

    operation_id: str
    account_id: str
    key_id: str | None
    server_id: str
    model: str
    price: Price
    amount: int
    """The most that it can cost, in nanos."""
    time_s: int
    caps: Sequence[Cap] = ()
    idempotency_key: str | None = None
    """A digest; the account's second request with it is refused."""


def operation_id(request_id: str, number: int) -> str:
    """The id of the operation for one reply of a request; most requests have only number 0."""
    return f"{request_id}.{number}"


def operations_of(connection: Connection, request_id: str, account_id: str) -> list[Row[Any]]:
    """The operations of an account's request; none for one that is not its own."""
    rows: list[Row[Any]] = []
    mine = operations.c.account_id == account_id
    while row := connection.execute(
        select(operations).where(mine & (operations.c.id == operation_id(request_id, len(rows))))
    ).first():
        rows.append(row)
    return rows


def hold(connection: Connection, request: Hold) -> None:
    """Hold the most that a request can cost.

    Raises RequestError when the account's balance or a cap has less, or a request with the same idempotency
    key exists.
    """
    _insert(connection, request)
    if request.amount:
        statement = update(balances).where(balances.c.account_id == request.account_id)
        enough = balances.c.granted + balances.c.topped_up - balances.c.held >= request.amount
        statement = statement.where(enough).values(held=balances.c.held + request.amount)
        if connection.execute(statement).rowcount != 1:
            present = balance(connection, request.account_id).available
            raise RequestError(
                "balance",
                f"Insufficient Balance: this request may cost {decimal(request.amount)}, and "
                f"{decimal(present)} is available; add credit, or ask for fewer max_tokens",
            )
        hold_caps(connection, request.caps, request.amount, request.time_s)


def _insert(connection: Connection, request: Hold) -> None:
    row = insert(operations).values(
        id=request.operation_id,
        kind="usage",
        account_id=request.account_id,
        key_id=request.key_id,
        server_id=request.server_id,
        model=request.model,
        created_s=request.time_s,
        held=request.amount,
        cache_hit_price=request.price.cache_hit,
        cache_miss_price=request.price.cache_miss,
        output_price=request.price.output,
        caps=" ".join(cap_rows(request.caps, request.time_s)) if request.amount else None,
        idempotency_key=request.idempotency_key,
    )
    if request.idempotency_key is None:
        connection.execute(row)
        return
    try:
        with connection.begin_nested():
            connection.execute(row)
    except IntegrityError:
        raise RequestError(
            "conflict",
            "a request with this Idempotency-Key was made before, and its answer is not here: whole ones are "
            "kept for ten minutes, streams and broken ones not at all; it is not run and not charged again",
            field="Idempotency-Key",
        ) from None


def note_usage(connection: Connection, operation_id: str, usage: Usage) -> None:
    """Keep the usage of an open request until now: what it is charged if this process dies."""
    values = _tokens(usage)
    is_open = (operations.c.id == operation_id) & operations.c.ended_s.is_(None)
    connection.execute(update(operations).where(is_open).values(**values))


def settle(connection: Connection, operation_id: str, usage: Usage | None, time_s: int) -> int:
    """End a request and charge its usage, in nanos: never more than was held, and never twice.

    `usage` None charges what was noted. A request that has ended keeps its charge; one that never began, and
    whose money was perhaps not even held, has none. When nothing ran, its idempotency key may be used again.
    """
    query = select(operations).where(operations.c.id == operation_id).with_for_update()
    row = connection.execute(query).first()
    if row is None or row.ended_s is not None:
        return int(row.charge) if row else 0
    usage = usage or Usage(
        prompt_tokens=row.prompt_tokens,
        cached_tokens=row.cached_tokens,
        completion_tokens=row.completion_tokens,
    )
    price = Price.model_construct(
        cache_hit=row.cache_hit_price, cache_miss=row.cache_miss_price, output=row.output_price
    )
    charge = int(min(price.charge(usage), row.held))
    values: dict[str, Any] = {"ended_s": time_s, "charge": charge, **_tokens(usage)}
    if usage == Usage():
        values["idempotency_key"] = None
    connection.execute(update(operations).where(operations.c.id == operation_id).values(**values))
    _pay(connection, row, charge)
    settle_caps(connection, row, charge)
    add_usage(connection, row, usage, charge)
    return charge


def _pay(connection: Connection, row: Row[Any], charge: int) -> None:
    """Move a charge from the account to sales, what was granted first, and give back what was held."""
    if not row.held:
        return
    account = row.account_id
    query = select(balances).where(balances.c.account_id == account).with_for_update()
    present = connection.execute(query).one()
    from_grants = min(present.granted, charge)
    from_payments = charge - from_grants
    amounts = {f"granted:{account}": -from_grants, f"topped_up:{account}": -from_payments, "sales": charge}
    _book(connection, row.id, amounts)
    statement = update(balances).where(balances.c.account_id == account)
    values = {
        "granted": balances.c.granted - from_grants,
        "topped_up": balances.c.topped_up - from_payments,
        "held": balances.c.held - row.held,
    }
    connection.execute(statement.values(**values))


def add_funds(
    connection: Connection,
    operation_id: str,
    account_id: str,
    kind: Funds,
    amount: int,
    time_s: int,
    note: str = "",
) -> bool:
    """Give an account money; False when an operation of this id has done so before.

    A negative amount takes money back. Raises RequestError when less is available.
    """
    if connection.execute(select(operations.c.id).where(operations.c.id == operation_id)).first():
        return False
    source, target = SOURCES[kind]
    row = insert(operations).values(
        id=operation_id,
        kind=kind,
        account_id=account_id,
        created_s=time_s,
        ended_s=time_s,
        held=0,
        charge=0,
        note=note[:200],
    )
    connection.execute(row)
    open_balance(connection, account_id)
    column = balances.c[target]
    enough = (column + amount >= 0) & (balances.c.granted + balances.c.topped_up + amount >= balances.c.held)
    statement = update(balances).where((balances.c.account_id == account_id) & enough)
    if connection.execute(statement.values({column.name: column + amount})).rowcount != 1:
        raise RequestError("balance", f"less than {decimal(-amount)} is available")
    _book(connection, operation_id, {source: -amount, f"{target}:{account_id}": amount})
    return True


def open_balance(connection: Connection, account_id: str) -> None:
    """Give an account a balance of nothing, if it has none."""
    if connection.execute(select(balances.c.account_id).where(balances.c.account_id == account_id)).first():
        return
    connection.execute(insert(balances).values(account_id=account_id, granted=0, topped_up=0, held=0))


def balance(connection: Connection, account_id: str) -> Balance:
    """The balance of an account."""
    row = connection.execute(select(balances).where(balances.c.account_id == account_id)).first()
    return Balance(granted=row.granted, topped_up=row.topped_up, held=row.held) if row else Balance()


def _book(connection: Connection, operation_id: str, amounts: Mapping[str, int]) -> None:
    rows = [
        {"operation_id": operation_id, "book": book, "amount": amount}
        for book, amount in amounts.items()
        if amount
    ]
    if rows:
        connection.execute(insert(entries), rows)


def _tokens(usage: Usage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
    }
