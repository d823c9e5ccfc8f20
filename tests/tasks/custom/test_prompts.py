"""Reward functions over a data set with columns, called as TRL calls them, their sum weighted."""

import json

import pytest

from shoestring.errors import ConfigError
from shoestring.tasks.load import describe, load_task, rebuild
from shoestring.tasks.task import Reply
from shoestring.tasks.verify import Verifier

ROWS = [{"prompt": f"{n}+1=?", "solution": str(n + 1), "level": n % 2} for n in range(20)]
FUNCTIONS = """
def right(prompts, completions, solution, **kwargs):
    assert len(prompts) == len(completions) == len(solution)
    return [float(s == c) for s, c in zip(solution, completions)]

def short(completions):
    return [-len(c) for c in completions]

async def even(completions, level, log_extra, log_metric, trainer_state, completion_ids, **kwargs):
    log_extra("seen", [c[:1] for c in completions])
    log_metric("step", trainer_state.global_step)
    return [None if n else 2.0 for n in level]
"""


@pytest.fixture
def prompts(write):
    def make(text=FUNCTIONS, rows=ROWS, name="", **options):
        data = write("p.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        return load_task(write("r.py", text) + name, {"data": data} | options)

    return make


def replies(task, texts, split="train"):
    examples = sorted(task.examples(split, 0), key=lambda e: e.question) if split == "test" else None
    stream = iter(examples) if examples else task.examples(split, 0)
    return [Reply(example=next(stream), text=text, token_ids=(1, 2)) for text in texts]


def test_columns_reach_the_functions_and_the_sum_is_weighted(prompts):
    task = prompts(weights=[1.0, 0.5, 0.25])
    batch = task.judge_all(replies(task, ["7", "11", ""]), {"global_step": 3})
    for reply, judgment in zip(replies(task, ["7", "11", ""]), batch.judgments, strict=True):
        right = float(reply.text == reply.example.answer["solution"])
        parts = {"right": right, "short": -float(len(reply.text))}
        even = {} if reply.example.answer["level"] else {"even": 2.0}
        assert judgment.parts == parts | even
        assert judgment.reward == right - 0.5 * len(reply.text) + 0.25 * even.get("even", 0.0)
        assert judgment.notes == {"seen": reply.text[:1]}
    assert batch.metrics == {"step": 3.0}


def test_what_no_function_applies_to_has_no_reward_and_is_no_fault(prompts):
    task = prompts(name=":even")
    with Verifier({"own": task}) as verifier:
        for number, reply in enumerate(replies(task, ["a"] * 8)):
            verifier.submit(number, "own", reply.example, reply.text)
        assert verifier.results(wait=False) == []  # they are judged together
        verdicts = verifier.results(wait=True)
    assert {verdict.reward for verdict in verdicts} == {None, 2.0}
    assert all(verdict.fault is None for verdict in verdicts)
    assert not verifier.faults
    assert verifier.metrics == {"step": [0.0]}


def test_a_reply_on_which_a_function_fails_costs_itself_alone(prompts):
    task = prompts("def f(completions, **kwargs):\n    return [int(c) for c in completions]\n")
    with Verifier({"own": task}) as verifier:
        for number, reply in enumerate(replies(task, ["1", "x", "3"])):
            verifier.submit(number, "own", reply.example, reply.text)
        verdicts = sorted(verifier.results(wait=True), key=lambda verdict: verdict.ticket)
    assert [verdict.reward for verdict in verdicts] == [1.0, None, 3.0]
    assert "r.py, line 2: ValueError: invalid literal for int()" in verifier.fault_counts()


def test_the_data_decide_whether_completions_are_messages(prompts):
    text = (
        "def f(prompts, completions, **kwargs):\n    return [c[0]['content'] == 'a' for c in completions]\n"
    )
    system = {"role": "system", "content": "Be brief."}
    rows = [{"prompt": [system, {"role": "user", "content": f"{n}?"}]} for n in range(30)]
    task = prompts(text, rows)
    assert [j.reward for j in task.judge_all(replies(task, ["a", "b"]), {}).judgments] == [1.0, 0.0]
    example = replies(task, ["a"])[0].example
    assert (example.question[-1], example.messages[0], example.answer) == ("?", system, {})
    forced = prompts(text, conversational=True)
    assert forced.judge_all(replies(forced, ["a"]), {}).judgments[0].reward == 1.0


@pytest.mark.parametrize("texts", [["a", "b", ""], ["", "a", "b"]])
def test_a_function_written_for_messages_gets_them_and_another_gets_texts(prompts, texts):
    text = """
def f(completions, **kwargs):
    return [completion[0]["content"] == "a" for completion in completions]

async def g(completions, **kwargs):
    return [len(completion) for completion in completions]
"""
    task = prompts(text)
    judgments = task.judge_all(replies(task, texts), {}).judgments
    assert [j.parts for j in judgments] == [{"f": float(t == "a"), "g": float(len(t))} for t in texts]
    fixed = prompts(text, conversational=False)
    assert "string indices" in fixed.judge_all(replies(fixed, ["a"]), {}).judgments[0].error


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("1.0", "r.py, line 1: it gives a float, not a list of rewards"),
        ("[1.0] * 3", "r.py, line 1: it gives 3 rewards for 1 completions"),
        ("['good']", "r.py, line 1: it gives 'good' as a reward, which is no number"),
    ],
)
def test_a_function_that_gives_something_else_is_named_by_its_line(prompts, result, words):
    task = prompts(f"def f(completions, **kwargs):\n    return {result}\n")
    assert words in task.judge_all(replies(task, ["a"]), {}).judgments[0].error


