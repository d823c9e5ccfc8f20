"""GSM8K: read from files, split without overlap, rewarded for the exact number."""

import json
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import DataError
from shoestring.tasks import gsm8k
from shoestring.tasks.gsm8k import Gsm8k
from shoestring.tasks.task import Example


def write(path, rows):
    path.write_text("".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in rows))


@pytest.fixture
def folder(tmp_path):
    write(
        tmp_path / "train.jsonl",
        [(f"q{i}", f"because\n#### {i},000") for i in range(5)] + [("t  0", "#### 9")],
    )
    write(tmp_path / "test.jsonl", [(f"t {i}", f"#### -{i}") for i in range(3)])
    return tmp_path


def test_a_folder_is_read(folder):
    task = Gsm8k(path=str(folder))
    test = list(task.examples("test", 0))
    assert {(e.question, e.answer) for e in test} == {("t 0", "0"), ("t 1", "-1"), ("t 2", "-2")}
    train = list(islice(task.examples("train", 0), 10))
    assert {e.question for e in train[:5]} == {f"q{i}" for i in range(5)}  # 't  0' is a test question
    assert {e.question for e in train[5:]} == {f"q{i}" for i in range(5)}
    assert {e.answer for e in train} == {"0", "1000", "2000", "3000", "4000"}


def test_the_seed_decides_the_order(folder):
    first, again, other = (
        [e.key for e in islice(Gsm8k(path=str(folder)).examples("train", seed), 20)] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_one_file_is_parted_by_its_questions(tmp_path):
    write(tmp_path / "all.jsonl", [(f"question {i}", f"#### {i}") for i in range(200)])
    task = Gsm8k(path=str(tmp_path / "all.jsonl"))
    test = {e.key for e in task.examples("test", 0)}
    train = {e.key for e in islice(task.examples("train", 0), 200)}
    assert 5 < len(test) < 50
    assert len(train | test) == 200
    assert not train & test


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2 is not valid JSON"),
        ("[" * 100_000, "line 2 is not valid JSON"),
        ("[]", "line 2 has no text under 'question'"),
        ('{"question": "q"}', "line 2 has no text under 'answer'"),
        ('{"question": " ", "answer": "#### 1"}', "line 2 has no text under 'question'"),
        ('{"question": "q", "answer": "no number"}', "does not end in a number"),
        ('{"question": "' + "q" * (1 << 20) + '"}', "longer than"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, words):
    path = tmp_path / "test.jsonl"
    path.write_text('{"question": "fine", "answer": "#### 1"}\n' + line + "\n")
    with pytest.raises(DataError, match=words):
        list(Gsm8k(path=str(tmp_path)).examples("test", 0))


def test_missing_and_empty_files_are_errors(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        list(Gsm8k(path=str(tmp_path / "none.jsonl")).examples("test", 0))
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(DataError, match="no problems for the train split"):
        next(Gsm8k(path=str(tmp_path / "empty.jsonl")).examples("train", 0))


def test_without_a_path_the_files_are_fetched_once(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(gsm8k, "ORIGIN", folder.as_uri())
    first = list(Gsm8k().examples("test", 0))
    monkeypatch.setattr(gsm8k, "ORIGIN", (folder / "nowhere").as_uri())
    assert list(Gsm8k().examples("test", 0)) == first
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    with pytest.raises(DataError, match="give the task a path"):
        list(Gsm8k().examples("test", 0))
    monkeypatch.setattr(gsm8k, "ORIGIN", folder.as_uri())
    monkeypatch.setattr(gsm8k, "MAX_BYTES", 10)
    with pytest.raises(DataError, match="larger than"):
        list(Gsm8k().examples("test", 0))


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>...</think>She pays $1,080.00 in all.", 1.0),
        ("<think>...</think>\\boxed{1080}", 1.0),
        ("#### 1,080", 1.0),
        ("2160/2", 1.0),
        ("1080 and not 1081", 0.0),
        ("<think>1080</think>", 0.0),
        ("<think>1080", 0.0),
        ("\\boxed{1080 or 1081}", 0.0),
        ("１０８０", 0.0),
    ],
)
def test_reward(text, reward):
    assert Gsm8k().reward(Example(key="k", question="q", answer="1080"), text) == reward


@given(st.text())
def test_reward_and_vote_are_total(text):
    example = Example(key="k", question="q", answer="-3/2")
    right = Gsm8k().reward(example, text)
    assert right in (0.0, 1.0)
    assert (Gsm8k().vote(example, text) == "-3/2") == bool(right)


def test_rows_of_other_files_are_problems(tmp_path):
    rows = "".join(f'"question {i}","so\n#### {i},000"\n' for i in range(60))
    (tmp_path / "all.csv").write_text("question,answer\n" + rows)
    task = Gsm8k(path=str(tmp_path / "all.csv"))
    test = {e.key: e.answer for e in task.examples("test", 0)}
    train = {e.key: e.answer for e in islice(task.examples("train", 0), 100)}
    assert len(test | train) == 60
    assert "7000" in (test | train).values()
    (tmp_path / "odd.csv").write_text("question,answer\nq,\n" + rows)
    with pytest.raises(DataError, match="no text under 'answer'"):
        [next(Gsm8k(path=str(tmp_path / "odd.csv")).examples(split, 0)) for split in ("test", "train")]
