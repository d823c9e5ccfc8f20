"""One answer: completion, chat, pipes, JSON, quantized, and what is refused."""

import io
import json
import shutil
import sys

import pytest
import torch


@pytest.fixture(scope="module")
def base(trained):
    """The trained model, which has no chat template."""
    return str(trained / "model")


def test_greedy_completion_is_what_the_full_forward_says(cli, base):
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.folder import load_model
    from shoestring.tokenizer.bpe import Tokenizer

    code, out, _ = cli("run", base, "def fun", "--max-tokens", "12", "--quantization", "none", "--json")
    answer = json.loads(out)
    assert code == 0
    model, tokenizer = load_model(Checkpoint.open(base)), Tokenizer.load(base)
    ids = [tokenizer.bos_id, *tokenizer.encode("def fun")]
    start = len(ids)
    for _ in range(12):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] == tokenizer.eos_id:
            break
    assert answer["completion"] == tokenizer.decode(ids[start:], skip_special=True)
    assert (answer["tokens"], answer["prompt_tokens"]) == (len(ids) - start, start)


def test_a_seed_repeats_and_another_differs(cli, base):
    def sample(seed):
        settings = ("--set", "temperature=1.5", "--set", f"seed={seed}", "--json")
        return json.loads(cli("run", base, "x", *settings)[1])["completion"]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_a_pipe_is_a_prompt_and_only_text_is_on_stdout(cli, base, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("def piped"))
    code, out, err = cli("run", base, "--max-tokens", "3")
    assert code == 0
    assert out.startswith("def piped")
    assert "tokens/s" in err
    assert "tokens/s" not in out


def test_a_model_with_a_template_answers_without_repeating_the_question(cli, talker):
    model = str(talker)
    settings = ("--set", "seed=1", "--set", "thinking=false", "--max-tokens", "5")
    code, out, err = cli("run", model, "def question", *settings)
    assert code == 0
    assert not out.startswith("def question")
    assert "prompt" in err
    answer = json.loads(cli("run", model, "def question", *settings, "--json")[1])
    assert answer["completion"].strip() == out.strip()
    completed = cli("run", model, "def question", *settings, "--complete")[1]
    assert completed.startswith("def question")


def test_thinking_is_kept_apart(cli, talker):
    settings = ("--set", "thinking=true", "--set", "seed=1", "--max-tokens", "4", "--json")
    answer = json.loads(cli("run", str(talker), "why?", *settings)[1])
    assert answer["thinking"]
    assert answer["completion"] == ""
    assert answer["finish_reason"] == "length"


def test_int8_is_the_default_on_a_cpu_and_stderr_says_so(cli, base):
    settings = ("--max-tokens", "6", "--json")
    default, exact, int8 = (
        cli("run", base, "def fun", *settings, *form)
        for form in ((), ("--quantization", "none"), ("--quantization", "int8"))
    )
    assert "weights int8, the default on a CPU" in default[2]
    assert "--quantization none" in default[2]
    assert "weights int8" not in exact[2] + int8[2]
    assert json.loads(default[1])["completion"] == json.loads(int8[1])["completion"]


def test_a_packed_checkpoint_stays_as_it_is(cli, base, tmp_path):
    assert cli("quantize", base, str(tmp_path / "packed"))[0] == 0
    code, _, err = cli("run", str(tmp_path / "packed"), "x", "--max-tokens", "1")
    assert (code, "weights int8" in err) == (0, False)


def test_memory_to_stay_within_picks_a_form_and_says_why(cli, base):
    code, _, err = cli("run", base, "x", "--max-tokens", "1", "--target-ram", "8G")
    assert code == 0
    assert "as they are stored" in err
    assert "GB/s" in err
    code, _, err = cli("run", base, "x", "--target-ram", "1M")
    assert (code, "needs" in err) == (2, True)
    code, out, _ = cli("run", base, "x", "--max-tokens", "2", "--quant", "int8", "--json")
    assert (code, json.loads(out)["tokens"]) == (0, 2)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["word " * 500], 2, "127"),
        (["x", "--quant", "int3"], 2, "int8, int4"),
        (["x", "--target-ram", "0G"], 2, "0G"),
        (["x", "--set", "temprature=1"], 2, "temperature"),
        (["x", "--set", "temperature=-1"], 2, "temperature"),
        (["x", "--set", "max_model_len=100000"], 2, "max_model_len"),
        (["x", "--set", "thinking=maybe"], 2, "thinking"),
    ],
)
def test_wrong_input_is_one_sentence(cli, base, arguments, code, words):
    got, out, err = cli("run", base, *arguments)
    assert (got, out) == (code, "")
    assert words in err
    assert len(err.strip().splitlines()) == 1


def test_what_is_no_checkpoint_is_said(cli, base, tmp_path, monkeypatch):
    from shoestring.engine import load

    code, _, err = cli("run", str(tmp_path / "m.gguf"), "x")
    assert (code, "shoestring import" in err) == (2, True)
    broken = tmp_path / "broken"
    shutil.copytree(base, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    code, _, err = cli("run", str(broken), "x")
    assert (code, "damaged" in err) == (1, True)
    monkeypatch.setattr(load, "available_bytes", lambda _device: 1_000_000)
    code, _, err = cli("run", base, "x")
    assert (code, "0.0 GB are free" in err) == (2, True)


def test_json_needs_a_prompt_and_stdin_text(cli, base, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe"), encoding="utf-8"))
    code, _, err = cli("run", base, "-")
    assert (code, "UTF-8" in err) == (2, True)
    stdin = io.StringIO()
    stdin.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", stdin)
    code, _, err = cli("run", base, "--json")
    assert (code, "--json" in err) == (2, True)
