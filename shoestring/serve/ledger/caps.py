"""Caps: the most that a key or an account may spend in a day or a month (UTC)."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, or_, select, update

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.ledger.prices import decimal
from shoestring.serve.storage.tables import spending, usage_days


@dataclass(frozen=True)
class Cap:
    """The most that one owner may spend in one kind of period."""

    owner_id: str
    """A key's or an account's id."""
    period: str
    """day or month."""
    amount: int
    """Nanos."""


def periods(time_s: int) -> dict[str, str]:
    """The day and the month of a time: 2026-11-30 and 2026-11."""
    moment = datetime.fromtimestamp(time_s, UTC)
    return {"day": moment.strftime("%Y-%m-%d"), "month": moment.strftime("%Y-%m")}


def cap_rows(caps: Sequence[Cap], time_s: int) -> list[str]:
    """The rows of `spending` that caps count in at a time, as OWNER/PERIOD."""
    return [f"{cap.owner_id}/{periods(time_s)[cap.period]}" for cap in caps]


def hold_caps(connection: Connection, caps: Sequence[Cap], amount: int, time_s: int) -> None:
    """Hold an amount within each cap. Raises RequestError when one has less left."""
    for cap in caps:
        period = periods(time_s)[cap.period]
        _open(connection, cap.owner_id, period)
        row = _row(cap.owner_id, period)
        enough = spending.c.spent + spending.c.held + amount <= cap.amount
        statement = update(spending).where(row & enough).values(held=spending.c.held + amount)
        if connection.execute(statement).rowcount != 1:
            raise RequestError(
                "balance",
                f"Insufficient Balance: this request may cost {decimal(amount)}, and the cap of "
                f"{decimal(cap.amount)} for {period} leaves less; wait for the next {cap.period}",
            )


def settle_caps(connection: Connection, operation: Row[Any], charge: int) -> None:
    """Count a charge within every cap of its owners, and give back what those it began with hold."""
    if not operation.held:
        return
    owners = [owner for owner in (operation.account_id, operation.key_id) if owner]
    here = spending.c.owner_id.in_(owners) & spending.c.period.in_(periods(operation.created_s).values())
    connection.execute(update(spending).where(here).values(spent=spending.c.spent + charge))
    for name in (operation.caps or "").split():
        statement = update(spending).where(_row(*name.split("/")))
        connection.execute(statement.values(held=spending.c.held - operation.held))


def _open(connection: Connection, owner_id: str, period: str) -> None:
    """Begin to count an owner's spending in a period, with what it has spent before it had a cap."""
    if connection.execute(select(spending.c.owner_id).where(_row(owner_id, period))).first():
        return
    owner = or_(usage_days.c.key_id == owner_id, usage_days.c.account_id == owner_id)
    total = select(func.coalesce(func.sum(usage_days.c.charge), 0))
    total_spent = connection.execute(total.where(owner & usage_days.c.day.startswith(period))).scalar_one()
    row = {"owner_id": owner_id, "period": period, "spent": int(total_spent), "held": 0}
    connection.execute(insert(spending).values(**row))


def _row(owner_id: str, period: str) -> ColumnElement[bool]:
    return (spending.c.owner_id == owner_id) & (spending.c.period == period)
