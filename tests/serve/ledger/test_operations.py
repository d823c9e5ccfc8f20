"""The ledger against a plain model of it: any order of operations keeps every identity."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, update

from shoestring.serve.backends.errors import RequestError
from shoestring.serve.backends.reply import Usage
from shoestring.serve.ledger import servers
from shoestring.serve.ledger.audit import audit
from shoestring.serve.ledger.caps import Cap
from shoestring.serve.ledger.operations import (
    Balance,
    Hold,
    add_funds,
    balance,
    hold,
    note_usage,
    settle,
)
from shoestring.serve.ledger.prices import MILLION, Price
from shoestring.serve.ledger.usage import usage_of
from shoestring.serve.storage.tables import balances, entries, operations

NOW = 1_764_500_000  # 2025-11-30
PRICE = Price.model_construct(cache_hit=1 * MILLION, cache_miss=2 * MILLION, output=3 * MILLION)


def request(name="op", account="a", amount=100, **fields):
    defaults = {"key_id": "k", "server_id": "s", "model": "m", "price": PRICE, "time_s": NOW}
    return Hold(operation_id=name, account_id=account, amount=amount, **{**defaults, **fields})


def tokens(prompt=0, cached=0, completion=0):
    return Usage(prompt_tokens=prompt, cached_tokens=cached, completion_tokens=completion)


def test_what_is_held_is_charged_granted_money_first(connection):
    assert add_funds(connection, "g", "a", "grant", 30, NOW)
    assert add_funds(connection, "t", "a", "top_up", 200, NOW)
    hold(connection, request())
    assert balance(connection, "a") == Balance(granted=30, topped_up=200, held=100)
    assert settle(connection, "op", tokens(prompt=10, cached=4, completion=8), NOW + 1) == 4 + 12 + 24
    assert balance(connection, "a") == Balance(granted=0, topped_up=190)
    books = {
        row.book: row.amount
        for row in connection.execute(select(entries).where(entries.c.operation_id == "op"))
    }
    assert books == {"granted:a": -30, "topped_up:a": -10, "sales": 40}
    assert audit(connection) == []


def test_a_second_settlement_changes_nothing(connection):
    add_funds(connection, "g", "a", "grant", 100, NOW)
    hold(connection, request())
    assert settle(connection, "op", tokens(completion=5), NOW) == 15
    assert settle(connection, "op", tokens(completion=30), NOW) == 15
    assert balance(connection, "a").total == 85
    assert usage_of(connection, "2025-11-30", "2025-11-30", ["day"])[0]["requests"] == 1


def test_a_charge_is_never_more_than_was_held(connection):
    add_funds(connection, "g", "a", "grant", 100, NOW)
    hold(connection, request())
    assert settle(connection, "op", tokens(completion=1000), NOW) == 100


def test_a_balance_that_is_too_small_is_a_402(connection):
    add_funds(connection, "g", "a", "grant", 150, NOW)
    hold(connection, request("one"))
    with pytest.raises(RequestError, match="Insufficient Balance") as caught:
        hold(connection, request("two"))
    assert caught.value.status == 402
    with pytest.raises(RequestError, match="Insufficient Balance"):
        hold(connection, request("three", account="nobody"))


def test_a_free_request_needs_no_balance_and_is_counted(connection):
    hold(connection, request(amount=0, price=Price()))
    counts = {"cached_tokens": 3, "missed_tokens": 4, "completion_tokens": 2}
    assert settle(connection, "op", tokens(7, 3, 2), NOW) == 0
    day = usage_of(connection, "2025-11-30", "2025-11-30", ["day"], "a")[0]
    assert day == {"day": "2025-11-30", "requests": 1, "charge": 0} | counts
    assert audit(connection) == []


def test_an_idempotency_key_counts_once_for_an_account(connection):
    for account in ("a", "b"):
        add_funds(connection, f"g{account}", account, "grant", 300, NOW)
        hold(connection, request(f"1{account}", account, idempotency_key="same"))
    with pytest.raises(RequestError) as caught:
        hold(connection, request("2a", idempotency_key="same"))
    assert (caught.value.status, caught.value.field) == (409, "Idempotency-Key")
    assert balance(connection, "a").held == 100


def test_money_is_added_once_for_an_operation(connection):
    assert add_funds(connection, "t", "a", "top_up", 50, NOW)
    assert not add_funds(connection, "t", "a", "top_up", 50, NOW)
    assert balance(connection, "a").total == 50
    assert add_funds(connection, "back", "a", "top_up", -20, NOW)
    with pytest.raises(RequestError, match="less than"):
        add_funds(connection, "more", "a", "top_up", -40, NOW)


def test_what_a_dead_process_left_open_is_charged_as_noted(connection):
    add_funds(connection, "g", "a", "grant", 1000, NOW)
    servers.join(connection, "s", NOW)
    servers.join(connection, "t", NOW)
    for name in ("one", "two"):
        hold(connection, request(name))
    hold(connection, request("theirs", server_id="t"))
    note_usage(connection, "one", tokens(completion=4))
    servers.seen(connection, "s", NOW + 40)  # t was not seen for 40 s, s is here
    assert balance(connection, "a") == Balance(granted=1000, held=200)
    assert servers.seen(connection, "new", NOW + 100) == 2
    assert balance(connection, "a") == Balance(granted=1000 - 12)
    assert audit(connection) == []


@pytest.mark.parametrize("period", ["day", "month"])
def test_a_cap_holds_for_its_period_and_begins_anew(connection, period):
    add_funds(connection, "g", "a", "grant", 10_000, NOW)
    caps = (Cap("k", period, 150),)
    hold(connection, request("1", caps=caps))
    with pytest.raises(RequestError, match="the cap of"):
        hold(connection, request("2", caps=caps))
    settle(connection, "1", tokens(completion=10), NOW)  # 30 of the 100
    hold(connection, request("3", caps=caps))
    settle(connection, "3", tokens(completion=33), NOW)  # 129 in all
    with pytest.raises(RequestError, match="the cap of"):
        hold(connection, request("4", caps=caps))
    hold(connection, request("5", caps=caps, time_s=NOW + 32 * 86_400))
    assert audit(connection) == []


def test_a_new_cap_knows_what_was_spent_before(connection):
    add_funds(connection, "g", "a", "grant", 10_000, NOW)
    hold(connection, request("1"))
    settle(connection, "1", tokens(completion=30), NOW)
    hold(connection, request("open"))  # under way while the cap is set
    with pytest.raises(RequestError, match="the cap of"):
        hold(connection, request("2", caps=(Cap("a", "day", 150),)))
    hold(connection, request("3", caps=(Cap("a", "day", 190),)))
    settle(connection, "open", tokens(completion=33), NOW)
    settle(connection, "3", tokens(), NOW)
    with pytest.raises(RequestError, match="the cap of"):  # 90 + 99 are spent
        hold(connection, request("4", amount=2, caps=(Cap("a", "day", 190),)))
    assert audit(connection) == []


def test_the_audit_sees_every_kind_of_damage(connection):
    add_funds(connection, "g", "a", "grant", 100, NOW)
    hold(connection, request())
    settle(connection, "op", tokens(completion=5), NOW)
    damage = (
        update(balances).values(granted=balances.c.granted + 1),
        update(balances).values(held=1),
        insert(entries).values(operation_id="op", book="x", amount=1),
        update(operations).where(operations.c.id == "op").values(charge=16),
        update(operations).where(operations.c.id == "op").values(held=1),
    )
    for statement in damage:
        with connection.begin_nested() as savepoint:
            connection.execute(statement)
            assert audit(connection) != []
            savepoint.rollback()
    assert audit(connection) == []


@given(st.data())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_operations_agrees_with_a_plain_ledger(connection, data):
    with connection.begin_nested() as savepoint:
        funds, open_holds, spent = {"a": 0, "b": 0}, {}, {"a": 0, "b": 0}
        for number in range(data.draw(st.integers(1, 25))):
            account = data.draw(st.sampled_from("ab"))
            kind = data.draw(st.sampled_from(["add", "hold", "settle", "note"]))
            held = sum(amount for owner, amount in open_holds.values() if owner == account)
            if kind == "add":
                amount = data.draw(st.integers(0, 300))
                book = data.draw(st.sampled_from(["grant", "top_up"]))
                add_funds(connection, f"f{number}", account, book, amount, NOW)
                funds[account] += amount
            elif kind == "hold":
                amount = data.draw(st.integers(1, 200))
                is_enough = funds[account] - spent[account] - held >= amount
                try:
                    hold(connection, request(f"h{number}", account, amount))
                    assert is_enough
                    open_holds[f"h{number}"] = (account, amount)
                except RequestError:
                    assert not is_enough
                    connection.execute(operations.delete().where(operations.c.id == f"h{number}"))
            elif open_holds:
                name = data.draw(st.sampled_from(sorted(open_holds)))
                usage = tokens(completion=data.draw(st.integers(0, 90)))
                if kind == "note":
                    note_usage(connection, name, usage)
                    continue
                owner, amount = open_holds.pop(name)
                charge = settle(connection, name, usage, NOW)
                assert charge == min(3 * usage.completion_tokens, amount)
                spent[owner] += charge
        for account in "ab":
            assert balance(connection, account).total == funds[account] - spent[account]
        assert audit(connection) == []
        savepoint.rollback()
