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


def test_a_model_with_an_adapter_is_one_name_for_every_verb(cli, trained, tmp_path):
    from shoestring.model.hf.checkpoint import Checkpoint
    from shoestring.model.hf.folder import load_model
    from shoestring.model.hf.peft import save_adapter
    from shoestring.model.lora import LoraConfig, add_adapters

    base, adapter = trained / "model", tmp_path / "adapter"
    model = load_model(Checkpoint.open(base))
    add_adapters(model, LoraConfig(rank=4), torch.Generator().manual_seed(1))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.normal_(0.0, 0.2, generator=torch.Generator().manual_seed(2))
    save_adapter(model, adapter, base=str(base))
    name, merged = f"{base}+{adapter}", tmp_path / "merged"
    code, out, err = cli("merge", name, str(merged), "--json")
    assert (code, json.loads(out)["type"]) == (0, "f32"), err
    again = tmp_path / "again"
    assert cli("merge", str(base), str(adapter), str(again))[0] == 0
    weights = [(folder / "model.safetensors").read_bytes() for folder in (merged, again)]
    assert weights[0] == weights[1]

    def completion(model):
        code, out, err = cli("run", str(model), "def f", "--complete", "--max-tokens", "8", "--json")
        assert code == 0, err
        return json.loads(out)["completion"]

    assert completion(name) == completion(merged) == completion(adapter) != completion(base)
    scores = {}
    for each in (name, merged):
        code, out, err = cli("eval", str(each), "--source", str(trained.parent), "--json")
        assert code == 0, err
        scores[each] = json.loads(out)
    assert scores[name]["result"] == scores[merged]["result"]
    assert "adapter 1: adapter_model.safetensors" in scores[name]["model"]["sha256"]
    for verb in (("quantize", "--bits", "8"), ("export", "--type", "f32")):
        for each in (name, merged):
            target = tmp_path / f"{verb[0]}-{len(str(each))}"
            assert cli(verb[0], str(each), str(target), *verb[1:])[0] == 0
        files = [tmp_path / f"{verb[0]}-{len(str(each))}" / "model.safetensors" for each in (name, merged)]
        assert files[0].read_bytes() == files[1].read_bytes()
    for each in (name, merged):
        assert cli("export", str(each), str(tmp_path / f"{len(str(each))}.gguf"), "--type", "f32")[0] == 0
    sizes = {(tmp_path / f"{len(str(each))}.gguf").stat().st_size for each in (name, merged)}
    assert len(sizes) == 1


def test_merging_without_an_adapter_or_into_a_full_folder_is_a_sentence(cli, trained, tmp_path):
    base = str(trained / "model")
    code, _, err = cli("merge", base, str(tmp_path / "out"))
    assert (code, f"shoestring merge {base}+ADAPTER" in err) == (2, True)
    code, _, err = cli("merge", base)
    assert (code, "MODEL+ADAPTER OUT" in err) == (2, True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("keep me")
    assert cli("merge", f"{base}+{base}", str(tmp_path / "new"))[0] == 1
    assert cli("merge", base, str(tmp_path / "full"))[0] == 2


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


def with_tokenizer_key(file, out, key, value):
    """The same GGUF file with another value at one key of its tokenizer, and without its tokenizer.json."""
    import torch

    from shoestring.model.gguf.file import GGUFFile, read_rows
    from shoestring.model.gguf.writer import TensorEntry, write_gguf

    header = GGUFFile.open(file)
    metadata = {name: v for name, v in header.metadata.items() if name != "tokenizer.huggingface.json"}
    entries = [TensorEntry(name=t.name, shape=t.shape, type=t.type) for t in header.tensors.values()]
    with file.open("rb", buffering=0) as raw:
        chunks = [[torch.from_numpy(read_rows(raw, t, 0, t.num_rows))] for t in header.tensors.values()]
        write_gguf(out, metadata | {f"tokenizer.ggml.{key}": value}, entries, chunks)


def test_weights_come_without_a_tokenizer_that_cannot_be_read(cli, trained, tmp_path):
    import math

    cli("export", str(trained / "model"), str(tmp_path / "good.gguf"), "--type", "f32")
    for key, value in (("pre", "gemma4"), ("model", "t5"), ("remove_extra_whitespaces", True)):
        file, folder = tmp_path / f"{key}.gguf", tmp_path / key
        with_tokenizer_key(tmp_path / "good.gguf", file, key, value)
        code, out, _ = cli("show", str(file))
        assert (code, "unreadable" in out, "--weights-only" in out.replace("\n", " ")) == (0, True, True)
        code, _, err = cli("import", str(file), str(folder))
        assert (code, "--weights-only" in err, folder.exists()) == (1, True, False)
        code, out, _ = cli("import", str(file), str(folder), "--weights-only", "--type", "f32")
        assert (code, "takes token ids" in out, (folder / "tokenizer.json").exists()) == (0, True, False)
    code, out, _ = cli("run", str(folder), "1 20 300", "--max-tokens", "4", "--json")
    reply = json.loads(out)
    assert (code, reply["prompt_token_ids"], len(reply["token_ids"])) == (0, [1, 20, 300], 4)
    again = cli("run", str(folder), "[1, 20, 300]", "--max-tokens", "4")[1]
    assert [int(word) for word in again.split()] == reply["token_ids"]
    for prompt in ("hello", "1 999", ""):
        code, _, err = cli("run", str(folder), prompt)
        assert (code, "the prompt" in err) == (2, True)
    (tmp_path / "ids.txt").write_text("1 20 30 40\n\n5 6 7\n")
    code, out, _ = cli("eval", str(folder), "--source", str(tmp_path / "ids.txt"), "--json")
    result = json.loads(out)["result"]
    assert (code, result["tokens"]) == (0, 5)
    assert result["perplexity"] == math.exp(result["nll_per_token"])
    code, _, err = cli("eval", str(folder))
    assert (code, "no tokenizer" in err) == (2, True)


def test_the_header_tells_of_a_tokenizer(cli, trained, tmp_path):
    cli("export", str(trained / "model"), str(tmp_path / "m.gguf"))
    assert json.loads(cli("show", str(tmp_path / "m.gguf"), "--json")[1])["tokenizer"].startswith(
        "byte-level BPE"
    )
