"""export and import: Hugging Face folders, GGUF files, and back."""

import json

import torch


def test_export_opens_in_transformers_with_the_same_logits(cli, trained, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.folder import load_model

    code, out, _ = cli("export", str(trained / "model"), str(tmp_path / "hf"), "--type", "f32", "--json")
    assert code == 0
    assert json.loads(out)["bytes"] > 10_000
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    ids = torch.tensor([tokenizer("def function_1(x):")["input_ids"]])
    with torch.no_grad():
        difference = (theirs(ids).logits - load_model(Checkpoint.open(trained / "model"))(ids)).abs().max()
    assert difference < 1e-4


def test_a_gguf_file_comes_back_as_the_same_model(cli, trained, tmp_path):
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.folder import load_model

    file, folder = tmp_path / "m.gguf", tmp_path / "back"
    assert cli("export", str(trained / "model"), str(file), "--type", "f32")[0] == 0
    assert cli("import", str(file), str(folder), "--type", "f32")[0] == 0
    before, after = (
        load_model(Checkpoint.open(trained / "model")).state_dict(),
        load_model(Checkpoint.open(folder)).state_dict(),
    )
    assert after.keys() <= before.keys()  # the MTP module stays behind
    assert all(torch.equal(tensor, before[name]) for name, tensor in after.items())
    code, out, _ = cli("run", str(folder), "def f", "--complete", "--max-tokens", "3", "--json")
    assert (code, json.loads(out)["tokens"]) == (0, 3)
    report = json.loads(cli("show", str(file), "--json")[1])
    assert (report["model_type"], report["weights"]) == ("deepseek_v3", "F32")


def test_what_is_there_stays_and_what_is_unknown_is_refused(cli, trained, tmp_path):
    model = str(trained / "model")
    (tmp_path / "mine.txt").write_text("keep me")
    assert cli("export", model, str(tmp_path))[0] == 2
    assert (tmp_path / "mine.txt").read_text() == "keep me"
    (tmp_path / "mine.gguf").write_text("keep me")
    code, _, err = cli("export", model, str(tmp_path / "mine.gguf"))
    assert (code, "mine.gguf" in err) == (2, True)
    for target in ("x", "x.gguf"):
        code, _, err = cli("export", model, str(tmp_path / target), "--type", "int3")
        assert (code, "int3" in err) == (2, True)
        assert not (tmp_path / target).exists()
    code, _, err = cli("import", str(tmp_path / "mine.gguf"), str(tmp_path / "y"))
    assert (code, "not a GGUF" in err) == (1, True)
