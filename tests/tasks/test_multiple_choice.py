"""Multiple choice: the forms of MMLU, MMLU-Pro, ARC and GPQA are read, shuffled by a seed, and rewarded."""

import csv
import json

import pytest

from shoestring.errors import ConfigError, DataError
from shoestring.tasks.multiple_choice import MultipleChoice

FORMS = {
    "mmlu": {"question": "Capital?", "choices": ["Rome", "Paris", "Bonn", "2"], "answer": 1},
    "mmlu letter": {
        "question": "Capital?",
        "A": "Rome",
        "B": "Paris",
        "C": "Bonn",
        "D": "x",
        "answer": "B",
    },
    "mmlu pro": {
        "question": "Capital?",
        "options": ["Rome", "Paris"],
        "answer": "B",
        "answer_index": 1,
    },
    "arc": {
        "question": "Capital?",
        "choices": {"text": ["Rome", "Paris"], "label": ["1", "2"]},
        "answerKey": "2",
    },
    "words": {"question": "Capital?", "choices": ["Rome", "Paris"], "answer": "Paris"},
    "gpqa": {
        "Question": "Capital?",
        "Correct Answer": "Paris",
        "Incorrect Answer 1": "Rome",
        "Incorrect Answer 2": "Bonn",
        "Incorrect Answer 3": "Oslo",
    },
}


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.mark.parametrize("form", FORMS)
def test_a_form_is_read_and_rewarded(tmp_path, form):
    task = MultipleChoice(test_data=write(tmp_path / "q.jsonl", [FORMS[form]]))
    (example,) = task.examples("test", 0)
    letter = example.answer["letter"]
    assert example.answer["choices"]["ABCD".index(letter)] == "Paris"
    assert f"({letter}) Paris" in example.question
    assert task.reward(example, f"<think>Rome?</think>The answer is ({letter}).") == 1.0
    assert task.reward(example, "Paris") == 1.0
    assert task.reward(example, "Rome") == 0.0
    assert task.reward(example, f"<think>The answer is {letter}") == 0.0
    assert task.vote(example, f"\\boxed{{{letter}}}") == letter


def test_gpqa_is_shuffled_by_its_seed_alone(tmp_path):
    rows = [{**FORMS["gpqa"], "Question": f"Capital of France, number {n}?"} for n in range(40)]
    path = write(tmp_path / "gpqa.jsonl", rows)
    letters = [
        {
            e.key: e.answer["letter"]
            for e in MultipleChoice(test_data=path, shuffle_seed=seed).examples("test", order)
        }
        for seed, order in ((0, 0), (0, 5), (1, 0), (None, 0))
    ]
    assert letters[0] == letters[1] == letters[3] != letters[2]
    assert set(letters[0].values()) == set("ABCD")


def test_columns_may_have_any_names(tmp_path):
    rows = [
        {"q": "2+2?", "right": "4", "w1": "5", "w2": "22"},
        {"q": "3+3?", "right": "6", "w1": "7", "w2": "33"},
    ]
    with open(tmp_path / "q.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["q", "right", "w1", "w2"])
        writer.writeheader()
        writer.writerows(rows)
    task = MultipleChoice(
        test_data=str(tmp_path / "q.csv"), question="q", choices=("right", "w1", "w2"), shuffle_seed=0
    )
    for example in task.examples("test", 0):
        assert example.answer["choices"]["ABC".index(example.answer["letter"])] in ("4", "6")


def test_train_and_test_have_no_question_in_common(tmp_path):
    rows = [{**FORMS["mmlu"], "question": f"Question {n}?"} for n in range(100)]
    path = write(tmp_path / "q.jsonl", rows)
    test = {e.key for e in MultipleChoice(data=path).examples("test", 0)}
    stream = MultipleChoice(data=path).examples("train", 0)
    train = {next(stream).key for _ in range(200)}
    assert test
    assert train
    assert not test & train
    with pytest.raises(DataError, match="train"):
        next(MultipleChoice(test_data=path).examples("train", 0))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "q?", "choices": ["a"], "answer": 0}, "1 choices"),
        ({"question": "q?", "choices": "a", "answer": 0}, "no list of choices"),
        ({"question": "q?", "choices": ["a", ""], "answer": 0}, "no list of choices"),
        ({"question": "q?", "choices": ["a", "b"], "answer": 2}, "no index, letter"),
        ({"question": "q?", "choices": ["a", "b"], "answer": "c"}, "no index, letter"),
        ({"question": "q?", "choices": ["a", "b"], "answer": None}, "no index, letter"),
        ({"question": "q?", "text": "a", "answer": 0}, "no known form"),
    ],
)
def test_a_row_without_a_right_choice_is_named(tmp_path, row, words):
    with pytest.raises(DataError, match=words):
        list(MultipleChoice(test_data=write(tmp_path / "q.jsonl", [row])).examples("test", 0))


def test_wrong_options_are_named():
    with pytest.raises(ConfigError, match=r"options\.test_data"):
        MultipleChoice()
    with pytest.raises(ConfigError, match=r"options\.choices"):
        MultipleChoice(data="x", question="q")
