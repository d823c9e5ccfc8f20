"""Collecting: what is kept, what is never asked twice, and what survives interruptions."""

import json
import os
import signal

import pytest

from shoestring.distill.collect import CollectConfig, collect, problems_of
from shoestring.distill.keep import KeepConfig
from shoestring.errors import ConfigError, DataError, Stopped
from shoestring.remote.collector import OUT_OF_MONEY, ChatReply
from shoestring.tasks.load import load_task
from shoestring.tasks.verify import Verifier

CONFIG = CollectConfig(num_generations=4, keep=KeepConfig(per_problem=2))


def right(ask, k):
    """Even answers are right; the fourth is as the first."""
    number = ask.id.partition("/")[2]
    return f"<think>{'hm ' * (k % 3)}so</think>{number if k % 2 == 0 else 'x'}"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def run(tmp_path, numbers, fake_verifier):
    """Collects from a teacher for five problems into one folder."""
    task = numbers()

    def go(teacher, config=CONFIG, *, resume=False, verifier=None, count=5):
        problems = problems_of({"numbers": task}, count, 0)
        return collect(
            teacher, problems, verifier or fake_verifier(task), config, tmp_path / "c", resume=resume
        )

    return go


def test_the_right_ones_are_kept_in_order_with_where_they_come_from(run, fake_teacher):
    result = run(fake_teacher(right))
    assert (result.num_answers, result.num_conversations, result.num_solved, result.num_problems) == (
        20,
        10,
        5,
        5,
    )
    assert {why: count for why, count in result.rejections.items() if count} == {"wrong": 10}
    rows = lines(result.path)
    assert rows[0] == {
        "messages": [
            {"role": "user", "content": "number 0?"},
            {"role": "assistant", "content": "0", "reasoning_content": "so"},
        ],
        "source": "fake",
        "task": "numbers",
        "key": "0",
        "reward": 1.0,
    }
    assert [row["key"] for row in rows] == [str(i) for i in range(5) for _ in range(2)]
    assert sum(result.rejections.values()) + result.num_conversations == result.num_answers


def test_every_reason_is_counted(run, fake_teacher):
    said = [
        ChatReply(id="numbers/0", text="<think>cut", finish_reason="length"),
        ChatReply(id="numbers/0", text="<think>a</think>0", finish_reason="stop"),
        ChatReply(id="numbers/0", text="<think>a</think>0", finish_reason="stop"),
        ChatReply(id="numbers/0", text="<think>b b</think>0", finish_reason="stop"),
        ChatReply(id="numbers/0", text="0", finish_reason="stop"),
        ChatReply(id="numbers/0", fault="too long"),
    ]
    config = CollectConfig(num_generations=6, keep=KeepConfig(per_problem=1, thinking=True))
    result = run(fake_teacher(lambda _, k: said[k]), config, count=1)
    found = {why: count for why, count in result.rejections.items() if count}
    assert found == {"truncated": 1, "duplicate": 1, "surplus": 1, "format": 1}
    assert (result.num_failures, result.num_conversations, result.num_answers) == (1, 1, 5)


def test_truncated_answers_are_not_verified(run, fake_teacher, fake_verifier, numbers):
    verifier = fake_verifier(numbers())
    run(
        fake_teacher(lambda ask, _: ChatReply(id=ask.id, text="0", finish_reason="length")), verifier=verifier
    )
    assert verifier.judged == []


@pytest.mark.parametrize("stop_after", [0, 1, 7, 19])
def test_interrupted_anywhere_nothing_is_asked_twice_and_the_result_is_the_same(
    run, fake_teacher, stop_after, tmp_path
):
    broken = fake_teacher(right, stop_after=stop_after)
    with pytest.raises(KeyboardInterrupt):
        run(broken)
    again = fake_teacher(right)
    result = run(again, resume=True)
    assert len(broken.asked) == stop_after
    assert sorted(broken.asked + again.asked) == sorted(set(broken.asked + again.asked))
    assert len(broken.asked + again.asked) == 20
    assert (result.num_conversations, result.rejections["wrong"]) == (10, 10)
    written = result.path.read_bytes()
    third = fake_teacher(right)
    assert run(third, resume=True).path.read_bytes() == written
    assert third.asked == []


def test_a_signal_ends_it_with_everything_saved(run, fake_teacher):
    def say(ask, k):
        if ask.id == "numbers/2":
            os.kill(os.getpid(), signal.SIGTERM)
        return right(ask, k)

    first = fake_teacher(say)
    with pytest.raises(Stopped, match="--resume"):
        run(first)
    assert 8 < len(first.asked) < 20
    again = fake_teacher(right)
    assert run(again, resume=True).num_answers == 20
    assert not set(first.asked) & set(again.asked)


