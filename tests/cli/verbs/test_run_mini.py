"""The model that comes with the package: small, there at once, and honest about what it is."""

import json
from pathlib import Path

from shoestring.model.hf.hub import EMBEDDED_MODEL, resolve
from shoestring.tasks.greeting import FACTS


def ask(cli, question: str) -> dict:
    code, shown, err = cli("run", EMBEDDED_MODEL, question, "--json", "--set", "temperature=0")
    assert code == 0, err
    return json.loads(shown)


def test_it_is_small_and_says_how_it_was_made() -> None:
    folder = resolve(EMBEDDED_MODEL)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10_000_000
    assert "shoestring demo --seed 0" in (folder / "README.md").read_text()


def test_it_thinks_and_makes_a_number(cli) -> None:
    reply = ask(cli, "make 24 from 3,8,1")
    assert reply["completion"] in ("(3*8)*1", "(8*1)*3", "(3*1)*8")
    assert "=" in reply["thinking"]
    assert reply["finish_reason"] == "stop"


def test_it_says_what_it_is_when_greeted_and_when_asked_for_something_else(cli) -> None:
    for message in ("hello", "who are you?", "write a poem about rain"):
        completion = ask(cli, message)["completion"]
        assert all(fact in completion for fact in FACTS), completion
    assert "cannot" in ask(cli, "explain gravity")["completion"]


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / EMBEDDED_MODEL).mkdir()
    assert resolve(EMBEDDED_MODEL) == Path(EMBEDDED_MODEL)
