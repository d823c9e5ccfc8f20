"""reasoning-gym's generators as tasks: repeatable, split without overlap, scored in a child, never run."""

import json
from itertools import islice

import pytest

from shoestring.errors import ConfigError, MissingDependencyError
from shoestring.tasks.load import load_task
from shoestring.tasks.task import Example
from shoestring.tasks.verify import Verifier

# Loaded with warnings allowed: the library leaves files open when it is imported.
pytestmark = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@pytest.fixture(autouse=True)
def library():
    return pytest.importorskip("reasoning_gym")


def gym(generator, **options):
    return load_task(f"reasoning_gym:{generator}", options)


def test_problems_repeat_and_are_plain():
    task = gym("chain_sum", min_terms=2, max_terms=3)
    first = list(islice(task.examples("train", 1), 10))
    assert task.name == "reasoning_gym:chain_sum"
    assert first == list(islice(task.examples("train", 1), 10))
    assert first != list(islice(task.examples("train", 2), 10))
    assert json.loads(json.dumps([e.answer for e in first])) == [e.answer for e in first]


def test_no_test_question_is_a_training_question():
    small = gym("chain_sum", min_terms=2, max_terms=2, min_digits=1, max_digits=1)
    test = [e.key for e in small.examples("test", 0)]  # it ends: there are few such sums
    train = {e.key for e in islice(small.examples("train", 0), 1000)}
    assert len(test) == len(set(test)) > 10
    assert not train & set(test)


def test_scores_are_the_librarys_own_in_the_child():
    generators = [
        "chain_sum",
        "countdown",
        "rearc",
        "isomorphic_strings",
        "polynomial_multiplication",
    ]
    tasks = {name: gym(name) for name in generators}
    with Verifier(tasks, timeout_s=20) as verifier:
        for ticket, (name, task) in enumerate(tasks.items()):
            example = next(task.examples("train", 3))
            right = example.answer["entry"]["answer"]
            verifier.submit(ticket, name, example, f"<think>x</think><answer>{right}</answer>")
            verifier.submit(ticket + 100, name, example, f"<think>{right}</think><answer>no</answer>")
        rewards = {verdict.ticket: verdict.reward for verdict in verifier.results(wait=True)}
    assert [rewards[ticket] for ticket in range(len(tasks))] == [1.0] * len(tasks)
    assert all(rewards[ticket + 100] < 0.2 for ticket in range(len(tasks)))


@pytest.mark.parametrize(
    "generator", ["n_queens", "string_insertion", "countdown", "polynomial_multiplication"]
)
def test_code_in_an_answer_is_not_run(generator, tmp_path):
    task, mark = gym(generator), tmp_path / "escaped"
    example = next(task.examples("train", 0))
    for code in (f"__import__('os').mkdir('{mark}')", f"[__import__('os').mkdir('{mark}')]"):
        assert task.reward(example, code) < 0.2
    assert not mark.exists()


def test_a_checker_that_fails_over_a_malformed_answer_gives_nothing():
    task = gym("prime_factorization")
    assert task.reward(next(task.examples("train", 0)), "what?") == 0.0


def test_a_checker_that_always_fails_is_a_fault(monkeypatch):
    task = gym("chain_sum")
    example = next(task.examples("train", 0))
    dataset = task._dataset(example.answer["seed"])
    monkeypatch.setattr(type(dataset), "score_answer", lambda self, answer, entry: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        task.reward(example, "1")


def test_a_problem_that_does_not_repeat_itself_is_judged_as_it_was_sent():
    task = gym("chain_sum")
    place = next(task.examples("train", 0)).answer
    sent = {**place["entry"], "question": "another", "answer": "-5"}
    from shoestring.tasks.problems import key_of

    example = Example(key=key_of("another"), question="another", answer={**place, "entry": sent})
    assert task.reward(example, "-5") == 1.0


def test_wrong_names_and_options_are_told(monkeypatch):
    with pytest.raises(ConfigError, match="chain_sum"):
        gym("chainsum")
    with pytest.raises(ConfigError, match="terms"):
        gym("chain_sum", terms=3)
    with pytest.raises(ConfigError, match="chain_sum refuses"):
        gym("chain_sum", min_terms=-1)
    with pytest.raises(ConfigError, match="'seed'"):
        gym("chain_sum", seed=3)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="pip install reasoning-gym"):
        gym("chain_sum")
