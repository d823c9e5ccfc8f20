"""data show: the first conversations token by token, and counts of all."""

import json

import pytest

from shoestring.cli import learned_text
from shoestring.tokenizer.bpe import Tokenizer

TALK = {
    "messages": [{"role": "user", "content": "1+1=?"}, {"role": "assistant", "content": "2 \u00e9\u6df1"}]
}
MARKED = {"messages": [TALK["messages"][0], {**TALK["messages"][1], "weight": 0}]}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "talks.jsonl"
    rows = [TALK, MARKED, {"text": "x"}, {**TALK, "mood": "good"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_what_is_learned_stands_between_marks_and_all_rows_are_counted(cli, file):
    code, out, err = cli("data", "show", str(file), "--limit", "2")
    assert (code, err) == (0, "")
    assert "\u00ab2 \u00e9\u6df1<\uff5cend\u2581of\u2581sentence\uff5c>\u00bb" in out
    assert "talks.jsonl line 2: left out (unlearned)" in out
    assert "line 4" not in out
    (counts,) = [line.split() for line in out.splitlines() if line.startswith("talks.jsonl ")]
    assert counts[1:5] == ["2", "0", "1", "1"]
    assert "the column 'mood' is not used" in out
    assert "--set bad_rows=filter leaves them out" in out
    assert "\x1b" not in out


def test_json_has_each_token(cli, file, tmp_path):
    code, out, _ = cli("data", "show", str(file), "--json", "--set", "learn=all", "--limit", "1")
    data = json.loads(out)
    assert code == 0
    tokens = data["conversations"][0]["tokens"]
    assert all(token["learned"] for token in tokens)
    assert "".join(token["text"] for token in tokens if not token["special"]) == "1+1=?2 \u00e9\u6df1"
    assert (data["files"][0]["bad_rows"], len(data["problems"])) == (1, 1)
    code, out, _ = cli("data", "show", str(file), "--ids", "--limit", "1")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines() if "+ '" in line][-1] == str(tokens[-1]["id"])


def test_a_recipe_and_a_model_may_be_named(cli, file, trained, tmp_path):
    recipe = tmp_path / "sft.toml"
    recipe.write_text(f'model = "mini"\nlearn = "last"\ndata = [{{path = "{file}", weight = 2.0}}]\n')
    code, out, _ = cli("data", "show", str(recipe), "--json", "--model", str(trained / "tokenizer"))
    assert code == 0
    assert json.loads(out)["files"][0]["weight"] == 2.0
    code, _, err = cli("data", "show", str(tmp_path / "none.jsonl"))
    assert (code, err.count("\n")) == (1, 1)
    code, _, err = cli("data", "show", str(file), "--set", "lern=all")
    assert code == 2


def test_hostile_text_cannot_rewrite_the_terminal(cli, tmp_path):
    evil = "\x1b[2J\u202e\x9b"
    path = tmp_path / "evil.jsonl"
    talk = {
        "messages": [{"role": "user", "content": evil}, {"role": "assistant", "content": evil}],
        evil: "x",
    }
    path.write_text(json.dumps(talk) + "\n" + json.dumps({evil: 1}) + "\n")
    for arguments in ((), ("--ids",), ("--json",)):
        code, out, err = cli("data", "show", str(path), *arguments)
        assert code == 0
        assert not any(char in out + err for char in ("\x1b", "\u202e", "\x9b"))


def test_colors_are_for_terminals_without_no_color(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert learned_text.has_colors()
    monkeypatch.setenv("NO_COLOR", "1")
    assert not learned_text.has_colors()
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not learned_text.has_colors()


def test_colored_text_without_its_colors_is_the_text():
    import re

    tokenizer = Tokenizer.train(["what is 2"] * 3, 300)
    ids = [tokenizer.bos_id, *tokenizer.encode("what\nis \u6df1\x1b[0m")]
    item = type("Item", (), {"ids": ids, "loss_mask": [False, *[True] * (len(ids) - 1)]})()
    row = learned_text.tokens(item, tokenizer)
    colored = learned_text.text_of(row, True)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", colored)
    assert plain == "<\uff5cbegin\u2581of\u2581sentence\uff5c>what\u23ce\nis \u6df1[0m"
    assert learned_text.text_of(row, False) == plain.replace("\uff5c>", "\uff5c>\u00ab") + "\u00bb"


def test_corpora_are_listed_with_their_licenses(cli):
    code, out, _ = cli("data", "list")
    assert (code, "python-packages" in out, "blessing" in out) == (0, True, True)
    code, out, _ = cli("data", "list", "--json")
    assert [corpus["name"] for corpus in json.loads(out)] == ["manuals", "python-packages"]


def test_a_corpus_is_fetched_into_a_folder(cli, tmp_path, monkeypatch):
    from shoestring.data.fetch import fetch

    manifest = {"text_bytes": 2_000_000, "files": 3, "packages": [{}, {}]}
    monkeypatch.setattr(
        fetch, "fetch_corpus", lambda corpus, folder, progress: manifest | {"corpus": corpus.name}
    )
    code, out, _ = cli("data", "fetch", "manuals", "--out", str(tmp_path / "texts"))
    assert (code, "2.0 MB of text in 3 files of 2 packages" in out, str(tmp_path / "texts") in out) == (
        0,
        True,
        True,
    )
    code, out, _ = cli("data", "fetch", "manuals", "--json")
    assert (json.loads(out)["corpus"], json.loads(out)["folder"]) == ("manuals", "corpora/manuals")
    code, _, err = cli("data", "fetch", "internet")
    assert (code, "there is no corpus 'internet'; there are manuals" in err) == (2, True)
