"""`shoestring plan`: what it prints, and one sentence with a code for what it refuses."""

import json
from pathlib import Path

import pytest

from shoestring.cli.main import exit_code

RECIPE = Path(__file__).parents[4] / "recipes" / "python.toml"
STAGES = RECIPE.with_name("r1-mini.toml")


def test_v3_as_text_and_as_json(capsys):
    assert exit_code(["plan", "deepseek-v3"]) == 0
    text = capsys.readouterr().out
    for words in ("2,788,000 H800 hours", "$5,576,000", "70,272 bytes a token", "leaving one out", "without"):
        assert words in text
    assert exit_code(["plan", "deepseek-v3", "--tokens", "1T", "--price", "3", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["training"]["tokens"] == 1e12
    assert content["training"]["dollars"] == pytest.approx(3 * content["training"]["gpu_hours"])


def test_published_runs_side_by_side(capsys):
    assert exit_code(["plan", "--compare", "deepseek-v3", "llama-3.1-405b"]) == 0
    text = capsys.readouterr().out
    assert "9.0%" in text
    assert "61,680,000" in text


def test_a_recipe_on_this_machine(capsys):
    assert exit_code(["plan", str(RECIPE), "--set", "total_tokens=100000"]) == 0
    text = capsys.readouterr().out
    assert "optimizer" in text
    assert "shoestring receipt" in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing-like-this"], "no model and no published run"),
        (["deepseek-v3", "--tokens", "many"], "14.8T"),
        (["deepseek-v3", "--hardware", "TPU"], "choose from A100"),
        (["deepseek-v3", "--devices", "0"], "devices"),
        (["deepseek-v3", "llama-2-7b"], "--compare"),
        (["--compare", "deepseek-v3", "demo"], "no published hours"),
        (["deepseek-v3", "--set", "layout.shard=0"], "layout.shard"),
        ([str(STAGES)], "shoestring receipt"),
        (["missing.toml"], "no recipe"),
    ],
)
def test_what_is_refused(arguments, words, capsys):
    assert exit_code(["plan", *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
