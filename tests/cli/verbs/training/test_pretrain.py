"""The pretrain verb: files it leaves, resume, refusals."""

import json
import shutil

from shoestring.model.hf.safetensors_file import read_header  # noqa: F401 (importable without torch)


def test_a_run_leaves_its_files(trained):
    names = {path.name for path in trained.iterdir()}
    wanted = {
        "config.toml",
        "metrics.jsonl",
        "receipt.json",
        "report.json",
        "curves.png",
        "model",
        "checkpoints",
    }
    assert wanted <= names
    report = json.loads((trained / "report.json").read_text())
    assert report["tokens"] >= 6000
    assert 0 < report["heldout_bits_per_byte"] < 8
    receipt = json.loads((trained / "receipt.json").read_text())
    assert receipt["train_flops"] > 0
    assert receipt["energy"]["how"] in ("measured", "estimated", "unavailable")


def test_a_second_run_in_the_same_folder_is_refused(cli, trained, settings):
    before = (trained / "model" / "model.safetensors").read_bytes()
    code, _, err = cli("pretrain", *settings, "--out", str(trained))
    assert code == 2
    assert "--resume" in err
    assert (trained / "model" / "model.safetensors").read_bytes() == before


def test_resume_takes_no_recipe(cli, trained):
    code, _, err = cli("pretrain", "recipe.toml", "--resume", "--out", str(trained))
    assert code == 2
    assert "config.toml" in err


def test_resume_takes_settings_of_the_steps_to_come_and_no_others(cli, trained, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(trained, out)
    code, text, err = cli(
        *("pretrain", "--resume", "--out", str(out), "--quiet", "--json"),
        *("--set", "total_tokens=7000", "--set", "save_every=50", "--set", "note=longer"),
    )
    assert code == 0, err
    assert json.loads(text)["tokens"] >= 7000
    assert 'note = "longer"' in (out / "config.toml").read_text()
    code, _, err = cli("pretrain", "--resume", "--out", str(out), "--set", "seq_len=16")
    assert code == 2
    assert "seq_len = 16 cannot be set on --resume: the steps so far were taken with" in err
    assert "total_tokens" in err


def test_resuming_a_finished_run_changes_nothing(cli, trained):
    before = (trained / "model" / "model.safetensors").read_bytes()
    code, out, _ = cli("pretrain", "--resume", "--out", str(trained), "--quiet", "--json")
    assert code == 0
    assert json.loads(out)["tokens"] >= 6000
    assert (trained / "model" / "model.safetensors").read_bytes() == before


def test_a_tokenizer_too_large_for_the_model_is_refused(cli, trained, settings, tmp_path, shape):
    small = json.loads((shape / "config.json").read_text()) | {"vocab_size": 300}
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text(json.dumps(small))
    changed = ["--set", f"model={json.dumps(str(tmp_path / 'small'))}"]
    tokenizer = ["--set", f"tokenizer={json.dumps(str(trained / 'tokenizer'))}"]
    code, _, err = cli("pretrain", *settings, *changed, *tokenizer, "--out", str(tmp_path / "run"))
    assert code == 1
    assert "300 rows" in err


def test_a_corpus_without_text_is_refused(cli, settings, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text("")
    sources = ["--set", f"data.sources={json.dumps([str(tmp_path / 'empty')])}"]
    code, _, err = cli("pretrain", *settings, *sources, "--out", str(tmp_path / "run"))
    assert code == 1
    assert "text" in err
