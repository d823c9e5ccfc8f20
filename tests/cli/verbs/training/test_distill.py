"""The distill verb: its options, what it prints, its refusals."""

import json

import pytest
import typer

from shoestring.cli import application, main
from shoestring.cli.verbs.training import distill as verb
from shoestring.distill import distill as story


@pytest.fixture
def call(capsys, monkeypatch):
    """Runs the verb with a story that only notes what it was told: (code, stdout, stderr), calls."""
    app = typer.Typer()
    app.command("distill")(verb.distill)
    app.command("other")(lambda: None)  # or typer takes the one command's name for an argument
    monkeypatch.setattr(application, "app", app)
    calls = []

    def note(config, runtime, out, *, resume, quiet, say):
        calls.append((config, out, resume))
        say("7 of 9 answers\x1b[2J")
        return {"collected": {"teacher": config.teacher, "dropped": {}}, "training": {"steps": 3}}

    monkeypatch.setattr(story, "distill", note)

    def run(*arguments):
        code = main.exit_code(["distill", *arguments])
        return code, *capsys.readouterr(), calls

    return run


WANTED = (
    "--teacher",
    "http://localhost:8000/v1",
    "--student",
    'a "quoted" folder',
    "--set",
    "tasks.arithmetic={}",
)


def test_options_make_the_recipe(call, tmp_path):
    prices = [f"--set=remote.{field}" for field in ("cost_cap=5", "price_in=1", "price_out=2")]
    code, out, err, [(config, folder, resume)] = call(*WANTED, "--out", str(tmp_path), *prices)
    assert (code, folder, resume) == (0, tmp_path, False)
    assert (config.teacher, config.student) == ("http://localhost:8000/v1", 'a "quoted" folder')
    assert (config.tasks, config.remote.cost_cap) == ({"arithmetic": {}}, 5.0)
    assert "steps" in out
    assert "7 of 9 answers" in err
    assert "\x1b" not in err


def test_a_recipe_file_and_json(call, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('teacher = "t"\nstudent = "s"\n[tasks.countdown]\nnumbers = 3\n')
    code, out, err, [(config, *_)] = call(str(recipe), "--student", "another", "--json", "--quiet")
    assert code == 0
    assert json.loads(out)["collected"]["teacher"] == "t"
    assert (config.student, config.tasks) == ("another", {"countdown": {"numbers": 3}})
    assert err == ""


def test_resuming_takes_the_runs_own_recipe(call, tmp_path):
    (tmp_path / "config.toml").write_text('teacher = "t"\nstudent = "s"\n[tasks.countdown]\n')
    code, _, _, [(config, _, resume)] = call("--resume", "--out", str(tmp_path), "--set", "problems=7")
    assert (code, resume, config.problems) == (0, True, 7)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ((), "teacher"),
        (("--teacher", "t", "--student", "s"), "tasks"),
        (("--resume",), "no run to resume"),
        (("--resume", "--teacher", "t"), "leave out"),
        ((*WANTED, "--set", "method=wish"), "method"),
        ((*WANTED, "--set", "samples=3"), "samples"),
    ],
)
def test_refusals(call, tmp_path, arguments, word):
    code, _, err, calls = call(*arguments, "--out", str(tmp_path / "none"))
    assert (code, calls) == (2, [])
    assert word in err
