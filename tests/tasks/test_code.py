"""The code task: extraction, all-or-nothing rewards, types across the boundary, honeypots and data checks."""

import json
from itertools import islice

import pytest

from shoestring.errors import ConfigError, DataError, MissingDependencyError
from shoestring.sandbox.process import Outcome
from shoestring.tasks import code as module
from shoestring.tasks.code import Code, last_block
from shoestring.tasks.load import load_task
from shoestring.tasks.task import Example

PROBLEM = {
    "key": "double",
    "question": "Print twice the number.",
    "cases": [{"stdin": f"{n}\n", "stdout": f"{2 * n}\n"} for n in (1, 5, -3)],
    "visible": 1,
}
RIGHT = "print(2 * int(input()))"


@pytest.fixture(scope="module")
def task():
    try:
        made = Code(limit_s=30.0)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    yield made
    made.sandbox.close()


@pytest.fixture
def without_sandbox(monkeypatch):
    """For what needs none."""
    monkeypatch.setattr(Code, "prepare", lambda self: None)


def beside(task: Code, **options) -> Code:
    """Another one in the same sandbox."""
    other = Code(**options)
    vars(other)["sandbox"] = task.sandbox
    return other


def reply(program: str) -> str:
    return f"<think>hm</think>\nHere:\n```python\n{program}\n```\n"


def example(function: str | None = None, cases: list | None = None) -> Example:
    answer = {"cases": cases or PROBLEM["cases"], "visible": 1, "function": function}
    return Example(key="k", question="q", answer=answer)


def ended(stdout: str, status: str = "ok") -> Outcome:
    return Outcome(status=status, code=0, stdout=stdout, seconds=0.0)


@pytest.mark.parametrize(
    ("program", "reward"),
    [
        (RIGHT, 1.0),
        (RIGHT + "\nraise SystemExit(1)", 0.0),
        (RIGHT + "\nprint(end='  ')\nprint()", 1.0),
        (RIGHT + "\nprint(0)", 0.0),
        (RIGHT + "\nexit()", 1.0),
        (RIGHT + "\nquit(0)", 1.0),
        (RIGHT + "\nexit('done')", 0.0),
        ("n = int(input())\nprint(2 * n) or exit(1)", 0.0),
        ("print(2)", 0.0),
        ("print({'1': 2}.get(input(), 0))", 0.0),
        ("", 0.0),
    ],
)
def test_all_cases_or_nothing(task, program, reward):
    assert task.reward(example(), reply(program)) == reward


@pytest.mark.parametrize(
    ("right", "program", "reward"),
    [
        ("1" + "0" * 5000, "print(10**5000)", 1.0),
        ("1" + "0" * 5000, "print(10**5000 + 1)", 0.0),
        ("5001", "print(len(str(10**5000)))", 1.0),
        ("1" + "0" * 100_000, "print(10**100_000)", 1.0),
        ("\n".join(map(str, range(50_000))), "for i in range(50_000): print(i)", 1.0),
        ("1", "print('1' * 100_000)", 0.0),
        ("1\r\n2\r\n", "print(1)\nprint(2)", 1.0),
        ("0.3", "print(0.1 + 0.2)", 1.0),
        ("0.3", "print(0.31)", 0.0),
    ],
)
def test_outputs_are_compared_as_public_judges_do(task, right, program, reward):
    cases = [{"stdin": "", "stdout": right + "\n"}]
    assert task.reward(example(cases=cases), reply(program)) == reward


def test_a_strict_problem_wants_the_output_to_the_letter(task, without_sandbox, tmp_path):
    path = tmp_path / "problems.jsonl"
    case = {"stdin": "", "stdout": "2.50\n"}
    path.write_text(
        "".join(
            json.dumps({"key": f"{name} {n}", "question": "q", "cases": [case], **strict}) + "\n"
            for name, strict in (("loose", {}), ("strict", {"strict": True}))
            for n in range(20)
        )
    )
    for made in Code(path=str(path)).examples("test", 0):
        is_strict = made.key.startswith("strict")
        assert task.reward(made, reply("print(2.5)")) == (0.0 if is_strict else 1.0)
        assert task.reward(made, reply("print('2.50')")) == 1.0


def test_a_program_that_never_ends_costs_the_limit(task, without_sandbox):
    assert beside(task, limit_s=0.3).reward(example(), reply("while True: pass")) == 0.0


def test_a_function_is_judged_by_its_result(task):
    cases = [{"arguments": [a, b], "result": [a + b]} for a, b in ((1, 2), (3, 4))]
    assert task.reward(example("add", cases), reply("def add(a, b): return (a + b,)")) == 1.0
    assert task.reward(example("add", cases), reply("def add(a, b): return [str(a + b)]")) == 0.0


def test_no_program_earns_nothing_and_costs_nothing(without_sandbox):
    task = Code()
    assert task.reward(example(), "<think>```python\nprint(1)\n```</think>no") == 0.0
    assert task.reward(example(), reply("x" * (module.MAX_PROGRAM_CHARS + 1))) == 0.0
    assert "sandbox" not in vars(task)


