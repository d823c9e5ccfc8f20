"""show, list, pull."""

import json
import shutil

import pytest


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


def test_show_says_how_weights_are_stored_and_what_they_take(cli, trained):
    report = json.loads(cli("show", str(trained / "model"), "--json")[1])
    assert report["weights"] == "F32"
    assert report["bytes"] > 4 * report["parameters_total"]
    assert report["memory_bytes_bf16"] > 2 * report["parameters_total"]
    assert "GB int4" in cli("show", "deepseek-v2-lite")[1]


def test_list_finds_what_was_trained(cli, trained):
    code, out, _ = cli("list", str(trained.parent), "--json")
    found = json.loads(out)
    assert code == 0
    assert [row["model"] for row in found["models"]] == [str(trained / "model")]
    assert found["models"][0]["weights"] == "F32"
    assert found["models"][0]["bytes"] > 10_000
    assert "deepseek-v3" in found["presets"]


def test_list_names_a_damaged_model_and_goes_on(cli, trained, tmp_path):
    shutil.copytree(trained / "model", tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{")
    (tmp_path / "bad" / "model.safetensors").write_text("nothing")
    (tmp_path / "bad.gguf").write_bytes(b"GGUF")
    code, out, _ = cli("list", str(tmp_path))
    assert code == 0
    assert out.count("unreadable") == 2
    assert "deepseek_v3" in out
    assert cli("list", str(tmp_path / "nowhere"))[0] == 2
    (tmp_path / "empty").mkdir()
    assert "no models here" in cli("list", str(tmp_path / "empty"))[1]


def test_pull_tells_what_came(cli, trained, monkeypatch):
    from shoestring.model.hf import hub

    monkeypatch.setattr(hub, "resolve", lambda _name: trained / "model")
    code, out, _ = cli("pull", "org/name", "--json")
    report = json.loads(out)
    assert (code, report["folder"], report["weights"]) == (0, str(trained / "model"), "F32")
    assert "shoestring run org/name" in cli("pull", "org/name")[1]
    code, _, err = cli("pull", str(trained / "model"))
    assert (code, "is a local path already" in err) == (2, True)
