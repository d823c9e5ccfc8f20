"""Exit codes, and one sentence for every mistake."""

import subprocess
import sys

import pytest

from shoestring.cli import application
from shoestring.cli import main as cli_main
from shoestring.errors import NonFiniteError, Stopped


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["bogus"], 2, "bogus"),
        (["show"], 2, "model"),
        (["show", "no/such/model/here"], 1, "no/such/model/here"),
        (["show", "deepseek-v3", "--seq-len", "0"], 2, "--seq-len"),
        (["pretrain", "no-such-recipe.toml"], 2, "no-such-recipe.toml"),
        (["pretrain", "--set", "optim.lrr=1"], 2, "optim.lrr"),
        (["pretrain", "--set", "optim.lr=fast"], 2, "optim.lr"),
        (["pretrain", "--set", "optim.name=sgd"], 2, "optim.name"),
        (["pretrain", "--set", "total_tokens"], 2, "total_tokens"),
        (["pretrain", "--set", "total_tokens=0"], 2, "total_tokens"),
        (["pretrain", "--set", "model=gpt-5"], 2, "gpt-5"),
        (["pretrain", "--resume", "--out", "no-such-run"], 2, "no-such-run"),
        (["pretrain", "--device", "tpu"], 2, "tpu"),
        (["run", "deepseek-v3", "hi"], 2, "preset"),
        (["export", "no-such-folder", "out"], 1, "no-such-folder"),
        (["quantize", "no-such-folder", "out"], 1, "no-such-folder"),
        (["import", "no-such.gguf", "out"], 1, "no-such.gguf"),
        (["bench", "engine", "no-such-folder"], 1, "no-such-folder"),
        (["pull", "no-such-folder"], 1, "no-such-folder"),
        (["template", "check", "no-such-folder"], 1, "no-such-folder"),
    ],
)
def test_a_mistake_gets_one_sentence_and_its_code(arguments, code, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli_main.exit_code(arguments) == code
    captured = capsys.readouterr()
    assert words in captured.err
    assert len(captured.err.strip().splitlines()) == 1
    assert "Traceback" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Stopped("saved"), 75),
        (NonFiniteError("bad"), 1),
        (KeyboardInterrupt(), 130),
        (OSError(28, "No space"), 1),
    ],
)
def test_errors_become_exit_codes(error, code, monkeypatch, capsys):
    def fail(*_args, **_kwargs):
        raise error

    monkeypatch.setattr(application, "app", fail)
    assert cli_main.exit_code([]) == code
    assert capsys.readouterr().err


def test_a_bug_is_called_one_and_debug_shows_where(monkeypatch, capsys):
    def fail(*_args, **_kwargs):
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(application, "app", fail)
    assert cli_main.exit_code([]) == 1
    assert "bug" in capsys.readouterr().err
    monkeypatch.setenv("SHOESTRING_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli_main.exit_code([])


def test_help_lists_every_verb_and_a_closed_pipe_is_quiet():
    command = [sys.executable, "-m", "shoestring.cli.main"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    for verb in (
        "demo",
        "pretrain",
        "eval",
        "run",
        "show",
        "list",
        "pull",
        "quantize",
        "export",
        "import",
        "bench",
        "tokenizer",
        "template",
        "doctor",
    ):
        assert verb in shown
    script = f"{sys.executable} -m shoestring.cli.main show deepseek-v3 --json | head -1"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
