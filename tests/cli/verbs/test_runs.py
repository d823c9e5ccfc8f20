"""The runs verb: the list, two runs side by side, notes."""

import json
import shutil

import pytest


@pytest.fixture
def folder(trained, tmp_path):
    """A folder with the run that was trained for all verbs, and a copy with another seed, half-way."""
    shutil.copytree(trained, tmp_path / "one")
    shutil.copytree(trained, tmp_path / "two")
    config = (tmp_path / "two" / "config.toml").read_text()
    (tmp_path / "two" / "config.toml").write_text(config.replace("seed = 0", "seed = 5"))
    rows = (tmp_path / "two" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "two" / "metrics.jsonl").write_text("".join(rows[: len(rows) // 2]))
    (tmp_path / "two" / "report.json").unlink()
    return tmp_path


def test_the_list_has_a_line_for_each_run(cli, folder):
    code, text, err = cli("runs", "--folder", str(folder))
    assert code == 0, err
    titles, *lines = text.splitlines()
    assert titles.split() == [
        "run",
        "kind",
        "model",
        "state",
        "step",
        "done",
        "figure",
        "age",
        "size",
        "tags",
    ]
    assert {line.split()[0]: line.split()[3] for line in lines} == {"one": "finished", "two": "stopped"}
    code, text, _ = cli("runs", "--folder", str(folder), "--json")
    runs = {run["name"]: run for run in json.loads(text)}
    assert (runs["one"]["verb"], runs["one"]["share"]) == ("pretrain", 1.0)
    assert 0 < runs["two"]["share"] < 1
    assert runs["one"]["bytes"] > 10_000


def test_an_empty_folder_says_so(cli, tmp_path):
    code, text, _ = cli("runs", "--folder", str(tmp_path / "none"))
    assert (code, "no runs in" in text) == (0, True)


def test_two_runs_are_compared(cli, folder):
    picture = folder / "curves.png"
    code, text, err = cli("runs", "compare", "one", "two", "--folder", str(folder), "--picture", str(picture))
    assert code == 0, err
    lines = text.splitlines()
    assert lines[0].split() == ["setting", "one", "two"]
    assert lines[1].split() == ["seed", "0", "5"]
    place = next(number for number, line in enumerate(lines) if line.startswith("loss, "))
    assert [line.split()[0] for line in lines[place + 1 : place + 3]] == ["one", "two"]
    bars = [line[7:55] for line in lines[place + 1 : place + 3]]
    assert len(bars[0].rstrip()) > len(bars[1].rstrip()) > 0
    assert picture.stat().st_size > 5_000
    code, text, _ = cli("runs", "compare", str(folder / "one"), str(folder / "two"), "--json")
    comparison = json.loads(text)
    assert comparison["settings"] == {"seed": [0, 5]}
    assert len(comparison["curves"]["loss"]) == 2


def test_a_note_is_shown_in_the_list(cli, folder):
    options = ("--folder", str(folder))
    code, _, err = cli(
        "runs", "note", "one", "the first\x1b[31m", "--tag", "good", "--tag", "small", *options
    )
    assert code == 0, err
    code, text, _ = cli("runs", *options)
    assert "good small" in text
    assert "one: the first" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("compare", "one", "three"), "three is no run's folder"),
        (("note", "one"), "nothing to note"),
        (("compare", "one", "two", "--picture", "x.jpg"), "must end in .png or .svg"),
    ],
)
def test_refusals_are_sentences(cli, folder, arguments, words):
    code, _, err = cli("runs", *arguments, "--folder", str(folder))
    assert (code, words in err) == (2, True), err
