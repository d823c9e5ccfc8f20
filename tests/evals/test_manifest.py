"""Score files: written, read as a stranger's, and compared."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.errors import CheckpointError, DataError
from shoestring.evals.manifest import (
    FIELDS,
    check_model,
    describe,
    differences,
    identify,
    problems_sha256,
    read_score,
    write_score,
)
from shoestring.evals.passk import TaskEvalConfig
from shoestring.tasks.task import Example

NAMELESS = json.dumps({"format": 1, "name": "x"} | {key: {} for key in sorted(FIELDS.keys() - {"name"})})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "model-1.safetensors", "model-2.safetensors", "notes.txt"):
        (folder / name).write_text(name)
    return folder


def test_a_score_is_read_as_it_was_written(checkpoint, tmp_path):
    described = describe(
        "countdown",
        model=identify("mine", checkpoint),
        config=TaskEvalConfig(options={"numbers": 3}),
        runtime={"device": "cpu"},
    )
    score = {**described, "result": {"pass_at_1": 0.5}}
    write_score(tmp_path / "score.json", score)
    assert read_score(tmp_path / "score.json") == score
    assert score["config"]["k"] == [1, 8]
    assert score["model"]["sha256"].keys() == {
        "config.json", "tokenizer.json", "model-1.safetensors", "model-2.safetensors"
    }  # fmt: skip


def test_another_model_is_refused_by_the_files_that_differ(checkpoint):
    score = {"model": identify("mine", checkpoint)}
    check_model(score, identify("elsewhere", checkpoint))
    (checkpoint / "model-2.safetensors").write_text("changed")
    (checkpoint / "chat_template.jinja").write_text("added")
    with pytest.raises(CheckpointError, match=r"chat_template\.jinja, model-2\.safetensors differ"):
        check_model(score, identify("elsewhere", checkpoint))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "not a score of format 1"),
        ('{"format": 2}', "not a score of format 1"),
        ('{"format": 1, "name": 3}', "name is missing or is not a str"),
        (NAMELESS, "model has no name"),
    ],
)
def test_a_file_that_is_no_score_is_refused(tmp_path, text, words):
    (tmp_path / "score.json").write_text(text)
    with pytest.raises(DataError, match=words):
        read_score(tmp_path / "score.json")
    with pytest.raises(DataError, match="cannot read the score"):
        read_score(tmp_path)


@given(JSON, JSON)
def test_results_differ_exactly_when_their_json_does(one, other):
    one, other = json.loads(json.dumps(one)), json.loads(json.dumps(other))
    assert differences(one, one) == []
    same_leaves = differences(one, other) == []
    if json.dumps(one) == json.dumps(other):
        assert same_leaves
    elif not (isinstance(one, dict | list) or isinstance(other, dict | list)):
        assert same_leaves == (one == other)


def test_differences_name_figures():
    was = {"pass": 0.5, "intervals": {"pass": [0.1, 0.2]}, "gone": 1}
    now = {"pass": 0.5, "intervals": {"pass": (0.1, 0.3)}, "new": 2}
    assert [str(found) for found in differences(was, now)] == [
        "intervals.pass.1 was 0.2 and is 0.3",
        "gone was 1 and is None",
        "new was None and is 2",
    ]
    assert differences(json.loads("[" * 900 + "]" * 900), [])


def test_problems_have_a_digest_of_everything_in_them():
    examples = [Example(key="a", question="q\ud800", answer={"b": 1, "a": 2})]
    same = [Example(key="a", question="q\ud800", answer={"a": 2, "b": 1})]
    other = [Example(key="a", question="q\ud800", answer={"a": 2, "b": 2})]
    assert problems_sha256(examples) == problems_sha256(same) != problems_sha256(other)
