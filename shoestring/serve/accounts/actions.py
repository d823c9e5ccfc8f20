"""Actions of admins, which are only ever added to: who did what, to which account, and when."""

from typing import Any

from sqlalchemy import Connection, insert, select

from shoestring.serve.storage.tables import accounts, admin_actions

MAX_DETAIL = 300


def add_action(
    connection: Connection, time_s: int, actor: str, action: str, account_id: str | None, detail: str
) -> None:
    """Keep an action. `actor` is an admin's account, or the operator; `account_id` is whom it is about."""
    row = {"time_s": time_s, "actor": actor, "action": action, "account_id": account_id}
    connection.execute(insert(admin_actions).values(detail=detail[:MAX_DETAIL], **row))


def list_actions(connection: Connection, before: int | None, limit: int) -> list[dict[str, Any]]:
    """Actions, the newest first, before the one with an id; with the addresses of accounts that are there."""
    actors, subjects = accounts.alias(), accounts.alias()
    query = (
        select(admin_actions, actors.c.email.label("actor_email"), subjects.c.email.label("account_email"))
        .outerjoin(actors, actors.c.id == admin_actions.c.actor)
        .outerjoin(subjects, subjects.c.id == admin_actions.c.account_id)
        .order_by(admin_actions.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(admin_actions.c.id < before)
    return [dict(row) for row in connection.execute(query).mappings()]