def test_answers_without_a_verdict_are_verified_when_it_goes_on(run, fake_teacher, fake_verifier, numbers):
    faulty = fake_verifier(numbers(), faulty=lambda text: "timeout" if text.endswith("0") else None)
    first = run(fake_teacher(right), verifier=faulty)
    assert (first.faults, first.rejections["unverified"], first.num_conversations) == ({"timeout": 2}, 2, 8)
    verifier = fake_verifier(numbers())
    second = run(fake_teacher(right), resume=True, verifier=verifier)
    assert len(verifier.judged) == 2
    assert (second.faults, second.num_conversations) == ({}, 10)


def test_a_verifier_that_keeps_failing_ends_it(run, fake_teacher, fake_verifier, numbers):
    verifier = fake_verifier(numbers())
    verifier.share, verifier.faults = 0.02, {("numbers", "died"): 3}
    with pytest.raises(DataError, match=r"2\.0%.*numbers: 3 x died"):
        run(fake_teacher(right), verifier=verifier)


def test_filters_and_samples_may_change_when_it_goes_on_and_the_teacher_may_not(run, fake_teacher):
    run(fake_teacher(right))
    loose = CollectConfig(num_generations=6, keep=KeepConfig(reward=0.0, per_problem=9))
    teacher = fake_teacher(right)
    result = run(teacher, loose, resume=True)
    assert len(teacher.asked) == 10
    assert {k for _, k in teacher.asked} == {4, 5}
    assert result.rejections["wrong"] == 0
    with pytest.raises(ConfigError, match="temperature"):
        run(fake_teacher(right), CollectConfig(temperature=1.0), resume=True)
    with pytest.raises(ConfigError, match="--resume"):
        run(fake_teacher(right))


def test_money_is_counted_over_interruptions(run, fake_teacher):
    with pytest.raises(KeyboardInterrupt):
        run(fake_teacher(right, stop_after=6, price=0.25))
    teacher = fake_teacher(right, price=0.25)
    assert run(teacher, resume=True).cost == pytest.approx(5.0)


def test_without_money_what_there_is_is_taken(run, fake_teacher):
    def say(ask, k):
        return right(ask, k) if ask.id < "numbers/2" else ChatReply(id=ask.id, fault=OUT_OF_MONEY)

    result = run(fake_teacher(say))
    assert result.out_of_money
    assert (result.num_answers, result.num_conversations, result.num_failures) == (8, 4, 0)


def test_the_real_verifier_fits(tmp_path, fake_teacher):
    """With the arithmetic task, whose right answer is known."""
    with Verifier({"sums": load_task("arithmetic")}) as verifier:
        problems = problems_of({"sums": load_task("arithmetic")}, 3, 0)
        answers = {problem.id: problem.example.answer for problem in problems}
        teacher = fake_teacher(lambda ask, k: f"<think>{k}</think>{answers[ask.id] if k else 'no'}")
        result = collect(teacher, problems, verifier, CollectConfig(num_generations=2), tmp_path)
    assert (result.num_conversations, result.rejections["wrong"]) == (3, 3)


def test_reward_functions_verify_answers_to_conversations(tmp_path, fake_teacher):
    function = """
def right(completions, gold):
    return [float(g in c[0]["content"]) for c, g in zip(completions, gold)]
"""
    (tmp_path / "r.py").write_text(function)
    system = {"role": "system", "content": "Be brief."}
    rows = [{"prompt": [system, {"role": "user", "content": f"{n}?"}], "gold": str(n)} for n in range(9)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = {"own": load_task(str(tmp_path / "r.py"), {"data": str(tmp_path / "p.jsonl")})}
    teacher = fake_teacher(lambda ask, k: ask.messages[-1]["content"] if k else "no")
    with Verifier(tasks) as verifier:
        problems = problems_of(tasks, 3, 0)
        config = CollectConfig(num_generations=2, system="never seen")
        result = collect(teacher, problems, verifier, config, tmp_path / "c")
    assert (result.num_conversations, result.rejections["wrong"]) == (3, 3)
    assert [message["role"] for message in lines(result.path)[0]["messages"]] == [
        "system",
        "user",
        "assistant",
    ]
    assert lines(result.path)[0]["messages"][0] == system


def test_problems_are_different_and_end_where_the_task_does(numbers):
    problems = problems_of({"a": numbers(3), "b": numbers(9)}, 5, 0)
    assert [problem.id for problem in problems] == ["a/0", "a/1", "a/2"] + [f"b/{i}" for i in range(5)]


@pytest.mark.parametrize("changes", [{"num_generations": 0}, {"temperature": -1.0}, {"top_p": 0.0}])
def test_settings_that_cannot_be_meant(changes):
    with pytest.raises(ConfigError, match=next(iter(changes))):
        CollectConfig(**changes)
