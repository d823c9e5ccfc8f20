"""The prefer verb: a model and pairs in, a model that prefers out; resume, refusals."""

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    rows = [
        {"prompt": f"def function_{i}", "chosen": f"return x + {i}", "rejected": f"pass  # {i}"}
        for i in range(20)
    ]
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def options(trained, pairs) -> list[str]:
    """`--set` options of a run that takes a second."""
    fields = {"model": json.dumps(str(trained / "model")), "data": json.dumps([str(pairs)]), "seq_len": "64"}
    return [part for name, value in fields.items() for part in ("--set", f"{name}={value}")]


def test_a_model_learns_preferences(cli, options, tmp_path):
    out = tmp_path / "run"
    more = ["--set", "heldout_fraction=0.2", "--set", "lora.rank=4", "--set", "optim.lr=1e-2"]
    code, text, err = cli("prefer", *options, *more, "--out", str(out), "--quiet")
    assert (code, err) == (0, "")
    assert f"the adapter is in {out / 'adapter'}" in text
    assert f"shoestring run {out / 'model'}" in text
    code, text, _ = cli("prefer", "--resume", "--out", str(out), "--quiet", "--json")
    report = json.loads(text)
    assert (code, report["loss_type"]) == (0, "dpo")
    assert report["heldout_rewards/margins"] > 0


def test_refusals_are_sentences(cli, options, pairs, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(pairs.read_text() + '{"prompt": "x", "chosen": "y"}\n')
    data = ["--set", f"data={json.dumps([str(bad)])}"]
    code, _, err = cli("prefer", *options, *data, "--out", str(tmp_path / "run"))
    assert code == 1
    assert "bad.jsonl line 21: it has no chosen and rejected" in err
    code, _, err = cli("prefer", *options, "--set", "loss.loss_type=ppo", "--out", str(tmp_path / "run"))
    assert (code, "loss.loss_type" in err, "simpo" in err) == (2, True, True)
    assert cli("prefer", "--out", str(tmp_path / "run"))[0] == 2
