"""IFEval: rows are read and checked, and an answer has its four figures."""

import json

import pytest

from shoestring.errors import ConfigError, DataError
from shoestring.tasks.ifeval import IfEval
from shoestring.tasks.load import load_task

ROW = {
    "key": 1000,
    "prompt": "Write two bullets without a comma.",
    "instruction_id_list": ["punctuation:no_comma", "detectable_format:number_bullet_lists"],
    "kwargs": [{"num_bullets": None}, {"num_bullets": 2, "language": None}],
}


def task_of(tmp_path, *rows):
    path = tmp_path / "ifeval.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task("ifeval", {"test_data": str(path)})


@pytest.mark.parametrize(
    ("text", "reward", "figures"),
    [
        ("<think>a, b</think>* a\n* b", 1.0, ([1], [1], [1, 1], [1, 1])),
        ("* a, x\n* b, c", 0.5, ([0], [0], [0, 1], [0, 1])),
        ("Sure, here:\n* a\n* b", 0.5, ([0], [1], [0, 1], [1, 1])),
        ("a, b", 0.0, ([0], [0], [0, 0], [0, 0])),
        ("<think>* a\n* b", 0.0, ([0], [0], [0, 0], [0, 0])),
        ("", 0.0, ([0], [0], [0, 0], [0, 0])),
    ],
)
def test_an_answer_has_four_figures(tmp_path, text, reward, figures):
    task = task_of(tmp_path, ROW)
    (example,) = task.examples("test", 0)
    assert task.reward(example, text) == reward
    assert tuple(task.figures(example, text).values()) == figures
    assert json.loads(json.dumps(example.answer)) == [list(pair) for pair in example.answer]


def test_the_same_instruction_twice_counts_twice(tmp_path):
    names, relation = ["length_constraints:number_words"] * 2, {"relation": "at least"}
    row = {
        **ROW,
        "instruction_id_list": names,
        "kwargs": [{"num_words": 20, **relation}, {"num_words": 2, **relation}],
    }
    task = task_of(tmp_path, row)
    (example,) = task.examples("test", 0)
    assert task.reward(example, "one two three") == 0.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"instruction_id_list": ["keywords:none"], "kwargs": [{}]}, "no instruction is called"),
        ({"kwargs": [{}]}, "of the same length"),
        ({"kwargs": [{}, {}]}, "num_bullets"),
        ({"instruction_id_list": [], "kwargs": []}, "of the same length"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, change, words):
    with pytest.raises(DataError, match=words):
        list(task_of(tmp_path, {**ROW, **change}).examples("test", 0))


def test_it_needs_data():
    with pytest.raises(ConfigError, match="test_data"):
        IfEval()