def test_a_column_that_is_not_there_is_named_before_anything_runs(prompts):
    task = prompts("def f(completions, target):\n    return []\n")
    with pytest.raises(ConfigError, match=r"r.py, line 1: f asks for 'target', and .* has solution, level"):
        next(task.examples("train", 0))
    mapped = prompts("def f(completions, target):\n    return [float(t) for t in target]\n",
                     columns={"target": "level"})  # fmt: skip
    assert mapped.judge_all(replies(mapped, ["a"]), {}).judgments[0].reward in (0.0, 1.0)


def test_wrong_settings_are_named(prompts, write):
    with pytest.raises(ConfigError, match=r"2 weights for 3 functions \(right, short, even\)"):
        prompts(weights=[1.0, 2.0])
    with pytest.raises(ConfigError, match=r"needs prompts: .* --task .*r.py,data=prompts.jsonl"):
        next(load_task(write("r.py", FUNCTIONS)).examples("train", 0))
    task = prompts()
    assert rebuild(describe(task)) == task


def test_whatever_is_logged_reaches_the_log_and_costs_no_verdict(prompts):
    text = """
def f(completions, log_extra, log_metric):
    log_extra("object", [{1, 2} for _ in completions])
    log_extra("long", ["x" * 10**6 for _ in completions])
    log_extra("too few", [1])
    log_metric("nan", float("nan"))
    log_metric("size", len(completions))
    return [1.0 for _ in completions]
"""
    task = prompts(text)
    with Verifier({"own": task}) as verifier:
        for number, reply in enumerate(replies(task, ["a", "b"])):
            verifier.submit(number, "own", reply.example, reply.text)
        verdicts = verifier.results(wait=True)
    assert [verdict.reward for verdict in verdicts] == [1.0, 1.0]
    assert verdicts[0].notes["object"] == "{1, 2}"
    assert len(verdicts[0].notes["long"]) == 2000
    assert verdicts[0].notes.keys() == {"object", "long"}
    assert verifier.metrics == {"size": [2.0]}


def test_nan_is_none_and_arrays_are_lists(prompts):
    text = (
        "import numpy\ndef f(completions):\n    return numpy.array([float('nan'), 2])[: len(completions)]\n"
    )
    task = prompts(text)
    assert [j.reward for j in task.judge_all(replies(task, ["a", "b"]), {}).judgments] == [None, 2.0]
