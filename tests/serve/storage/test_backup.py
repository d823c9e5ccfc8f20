"""A backup of either kind of database is that database, and is refused where it would do harm."""

import sqlite3
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from shoestring.errors import ConfigError, DataError, StorageError
from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Usage
from shoestring.serve.chats.chats import put_chat
from shoestring.serve.chats.messages import put_messages
from shoestring.serve.chats.schema import ChatHead, Message
from shoestring.serve.chats.shares import share_branch
from shoestring.serve.ledger import servers
from shoestring.serve.ledger.caps import Cap
from shoestring.serve.ledger.operations import Hold, add_funds, hold, settle
from shoestring.serve.ledger.prices import Price
from shoestring.serve.storage.backup import backup, check, restore
from shoestring.serve.storage.engines import sqlite_url, writing_engine
from shoestring.serve.storage.lock import database_lock
from shoestring.serve.storage.migrate import transaction
from shoestring.serve.storage.tables import accounts, balances, incident_notes, metadata
from tests.serve.postgres import empty_database
from tests.serve.sqlite import new_sqlite

PRICE = Price.model_construct(cache_hit=1, cache_miss=2 * 10**6, output=3 * 10**6)


def written(url, work):
    with transaction(writing_engine(url)) as connection:
        return work(connection)


def content(url):
    return written(
        url,
        lambda connection: {
            name: sorted(map(repr, connection.execute(select(table))))
            for name, table in metadata.tables.items()
        },
    )


def incident(connection):
    row = {"incident": 1, "time_s": 1, "kind": "begin", "text": "é", "actor": "gate"}
    connection.execute(insert(incident_notes).values(**row))


def chat(connection):
    put_chat(connection, "a", ChatHead(id="chat-0001"))
    put_messages(connection, "a", "chat-0001", [Message(id="message1", role="user", content="é")])
    share_branch(connection, "a", "chat-0001", "message1", 1)


@pytest.fixture
def urls(database_url, tmp_path):
    """A database with some money in it, and another that is empty, of the same kind."""
    written(database_url, lambda connection: add_funds(connection, "f", "a", "grant", 10**9, 1))
    written(database_url, incident)
    written(database_url, chat)
    if database_url.startswith("sqlite"):
        yield database_url, f"sqlite:///{tmp_path / 'other.db'}"
        return
    with empty_database(database_url.rpartition("/")[0]) as other:
        yield database_url, other


def drawn_operation(connection, data, number):
    account = data.draw(st.sampled_from("ab"))
    kind = data.draw(st.sampled_from(["funds", "hold", "settle", "incident", "account"]))
    if kind == "funds":
        add_funds(
            connection, f"f{number}", account, data.draw(st.sampled_from(["grant", "top_up"])), 500, number
        )
    elif kind == "incident":
        incident(connection)
    elif kind == "account":
        row = {"id": f"p{number}", "role": "user", "priority": "standard", "weight": 1, "created_s": number}
        connection.execute(insert(accounts).values(**row))
    else:
        request = Hold(
            operation_id=f"h{number}", account_id=account, key_id="k", server_id="s", model="m", price=PRICE,
            amount=data.draw(st.integers(0, 300)), time_s=number, caps=[Cap("k", "day", 10**6)],
        )  # fmt: skip
        try:
            with connection.begin_nested():
                hold(connection, request)
        except RequestError:
            return
        if kind == "settle":
            settle(connection, request.operation_id, Usage(prompt_tokens=9, completion_tokens=number), number)


@given(st.data())
@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_ledger_survives_the_way_through_both_kinds(tmp_path_factory, postgres_url, data):
    folder = tmp_path_factory.mktemp("ways")
    first, last = new_sqlite(folder / "first.db"), sqlite_url(folder / "last.db")
    size = data.draw(st.integers(0, 20))
    written(first, lambda connection: [drawn_operation(connection, data, number) for number in range(size)])
    with empty_database(postgres_url) as middle:
        backup(first, folder / "one.db")
        restore(folder / "one.db", middle)
        assert content(middle) == content(first)
        counts = backup(middle, folder / "two.db")
        assert restore(folder / "two.db", last) == counts
        assert content(last) == content(first)
        written(middle, incident)  # its number comes after those of the backup
        written(middle, lambda connection: add_funds(connection, "new", "a", "grant", 1, 1))


def test_a_backup_is_one_private_file_made_while_the_database_is_written(urls, tmp_path):
    file = tmp_path / "copy.db"
    with transaction(writing_engine(urls[0])) as connection:  # not committed: not in the backup
        add_funds(connection, "late", "a", "grant", 5, 1)
        assert backup(urls[0], file)["operations"] == 1
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob("copy*")] == ["copy.db"]
    assert check(sqlite_url(file))["incident_notes"] == 1
    with pytest.raises(ConfigError, match="exists"):
        backup(urls[0], file)
    with pytest.raises(StorageError, match="cannot write"):
        backup(urls[0], file / "below")


def test_a_database_with_rows_is_replaced_only_when_that_is_said(urls, tmp_path):
    source, target = urls
    backup(source, tmp_path / "copy.db")
    restore(tmp_path / "copy.db", target)
    written(target, lambda connection: add_funds(connection, "g", "b", "grant", 7, 1))
    before = content(target)
    with pytest.raises(ConfigError, match="--replace"):
        restore(tmp_path / "copy.db", target)
    assert content(target) == before
    restore(tmp_path / "copy.db", target, replace=True)
    assert content(target) == content(source)


def test_a_database_in_use_is_not_replaced(urls, tmp_path):
    backup(urls[0], tmp_path / "copy.db")
    written(urls[0], lambda connection: servers.join(connection, "s", int(time.time())))
    with database_lock(urls[0]), pytest.raises(ConfigError, match=r"end it first|end them and wait"):
        restore(tmp_path / "copy.db", urls[0], replace=True)


def test_a_ledger_that_is_wrong_is_neither_backed_up_nor_restored(urls, tmp_path):
    source, target = urls
    backup(source, tmp_path / "good.db")
    damage = update(balances).values(granted=balances.c.granted + 1)
    written(sqlite_url(tmp_path / "good.db"), lambda connection: connection.execute(damage) and None)
    with pytest.raises(DataError, match=r"the ledger of .* is wrong: a has"):
        restore(tmp_path / "good.db", target)
    written(source, lambda connection: connection.execute(damage) and None)
    with pytest.raises(DataError, match="the ledger of"):
        backup(source, tmp_path / "bad.db")
    assert not list(tmp_path.glob("bad*"))


def test_what_is_no_backup_is_refused(tmp_path):
    target = f"sqlite:///{tmp_path / 'target.db'}"
    (tmp_path / "text").write_text("no database at all, but long enough to be read as one" * 20)
    sqlite3.connect(tmp_path / "empty").close()
    for name, words in (("text", "not a database"), ("empty", "no tables"), ("missing", "there is no")):
        with pytest.raises(ConfigError, match=words):
            restore(tmp_path / name, target)
    with pytest.raises(ConfigError, match="there is no"):
        backup(target, tmp_path / "copy.db")
    assert not (tmp_path / "target.db").exists()


def test_a_damaged_file_is_found(urls, tmp_path):
    file = tmp_path / "copy.db"
    backup(urls[0], file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
    file.write_bytes(data)
    with pytest.raises((ConfigError, DataError), match=r"damaged|malformed"):
        restore(file, urls[1])
