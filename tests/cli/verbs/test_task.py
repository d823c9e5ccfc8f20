"""task new, show and check; and a run on one's own task, three commands after nothing."""

import json

import pytest


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_from_nothing_to_a_run_in_three_commands(cli, folder, talker):
    assert cli("task", "new", "my_task") == (
        0, "wrote my_task.py; look at it with: shoestring task show my_task.py\n", ""
    )  # fmt: skip
    code, out, _ = cli("task", "show", "my_task.py", "--reply", "6", "--reply", "none", "--json")
    shown = json.loads(out)
    assert code == 0
    assert [verdict["reward"] for verdict in shown["verdicts"]] in ([1.0, 0.0], [0.0, 0.0])
    small = ("steps=1", "num_prompts=2", "num_generations=2", "max_tokens=4", f"model={talker}")
    sets = [part for setting in small for part in ("--set", setting)]
    code, out, err = cli("rl", "--task", "my_task.py", *sets, "--out", "run", "--quiet", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["tasks"] == "my_task.py"
    assert (folder / "run" / "model" / "model.safetensors").exists()
    arguments = ("--task", "my_task.py", "--set", "samples=1", "--set", "k=[1]", "--set", "max_tokens=4")
    code, out, _ = cli("eval", str(talker), *arguments, "--json", "--out", "score.json")
    assert (code, json.loads(out)["result"]["problems"]) == (0, 6)
    code, _, err = cli("eval", "--reproduce", "score.json")
    assert code == 2
    assert "--task my_task.py" in err
    assert cli("eval", "--reproduce", "score.json", "--task", "my_task.py")[0] == 0


def test_show_prints_problems_and_what_a_reply_earns(cli, folder):
    (folder / "r.py").write_text(
        "def short(completions):\n    return [1 / (1 + len(c)) for c in completions]\n"
    )
    (folder / "p.jsonl").write_text("".join(json.dumps({"question": f"q{n}"}) + "\n" for n in range(30)))
    code, out, _ = cli("task", "show", "r.py,data=p.jsonl", "--reply", "abc", "--count", "2")
    assert code == 0
    assert out.count("question  q") == 2
    assert "reward  0.25 (short 0.25)" in out


def test_a_check_passes_and_fails_with_3(cli, folder):
    cli("task", "new", "a")
    code, out, _ = cli("task", "check", "a.py")
    assert (code, out.count("ok")) == (0, 5)
    text = (folder / "a.py").read_text()
    (folder / "b.py").write_text(text.replace("numbers and numbers[-1] ==", "int(numbers[-1]) =="))
    code, out, err = cli("task", "check", "b.py")
    assert code == 3
    assert "FAIL  odd replies" in out
    assert "IndexError" in err or "TypeError" in err or code == 3


def test_mistakes_are_one_sentence(cli, folder):
    (folder / "a.py").write_text("def f(:\n")
    assert cli("task", "show", "a.py")[2] == "shoestring: a.py, line 1: invalid syntax\n"
    assert "`shoestring task new none.py`" in cli("rl", "--task", "none.py", "--set", "model=mini")[2]
    assert "rl needs a model" in cli("rl", "--task", "countdown")[2]
    assert "rl needs a task: --task" in cli("rl", "--set", "model=mini")[2]
    assert "--split best is neither" in cli("task", "show", "countdown", "--split", "best")[2]
