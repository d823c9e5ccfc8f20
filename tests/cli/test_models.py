"""show, list, export."""

import json

import pytest
import torch


@pytest.mark.parametrize(
    ("preset", "total", "active", "cache_bytes"),
    [
        ("deepseek-v2-lite", 15.71e9, 2.66e9, 31_104),
        ("deepseek-v2", 235.74e9, 21.38e9, 69_120),
        ("deepseek-v3", 671.03e9, 37.55e9, 70_272),
    ],
)
def test_show_gives_the_published_figures(cli, preset, total, active, cache_bytes):
    code, out, _ = cli("show", preset, "--json")
    report = json.loads(out)
    assert code == 0
    assert report["parameters_total"] == pytest.approx(total, abs=0.005e9)
    assert report["parameters_active"] == pytest.approx(active, abs=0.005e9)
    assert report["cache_bytes_per_token"] == cache_bytes
    assert report["train_flops_per_token"] > 6 * 0.8 * active


def test_show_for_people_and_for_a_trained_model(cli, trained):
    code, out, _ = cli("show", str(trained / "model"))
    assert code == 0
    assert "kv_lora_rank 16" in out
    assert "MTP modules" in out


def test_list_finds_what_was_trained(cli, trained):
    code, out, _ = cli("list", "--runs", str(trained.parent), "--json")
    found = json.loads(out)
    assert code == 0
    assert found["trained"] == [str(trained / "model")]
    assert "deepseek-v3" in found["presets"]
    assert found["cached"] == []


def test_export_opens_in_transformers_with_the_same_logits(cli, trained, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from shoestring.model.folder import load_model

    code, out, _ = cli("export", str(trained / "model"), str(tmp_path / "hf"), "--dtype", "float32", "--json")
    assert code == 0
    assert json.loads(out)["bytes"] > 10_000
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "hf")
    ids = torch.tensor([tokenizer("def function_1(x):")["input_ids"]])
    with torch.no_grad():
        difference = (theirs(ids).logits - load_model(trained / "model")(ids)).abs().max()
    assert difference < 1e-4


def test_export_refuses_a_full_folder_and_an_unknown_precision(cli, trained, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    assert cli("export", str(trained / "model"), str(tmp_path))[0] == 2
    assert (tmp_path / "mine.txt").read_text() == "keep me"
    code, _, err = cli("export", str(trained / "model"), str(tmp_path / "x"), "--dtype", "int3")
    assert (code, "int3" in err) == (2, True)
