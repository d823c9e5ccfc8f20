"""The audit of the ledger: every identity that must hold, checked over the whole database."""

from sqlalchemy import Connection, func, select

from shoestring.serve.storage.tables import balances, entries, operations, spending


def audit(connection: Connection) -> list[str]:
    """One sentence for each identity that does not hold; an empty list for a ledger that is right."""
    return [*_entries(connection), *_balances(connection), *_charges(connection), *_caps(connection)]


def _entries(connection: Connection) -> list[str]:
    """The entries of every operation add up to nothing."""
    total = func.sum(entries.c.amount)
    query = select(entries.c.operation_id, total).group_by(entries.c.operation_id).having(total != 0)
    return [f"the entries of {row[0]} add up to {row[1]}, not to 0" for row in connection.execute(query)]


def _balances(connection: Connection) -> list[str]:
    """A balance is the fold of its entries, and holds what its open operations hold."""
    total = select(entries.c.book, func.sum(entries.c.amount)).group_by(entries.c.book)
    books = {row[0]: int(row[1]) for row in connection.execute(total)}
    is_open = operations.c.ended_s.is_(None)
    query = select(operations.c.account_id, func.sum(operations.c.held)).where(is_open)
    holds = {row[0]: int(row[1]) for row in connection.execute(query.group_by(operations.c.account_id))}
    sentences = []
    for row in connection.execute(select(balances)):
        account = row.account_id
        targets = {
            "granted": books.pop(f"granted:{account}", 0),
            "topped_up": books.pop(f"topped_up:{account}", 0),
            "held": holds.pop(account, 0),
        }
        for name, amount in targets.items():
            present = getattr(row, name)
            if present != amount:
                sentences.append(f"{account} has {present} as {name}, its operations say {amount}")
        if row.granted + row.topped_up < row.held:
            sentences.append(f"{account} holds {row.held}, more than it has")
    orphans = [book for book in books if book.startswith(("granted:", "topped_up:")) and books[book]]
    orphans += [account for account, amount in holds.items() if amount]
    return sentences + [f"{name} has money but no balance" for name in orphans]


def _charges(connection: Connection) -> list[str]:
    """Charges of operations are what arrived in sales, and never more than was held."""
    charges_query = select(func.coalesce(func.sum(operations.c.charge), 0))
    sales_query = select(func.coalesce(func.sum(entries.c.amount), 0)).where(entries.c.book == "sales")
    charges, sales = (int(connection.execute(query).scalar_one()) for query in (charges_query, sales_query))
    sentences = [f"operations were charged {charges}, sales are {sales}"] if charges != sales else []
    query = select(operations.c.id).where(operations.c.charge > operations.c.held)
    return sentences + [f"{row.id} was charged more than it held" for row in connection.execute(query)]


def _caps(connection: Connection) -> list[str]:
    query = select(spending).where((spending.c.held < 0) | (spending.c.spent < 0))
    return [f"{row.owner_id} has spent or holds less than nothing" for row in connection.execute(query)]
