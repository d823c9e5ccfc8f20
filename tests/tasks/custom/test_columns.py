"""Examples from a data set with columns: the prompt is found, the splits are apart, bad rows are counted."""

import json

import pytest

from shoestring.errors import DataError
from shoestring.tasks.custom.columns import read_examples


@pytest.fixture
def data(write):
    def make(rows, name="d.jsonl"):
        return write(name, "".join(json.dumps(row) + "\n" for row in rows))

    return make


def test_one_file_is_split_by_its_prompts(data):
    file = data([{"question": f"q{n}", "answer": n} for n in range(60)])
    train, test = (read_examples(file, "", split, {}) for split in ("train", "test"))
    assert len(train) + len(test) == 60
    assert 1 <= len(test) <= 15
    assert not {e.key for e in train} & {e.key for e in test}
    assert train[0].answer == {"question": train[0].question, "answer": int(train[0].question[1:])}


def test_a_test_file_counts_and_its_prompts_are_not_for_training(data, tmp_path):
    train = data([{"prompt": f"q{n}"} for n in range(6)], "train.jsonl")
    test = data([{"prompt": f"q{n}"} for n in range(4, 9)], "test.jsonl")
    for where in ((train, test), (str(tmp_path), "")):
        assert [e.question for e in read_examples(*where, "train", {})] == ["q0", "q1", "q2", "q3"]
        assert len(read_examples(*where, "test", {})) == 5


def test_a_csv_table_and_names_of_ones_own(write):
    file = write("t.csv", "text,label\n" + "".join(f"what is {n}?,{n}\n" for n in range(9)))
    examples = read_examples(file, file, "test", {"prompt": "text", "solution": "label"})
    assert examples[3].question == "what is 3?"
    assert examples[3].answer == {"text": "what is 3?", "label": "3", "solution": "3"}


def test_a_conversation_ends_at_its_last_question(data):
    turns = [
        {"role": "user", "content": "a?"},
        {"role": "assistant", "content": "A"},
        {"role": "user", "content": "b?"},
        {"role": "assistant", "content": "B"},
    ]
    [example] = read_examples(data([{"messages": turns}]), data([{"messages": turns}]), "test", {})
    assert (example.question, len(example.messages)) == ("b?", 3)


def test_bad_rows_are_left_out_and_counted(data, caplog):
    rows = [{"prompt": f"q{n}"} for n in range(8)]
    examples = read_examples(data([*rows, {"prompt": None}, {"prompt": []}]), "", "train", {})
    assert len(examples) <= 8
    assert "2 of 10 rows are left out; the first is" in caplog.text
    assert "d.jsonl line 9: the column prompt holds neither text nor messages" in caplog.text


@pytest.mark.parametrize(
    ("row", "columns", "words"),
    [
        ({"text": "a"}, {}, r"no column is the prompt; it has text, .*--set options.columns.prompt=text"),
        ({"prompt": "a"}, {"x": "y"}, r"there is no column 'y' for columns.x; it has prompt"),
    ],
)
def test_a_missing_column_is_named(data, row, columns, words):
    with pytest.raises(DataError, match=words):
        read_examples(data([row]), "", "train", columns)