def test_a_fault_of_the_sandbox_is_no_verdict(task, monkeypatch):
    monkeypatch.setattr(type(task.sandbox), "run", lambda *_, **__: ended("", "fault"))
    assert task.reward(example(), reply(RIGHT)) is None


def test_time_is_for_all_cases_together(task, without_sandbox, monkeypatch):
    task = beside(task, limit_s=2.0)
    monkeypatch.setattr(
        type(task.sandbox),
        "run",
        lambda self, program, stdin, limits: Outcome(
            status="ok", code=0, stdout=str(2 * int(stdin)), seconds=0.9
        ),
    )
    assert task.reward(example(cases=PROBLEM["cases"][:2]), reply(RIGHT)) == 1.0
    assert task.reward(example(), reply(RIGHT)) == 0.0


@pytest.mark.parametrize("honeypots", [False, True])
def test_our_references_pass_and_impossible_problems_do_not(task, without_sandbox, honeypots):
    task = beside(task, limit_s=30.0, honeypots=honeypots)
    for made in islice(task.examples("test", 3), 2):
        answers = {case["stdin"]: case["stdout"] for case in reversed(made.answer["cases"])}
        program = f"import sys\nsys.stdout.write({answers!r}[sys.stdin.read()])"
        assert task.reward(made, reply(program)) == (0.0 if honeypots else 1.0)
        assert task.reward(made, reply("import sys; sys.exit(0)")) == 0.0


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("```python\na\n```", "a\n"),
        ("```python\na\n```\n```py\nb\n\nc\n```\nend", "b\n\nc\n"),
        ("```python\na\n```\n```python\ncut off", "a\n"),
        ("```\na\n```", None),
        ("```js\na\n```", None),
        ("", None),
    ],
)
def test_the_last_complete_block_counts(text, block):
    assert last_block(text) == block


def test_a_file_of_problems(without_sandbox, tmp_path):
    path = tmp_path / "problems.jsonl"
    rows = [{**PROBLEM, "key": f"k{n}"} for n in range(60)]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    task = Code(path=str(path))
    test = {e.key for e in task.examples("test", 0)}
    train = {e.key for e in islice(task.examples("train", 0), 200)}
    assert test
    assert train
    assert not test & train
    assert len(test | train) == 60
    made = next(task.examples("test", 1))
    assert "Input:\n```\n1\n```\nOutput:\n```\n2\n```" in made.question
    assert "-6" not in made.question  # hidden
    assert json.loads(json.dumps(made.answer)) == made.answer


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cases": [{"stdin": "1", "stdout": " \n"}], "visible": 0}, "may not be empty"),
        ({"cases": []}, "no list of 'cases'"),
        ({"visible": 2}, "must be 0 to 1"),
        ({"visible": True}, "must be 0 to 1"),
        ({"cases": [PROBLEM["cases"][0]] * 2}, "input of a visible one"),
        ({"key": ""}, "no text under 'key'"),
        ({"function": "a b"}, "not a name"),
        ({"strict": 1}, "'strict' must be true or false"),
        ({"visible": 10**4100}, "an integer of 4101 digits"),
        ({"function": "f"}, "'arguments' and a 'result'"),
        ({"cases": [{"stdin": "\ud800", "stdout": "1"}], "visible": 0}, "surrogates not allowed"),
    ],
)
def test_problems_that_prove_nothing_are_refused(without_sandbox, tmp_path, change, words):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(PROBLEM) + "\n" + json.dumps({**PROBLEM, "key": "other", **change}) + "\n")
    with pytest.raises(DataError, match="line 2") as caught:
        next(Code(path=str(path)).examples("train", 0))
    assert words in str(caught.value)


def test_wrong_files_and_options_are_named(without_sandbox, tmp_path):
    path = tmp_path / "problems.jsonl"
    path.write_text(json.dumps(PROBLEM) + "\n" + json.dumps(PROBLEM))
    with pytest.raises(DataError, match="line 2: the key 'double' is in an earlier line too"):
        next(Code(path=str(path)).examples("train", 0))
    path.write_text("{")
    with pytest.raises(DataError, match="line 1"):
        next(Code(path=str(path)).examples("train", 0))
    with pytest.raises(DataError, match="cannot read"):
        next(Code(path=str(tmp_path / "none")).examples("train", 0))
    with pytest.raises(ConfigError, match="limit_s"):
        Code(limit_s=0)
    with pytest.raises(ConfigError, match="memory_mb"):
        load_task("code", {"memory_mb": 1})


def test_no_sandbox_no_task(monkeypatch):
    def refuse():
        raise MissingDependencyError("no boundary")

    monkeypatch.setattr(module, "open_sandbox", refuse)
    with pytest.raises(MissingDependencyError, match="no boundary"):
        Code()
