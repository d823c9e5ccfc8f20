"""The math task: equal values are right, and model text is never run as code."""

import json
from itertools import islice

import pytest

from shoestring.errors import ConfigError, DataError, MissingDependencyError
from shoestring.tasks.math import Math
from shoestring.tasks.task import Example
from shoestring.tasks.verify import Verifier

CASES = [
    (r"\frac{1}{2}", r"<think>a</think>It is $\boxed{0.5}$.", 1.0),
    (r"\frac{1}{2}", "<think>a</think>so 1/2", 1.0),
    ("x^2+1", r"\boxed{1+x^2}", 1.0),
    (r"\sqrt{12}", r"$2\sqrt{3}$", 1.0),
    (r"So it is \boxed{7}, since 3+4=7.", "7", 1.0),
    ("3", r"\boxed{4}", 0.0),
    ("3", r"<think>\boxed{3}</think>", 0.0),
    ("3", r"<think>\boxed{3}", 0.0),
    ("3", "", 0.0),
    ("3", "(" * 3000, 0.0),
    ("3", "\ud800", 0.0),
    ("3", r"\boxed{" * 3000, 0.0),
]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "problems.jsonl"
    rows = [{"problem": f"what is {i}+{i}?", "answer": str(2 * i)} for i in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_problems_are_read(file):
    pytest.importorskip("math_verify")
    task = Math(path=str(file))
    test = {e.key for e in task.examples("test", 0)}
    train = {e.key for e in islice(task.examples("train", 0), 100)}
    assert test
    assert not test & train
    with pytest.raises(DataError, match="'solution'"):
        list(Math(path=str(file), answer_field="solution").examples("test", 0))


def test_an_answer_may_be_a_number(tmp_path):
    pytest.importorskip("math_verify")
    rows = [{"problem": f"what is {i}+{i}?", "answer": 2 * i} for i in range(40)]
    (tmp_path / "aime.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "aime.json").write_text(json.dumps(rows))
    for name in ("aime.jsonl", "aime.json"):
        example = next(Math(path=str(tmp_path / name)).examples("test", 0))
        assert example.answer.isdecimal()


def test_answers_are_compared_by_value_in_the_child():
    pytest.importorskip("math_verify")
    with Verifier({"math": Math(path="unused")}, timeout_s=20) as verifier:
        for ticket, (gold, text, _) in enumerate(CASES):
            verifier.submit(ticket, "math", Example(key="k", question="q", answer=gold), text)
        rewards = {verdict.ticket: verdict.reward for verdict in verifier.results(wait=True)}
    assert [rewards[i] for i in range(len(CASES))] == [reward for _, _, reward in CASES]


def test_an_unreadable_true_answer_gives_no_verdict_and_code_is_not_run(tmp_path):
    pytest.importorskip("math_verify")
    mark = tmp_path / "escaped"
    texts = [f"{prefix}__import__('os').mkdir('{mark}')" for prefix in ("", "1+", "$", r"\boxed{")]
    task = Math(path="unused")
    assert task.reward(Example(key="k", question="q", answer=" "), "3") is None
    assert [task.reward(Example(key="k", question="q", answer="3"), text) for text in texts] == [0.0] * 4
    assert not mark.exists()


def test_endless_computing_is_ended():
    pytest.importorskip("math_verify")
    with Verifier({"math": Math(path="unused")}, timeout_s=1.5) as verifier:
        hard = Example(key="k", question="q", answer="3")
        verifier.submit(0, "math", hard, r"\boxed{\int_0^1 9^{9^{9^{9^{9}}}} dx}")
        verifier.submit(1, "math", hard, "3")
        verdicts = {verdict.ticket: verdict for verdict in verifier.results(wait=True)}
    assert (verdicts[0].reward, verdicts[0].fault) == (None, "timeout")
    assert verdicts[1].reward == 1.0


def test_wrong_use_is_told(monkeypatch):
    with pytest.raises(ConfigError, match="path"):
        Math(path="")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install math-verify"):
        Math(path="x")
