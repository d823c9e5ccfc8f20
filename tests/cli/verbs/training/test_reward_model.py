"""The reward-model verb: a model and pairs in, a model that scores answers out."""

import json


def test_a_reward_model_is_trained_and_says_where_it_is(cli, trained, tmp_path):
    rows = [{"prompt": f"def f_{i}", "chosen": f"return {i}", "rejected": "pass"} for i in range(12)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out = tmp_path / "run"
    fields = {"model": str(trained / "model"), "data": [str(tmp_path / "pairs.jsonl")], "seq_len": 64}
    options = [part for name, value in fields.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    code, text, err = cli("reward-model", *options, "--out", str(out), "--quiet")
    assert (code, err) == (0, "")
    assert f"the reward model is in {out / 'model'}" in text
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["architectures"][0].endswith("ForSequenceClassification")
    code, _, err = cli("run", str(out / "model"), "def f_1")
    assert (code, "is a reward model" in err) == (1, True)
