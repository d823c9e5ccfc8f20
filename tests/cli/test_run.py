"""Completing prompts."""

import io
import json
import sys

import torch

from shoestring.cli.run import printable


def test_greedy_completion_is_what_the_full_forward_says(cli, trained):
    from shoestring.model.folder import load_model
    from shoestring.tokenizer.bpe import Tokenizer

    code, out, _ = cli("run", str(trained / "model"), "def fun", "--max-tokens", "12", "--json")
    answer = json.loads(out)
    assert code == 0
    model, tokenizer = load_model(trained / "model"), Tokenizer.load(trained / "model")
    ids = [tokenizer.bos_id, *tokenizer.encode("def fun")]
    start = len(ids)
    for _ in range(12):
        with torch.no_grad():
            chosen = int(model(torch.tensor([ids]))[0, -1].argmax())
        if chosen == tokenizer.eos_id:
            break
        ids.append(chosen)
    assert answer["completion"] == tokenizer.decode(ids[start:], skip_special=True)
    assert answer["tokens"] == len(ids) - start


def test_a_seed_repeats_and_another_differs(cli, trained):
    def sample(seed):
        arguments = [
            "run",
            str(trained / "model"),
            "x",
            "--temperature",
            "1.5",
            "--seed",
            str(seed),
            "--json",
        ]
        return json.loads(cli(*arguments)[1])["completion"]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_a_pipe_is_a_prompt(cli, trained, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("def piped"))
    code, out, err = cli("run", str(trained / "model"), "--max-tokens", "3")
    assert code == 0
    assert out.startswith("def piped")
    assert "tokens/s" in err


def test_a_prompt_that_does_not_fit_is_refused(cli, trained):
    code, _, err = cli("run", str(trained / "model"), "word " * 500)
    assert code == 2
    assert "127" in err


def test_control_characters_never_reach_the_terminal():
    assert printable("a\x1b[2Jb\r\x07c\x9b\td\n") == "a[2Jbc\td\n"
