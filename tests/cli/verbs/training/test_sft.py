"""The sft verb: base model and conversations in, a model that talks out; resume, refusals."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def talks(tmp_path_factory) -> Path:
    lines = []
    for i in range(24):
        answer = {"role": "assistant", "content": f"return x + {i}"}
        lines.append({"messages": [{"role": "user", "content": f"def function_{i}"}, answer]})
    path = tmp_path_factory.mktemp("talks") / "talks.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def options(trained, talks) -> list[str]:
    """`--set` options of a run that takes a second."""
    fields = {
        "model": json.dumps(str(trained / "model")),
        "data": json.dumps([str(talks)]),
        "seq_len": "64",
        "batch_tokens": "400",
        "epochs": "1.0",
    }
    return [part for name, value in fields.items() for part in ("--set", f"{name}={value}")]


def test_a_base_model_learns_to_talk(cli, options, tmp_path):
    out = tmp_path / "run"
    code, text, err = cli("sft", *options, "--out", str(out), "--quiet")
    assert (code, err) == (0, "")
    assert f"shoestring run {out / 'model'}" in text
    assert (out / "curves.png").is_file()
    code, text, _ = cli("run", str(out / "model"), "def function_1", "--max-tokens", "4", "--json")
    assert code == 0
    assert json.loads(text)["tokens"] <= 4
    code, text, _ = cli("sft", "--resume", "--out", str(out), "--quiet", "--json")
    assert code == 0
    assert json.loads(text)["conversations"] == 24


def test_lora_says_where_the_adapter_is(cli, options, tmp_path):
    more = ["--set", "lora.rank=2", "--set", 'lora.targets=["attention"]']
    code, text, _ = cli("sft", *options, *more, "--out", str(tmp_path / "run"), "--quiet")
    assert code == 0
    assert f"the adapter is in {tmp_path / 'run' / 'adapter'}" in text
    assert (tmp_path / "run" / "adapter" / "adapter_config.json").is_file()


def test_refusals_are_sentences(cli, options, talks, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(talks.read_text() + '{"messages": []}\n')
    data = ["--set", f"data={json.dumps([str(bad)])}"]
    code, _, err = cli("sft", *options, *data, "--out", str(tmp_path / "run"))
    assert code == 1
    assert f"{bad} line 25: the conversation is empty" in err
    assert cli("sft", "--out", str(tmp_path / "run"))[0] == 2  # no start, no data
    code, _, err = cli("sft", *options, "--set", "lora.ranks=2", "--out", str(tmp_path / "run"))
    assert (code, "LoraConfig has rank" in err) == (2, True)
    code, _, err = cli("sft", *options, "--resume", "--out", str(tmp_path / "run"))
    assert (code, "has no run to resume" in err) == (2, True)
