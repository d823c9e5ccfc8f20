"""Processes that answer requests: each is seen every few seconds, and what a dead one left open is ended."""

from sqlalchemy import Connection, delete, insert, or_, select, update

from shoestring.serve.ledger.operations import settle
from shoestring.serve.storage.tables import operations, servers

SEEN_EVERY_S = 5
DEAD_AFTER_S = 30


def join(connection: Connection, server_id: str, time_s: int) -> None:
    """Begin to answer."""
    connection.execute(insert(servers).values(id=server_id, started_s=time_s, seen_s=time_s))


def seen(connection: Connection, server_id: str, time_s: int) -> int:
    """Say that a process lives, and end the requests of those that do not; returns how many were ended."""
    present = update(servers).where(servers.c.id == server_id).values(seen_s=time_s)
    if connection.execute(present).rowcount != 1:  # others took this process for dead, as after a long sleep
        join(connection, server_id, time_s)
    return end_dead(connection, time_s - DEAD_AFTER_S, time_s)


def leave(connection: Connection, server_id: str) -> None:
    """Answer no more."""
    connection.execute(delete(servers).where(servers.c.id == server_id))


def end_dead(connection: Connection, seen_before_s: int, time_s: int) -> int:
    """Charge what was noted of the open requests of processes that were not seen since; returns how many."""
    connection.execute(delete(servers).where(servers.c.seen_s < seen_before_s))
    alive = select(servers.c.id)
    dead = or_(operations.c.server_id.is_(None), operations.c.server_id.not_in(alive))
    query = select(operations.c.id).where(operations.c.ended_s.is_(None) & dead)
    operation_ids = [row.id for row in connection.execute(query)]
    for operation_id in operation_ids:
        settle(connection, operation_id, None, time_s)
    return len(operation_ids)
