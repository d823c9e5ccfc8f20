"""database migrate, check, backup and restore, as an operator types them."""

import json
import sqlite3
from contextlib import closing


def run_sql(file, statement):
    with closing(sqlite3.connect(file)) as connection:
        connection.execute(statement)
        connection.commit()


def test_a_database_is_made_backed_up_damaged_and_restored(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    own, copy = tmp_path / "shoestring" / "service" / "service.db", tmp_path / "copy.db"
    code, _, err = cli("database", "check")
    assert (code, str(own) in err) == (2, True)
    assert cli("database", "migrate")[1].startswith("revision none -> 0")
    run_sql(own, "INSERT INTO balances VALUES ('a', 0, 0, 0)")
    assert cli("database", "migrate")[:2] == (0, cli("database", "migrate")[1])
    code, out, _ = cli("database", "backup", str(copy), "--json")
    assert (code, json.loads(out)["balances"]) == (0, 1)
    run_sql(own, "UPDATE balances SET granted = 5")
    code, _, err = cli("database", "check")
    assert (code, "a has 5 as granted" in err) == (1, True)
    code, _, err = cli("database", "restore", str(copy))
    assert (code, "--replace" in err) == (2, True)
    assert cli("database", "restore", str(copy), "--replace")[0] == 0
    assert cli("database", "check", "--database", f"sqlite:///{own}")[0] == 0
