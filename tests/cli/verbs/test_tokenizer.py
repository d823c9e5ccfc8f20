"""The tokenizer verbs."""

import json


def test_train_then_encode(cli, texts, tmp_path):
    out = tmp_path / "tokenizer"
    code, shown, _ = cli("tokenizer", "train", str(texts), "--vocab-size", "400", "--out", str(out), "--json")
    assert code == 0
    assert json.loads(shown)["vocab_size"] <= 400
    code, shown, _ = cli("tokenizer", "encode", str(out), "def f(x): <｜User｜>", "--json")
    coded = json.loads(shown)
    assert code == 0
    assert "".join(coded["pieces"]).startswith("def f(x):")
    special = json.loads(cli("tokenizer", "encode", str(out), "<｜User｜>", "--special", "--json")[1])
    assert len(special["ids"]) == 1
    assert special["ids"][0] not in coded["ids"]


def test_encode_for_people(cli, trained):
    code, shown, _ = cli("tokenizer", "encode", str(trained / "model"), "def")
    assert code == 0
    assert "'" in shown
