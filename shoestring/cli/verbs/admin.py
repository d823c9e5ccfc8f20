"""`shoestring admin`: people, credit, keys, registration and incidents of a running service."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode

import typer

from shoestring.cli.admin_client import AdminClient
from shoestring.cli.options import Json
from shoestring.cli.output import print_fields, print_json, print_table

app = typer.Typer(
    help="Manage a running service that has accounts.", no_args_is_help=True, rich_markup_mode=None
)

Account = Annotated[str, typer.Argument(help="The account: its id or its e-mail address.")]


class GateState(StrEnum):
    """States of registration; auto lets what is measured decide."""

    OPEN = "open"
    PROOF_OF_WORK = "proof_of_work"
    INVITE = "invite"
    CLOSED = "closed"
    AUTO = "auto"


@app.callback()
def admin(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option(help="Folder of the service's data.")] = None,
    url: Annotated[
        str | None, typer.Option(help="Address of a service elsewhere; its key is SHOESTRING_ADMIN_KEY.")
    ] = None,
) -> None:
    """Manage a running service that has accounts."""
    context.obj = lambda: AdminClient(data, url)


@app.command()
def accounts(context: typer.Context, *, as_json: Json = False) -> None:
    """List accounts with their balances."""
    rows = _client(context).call("GET", "/admin/accounts")["data"]
    if as_json:
        print_json(rows)
        return
    titles = ("account", "e-mail", "role", "granted", "topped up", "held", "state")
    print_table(titles, [_row(row) for row in rows])


@app.command()
def add(
    context: typer.Context,
    email: str,
    *,
    is_admin: Annotated[bool, typer.Option("--admin", help="Make the person an admin.")] = False,
    as_json: Json = False,
) -> None:
    """Make an account; print a link by which its owner sets a password within an hour."""
    body = {"email": email, "role": "admin" if is_admin else "user"}
    _show(_client(context).call("POST", "/admin/accounts", body), as_json, "id", "email", "role", "link")


@app.command()
def change(
    context: typer.Context,
    account: Account,
    settings: Annotated[
        list[str],
        typer.Option("--set", help="A setting such as role=admin, priority=batch, day_cap=1.50; repeatable."),
    ],
    *,
    as_json: Json = False,
) -> None:
    """Change an account's role, priority, weight, limits, caps or is_disabled; `none` takes a limit away."""
    client = _client(context)
    body = dict(_setting(text) for text in settings)
    account_id = _find(client, account)
    _show(client.call("PATCH", f"/admin/accounts/{account_id}", body), as_json, *body)


@app.command()
def credit(
    context: typer.Context,
    account: Account,
    amount: Annotated[str, typer.Argument(help="An amount of the currency, like 5.00.")],
    *,
    is_payment: Annotated[bool, typer.Option("--paid", help="The person has paid for it.")] = False,
    note: Annotated[str, typer.Option(help="A line for the books.")] = "",
    as_json: Json = False,
) -> None:
    """Give an account money; with `-- -5.00` take some back."""
    client = _client(context)
    body = {"amount": amount, "kind": "top_up" if is_payment else "grant", "note": note}
    reply = client.call("POST", f"/admin/accounts/{_find(client, account)}/credit", body)
    _show(reply, as_json, "id", "email", "balance", "operation_id")


@app.command()
def key(
    context: typer.Context,
    account: Account,
    *,
    name: Annotated[str, typer.Option(help="What it is for.")] = "",
    scope: Annotated[str, typer.Option(help="inference, account or admin.")] = "inference",
) -> None:
    """Make an API key for an account and print it, this once."""
    client = _client(context)
    path = f"/admin/accounts/{_find(client, account)}/keys"
    print(client.call("POST", path, {"name": name, "scope": scope})["key"])


@app.command()
def invite(context: typer.Context) -> None:
    """Print a link by which one person may sign up within a week, whatever the state of registration."""
    print(_client(context).call("POST", "/admin/links", {"purpose": "invite"})["link"])


@app.command()
def reset(context: typer.Context, account: Account) -> None:
    """Print a link by which an account's owner sets a new password within an hour."""
    client = _client(context)
    body = {"purpose": "reset_password", "account_id": _find(client, account)}
    print(client.call("POST", "/admin/links", body)["link"])


@app.command()
def gate(
    context: typer.Context,
    state: Annotated[GateState | None, typer.Argument(help="Without one, show the present state.")] = None,
    *,
    reason: Annotated[str, typer.Option(help="Why, for the log.")] = "by the operator",
    as_json: Json = False,
) -> None:
    """Show the state of registration, or hold it in one; `auto` lets go."""
    client = _client(context)
    if state is not None:
        value = None if state is GateState.AUTO else state.value
        client.call("POST", "/admin/gate", {"state": value, "reason": reason})
    _show(client.call("GET", "/admin/gate"), as_json, "state", "pin", "reason")


@app.command()
def incident(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="What happened, for everybody to read.")],
    *,
    number: Annotated[int | None, typer.Option(help="The incident that the text is about.")] = None,
    is_end: Annotated[bool, typer.Option("--end", help="It is over.")] = False,
) -> None:
    """Begin an incident on the status page, or add to one; print its number."""
    body = {"text": text, "number": number, "is_end": is_end}
    print(_client(context).call("POST", "/admin/incidents", body)["number"])


@app.command()
def prices(context: typer.Context) -> None:
    """Show the prices in force, as JSON."""
    print_json(_client(context).call("GET", "/admin/prices"))


@app.command()
def audit(context: typer.Context) -> None:
    """Check every identity of the ledger; exit with 3 if one does not hold."""
    from shoestring.errors import ThresholdError

    faults = _client(context).call("GET", "/admin/audit")["faults"]
    if faults:
        raise ThresholdError("; ".join(faults))
    print("the ledger is right")


def _client(context: typer.Context) -> AdminClient:
    client: AdminClient = context.obj()
    return client


def _find(client: AdminClient, account: str) -> str:
    """The id of an account that is named by its id or its address."""
    from shoestring.errors import ConfigError

    if "@" not in account:
        return account
    rows = client.call("GET", f"/admin/accounts?{urlencode({'search': account})}")["data"]
    ids = [row["id"] for row in rows if row["email"] == account.lower()]
    if not ids:
        raise ConfigError(f"no account has the address {account}; `shoestring admin accounts` lists them")
    return str(ids[0])


def _setting(text: str) -> tuple[str, Any]:
    """The name and value of `name=value`; amounts stay text."""
    from shoestring.errors import ConfigError

    name, sign, value = text.partition("=")
    if not sign:
        raise ConfigError(f"--set {text}: write name=value")
    words = {"none": None, "true": True, "false": False}
    if name in ("day_cap", "month_cap") and value != "none":
        return name, value
    return name, words[value] if value in words else int(value) if value.isdigit() else value


def _row(row: dict[str, Any]) -> list[str]:
    money = row["balance"]
    state = "disabled" if row["is_disabled"] else "active"
    amounts = [money[name] for name in ("granted", "topped_up", "held")]
    return [row["id"], row["email"] or "-", row["role"], *amounts, state]


def _show(reply: dict[str, Any], as_json: bool, *names: str) -> None:
    if as_json:
        print_json(reply)
    else:
        print_fields({name: reply[name] for name in names if name in reply})
