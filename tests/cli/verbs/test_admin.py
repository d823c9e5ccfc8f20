"""The operator's command line against a real service."""

import json
import re
import socket
import threading

import pytest
import uvicorn

from shoestring.cli.main import exit_code
from shoestring.serve.accounts.accounts import write_operator_file
from tests.serve.site import new_site
from tests.serve.sqlite import new_sqlite


@pytest.fixture
def folder(tmp_path):
    """The folder of a service that runs."""
    site = new_site(new_sqlite(tmp_path / "service.db"))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(site.app, log_config=None, lifespan="on"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    write_operator_file(tmp_path / "operator.json", url, site.hosting.accounts.authenticator.operator_key)
    yield tmp_path
    server.should_exit = True
    thread.join()


def test_a_service_is_managed_from_the_command_line(folder, capsys):
    def admin(*arguments):
        code = exit_code(["admin", "--data", str(folder), *arguments])
        return code, capsys.readouterr().out

    assert "link" in admin("add", "ada@example.com", "--admin")[1]
    assert re.search(r"granted.*5\.00", admin("credit", "ada@example.com", "5.00")[1])
    assert admin("change", "ada@example.com", "--set", "day_cap=1.50", "--set", "weight=3")[0] == 0
    (row,) = json.loads(admin("accounts", "--json")[1])
    assert (row["email"], row["role"], row["day_cap"], row["weight"]) == (
        "ada@example.com",
        "admin",
        "1.50",
        3,
    )
    assert "ada@example.com" in admin("accounts")[1]
    assert admin("key", "ada@example.com", "--name", "laptop")[1].startswith("ss-")
    assert "/#/link/invite/" in admin("invite")[1]
    assert "/#/link/reset_password/" in admin("reset", row["id"])[1]
    assert "closed" in admin("gate", "closed", "--reason", "an attack")[1]
    assert admin("incident", "Slow since noon")[1].strip() == "1"
    assert json.loads(admin("prices")[1])["currency"] == "USD"
    assert admin("audit") == (0, "the ledger is right\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("credit", "nobody@example.com", "1"), "no account has the address"),
        (("credit", "acc_x", "1"), "there is no such account"),
        (("change", "acc_x", "--set", "weight"), "write name=value"),
    ],
)
def test_a_mistake_is_one_sentence(folder, capsys, arguments, words):
    assert exit_code(["admin", "--data", str(folder), *arguments]) in (1, 2)
    assert words in capsys.readouterr().err


def test_without_a_service_the_way_out_is_named(tmp_path, capsys, monkeypatch):
    assert exit_code(["admin", "--data", str(tmp_path), "accounts"]) == 2
    assert "shoestring serve --set accounts=true" in capsys.readouterr().err
    assert exit_code(["admin", "--url", "http://127.0.0.1:9", "accounts"]) == 2
    assert "SHOESTRING_ADMIN_KEY" in capsys.readouterr().err
    monkeypatch.setenv("SHOESTRING_ADMIN_KEY", "x")
    assert exit_code(["admin", "--url", "http://127.0.0.1:9", "accounts"]) == 2
    assert "does not answer" in capsys.readouterr().err
